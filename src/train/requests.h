// Requests from outside a run. Signals: SIGUSR1 saves and goes on; SIGUSR2, SIGTERM and SIGINT save and stop; a second SIGINT ends the
// process at once. Files in the run folder: `save` and `stop`, removed once they are seen. Time: the run stops while a save still fits.
//
// Each rank sees its own requests only; all ranks act on their sum, which travels in the step's guard or through tv_requests_agree.
#ifndef TV_TRAIN_REQUESTS_H
#define TV_TRAIN_REQUESTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "comm/comm.h"

typedef struct tv_requests {
    const char *dir;     // run folder whose files are looked at; NULL: another rank does
    double deadline;     // of the process, on tv_clock_seconds(); 0: none
    double step_seconds; // longest step so far
    double save_seconds; // longest save so far
    double save_guess;   // taken for it until one was measured
    double kill_seconds; // from SIGTERM or SIGINT to SIGKILL under mpirun; 0: no mpirun
    int warned;          // kill_seconds is too short, said once
} tv_requests;

// Local. Installs the handlers (and ignores SIGXFSZ and SIGPIPE, so that a full disk is an error and not a death). Early: a signal before
// it ends the process. The time of max_seconds counts from here.
void tv_requests_install(void);

// Local. dir: NULL on ranks other than 0. max_seconds: 0 is no limit. Reads SLURM_JOB_END_TIME (seconds since 1970) and, under mpirun,
// OMPI_MCA_odls_base_sigkill_timeout (seconds, 1 when absent).
void tv_requests_open(tv_requests *requests, const char *dir, double max_seconds);
// Local. Before any save its length is taken to be 1 s + bytes / (100 MB/s), for this rank's bytes of state.
void tv_requests_expect(tv_requests *requests, size_t state_bytes);

// Local. The length of a step or a save; the longest one counts. When mpirun would not leave a save its time, says once what to pass.
void tv_requests_step(tv_requests *requests, double seconds);
void tv_requests_saved(tv_requests *requests, double seconds);

// Local. This rank's TV_FLAG_SAVE, TV_FLAG_STOP and TV_FLAG_TIME (with TV_FLAG_STOP, when it is the time that asks). A request to save is
// consumed, one to stop stays. Time asks as soon as less is left than 1.5 saves, two steps and a second, since what comes just behind a
// step's guard is met at the end of the next step. `requests` is a tv_requests, here and below: the trainer and evaluations ask.
uint64_t tv_requests_take(void *requests);
// Local. The flags of a stop alone.
int tv_requests_stop(void *requests);
// Collective. *stop: 0, or the flags with which some rank is to stop.
tv_status tv_requests_agree(tv_requests *requests, tv_comm *comm, int *stop);

#endif
