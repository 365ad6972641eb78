// Causal attention, forward and backward. A block owns one window and head; a warp owns a query (forward, dq) or a key (dk, dv).
//
// A lane scores keys lane, lane + 32, ..., which is the lane order of sum32; the weighted sums go through the blocks of 32 keys (queries) in
// order (block_sum.h), each lane holding the channels lane, lane + 32, ... in registers. Shared memory: a row of `context` floats a warp (forward), one float a
// query for delta (backward). Head width at most 32 * CHAINS.
//
// Heads of width 64 go to attention_tiles_cuda.cu and attention_tiles_backward_cuda.cu when they fit.
#include "kernels/block_sum.h"
#include "kernels/cuda/attention_tiles.h"
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/vector_cuda.cuh"

#define WARPS 8
#define CHAINS 8
#define SHARED_MAX (200 * 1024)

// One window and head: token i of the window is item first + i heads of [M, H].
typedef struct head_view {
    int64_t first, heads, width, context;
    float inv_sqrt;
    bool wide; // rows may be read 16 bytes at a time
} head_view;

__device__ static head_view head_at(int64_t heads, int64_t width, int64_t context, bool wide)
{
    int64_t window = blockIdx.x / heads, head = blockIdx.x % heads;
    head_view v = {window * context * heads + head, heads, width, context, 1.0f / sqrtf((float)width), wide};
    return v;
}

__device__ static inline int64_t item(const head_view &v, int64_t i) { return v.first + i * v.heads; }

// Every lane of a warp reads another row, so the loads count, not the bytes: the wider, the fewer.
__device__ static int dot(const head_view &v, const int8_t *a, const int8_t *b)
{
    int sum = 0;
    if (v.wide) {
        for (int64_t c = 0; c < v.width; c += 16) {
            int4 x = *(const int4 *)(a + c), y = *(const int4 *)(b + c);
            sum = __dp4a(x.w, y.w, __dp4a(x.z, y.z, __dp4a(x.y, y.y, __dp4a(x.x, y.x, sum))));
        }
    } else {
        for (int64_t c = 0; c < v.width; c++)
            sum += (int)a[c] * b[c];
    }
    return sum;
}

// acc[n] of channel lane + 32 n: the block of rows x, a row each `heads` rows, lane l holding row l's weight.
__device__ static inline void add_block(float *acc, float weight, const head_view &v, const int8_t *x, int64_t rows)
{
    int lane = tv_warp_lane(), sums[CHAINS] = {0};
    tv_block_scale scale = tv_block_scale_of(tv_warp_max(tv_magnitude(weight)));
    int integer = (int)rintf(weight * scale.to_integer);
    for (int l = 0; l < TV_WARP && l < rows; l++) {
        int by = __shfl_sync(0xFFFFFFFFu, integer, l);
        const int8_t *row = x + l * v.heads * v.width;
#pragma unroll
        for (int n = 0; n < CHAINS; n++)
            if (lane + 32 * n < v.width)
                sums[n] += by * row[lane + 32 * n];
    }
#pragma unroll
    for (int n = 0; n < CHAINS; n++)
        acc[n] = fmaf((float)sums[n], scale.from_integer, acc[n]);
}

__device__ static inline void store_sums(const float *acc, float factor, float *out, int64_t width)
{
    int lane = tv_warp_lane();
#pragma unroll
    for (int n = 0; n < CHAINS; n++)
        if (lane + 32 * n < width)
            out[lane + 32 * n] = factor * acc[n];
}

__device__ static void forward_query(const tv_attention_args &a, const head_view &v, int64_t i, float *e)
{
    int lane = tv_warp_lane();
    int64_t qi = item(v, i);
    float c = a.q_scale[qi] * v.inv_sqrt, top = tv_bits_float(0xFF800000u), sum = 0.0f, acc[CHAINS] = {0};
    for (int64_t j = lane; j <= i; j += TV_WARP) {
        int64_t kj = item(v, j);
        e[j] = (float)dot(v, a.q + qi * v.width, a.k + kj * v.width) * (c * a.k_scale[kj]);
        top = e[j] > top ? e[j] : top;
    }
    top = tv_warp_max_float(top) + 0.0f;
    for (int64_t j = lane; j <= i; j += TV_WARP) {
        e[j] = tv_exp(e[j] - top);
        sum += e[j];
    }
    sum = tv_warp_combine(sum);
    __syncwarp();
    for (int64_t j0 = 0; j0 <= i; j0 += TV_BLOCK_ROWS) {
        float weight = j0 + lane <= i ? e[j0 + lane] * a.v_scale[item(v, j0 + lane)] : 0.0f;
        add_block(acc, weight, v, a.v + item(v, j0) * v.width, i + 1 - j0);
    }
    store_sums(acc, 1.0f / sum, a.out + qi * v.width, v.width);
    __syncwarp();
    if (lane == 0 && a.top)
        a.top[qi] = top;
    if (lane == 0 && a.norm)
        a.norm[qi] = sum;
}

__global__ static void attention_kernel(tv_attention_args a, bool wide)
{
    extern __shared__ float rows[];
    head_view v = head_at(a.heads, a.width, a.context, wide);
    int warps = blockDim.x / TV_WARP, warp = threadIdx.x / TV_WARP;
    for (int64_t i = warp; i < a.context; i += warps)
        forward_query(a, v, i, rows + warp * a.context);
}

// Rows of 16-byte pieces that start on 16-byte borders.
static bool is_wide(int64_t width, const void *a, const void *b, const void *c, const void *d)
{
    return width % 16 == 0 && (((uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)d) & 15) == 0;
}

// Warps of a block so that their rows fit into shared memory; 0 when not even one does.
static int warps_for(int64_t context)
{
    int64_t fit = SHARED_MAX / (context * (int64_t)sizeof(float));
    return fit > WARPS ? WARPS : (int)fit;
}

static tv_status check(int64_t width, int64_t context)
{
    if (width > 32 * CHAINS)
        return TV_FAIL(TV_BACKEND, "heads of width %lld: the cuda backend takes at most %d; use more heads",
                       (long long)width, 32 * CHAINS);
    if (warps_for(context) < 1)
        return TV_FAIL(TV_BACKEND, "context %lld: the cuda backend takes at most %d", (long long)context,
                       SHARED_MAX / 4);
    return TV_OK;
}

extern "C" tv_status attention_cuda(const tv_attention_args *a, void *stream)
{
    if (!a->tokens || !a->heads || !a->width || !a->context)
        return TV_OK;
    if (attention_tiles_fits(a))
        return attention_tiles(a, stream);
    TV_TRY(check(a->width, a->context));
    int warps = warps_for(a->context);
    size_t bytes = (size_t)warps * (size_t)a->context * sizeof(float);
    TV_CUDA_TRY(cudaFuncSetAttribute(attention_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
    attention_kernel<<<(unsigned)(a->tokens / a->context * a->heads), warps * TV_WARP, bytes, tv_cuda_stream(stream)>>>(
        *a, is_wide(a->width, a->q, a->k, NULL, NULL));
    TV_CUDA_LAUNCHED("attention");
}

// p and dp of one (query, key) pair.
typedef struct pair_weights {
    float p, dp;
} pair_weights;

__device__ static pair_weights weigh(const tv_attention_backward_args &a, const head_view &v, int64_t qi, int64_t kj)
{
    float c = a.q_scale[qi] * v.inv_sqrt;
    float score = (float)dot(v, a.q + qi * v.width, a.k + kj * v.width) * (c * a.k_scale[kj]);
    pair_weights w;
    w.p = tv_exp(score - a.top[qi]) * (1.0f / a.norm[qi]);
    w.dp = (float)dot(v, a.g + qi * v.width, a.v + kj * v.width) * (a.g_scale[qi] * a.v_scale[kj]);
    return w;
}

// delta and dq of query i.
__device__ static void backward_query(const tv_attention_backward_args &a, const head_view &v, int64_t i, float *delta)
{
    int lane = tv_warp_lane();
    int64_t qi = item(v, i);
    float sum = 0.0f, acc[CHAINS] = {0};
    for (int64_t j = lane; j <= i; j += TV_WARP) {
        pair_weights w = weigh(a, v, qi, item(v, j));
        sum = fmaf(w.p, w.dp, sum);
    }
    sum = tv_warp_combine(sum);
    for (int64_t j0 = 0; j0 <= i; j0 += TV_WARP) {
        int64_t j = j0 + lane <= i ? j0 + lane : i;
        pair_weights w = weigh(a, v, qi, item(v, j));
        float to_q = (w.p * (w.dp - sum)) * a.k_scale[item(v, j)];
        add_block(acc, j0 + lane <= i ? to_q : 0.0f, v, a.k + item(v, j0) * v.width, i + 1 - j0);
    }
    store_sums(acc, v.inv_sqrt, a.dq + qi * v.width, v.width);
    if (lane == 0)
        delta[i] = sum;
}

// dk and dv of key j: over the queries j .. T-1.
__device__ static void backward_key(const tv_attention_backward_args &a, const head_view &v, int64_t j,
                                    const float *delta)
{
    int lane = tv_warp_lane();
    int64_t kj = item(v, j);
    float dk[CHAINS] = {0}, dv[CHAINS] = {0};
    for (int64_t i0 = j - j % TV_BLOCK_ROWS; i0 < v.context; i0 += TV_BLOCK_ROWS) {
        bool seen = i0 + lane >= j && i0 + lane < v.context;
        int64_t i = seen ? i0 + lane : j, qi = item(v, i), row = item(v, i0) * v.width;
        pair_weights w = weigh(a, v, qi, kj);
        float to_k = (w.p * (w.dp - delta[i])) * (a.q_scale[qi] * v.inv_sqrt), to_v = w.p * a.g_scale[qi];
        add_block(dk, seen ? to_k : 0.0f, v, a.q + row, v.context - i0);
        add_block(dv, seen ? to_v : 0.0f, v, a.g + row, v.context - i0);
    }
    store_sums(dk, 1.0f, a.dk + kj * v.width, v.width);
    store_sums(dv, 1.0f, a.dv + kj * v.width, v.width);
}

__global__ static void attention_backward_kernel(tv_attention_backward_args a, bool wide)
{
    extern __shared__ float delta[];
    head_view v = head_at(a.heads, a.width, a.context, wide);
    int warps = blockDim.x / TV_WARP, warp = threadIdx.x / TV_WARP;
    for (int64_t i = warp; i < a.context; i += warps)
        backward_query(a, v, i, delta);
    __syncthreads();
    for (int64_t j = warp; j < a.context; j += warps)
        backward_key(a, v, j, delta);
}

extern "C" tv_status attention_backward_cuda(const tv_attention_backward_args *a, void *stream)
{
    if (!a->tokens || !a->heads || !a->width || !a->context)
        return TV_OK;
    if (attention_backward_tiles_fits(a))
        return attention_backward_tiles(a, stream);
    TV_TRY(check(a->width, a->context));
    size_t bytes = (size_t)a->context * sizeof(float);
    TV_CUDA_TRY(
        cudaFuncSetAttribute(attention_backward_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
    attention_backward_kernel<<<(unsigned)(a->tokens / a->context * a->heads), WARPS * TV_WARP, bytes,
                                tv_cuda_stream(stream)>>>(*a, is_wide(a->width, a->q, a->k, a->v, a->g));
    TV_CUDA_LAUNCHED("attention_backward");
}
