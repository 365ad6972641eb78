// Threads of our own beside the caller's.
#ifndef TV_BASE_THREAD_H
#define TV_BASE_THREAD_H

#include <pthread.h>

// Local. Starts work(argument) on a thread that takes no signals: they stay with the threads that were there before. 0 when there is no
// thread to have.
int tv_thread_start(pthread_t *thread, void *(*work)(void *), void *argument);
// Local. Cores that this thread may run on, at least 1: mpirun binds a rank to some of them.
int tv_thread_cores(void);

#endif
