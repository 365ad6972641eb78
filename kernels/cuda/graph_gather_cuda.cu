// What the graph gives to tokens, gathered and added; and the sums of their gradients by motif.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/row_sums.cuh"

#define THREADS 256
#define PARTS 4 // of a thread, at least where the width allows

// A block has `rows` tokens, `parts` pieces of V channels each.
template <int V>
__global__ static void __launch_bounds__(THREADS) gather_kernel(tv_graph_gather_args a, unsigned rows, unsigned parts)
{
    int64_t first = (int64_t)blockIdx.x * rows;
    unsigned count = (unsigned)(a.tokens - first < rows ? a.tokens - first : rows) * parts;
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < count; i += THREADS) {
        int64_t t = first + i / parts, c = (int64_t)(i % parts) * V;
        int32_t slot = a.slot[t];
        if (slot < 0)
            continue;
        float *x = a.x + t * a.width + c;
        tv_floats_store(x, tv_floats_sum(tv_floats_load<V>(x), tv_floats_load<V>(a.u + slot * a.width + c)));
    }
}

template <int V> static void gather_start(const tv_graph_gather_args *a, cudaStream_t stream)
{
    int64_t parts = a->width / V, rows = parts < THREADS * PARTS ? THREADS * PARTS / parts : 1;
    gather_kernel<V><<<tv_cuda_blocks(a->tokens, rows), THREADS, 0, stream>>>(*a, (unsigned)rows, (unsigned)parts);
}

extern "C" tv_status graph_gather_cuda(const tv_graph_gather_args *a, void *stream)
{
    if (!a->tokens || !a->width)
        return TV_OK;
    if (a->width % 4 == 0 && tv_cuda_aligned({a->u, a->x}))
        gather_start<4>(a, tv_cuda_stream(stream));
    else
        gather_start<1>(a, tv_cuda_stream(stream));
    TV_CUDA_LAUNCHED("graph_gather");
}

// The tokens of a motif.
struct token_lists {
    int64_t items, width;
    tv_graph_gather_backward_args a;
    __device__ tv_list find(int64_t i) const { return {a.start[i], a.start[i + 1] - a.start[i]}; }
    __device__ const float *row(const tv_list &list, int k, float *factor) const
    {
        *factor = 1.0f;
        return a.dx + a.order[list.first + k] * a.width;
    }
    __device__ float *out(int64_t i) const { return a.du + i * a.width; }
};

extern "C" tv_status graph_gather_backward_cuda(const tv_graph_gather_backward_args *a, void *stream)
{
    if (!a->count || !a->width)
        return TV_OK;
    tv_row_sums(token_lists{a->count, a->width, *a}, {a->dx, a->du}, tv_cuda_stream(stream));
    TV_CUDA_LAUNCHED("graph_gather_backward");
}
