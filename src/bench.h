// Benchmarks of `trivote bench`, and what they share. Times are medians over rounds in which all contestants take
// turns, so that a busy machine slows them alike; compare ratios, not absolute numbers.
#ifndef TV_BENCH_H
#define TV_BENCH_H

#include <stdint.h>
#include <stdio.h>

#include "base/status.h"
#include "comm/comm.h"
#include "kernels/kernels.h"

// The three int8 products against OpenBLAS sgemm on one thread; a table to `out`. The backend is open.
tv_status tv_bench_gemm(const tv_backend *backend, FILE *out);
// The other hot ops against ref; a table to `out`. The backend is open.
tv_status tv_bench_ops(const tv_backend *backend, FILE *out);
// Collective. The vote exchange between the ranks against the bare sum of as many bytes; a table to `out`, from rank 0.
// The backend is open.
tv_status tv_bench_exchange(tv_comm *comm, const tv_backend *backend, FILE *out);

double tv_bench_now(void);                             // seconds of a clock that only goes forward
double tv_bench_median(double *values, int64_t count); // sorts them; count >= 1

// Backend memory that is freed as a whole. Takes after a failure do nothing and return NULL; check status once at
// the end.
typedef struct tv_bench_pool {
    const tv_backend *backend;
    void *blocks[64];
    int64_t count;
    tv_status status;
} tv_bench_pool;

void *tv_bench_zeros(tv_bench_pool *pool, int64_t bytes);
int8_t *tv_bench_int8s(tv_bench_pool *pool, int64_t count, int low, int high); // pseudo-random in [low, high]
float *tv_bench_floats(tv_bench_pool *pool, int64_t count, float size);        // pseudo-random in (-size, size)
// A copy of `bytes` of host memory.
void *tv_bench_copy(tv_bench_pool *pool, const void *host, int64_t bytes);
void tv_bench_pool_free(tv_bench_pool *pool);

#endif
