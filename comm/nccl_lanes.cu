// 16-bit votes as lanes of a uint32, on the GPU. Two lanes a word, a word a thread and turn; bound by memory.
extern "C" {
#include "comm/nccl_lanes.h"
}

#define THREADS 256
#define BLOCKS_MOST 65536

__global__ static void shift_lanes_kernel(uint32_t *words, int64_t count, uint32_t add, uint32_t most, int *beyond)
{
    int64_t stride = (int64_t)gridDim.x * THREADS;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += stride) {
        uint32_t word = __vadd2(words[i], add);
        words[i] = word;
        if (__vcmpgtu2(word, most))
            *beyond = 1;
    }
}

extern "C" const char *tv_nccl_shift_lanes(uint32_t *words, int64_t count, uint16_t add, uint16_t most, int *beyond,
                                           void *stream)
{
    int64_t blocks = (count + THREADS - 1) / THREADS;
    if (blocks > BLOCKS_MOST)
        blocks = BLOCKS_MOST;
    shift_lanes_kernel<<<(unsigned)blocks, THREADS, 0, (cudaStream_t)stream>>>(words, count, add * 0x10001u,
                                                                               most * 0x10001u, beyond);
    cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
