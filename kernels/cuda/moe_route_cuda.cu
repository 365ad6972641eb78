// Routing: a warp a token. Lane l holds the experts l, l + 32, ...; slot j of the token belongs to lane j mod 32.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/moe_scratch.h"

#define WARPS 8
#define BLOCKS 8 // a multiprocessor
#define EXPERTS_MAX 1024
#define HELD_MAX (TV_MOE_SLOTS_MAX / TV_WARP) // slots of a lane

// A number's order as an integer's; -0 like +0. 0 lies below all numbers.
__device__ static inline uint32_t rank_of(float x)
{
    uint32_t bits = tv_float_bits(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The experts of a token, in `held`. VALUES experts a lane.
template <int VALUES>
__device__ static void select(const tv_moe_route_args &a, const float *logits, int (&held)[HELD_MAX])
{
    int lane = tv_warp_lane();
    uint32_t rank[VALUES];
#pragma unroll
    for (int i = 0; i < VALUES; i++) {
        int e = lane + i * TV_WARP;
        rank[i] = e < a.experts ? rank_of(logits[e] + (float)a.bias[e] * TV_MOE_BIAS_UNIT) : 0;
    }
    for (int j = 0; j < a.slots; j++) {
        uint32_t best = 0;
        int index = EXPERTS_MAX;
#pragma unroll
        for (int i = 0; i < VALUES; i++)
            if (rank[i] > best)
                best = rank[i], index = lane + i * TV_WARP;
        uint32_t top = __reduce_max_sync(0xFFFFFFFFu, best);
        int chosen = (int)__reduce_min_sync(0xFFFFFFFFu, best == top ? (unsigned)index : (unsigned)EXPERTS_MAX);
#pragma unroll
        for (int i = 0; i < VALUES; i++)
            if (lane + i * TV_WARP == chosen)
                rank[i] = 0;
        if (j % TV_WARP == lane)
            held[j / TV_WARP] = chosen;
    }
}

// Gates of the held experts: softmax over the token's slots, summed in their order.
__device__ static void weigh(const tv_moe_route_args &a, const float *logits, const int (&held)[HELD_MAX],
                             float (&gate)[HELD_MAX])
{
    int lane = tv_warp_lane();
    float logit[HELD_MAX], top = -tv_float_inf(), sum = 0.0f;
#pragma unroll
    for (int i = 0; i < HELD_MAX; i++) {
        logit[i] = lane + i * TV_WARP < a.slots ? logits[held[i]] : -tv_float_inf();
        top = logit[i] > top ? logit[i] : top;
    }
    top = tv_warp_max_float(top) + 0.0f;
#pragma unroll
    for (int i = 0; i < HELD_MAX; i++)
        gate[i] = tv_exp(logit[i] - top);
    for (int j = 0; j < a.slots; j++)
        sum = sum + __shfl_sync(0xFFFFFFFFu, j < TV_WARP ? gate[0] : gate[1], j % TV_WARP);
    float inverse = 1.0f / sum;
#pragma unroll
    for (int i = 0; i < HELD_MAX; i++)
        gate[i] = gate[i] * inverse;
}

// One token, by a warp; count(e) for each expert that it selects.
template <int VALUES, class COUNT>
__device__ static void route_token(const tv_moe_route_args &a, int64_t t, const COUNT &count)
{
    static_assert(HELD_MAX == 2, "weigh picks one of two");
    int lane = tv_warp_lane(), held[HELD_MAX] = {lane, lane + TV_WARP};
    const float *logits = a.logits + t * a.experts;
    float gate[HELD_MAX] = {0.0f, 0.0f};
    bool bad = false;
    for (int e = lane; e < a.experts; e += TV_WARP)
        bad = bad || (tv_float_bits(logits[e]) & 0x7FFFFFFFu) >= TV_BITS_INF;
    if (__any_sync(0xFFFFFFFFu, bad)) {
        *a.fault = 1;
    } else {
        select<VALUES>(a, logits, held);
        weigh(a, logits, held, gate);
    }
#pragma unroll
    for (int i = 0; i < HELD_MAX; i++) {
        int j = lane + i * TV_WARP;
        if (j >= a.slots)
            continue;
        a.expert[t * a.slots + j] = held[i];
        a.gate[t * a.slots + j] = gate[i];
        count(held[i]);
    }
}

__device__ static inline void add_count(const tv_moe_route_args &a, int e, int count)
{
    atomicAdd((unsigned long long *)a.counts + e, (unsigned long long)count);
}

template <int VALUES> __global__ static void __launch_bounds__(WARPS *TV_WARP) route_kernel(tv_moe_route_args a)
{
    __shared__ int counts[EXPERTS_MAX];
    for (int e = threadIdx.x; e < a.experts; e += WARPS * TV_WARP)
        counts[e] = 0;
    __syncthreads();
    for (int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.x / TV_WARP; t < a.tokens; t += (int64_t)gridDim.x * WARPS)
        route_token<VALUES>(a, t, [&](int e) { atomicAdd(&counts[e], 1); });
    __syncthreads();
    for (int e = threadIdx.x; a.counts && e < a.experts; e += WARPS * TV_WARP)
        if (counts[e])
            add_count(a, e, counts[e]);
}

static unsigned token_blocks(int64_t tokens)
{
    int64_t blocks = tv_ceil_div(tokens, WARPS), most = (int64_t)moe_processors_cuda() * BLOCKS;
    return (unsigned)(blocks < most ? blocks : most);
}

extern "C" tv_status moe_route_cuda(const tv_moe_route_args *a, void *stream)
{
    if (!a->tokens || !a->experts || !a->slots)
        return TV_OK;
    if (a->experts > EXPERTS_MAX)
        return TV_FAIL(TV_BACKEND, "moe_route: %lld experts, and the cuda backend takes at most %d",
                       (long long)a->experts, EXPERTS_MAX);
    auto kernel = a->experts <= 32 ? route_kernel<1> : a->experts <= 256 ? route_kernel<8> : route_kernel<32>;
    kernel<<<token_blocks(a->tokens), WARPS * TV_WARP, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("moe_route");
}

__global__ static void __launch_bounds__(WARPS *TV_WARP) route_backward_kernel(tv_moe_route_backward_args a)
{
    int lane = tv_warp_lane();
    for (int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.x / TV_WARP; t < a.tokens;
         t += (int64_t)gridDim.x * WARPS) {
        const float *gate = a.gate + t * a.slots, *grad = a.grad + t * a.slots;
        const int32_t *expert = a.expert + t * a.slots;
        float *out = a.logits + t * a.experts, mean = 0.0f;
        for (int j = 0; j < a.slots; j++)
            mean = fmaf(gate[j], grad[j], mean);
        for (int64_t e = lane; e < a.experts; e += TV_WARP)
            out[e] = 0.0f;
        __syncwarp();
        for (int j = lane; j < a.slots; j += TV_WARP)
            out[expert[j]] = gate[j] * (grad[j] - mean);
    }
}

extern "C" tv_status moe_route_backward_cuda(const tv_moe_route_backward_args *a, void *stream)
{
    if (!a->tokens || !a->experts || !a->slots)
        return TV_OK;
    route_backward_kernel<<<token_blocks(a->tokens), WARPS * TV_WARP, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("moe_route_backward");
}

// ---- from the query on, of few tokens ------------------------------------------------------------------------------------------

#define FEW_TOKENS 1024
#define QUERY_MAX 256 // widest query
#define THREADS (WARPS * TV_WARP)
#define PIECE 16 // bytes

// sum_c a[c] b[c] of `reduce` bytes, by lanes `lane` of `lanes`; whole pieces.
__device__ static inline int dot(const int8_t *a, const int8_t *b, int64_t reduce, int lane, int lanes)
{
    int sum = 0;
    for (int64_t i = lane; i < reduce / PIECE; i += lanes) {
        int4 x = ((const int4 *)a)[i], y = ((const int4 *)b)[i];
        sum = __dp4a(x.x, y.x, sum);
        sum = __dp4a(x.y, y.y, sum);
        sum = __dp4a(x.z, y.z, sum);
        sum = __dp4a(x.w, y.w, sum);
    }
    return sum;
}

// A block a token. Outputs of the query are a warp's, those of the centroids a thread's.
template <int VALUES> __global__ static void __launch_bounds__(THREADS) query_kernel(tv_moe_query_args a)
{
    __shared__ float query[QUERY_MAX];
    __shared__ __align__(16) int8_t z[QUERY_MAX];
    __shared__ uint32_t top;
    int64_t t = blockIdx.x, width = a.query.n;
    int lane = tv_warp_lane();
    float factor = a.query.scale[t] * tv_exp2i(a.query.exponent), qmax = (float)a.z.qmax;
    if (threadIdx.x == 0)
        top = 0;
#pragma unroll 4
    for (int n = threadIdx.x / TV_WARP; n < width; n += WARPS) {
        int sum = dot(a.query.a + t * a.query.reduce, a.query.b + n * a.query.reduce, a.query.reduce, lane, TV_WARP);
        sum = __reduce_add_sync(0xFFFFFFFFu, sum);
        if (lane == 0)
            query[n] = (float)sum * factor;
    }
    __syncthreads();
    float value = threadIdx.x < width ? query[threadIdx.x] : 0.0f;
    atomicMax(&top, tv_float_bits(value) & 0x7FFFFFFFu);
    __syncthreads();
    float absmax = tv_usable_absmax(top, threadIdx.x == 0, a.z.fault), scale = absmax / qmax;
    if (threadIdx.x < width) {
        int q = absmax == 0.0f ? 0 : (int)rintf(value * (qmax / absmax));
        z[threadIdx.x] = a.z.q[t * width + threadIdx.x] = (int8_t)q;
    }
    if (threadIdx.x == 0)
        a.z.scale[t] = scale;
    __syncthreads();
    factor = scale * tv_exp2i(a.centroid.exponent);
    for (int64_t e = threadIdx.x; e < a.centroid.n; e += THREADS)
        a.centroid.y[t * a.centroid.n + e] = (float)dot(z, a.centroid.b + e * width, width, 0, 1) * factor;
    __syncthreads();
    if (threadIdx.x >= TV_WARP)
        return;
    route_token<VALUES>(a.route, t, [&](int e) {
        if (a.route.counts)
            add_count(a.route, e, 1);
    });
}

static bool query_fits(const tv_moe_query_args *a)
{
    const tv_gemm_args *query = &a->query, *centroid = &a->centroid;
    uintptr_t borders = (uintptr_t)query->a | (uintptr_t)query->b | (uintptr_t)centroid->b | (uintptr_t)query->n |
                        (uintptr_t)query->reduce;
    return query->m <= FEW_TOKENS && query->n <= QUERY_MAX && borders % PIECE == 0 && !query->a_lo && !centroid->a_lo &&
           !query->accumulate && !centroid->accumulate && centroid->reduce == query->n && centroid->a == a->z.q &&
           a->route.logits == centroid->y && a->route.experts == centroid->n && a->route.experts <= EXPERTS_MAX;
}

extern "C" tv_status moe_query_cuda(const tv_moe_query_args *a, void *stream)
{
    if (!a->query.m || !a->query.n || !a->query.reduce || !a->route.experts || !a->route.slots || !query_fits(a)) {
        TV_TRY(gemm_cuda(&a->query, stream));
        TV_TRY(quantize_rows_cuda(&a->z, stream));
        TV_TRY(gemm_cuda(&a->centroid, stream));
        return moe_route_cuda(&a->route, stream);
    }
    int64_t experts = a->route.experts;
    auto kernel = experts <= 32 ? query_kernel<1> : experts <= 256 ? query_kernel<8> : query_kernel<32>;
    kernel<<<(unsigned)a->query.m, THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("moe_query");
}
