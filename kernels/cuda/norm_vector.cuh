// The row of a norm in a group of 8 lanes, KEEP float4 a lane: lane i's k-th is the row's quad i + 8 k.
#ifndef TV_KERNELS_NORM_VECTOR_CUH
#define TV_KERNELS_NORM_VECTOR_CUH

#include "kernels/cuda/vector_cuda.cuh"

#define TV_NORM_THREADS 128

__device__ static inline int tv_group_lane(void) { return threadIdx.x % TV_GROUP; }

// The row of this thread's group in a kernel with TV_NORM_THREADS threads a block.
__device__ static inline int64_t tv_group_row(void)
{
    return (int64_t)(gridDim.x - 1 - blockIdx.x) * (TV_NORM_THREADS / TV_GROUP) + threadIdx.x / TV_GROUP;
}

static inline unsigned tv_group_blocks(int64_t rows) { return tv_cuda_blocks(rows, TV_NORM_THREADS / TV_GROUP); }

// w8[c] 2^exponent of a quad
__device__ static inline float4 tv_norm_weights(const int8_t *w8, int64_t quad, float unit)
{
    return tv_scale4(tv_word_floats(tv_word(w8, quad)), unit);
}

// 1 / rms from the group's sums
__device__ static inline float tv_rstd(float4 sum, int64_t cols)
{
    return 1.0f / sqrtf(tv_group_combine(sum) / (float)cols + 1e-5f);
}

// h = q scale of the backward
__device__ static inline float4 tv_norm_h(uint32_t q, float scale) { return tv_scale4(tv_word_floats(q), scale); }

// r fma(-mean, h, u)
__device__ static inline float4 tv_norm_gradient4(float r, float mean, float4 h, float4 u)
{
    return make_float4(r * fmaf(-mean, h.x, u.x), r * fmaf(-mean, h.y, u.y), r * fmaf(-mean, h.z, u.z),
                       r * fmaf(-mean, h.w, u.w));
}

#endif
