// Quantisation of rows. Rows of whole float4 go 16 bytes at a time (rows_vector.cuh), the others a warp a row: lane l reads elements
// l, l + 32, ...
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows_vector.cuh"

#define TWO_DIGITS_MAX 16129.0f

__device__ static float row_absmax(const float *x, int64_t cols, int lane, int32_t *fault)
{
    uint32_t top = 0;
    for (int64_t c = lane; c < cols; c += TV_WARP) {
        uint32_t bits = tv_float_bits(x[c]) & 0x7FFFFFFFu;
        top = bits > top ? bits : top;
    }
    return tv_usable_absmax(tv_warp_max(top), lane == 0, fault);
}

// s[t] = a / qmax; q[t, c] = rint(x[t, c] (qmax / a))
__global__ static void rows_kernel(tv_quantize_rows_args a)
{
    int64_t t = tv_warp_row();
    int lane = tv_warp_lane();
    if (t >= a.rows)
        return;
    const float *x = a.x + t * a.cols;
    float absmax = row_absmax(x, a.cols, lane, a.fault);
    float qmax = (float)a.qmax, inverse = absmax == 0.0f ? 0.0f : qmax / absmax;
    if (lane == 0)
        a.scale[t] = absmax / qmax;
    for (int64_t c = lane; c < a.cols; c += TV_WARP)
        a.q[t * a.cols + c] = absmax == 0.0f ? 0 : (int8_t)(int)rintf(x[c] * inverse);
}

extern "C" tv_status quantize_rows_cuda(const tv_quantize_rows_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    if (a->cols % TV_QUAD == 0 && tv_cuda_aligned({a->x, a->q})) {
        tv_rows_out out = {a->rows, a->cols / TV_QUAD, (float)a->qmax, a->q, a->scale, a->fault, NULL, NULL};
        tv_rows_launch(tv_plain_rows{a->x, out.quads}, out, tv_cuda_stream(stream));
        TV_CUDA_LAUNCHED("quantize_rows");
    }
    rows_kernel<<<tv_cuda_blocks(a->rows, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0, tv_cuda_stream(stream)>>>(
        *a);
    TV_CUDA_LAUNCHED("quantize_rows");
}

// Element c of token t's row of three tokens.
__device__ static inline float trigram_value(const tv_trigram_quantize_args &a, int64_t t, int64_t c)
{
    int64_t back = 2 - c / a.channels;
    return t % a.context >= back ? a.x[(t - back) * a.channels + c % a.channels] : 0.0f;
}

__global__ static void trigram_rows_kernel(tv_trigram_quantize_args a)
{
    int64_t t = tv_warp_row(), cols = 3 * a.channels;
    int lane = tv_warp_lane();
    if (t >= a.tokens)
        return;
    uint32_t top = 0;
    for (int64_t c = lane; c < cols; c += TV_WARP)
        top = max(top, tv_magnitude(trigram_value(a, t, c)));
    float absmax = tv_usable_absmax(tv_warp_max(top), lane == 0, a.fault), inverse = tv_inverse127(absmax);
    if (lane == 0)
        a.scale[t] = absmax / 127.0f;
    for (int64_t c = lane; c < cols; c += TV_WARP)
        a.q[t * cols + c] = absmax == 0.0f ? 0 : (int8_t)tv_rounded(trigram_value(a, t, c) * inverse);
}

extern "C" tv_status trigram_quantize_cuda(const tv_trigram_quantize_args *a, void *stream)
{
    if (!a->tokens || !a->channels || !a->context)
        return TV_OK;
    if (a->channels % TV_QUAD == 0 && tv_cuda_aligned({a->x, a->q})) {
        int64_t part = a->channels / TV_QUAD;
        tv_rows_out out = {a->tokens, 3 * part, 127.0f, a->q, a->scale, a->fault, NULL, NULL};
        tv_rows_launch(tv_trigram_rows{a->x, part, a->context}, out, tv_cuda_stream(stream));
    } else
        trigram_rows_kernel<<<tv_cuda_blocks(a->tokens, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0,
                              tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("trigram_quantize");
}

// floor((Q + 63) / 127); the shift by 127 127 keeps the operand positive.
__device__ static inline int high_digit(int Q) { return (Q + 63 + 127 * 127) / 127 - 127; }

__global__ static void rows2_kernel(tv_quantize_rows2_args a)
{
    int64_t t = tv_warp_row();
    int lane = tv_warp_lane();
    if (t >= a.rows)
        return;
    const float *x = a.x + t * a.cols;
    float absmax = row_absmax(x, a.cols, lane, a.fault);
    float inverse = absmax == 0.0f ? 0.0f : TWO_DIGITS_MAX / absmax;
    if (lane == 0)
        a.scale[t] = absmax / TWO_DIGITS_MAX;
    for (int64_t c = lane; c < a.cols; c += TV_WARP) {
        int Q = absmax == 0.0f ? 0 : (int)rintf(x[c] * inverse), hi = high_digit(Q);
        a.hi[t * a.cols + c] = (int8_t)hi;
        a.lo[t * a.cols + c] = (int8_t)(Q - 127 * hi);
    }
}

extern "C" tv_status quantize_rows2_cuda(const tv_quantize_rows2_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    rows2_kernel<<<tv_cuda_blocks(a->rows, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0,
                   tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("quantize_rows2");
}
