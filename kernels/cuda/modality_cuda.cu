// Features at some of a unit's tokens. add: a thread an element. back: a warp a row, then one warp for the sums over rows, whose lanes are
// those of sum32.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/ref/modality_common.h"

#define THREADS 256

__global__ static void add_kernel(tv_modality_add_args a)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= a.rows * a.width)
        return;
    int64_t r = i / a.width, c = i % a.width;
    float *x = a.x + a.at[r] * a.width + c;
    *x = fmaf(tv_modality_gate(*a.gate), a.y[i], *x);
}

extern "C" tv_status modality_add_cuda(const tv_modality_add_args *a, void *stream)
{
    if (!a->rows || !a->width)
        return TV_OK;
    add_kernel<<<tv_cuda_blocks(a->rows * a->width, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("modality_add");
}

__global__ static void back_kernel(tv_modality_back_args a)
{
    int64_t r = tv_warp_row();
    int lane = tv_warp_lane();
    if (r >= a.rows)
        return;
    const float *dx = a.dx + a.at[r] * a.width, *y = a.y + r * a.width;
    float g = tv_modality_gate(*a.gate), sum = 0.0f;
    for (int64_t c = lane; c < a.width; c += TV_WARP) {
        a.dy[r * a.width + c] = g * dx[c];
        sum = fmaf(dx[c], y[c], sum);
    }
    sum = tv_warp_combine(sum);
    if (lane == 0)
        a.dot[r] = sum;
}

__global__ static void vote_kernel(tv_modality_back_args a)
{
    float s = 0.0f, q = 0.0f;
    for (int64_t r = threadIdx.x; r < a.rows; r += TV_WARP) {
        float dot = a.dot[r];
        s = s + dot;
        q = fmaf(dot, dot, q);
    }
    s = tv_warp_combine(s);
    q = tv_warp_combine(q);
    if (threadIdx.x == 0)
        *a.vote += tv_modality_vote(s, q, a.tau);
}

static tv_status launch_rows(const tv_modality_back_args *a, void *stream)
{
    back_kernel<<<tv_cuda_blocks(a->rows, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0, tv_cuda_stream(stream)>>>(
        *a);
    TV_CUDA_LAUNCHED("modality_back");
}

extern "C" tv_status modality_back_cuda(const tv_modality_back_args *a, void *stream)
{
    if (!a->rows || !a->width)
        return TV_OK;
    TV_TRY(launch_rows(a, stream));
    vote_kernel<<<1, TV_WARP, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("modality_back's sums");
}
