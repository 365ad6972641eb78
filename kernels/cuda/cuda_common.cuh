// What every kernel file shares: checked calls and launches, and the warp as the 32 lanes of a row sum.
#ifndef TV_KERNELS_CUDA_COMMON_CUH
#define TV_KERNELS_CUDA_COMMON_CUH

#include <cuda_runtime.h>
#include <stdint.h>

extern "C" {
#include "base/status.h"
#include "base/tensor.h"
#include "kernels/kernels.h"
}
#include "base/fmath.h"
#include "base/rng.h"
#include "kernels/ref/ref_common.h"

// Fail with the call's text and CUDA's reason. The error is also taken from where the next launch would find it.
#define TV_CUDA_TRY(call)                                                                                              \
    do {                                                                                                               \
        cudaError_t tv_cuda_error_ = (call);                                                                           \
        if (tv_cuda_error_ != cudaSuccess) {                                                                           \
            (void)cudaGetLastError();                                                                                  \
            return TV_FAIL(TV_BACKEND, "CUDA: %s: %s", #call, cudaGetErrorString(tv_cuda_error_));                     \
        }                                                                                                              \
    } while (0)

// Behind every launch.
#define TV_CUDA_LAUNCHED(name)                                                                                         \
    do {                                                                                                               \
        cudaError_t tv_cuda_error_ = cudaGetLastError();                                                               \
        if (tv_cuda_error_ != cudaSuccess)                                                                             \
            return TV_FAIL(TV_BACKEND, "CUDA: launch of %s: %s", name, cudaGetErrorString(tv_cuda_error_));            \
        return TV_OK;                                                                                                  \
    } while (0)

#define TV_WARP 32
#define TV_ROWS_PER_BLOCK 4 // warps of a block in kernels with a warp a row

static inline cudaStream_t tv_cuda_stream(void *stream) { return (cudaStream_t)stream; }

// Blocks for `count` items at `per_block` each, for a one-dimensional grid.
static inline unsigned tv_cuda_blocks(int64_t count, int64_t per_block)
{
    return (unsigned)tv_ceil_div(count, per_block);
}

// *blocks: how many blocks of `kernel` the device holds at once.
template <class KERNEL> static tv_status tv_cuda_resident(KERNEL kernel, int threads, int64_t *blocks)
{
    int device, units, each;
    TV_CUDA_TRY(cudaGetDevice(&device));
    TV_CUDA_TRY(cudaDeviceGetAttribute(&units, cudaDevAttrMultiProcessorCount, device));
    TV_CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, 0));
    *blocks = (int64_t)units * (each > 0 ? each : 1);
    return TV_OK;
}

// The row of this warp in a kernel with TV_ROWS_PER_BLOCK warps a block.
__device__ static inline int64_t tv_warp_row(void)
{
    return (int64_t)blockIdx.x * TV_ROWS_PER_BLOCK + threadIdx.x / TV_WARP;
}
__device__ static inline int tv_warp_lane(void) { return threadIdx.x % TV_WARP; }

// sum32's last step over a warp: every lane gets the sum.
__device__ static inline float tv_warp_combine(float lane)
{
    for (int x = 16; x >= 1; x >>= 1)
        lane = lane + __shfl_xor_sync(0xFFFFFFFFu, lane, x);
    return lane;
}

__device__ static inline uint32_t tv_warp_max(uint32_t value)
{
    for (int x = 16; x >= 1; x >>= 1) {
        uint32_t other = __shfl_xor_sync(0xFFFFFFFFu, value, x);
        value = other > value ? other : value;
    }
    return value;
}

__device__ static inline float tv_warp_max_float(float value)
{
    for (int x = 16; x >= 1; x >>= 1) {
        float other = __shfl_xor_sync(0xFFFFFFFFu, value, x);
        value = other > value ? other : value;
    }
    return value;
}

// Usable absmax from its bits; raises *fault for NaN and Inf. For one thread of a row; `tell` picks it.
__device__ static inline float tv_usable_absmax(uint32_t bits, bool tell, int32_t *fault)
{
    if (tell && bits >= TV_BITS_INF)
        *fault = 1;
    return bits >= TV_BITS_INF || bits < TV_BITS_TINY ? 0.0f : tv_bits_float(bits);
}

// Digit j of a packed byte, as a trit; 0 for a byte that is no five trits.
__device__ static inline int tv_byte_trit(uint32_t byte, int j)
{
    uint32_t power = j == 0 ? 1 : j == 1 ? 3 : j == 2 ? 9 : j == 3 ? 27 : 81;
    return byte > TV_TRIT_BYTE_MAX ? 0 : (int)(byte / power % 3) - 1;
}

#endif
