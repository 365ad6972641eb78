// Benchmarks of the cuda backend, timed with events on the GPU.
#ifndef TV_KERNELS_BENCH_CUDA_H
#define TV_KERNELS_BENCH_CUDA_H

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/status.h"

// The three int8 products against cuBLASLt (bf16 and int8) on random data; a table to `out`. The backend is open.
tv_status tv_bench_gemm_cuda(FILE *out);

#ifdef __cplusplus
}
#endif

#endif
