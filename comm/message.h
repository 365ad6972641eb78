// A message put together piece by piece; what does not fit is cut. For comm/.
#ifndef TV_COMM_MESSAGE_H
#define TV_COMM_MESSAGE_H

#include <stddef.h>

typedef struct tv_message {
    char *bytes; // [room], ends with '\0'
    size_t room, used;
} tv_message;

// Local. printf behind what is there.
void tv_message_add(tv_message *message, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
