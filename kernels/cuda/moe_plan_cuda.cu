// Where rows lie: a stable counting sort of (token, slot) by expert.
//
// Each warp owns a run of items. It counts them by expert, lanes of one expert being found by a match; sums of the warps and blocks
// before it then say where its first item of each expert goes. Up to one block's share this is one launch; else the blocks'
// counts come first, in a launch of their own. Dense: a block an expert.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/cuda_ops.h"

#define WARPS 16
#define THREADS (WARPS * TV_WARP)
#define BLOCKS_MAX 128
#define SHARE 4096 // items of a block, at least
#define EXPERTS_MAX 1024
#define SHARES_MAX 64 // blocks that copy an expert's rows

// Items of each expert in each block, between the two launches of a call.
__device__ static int32_t block_counts[BLOCKS_MAX][EXPERTS_MAX];

typedef struct plan_job {
    tv_moe_plan_args a;
    int64_t items, warp_share; // of a warp: a multiple of 32
    int experts;
} plan_job;

__device__ static inline int expert_at(const plan_job &job, int64_t i)
{
    int e = job.a.expert[i];
    if ((unsigned)e < (unsigned)job.experts)
        return e;
    *job.a.fault = 1;
    return 0;
}

// Calls visit(i, e, lanes) for the warp's items, 32 at a time; lanes: those with the same expert. `counts` of the warp may be used
// between lanes from one visit to the next.
template <class VISIT> __device__ static void each_item(const plan_job &job, const VISIT &visit)
{
    int64_t first = ((int64_t)blockIdx.x * WARPS + threadIdx.x / TV_WARP) * job.warp_share;
    int64_t end = first + job.warp_share < job.items ? first + job.warp_share : job.items;
    for (int64_t i0 = first; i0 < end; i0 += TV_WARP) {
        int64_t i = i0 + tv_warp_lane();
        int e = i < end ? expert_at(job, i) : -1;
        uint32_t lanes = __match_any_sync(0xFFFFFFFFu, e);
        visit(i, e, lanes);
        __syncwarp();
    }
}

// counts[e] of each warp, in shared memory [WARPS][experts].
__device__ static void count_warps(const plan_job &job, int32_t *counts)
{
    int32_t *own = counts + threadIdx.x / TV_WARP * job.experts;
    for (int i = threadIdx.x; i < WARPS * job.experts; i += THREADS)
        counts[i] = 0;
    __syncthreads();
    each_item(job, [&](int64_t, int e, uint32_t lanes) {
        if (e >= 0 && __ffs((int)lanes) - 1 == tv_warp_lane())
            own[e] += __popc(lanes);
    });
    __syncthreads();
}

__global__ static void __launch_bounds__(THREADS) plan_count_kernel(plan_job job)
{
    extern __shared__ int32_t counts[];
    count_warps(job, counts);
    for (int e = threadIdx.x; e < job.experts; e += THREADS) {
        int sum = 0;
        for (int w = 0; w < WARPS; w++)
            sum += counts[w * job.experts + e];
        block_counts[blockIdx.x][e] = sum;
    }
}

// Sum of values below each thread's own, over the block; *all the whole. Each thread has one value.
__device__ static int64_t sum_before(int64_t value, int64_t *warp_sums)
{
    int lane = tv_warp_lane(), warp = threadIdx.x / TV_WARP;
    int64_t sum = value, before = 0;
    for (int x = 1; x < TV_WARP; x <<= 1) {
        int64_t left = __shfl_up_sync(0xFFFFFFFFu, sum, x);
        sum += lane >= x ? left : 0;
    }
    if (lane == TV_WARP - 1)
        warp_sums[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warp; w++)
        before += warp_sums[w];
    __syncthreads();
    return before + sum - value;
}

// All experts' items, those of blocks before this one, from the first launch, or, with one block, from its own warps.
__device__ static void expert_sums(const plan_job &job, const int32_t *counts, int e, int *all, int *before)
{
    *all = *before = 0;
    if (e >= job.experts)
        return;
    for (int w = 0; gridDim.x == 1 && w < WARPS; w++)
        *all += counts[w * job.experts + e];
    for (int b = 0; gridDim.x > 1 && b < (int)gridDim.x; b++) {
        int count = block_counts[b][e];
        *all += count;
        *before += b < (int)blockIdx.x ? count : 0;
    }
}

__global__ static void __launch_bounds__(THREADS) plan_kernel(plan_job job)
{
    extern __shared__ int32_t counts[];
    __shared__ int64_t warp_sums[WARPS];
    const tv_moe_plan_args &a = job.a;
    count_warps(job, counts);
    int64_t first = 0, padded = 0; // of the experts that earlier rounds did
    for (int e0 = 0; e0 < job.experts; e0 += THREADS) {
        int e = e0 + threadIdx.x, all, before;
        expert_sums(job, counts, e, &all, &before);
        int64_t wide = tv_ceil_div(all, TV_SEGMENT_PAD) * TV_SEGMENT_PAD;
        int64_t from = first + sum_before(all, warp_sums), from_padded = padded + sum_before(wide, warp_sums);
        if (e < job.experts) {
            if (blockIdx.x == 0)
                a.segments[e] = {from, all, from_padded, e, all, a.unit, 0};
            int64_t next = from + before;
            for (int w = 0; w < WARPS; w++) { // from counts to places
                int count = counts[w * job.experts + e];
                counts[w * job.experts + e] = (int)next;
                next += count;
            }
        }
        first += __syncthreads_count(0); // all are done with the sums
        if (e0 + THREADS < job.experts) {
            __shared__ int64_t last[2];
            if (threadIdx.x == THREADS - 1)
                last[0] = from + all, last[1] = from_padded + wide;
            __syncthreads();
            first = last[0], padded = last[1];
        }
    }
    __syncthreads();
    int32_t *next = counts + threadIdx.x / TV_WARP * job.experts;
    each_item(job, [&](int64_t i, int e, uint32_t lanes) {
        int row = e >= 0 ? next[e] + __popc(lanes & ((1u << tv_warp_lane()) - 1)) : 0;
        __syncwarp();
        if (e < 0)
            return;
        a.place[i] = row;
        a.item[row] = (int32_t)i;
        if (__ffs((int)lanes) - 1 == tv_warp_lane())
            next[e] += __popc(lanes);
    });
}

// Expert e: the rows e M .. e M + M - 1. When a token names an expert twice, the later slot stays.
__device__ static inline void plan_dense(const plan_job &job, int e)
{
    __shared__ int total;
    const tv_moe_plan_args &a = job.a;
    int count = 0;
    if (threadIdx.x == 0)
        total = 0;
    __syncthreads();
    for (int64_t t = threadIdx.x; t < a.tokens; t += THREADS) {
        int64_t row = e * a.tokens + t, item = -(t + 1);
        for (int j = 0; j < a.slots; j++) {
            int64_t i = t * a.slots + j;
            if (expert_at(job, i) != e)
                continue;
            a.place[i] = (int32_t)row;
            item = i;
            count++;
        }
        a.item[row] = (int32_t)item;
    }
    atomicAdd(&total, count);
    __syncthreads();
    if (threadIdx.x == 0) {
        int64_t padded = e * tv_ceil_div(a.tokens, TV_SEGMENT_PAD) * TV_SEGMENT_PAD;
        a.segments[e] = {e * a.tokens, a.tokens, padded, e, total, a.unit, 0};
    }
}

__global__ static void __launch_bounds__(THREADS) plan_dense_kernel(plan_job job) { plan_dense(job, blockIdx.x); }

// Every expert gets all tokens' rows. Grid: experts x shares of the rows' bytes.
__global__ static void __launch_bounds__(THREADS) place_dense_kernel(plan_job job, tv_rows_gather_args g)
{
    int64_t e = blockIdx.x, units = job.a.tokens * g.cols / (int64_t)sizeof(uint4);
    const uint4 *from = (const uint4 *)g.q;
    uint4 *to = (uint4 *)g.out_q + e * units;
    if (blockIdx.y == 0)
        plan_dense(job, (int)e);
    for (int64_t i = (int64_t)blockIdx.y * THREADS + threadIdx.x; i < units; i += (int64_t)gridDim.y * THREADS)
        to[i] = from[i];
    for (int64_t t = threadIdx.x; blockIdx.y == 0 && t < job.a.tokens; t += THREADS)
        g.out_scale[e * job.a.tokens + t] = g.scale[t];
}

extern "C" tv_status moe_place_cuda(const tv_moe_place_args *a, void *stream)
{
    const tv_moe_plan_args *plan = &a->plan;
    const tv_rows_gather_args *g = &a->gather;
    uintptr_t borders = (uintptr_t)g->cols | (uintptr_t)g->q | (uintptr_t)g->out_q;
    if (!plan->dense || !plan->tokens || !plan->slots || !plan->experts || !g->cols || g->factor ||
        borders % sizeof(uint4) != 0 || plan->experts > EXPERTS_MAX || g->rows != plan->tokens * plan->experts) {
        TV_TRY(moe_plan_cuda(plan, stream));
        return rows_gather_cuda(g, stream);
    }
    plan_job job = {*plan, plan->tokens * plan->slots, 0, (int)plan->experts};
    unsigned shares = tv_cuda_blocks(plan->tokens * g->cols, THREADS * (int64_t)sizeof(uint4));
    dim3 grid((unsigned)plan->experts, shares < SHARES_MAX ? shares : SHARES_MAX);
    place_dense_kernel<<<grid, THREADS, 0, tv_cuda_stream(stream)>>>(job, *g);
    TV_CUDA_LAUNCHED("moe_place");
}

extern "C" tv_status moe_plan_cuda(const tv_moe_plan_args *a, void *stream)
{
    if (!a->tokens || !a->experts || !a->slots)
        return TV_OK;
    if (a->experts > EXPERTS_MAX)
        return TV_FAIL(TV_BACKEND, "moe_plan: %lld experts, and the cuda backend takes at most %d",
                       (long long)a->experts, EXPERTS_MAX);
    plan_job job = {*a, a->tokens * a->slots, 0, (int)a->experts};
    if (a->dense) {
        plan_dense_kernel<<<(unsigned)job.experts, THREADS, 0, tv_cuda_stream(stream)>>>(job);
        TV_CUDA_LAUNCHED("moe_plan");
    }
    int64_t most = tv_ceil_div(job.items, (int64_t)BLOCKS_MAX * THREADS) * THREADS;
    int64_t share = most > SHARE ? most : SHARE;
    job.warp_share = share / WARPS;
    unsigned blocks = tv_cuda_blocks(job.items, share);
    size_t bytes = (size_t)WARPS * (size_t)job.experts * sizeof(int32_t);
    if (bytes > 48 << 10) {
        TV_CUDA_TRY(cudaFuncSetAttribute(plan_count_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
        TV_CUDA_TRY(cudaFuncSetAttribute(plan_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
    }
    if (blocks > 1)
        plan_count_kernel<<<blocks, THREADS, bytes, tv_cuda_stream(stream)>>>(job);
    plan_kernel<<<blocks, THREADS, bytes, tv_cuda_stream(stream)>>>(job);
    TV_CUDA_LAUNCHED("moe_plan");
}
