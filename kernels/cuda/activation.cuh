// sigmoid and silu of fmath.h, the same bits in half the instructions where nothing is subnormal: there a power of two is an addition to the
// exponent, and the division's range needs no care.
#ifndef TV_KERNELS_ACTIVATION_CUH
#define TV_KERNELS_ACTIVATION_CUH

#include "kernels/cuda/vector_cuda.cuh"

#define TV_NEAR 80.0f // |x| up to here

// 1 / x, correctly rounded, for x in [1, 4): a step of Newton's from the approximation, as the compiler has it behind its checks.
__device__ static inline float tv_near_reciprocal(float x)
{
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return fmaf(r, fmaf(-x, r, 1.0f), r);
}

// tv_logistic_divide.
__device__ static inline float tv_near_divide(float high, float low, float e)
{
    float sum = 1.0f + e, lost = e - (sum - 1.0f);
    return tv_corrected_quotient(high, low, sum, lost, tv_near_reciprocal(sum));
}

// x 2^n for results in the normal range.
__device__ static inline float tv_near_scale(float x, int n)
{
    return tv_bits_float(tv_float_bits(x) + ((uint32_t)n << 23));
}

__device__ static inline float tv_near_sigmoid(float x)
{
    float p;
    int n;
    tv_exp_parts(-fabsf(x), &p, &n);
    float e = tv_near_scale(p, n);
    return tv_near_divide(x >= 0.0f ? 1.0f : e, 0.0f, e);
}

__device__ static inline float tv_near_silu(float x)
{
    float p, magnitude = fabsf(x);
    int n;
    tv_exp_parts(-magnitude, &p, &n);
    float factor = x >= 0.0f ? 1.0f : p, high = magnitude * factor, low = fmaf(magnitude, factor, -high);
    float y = tv_near_divide(high, low, tv_near_scale(p, n));
    return x >= 0.0f ? y : -tv_near_scale(y, n);
}

// Any x. What is not near is rare: one place of the code does it.
__device__ __noinline__ static float4 tv_far_sigmoid4(float4 x)
{
    return make_float4(tv_sigmoid(x.x), tv_sigmoid(x.y), tv_sigmoid(x.z), tv_sigmoid(x.w));
}
__device__ __noinline__ static float4 tv_far_silu4(float4 x)
{
    return make_float4(tv_silu(x.x), tv_silu(x.y), tv_silu(x.z), tv_silu(x.w));
}
__device__ static inline bool tv_near4(float4 x) { return tv_magnitude4(x) <= tv_float_bits(TV_NEAR); }

__device__ static inline float4 tv_cuda_sigmoid4(float4 x)
{
    if (!tv_near4(x))
        return tv_far_sigmoid4(x);
    return make_float4(tv_near_sigmoid(x.x), tv_near_sigmoid(x.y), tv_near_sigmoid(x.z), tv_near_sigmoid(x.w));
}
__device__ static inline float4 tv_cuda_silu4(float4 x)
{
    if (!tv_near4(x))
        return tv_far_silu4(x);
    return make_float4(tv_near_silu(x.x), tv_near_silu(x.y), tv_near_silu(x.z), tv_near_silu(x.w));
}
__device__ static inline float tv_cuda_sigmoid(float x)
{
    return fabsf(x) <= TV_NEAR ? tv_near_sigmoid(x) : tv_sigmoid(x);
}
__device__ static inline float tv_cuda_silu(float x) { return fabsf(x) <= TV_NEAR ? tv_near_silu(x) : tv_silu(x); }

#endif
