// Threads and scratch memory of the CPU backend. The one place that knows OpenMP.
#ifndef TV_KERNELS_CPU_THREADS_H
#define TV_KERNELS_CPU_THREADS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

// Items [first, last) of a loop whose items are independent; `thread` names the caller's scratch.
typedef void (*tv_cpu_body)(const void *args, int64_t first, int64_t last, int thread);

// Set the number of threads: `threads`, or for 0 as many as the process may use (its binding, else its share of the
// node).
void tv_cpu_threads_open(int local_size, int threads);
int tv_cpu_threads(void);
void tv_cpu_threads_close(void); // frees the scratch; back to one thread

// Run `body` over [0, count) in pieces. item_cost: rough cost of an item in ns, for the choice of pieces; small
// loops stay on the calling thread. Which thread gets which piece is left open, so a body's result must not depend
// on it.
void tv_cpu_for(int64_t count, int64_t item_cost, tv_cpu_body body, const void *args);

// Make sure every thread has `bytes` of scratch, 64-byte aligned. Grows and never shrinks until close, so a steady
// state allocates nothing. Contents are lost by a later reserve. TV_MEMORY only.
tv_status tv_cpu_scratch_reserve(size_t bytes);
void *tv_cpu_scratch(int thread);

#endif
