#include "base/thread.h"

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
