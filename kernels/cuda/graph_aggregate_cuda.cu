// Edges of the graph: messages weighted and summed into their nodes, and the gradients of both. Sums into a node are chains in the order of its
// edges: a thread has a node's channel, or four.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/row_sums.cuh"

#define THREADS 256

// V channels a thread.
template <int V> __global__ static void __launch_bounds__(THREADS) aggregate_kernel(tv_graph_aggregate_args a)
{
    unsigned parts = (unsigned)a.cols / V, part = threadIdx.x % parts, nodes = THREADS / parts;
    int64_t v = (int64_t)blockIdx.x * nodes + threadIdx.x / parts;
    if (threadIdx.x / parts >= nodes || v >= a.nodes)
        return;
    const float *m = a.m + part * V;
    tv_floats<V> sum = {};
    int32_t end = a.start[v + 1];
#pragma unroll 4
    for (int32_t e = a.start[v]; e < end; e++)
        sum = tv_floats_fma((float)a.attr[e], tv_floats_load<V>(m + (int64_t)a.source[e] * a.cols), sum);
    tv_floats_store(a.a + v * a.cols + part * V, sum);
}

extern "C" tv_status graph_aggregate_cuda(const tv_graph_aggregate_args *a, void *stream)
{
    cudaStream_t s = tv_cuda_stream(stream);
    if (!a->nodes || !a->cols)
        return TV_OK;
    if (a->cols > THREADS)
        return TV_FAIL(TV_BACKEND, "nodes of %lld channels: the kernel holds at most %d", (long long)a->cols, THREADS);
    if (a->cols % 4 == 0 && tv_cuda_aligned({a->m, a->a}))
        aggregate_kernel<4><<<tv_cuda_blocks(a->nodes, THREADS / (a->cols / 4)), THREADS, 0, s>>>(*a);
    else
        aggregate_kernel<1><<<tv_cuda_blocks(a->nodes, THREADS / a->cols), THREADS, 0, s>>>(*a);
    TV_CUDA_LAUNCHED("graph_aggregate");
}

// ---- gradient of the messages --------------------------------------------------------------------------------------------

// The edges from a node that count.
struct source_lists {
    int64_t items, width;
    tv_graph_aggregate_backward_args a;
    __device__ tv_list find(int64_t u) const
    {
        int64_t first = a.source_start[u], low = first, high = a.source_start[u + 1];
        if (low < high && a.by_source[high - 1] < a.edges)
            low = high;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (a.by_source[middle] < a.edges)
                low = middle + 1;
            else
                high = middle;
        }
        return {first, (int)(low - first)};
    }
    __device__ const float *row(const tv_list &list, int k, float *factor) const
    {
        int32_t e = a.by_source[list.first + k];
        *factor = (float)a.attr[e];
        return a.da + (int64_t)a.dst[e] * a.cols;
    }
    __device__ float *out(int64_t u) const { return a.dm + u * a.cols; }
};

// ---- gradient of the attributes ------------------------------------------------------------------------------------------

__device__ static inline void store_gradient(const tv_graph_aggregate_backward_args &a, int64_t e, float sum)
{
    a.attr_grad[e] = a.accumulate ? a.attr_grad[e] + sum : sum;
}

// A warp an edge.
__global__ static void __launch_bounds__(THREADS) attr_kernel(tv_graph_aggregate_backward_args a)
{
    int64_t e = (int64_t)blockIdx.x * (THREADS / TV_WARP) + threadIdx.x / TV_WARP;
    if (e >= a.edges)
        return;
    const float *da = a.da + (int64_t)a.dst[e] * a.cols, *m = a.m + (int64_t)a.source[e] * a.cols;
    float lane = 0.0f;
    for (int64_t c = tv_warp_lane(); c < a.cols; c += TV_WARP)
        lane = fmaf(da[c], m[c], lane);
    float sum = tv_warp_combine(lane);
    if (tv_warp_lane() == 0)
        store_gradient(a, e, sum);
}

// A group of 8 lanes an edge; cols is a multiple of 32.
__global__ static void __launch_bounds__(THREADS) attr_groups_kernel(tv_graph_aggregate_backward_args a)
{
    int64_t e = (int64_t)blockIdx.x * (THREADS / TV_GROUP) + threadIdx.x / TV_GROUP, quads = a.cols / TV_QUAD;
    bool here = e < a.edges;
    int64_t da = here ? a.dst[e] * quads : 0, m = here ? a.source[e] * quads : 0;
    float4 lanes = tv_quad_zero();
    for (int64_t i = threadIdx.x % TV_GROUP; i < quads; i += TV_GROUP)
        if (here)
            tv_fma4(lanes, tv_quad(a.da, da + i), tv_quad(a.m, m + i));
    float sum = tv_group_combine(lanes);
    if (here && threadIdx.x % TV_GROUP == 0)
        store_gradient(a, e, sum);
}

extern "C" tv_status graph_aggregate_backward_cuda(const tv_graph_aggregate_backward_args *a, void *stream)
{
    cudaStream_t s = tv_cuda_stream(stream);
    if (!a->cols)
        return TV_OK;
    if (a->sources)
        tv_row_sums(source_lists{a->sources, a->cols, *a}, {a->da, a->dm}, s);
    if (a->edges && a->cols % TV_GROUP_SPAN == 0 && tv_cuda_aligned({a->da, a->m}))
        attr_groups_kernel<<<tv_cuda_blocks(a->edges, THREADS / TV_GROUP), THREADS, 0, s>>>(*a);
    else if (a->edges)
        attr_kernel<<<tv_cuda_blocks(a->edges, THREADS / TV_WARP), THREADS, 0, s>>>(*a);
    TV_CUDA_LAUNCHED("graph_aggregate_backward");
}
