// Threads of our own beside the caller's.
#ifndef TV_BASE_THREAD_H
#define TV_BASE_THREAD_H

#include <pthread.h>
#include <stdint.h>

// Local. Starts work(argument) on a thread that takes no signals: they stay with the threads that were there before. 0 when there is no
// thread to have.
int tv_thread_start(pthread_t *thread, void *(*work)(void *), void *argument);
enum { TV_THREADS_MAX = 8 };

// Local. work(argument) on the caller's thread and on up to `threads` - 1 more (TV_THREADS_MAX in all), which take no signals; returns when all are
// done. They share out by themselves what there is to do: threads that the system does not give are done without.
void tv_thread_share(int64_t threads, void *(*work)(void *), void *argument);
// Local. Cores that this thread may run on, at least 1: mpirun binds a rank to some of them.
int tv_thread_cores(void);

#endif
