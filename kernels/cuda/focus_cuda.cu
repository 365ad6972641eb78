// The conversation's cells: a thread an element (row, column) of the output, for gather and scatter with a loop over the segment's
// positions. Nothing in shared memory.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/ref/focus_common.h"

#define THREADS 128

__device__ static inline int64_t element_index(void) { return (int64_t)blockIdx.x * THREADS + threadIdx.x; }

__global__ static void kinds_kernel(tv_focus_kinds_args a)
{
    int64_t r = element_index();
    if (r < a.segments * a.windows)
        a.kind[r] = tv_focus_kind(&a, r);
}

extern "C" tv_status focus_kinds_cuda(const tv_focus_kinds_args *a, void *stream)
{
    int64_t count = a->segments * a->windows;
    if (!count)
        return TV_OK;
    kinds_kernel<<<tv_cuda_blocks(count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("focus_kinds");
}

__global__ static void gather_kernel(tv_focus_gather_args a)
{
    int64_t e = element_index(), r = e / a.width, c = e % a.width;
    if (r >= a.segments * a.windows)
        return;
    int64_t first = tv_focus_first(r, a.windows, a.context, a.segment);
    int64_t length = tv_focus_length(r, a.windows, a.context, a.segment);
    float sum = 0.0f;
    for (int64_t t = first; t < first + length; t++)
        sum = sum + a.x[t * a.width + c];
    sum = sum / a.divisor;
    a.out[r * a.stride + c] = a.add ? sum + a.add[e] : sum;
}

extern "C" tv_status focus_gather_cuda(const tv_focus_gather_args *a, void *stream)
{
    int64_t count = a->segments * a->windows * a->width;
    if (!count)
        return TV_OK;
    gather_kernel<<<tv_cuda_blocks(count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("focus_gather");
}

__global__ static void scatter_kernel(tv_focus_scatter_args a)
{
    int64_t e = element_index(), r = e / a.width, c = e % a.width;
    if (r >= a.segments * a.windows)
        return;
    int64_t first = tv_focus_first(r, a.windows, a.context, a.segment);
    int64_t length = tv_focus_length(r, a.windows, a.context, a.segment);
    float y = a.y[r * a.stride + c], share = y / a.divisor;
    for (int64_t t = first; t < first + length; t++)
        a.x[t * a.width + c] = a.x[t * a.width + c] + share;
    if (a.copy)
        a.copy[e] = y;
}

extern "C" tv_status focus_scatter_cuda(const tv_focus_scatter_args *a, void *stream)
{
    int64_t count = a->segments * a->windows * a->width;
    if (!count)
        return TV_OK;
    scatter_kernel<<<tv_cuda_blocks(count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("focus_scatter");
}

__global__ static void load_kernel(tv_focus_load_args a)
{
    int64_t e = element_index(), wide = 2 * a.width;
    if (e < a.rows * wide)
        tv_focus_load_at(&a, e / wide, e % wide);
}

extern "C" tv_status focus_load_cuda(const tv_focus_load_args *a, void *stream)
{
    int64_t count = a->rows * 2 * a->width;
    if (!count)
        return TV_OK;
    load_kernel<<<tv_cuda_blocks(count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("focus_load");
}

__global__ static void save_kernel(tv_focus_save_args a)
{
    int64_t e = element_index(), wide = 2 * a.width;
    if (e < a.rows * wide)
        tv_focus_save_at(&a, e / wide, e % wide);
}

extern "C" tv_status focus_save_cuda(const tv_focus_save_args *a, void *stream)
{
    int64_t count = a->rows * 2 * a->width;
    if (!count)
        return TV_OK;
    save_kernel<<<tv_cuda_blocks(count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("focus_save");
}

__global__ static void cell_kernel(tv_focus_cell_args a)
{
    int64_t e = element_index();
    if (e < a.rows * a.width)
        tv_focus_cell_at(&a, e / a.width, e % a.width);
}

extern "C" tv_status focus_cell_cuda(const tv_focus_cell_args *a, void *stream)
{
    int64_t count = a->rows * a->width;
    if (!count)
        return TV_OK;
    cell_kernel<<<tv_cuda_blocks(count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("focus_cell");
}

__global__ static void back_kernel(tv_focus_back_args a)
{
    int64_t e = element_index();
    if (e < a.rows * a.width)
        tv_focus_back_at(&a, e / a.width, e % a.width);
}

extern "C" tv_status focus_back_cuda(const tv_focus_back_args *a, void *stream)
{
    int64_t count = a->rows * a->width;
    if (!count)
        return TV_OK;
    back_kernel<<<tv_cuda_blocks(count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("focus_back");
}

// A warp's sums join before they go to memory.
__global__ static void gates_kernel(tv_focus_gates_args a)
{
    int64_t e = element_index(), sums[TV_FOCUS_SUMS] = {0, 0, 0, 0, 0};
    if (e < a.rows * a.width)
        tv_focus_gates_at(&a, e / a.width, e % a.width, sums);
    for (int k = 0; k < TV_FOCUS_SUMS; k++) {
        unsigned long long sum = (unsigned long long)sums[k];
        for (int x = 16; x >= 1; x >>= 1)
            sum += __shfl_xor_sync(0xFFFFFFFFu, sum, x);
        if (tv_warp_lane() == 0)
            atomicAdd((unsigned long long *)&a.sums[k], sum);
    }
}

extern "C" tv_status focus_gates_cuda(const tv_focus_gates_args *a, void *stream)
{
    int64_t count = a->rows * a->width;
    if (!count)
        return TV_OK;
    gates_kernel<<<tv_cuda_blocks(count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("focus_gates");
}
