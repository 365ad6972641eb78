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

void tv_thread_share(int64_t threads, void *(*work)(void *), void *argument)
{
    pthread_t more[TV_THREADS_MAX - 1];
    int started = 0;
    while (started < TV_THREADS_MAX - 1 && started < threads - 1 && tv_thread_start(&more[started], work, argument))
        started++;
    work(argument);
    for (int i = 0; i < started; i++)
        pthread_join(more[i], NULL);
}

int tv_thread_cores(void)
{
    cpu_set_t set;
    int count =
        sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1; // fails with more cores than a set has
    return count > 0 ? count : 1;
}
