// Requests from outside a run: signals. SIGUSR1 saves and goes on; SIGUSR2, SIGTERM and SIGINT save and stop; a second SIGINT
// ends the process at once.
#ifndef TV_TRAIN_REQUESTS_H
#define TV_TRAIN_REQUESTS_H

#include <stdint.h>

// Install the handlers (and ignore SIGXFSZ and SIGPIPE, so that a full disk is an error and not a death).
void tv_requests_install(void);
// TV_FLAG_SAVE / TV_FLAG_STOP raised since the last call; a save request is consumed, a stop request stays.
uint64_t tv_requests_take(void);

#endif
