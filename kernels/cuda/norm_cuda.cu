// RMS norm, forward and backward. A warp a row; the row sum is the warp's 32 lanes.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/cuda_ops.h"

__global__ static void norm_kernel(tv_norm_args a)
{
    int64_t t = tv_warp_row();
    int lane = tv_warp_lane();
    if (t >= a.rows)
        return;
    const float *x = a.x + t * a.cols;
    uint32_t top = 0;
    float sum = 0.0f, unit = tv_exp2i(a.exponent);
    for (int64_t c = lane; c < a.cols; c += TV_WARP) {
        uint32_t bits = tv_float_bits(x[c]) & 0x7FFFFFFFu;
        top = bits > top ? bits : top;
        sum = fmaf(x[c], x[c], sum);
    }
    float absmax = tv_usable_absmax(tv_warp_max(top), lane == 0, a.fault);
    float r = 1.0f / sqrtf(tv_warp_combine(sum) / (float)a.cols + 1e-5f);
    float inverse = absmax == 0.0f ? 0.0f : 127.0f / absmax;
    for (int64_t c = lane; c < a.cols; c += TV_WARP) {
        a.y[t * a.cols + c] = (x[c] * r) * ((float)a.w8[c] * unit);
        if (a.saved_q)
            a.saved_q[t * a.cols + c] = absmax == 0.0f ? 0 : (int8_t)(int)rintf(x[c] * inverse);
    }
    if (a.saved_q && lane == 0) {
        a.saved_scale[t] = absmax / 127.0f;
        a.saved_rstd[t] = r;
    }
}

extern "C" tv_status norm_cuda(const tv_norm_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    norm_kernel<<<tv_cuda_blocks(a->rows, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0, tv_cuda_stream(stream)>>>(
        *a);
    TV_CUDA_LAUNCHED("norm");
}

__global__ static void norm_backward_kernel(tv_norm_backward_args a)
{
    int64_t t = tv_warp_row();
    int lane = tv_warp_lane();
    if (t >= a.rows)
        return;
    const float *dy = a.dy + t * a.cols;
    const int8_t *q = a.saved_q + t * a.cols;
    float r = a.saved_rstd[t], scale = a.saved_scale[t] * r, unit = tv_exp2i(a.exponent), sum = 0.0f;
    for (int64_t c = lane; c < a.cols; c += TV_WARP) {
        float h = (float)q[c] * scale, u = dy[c] * ((float)a.w8[c] * unit);
        sum = fmaf(u, h, sum);
    }
    float mean = tv_warp_combine(sum) / (float)a.cols;
    for (int64_t c = lane; c < a.cols; c += TV_WARP) {
        float h = (float)q[c] * scale, u = dy[c] * ((float)a.w8[c] * unit);
        float v = r * fmaf(-mean, h, u);
        float *dx = a.dx + t * a.cols + c;
        *dx = a.accumulate ? v + *dx : v;
    }
}

extern "C" tv_status norm_backward_cuda(const tv_norm_backward_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    norm_backward_kernel<<<tv_cuda_blocks(a->rows, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0,
                           tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("norm_backward");
}
