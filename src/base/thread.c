#include "base/thread.h"

#include <sched.h>
#include <signal.h>

int tv_thread_start(pthread_t *thread, void *(*work)(void *), void *argument)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(thread, NULL, work, argument);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return !failed;
}

int tv_thread_cores(void)
{
    cpu_set_t set;
    int count =
        sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1; // fails with more cores than a set has
    return count > 0 ? count : 1;
}
