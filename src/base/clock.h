// The wall clock of durations.
#ifndef TV_BASE_CLOCK_H
#define TV_BASE_CLOCK_H

#include <time.h>

// Seconds of the monotonic clock, from an arbitrary start.
static inline double tv_clock_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// Seconds since 1970, for people.
static inline double tv_clock_date(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#endif
