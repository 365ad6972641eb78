// The scale of the graph's low-rank term, both ways: a thread an element.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/cuda_ops.h"

#define THREADS 256

__device__ static inline int64_t item(void) { return (int64_t)blockIdx.x * THREADS + threadIdx.x; }

__device__ static inline float scale_of(const int8_t *w8, int exponent, int64_t i, int64_t rank)
{
    return (float)w8[i % rank] * tv_exp2i(exponent);
}

__global__ static void scale_kernel(tv_graph_scale_args a)
{
    int64_t i = item();
    if (i < a.nodes * a.rank)
        a.y[i] = a.l[i] * scale_of(a.w8, a.exponent, i, a.rank);
}

extern "C" tv_status graph_scale_cuda(const tv_graph_scale_args *a, void *stream)
{
    int64_t count = a->nodes * a->rank;
    if (!count)
        return TV_OK;
    scale_kernel<<<tv_cuda_blocks(count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("graph_scale");
}

// dl may be dy and dh may be l: both are read before either is written.
__global__ static void scale_backward_kernel(tv_graph_scale_backward_args a)
{
    int64_t i = item();
    if (i >= a.nodes * a.rank)
        return;
    float l = a.l[i], dy = a.dy[i];
    a.dl[i] = dy * scale_of(a.w8, a.exponent, i, a.rank);
    a.dh[i] = dy * l;
}

extern "C" tv_status graph_scale_backward_cuda(const tv_graph_scale_backward_args *a, void *stream)
{
    int64_t count = a->nodes * a->rank;
    if (!count)
        return TV_OK;
    scale_backward_kernel<<<tv_cuda_blocks(count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("graph_scale_backward");
}
