// The gated sum of what a token's experts give, and its gradient. Sums: a thread has 4 channels of a token. Gradient: a group of 8 lanes a
// (token, slot), whose float4 are four of sum32's lanes each.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/vector_cuda.cuh"

#define THREADS 256

__device__ static inline float weight_of(const tv_moe_combine_args &a, int64_t pair, int64_t r)
{
    return a.gate ? a.gate[pair] * a.scale[r] : a.scale[r];
}

__global__ static void combine_quads_kernel(tv_moe_combine_args a)
{
    int64_t quads = a.cols / TV_QUAD, n = (int64_t)blockIdx.x * THREADS + threadIdx.x, t = n / quads, i = n % quads;
    if (t >= a.tokens)
        return;
    float4 sum = tv_quad_zero(), *y = (float4 *)a.y + n;
    for (int j = 0; j < a.slots; j++) {
        int64_t r = a.place[t * a.slots + j];
        float w = weight_of(a, t * a.slots + j, r);
        float4 v = tv_word_floats(tv_word(a.q, r * quads + i));
        sum = make_float4(fmaf(w, v.x, sum.x), fmaf(w, v.y, sum.y), fmaf(w, v.z, sum.z), fmaf(w, v.w, sum.w));
    }
    *y = a.accumulate ? tv_sum4(*y, sum) : sum;
}

__global__ static void combine_kernel(tv_moe_combine_args a)
{
    int64_t n = (int64_t)blockIdx.x * THREADS + threadIdx.x, t = n / a.cols, c = n % a.cols;
    if (t >= a.tokens)
        return;
    float sum = 0.0f;
    for (int j = 0; j < a.slots; j++) {
        int64_t r = a.place[t * a.slots + j];
        sum = fmaf(weight_of(a, t * a.slots + j, r), (float)a.q[r * a.cols + c], sum);
    }
    a.y[n] = a.accumulate ? a.y[n] + sum : sum;
}

extern "C" tv_status moe_combine_cuda(const tv_moe_combine_args *a, void *stream)
{
    if (!a->tokens || !a->cols)
        return TV_OK;
    if (a->cols % TV_QUAD == 0 && tv_cuda_aligned({a->q, a->y}))
        combine_quads_kernel<<<tv_cuda_blocks(a->tokens * a->cols / TV_QUAD, THREADS), THREADS, 0,
                               tv_cuda_stream(stream)>>>(*a);
    else
        combine_kernel<<<tv_cuda_blocks(a->tokens * a->cols, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("moe_combine");
}

__global__ static void combine_backward_groups_kernel(tv_moe_combine_backward_args a)
{
    int64_t n = (int64_t)blockIdx.x * (THREADS / TV_GROUP) + threadIdx.x / TV_GROUP, pairs = a.tokens * a.slots;
    int64_t pair = n < pairs ? n : pairs - 1, t = pair / a.slots, r = a.place[pair], quads = a.cols / TV_QUAD;
    float scale = a.scale[r];
    float4 sum = tv_quad_zero();
    for (int64_t i = threadIdx.x % TV_GROUP; i < quads; i += TV_GROUP) {
        float4 h = tv_scale4(tv_word_floats(tv_word(a.q, r * quads + i)), scale);
        tv_fma4(sum, tv_quad(a.dy, t * quads + i), h);
    }
    float all = tv_group_combine(sum);
    if (n < pairs && threadIdx.x % TV_GROUP == 0)
        a.grad[pair] = all;
}

__global__ static void combine_backward_kernel(tv_moe_combine_backward_args a)
{
    int64_t pair = tv_warp_row();
    if (pair >= a.tokens * a.slots)
        return;
    const float *dy = a.dy + pair / a.slots * a.cols;
    int64_t r = a.place[pair];
    float sum = 0.0f, scale = a.scale[r];
    for (int64_t c = tv_warp_lane(); c < a.cols; c += TV_WARP)
        sum = fmaf(dy[c], (float)a.q[r * a.cols + c] * scale, sum);
    sum = tv_warp_combine(sum);
    if (tv_warp_lane() == 0)
        a.grad[pair] = sum;
}

extern "C" tv_status moe_combine_backward_cuda(const tv_moe_combine_backward_args *a, void *stream)
{
    int64_t pairs = a->tokens * a->slots;
    if (!pairs || !a->cols)
        return TV_OK;
    if (a->cols % TV_QUAD == 0 && tv_cuda_aligned({a->q, a->dy}))
        combine_backward_groups_kernel<<<tv_cuda_blocks(pairs, THREADS / TV_GROUP), THREADS, 0,
                                         tv_cuda_stream(stream)>>>(*a);
    else
        combine_backward_kernel<<<tv_cuda_blocks(pairs, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0,
                                  tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("moe_combine_backward");
}
