// Elementwise ops (a thread an element), the gated activation, rotary positions and the loss (a warp a row).
#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/cuda_ops.h"

#define THREADS 256

__device__ static inline int64_t element_index(void) { return (int64_t)blockIdx.x * THREADS + threadIdx.x; }

__global__ static void gate_kernel(tv_gate_args a)
{
    int64_t i = element_index();
    if (i >= a.tokens * a.width)
        return;
    int64_t t = i / a.width, f = i % a.width;
    const float *gate = a.gu + t * 2 * a.width;
    a.h[i] = tv_cuda_silu(gate[f]) * gate[a.width + f];
}

extern "C" tv_status gate_cuda(const tv_gate_args *a, void *stream)
{
    if (!a->tokens || !a->width)
        return TV_OK;
    gate_kernel<<<tv_cuda_blocks(a->tokens * a->width, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("gate");
}

__global__ static void gate_backward_kernel(tv_gate_backward_args a)
{
    int64_t i = element_index();
    if (i >= a.tokens * a.width)
        return;
    int64_t t = i / a.width, f = i % a.width;
    const int8_t *q = a.saved_q + 2 * t * a.width;
    float x = (float)q[f] * a.saved_scale[2 * t], u = (float)q[a.width + f] * a.saved_scale[2 * t + 1];
    float g = tv_cuda_sigmoid(x), act = x * g, dh = a.dh[i];
    a.dgu[2 * t * a.width + a.width + f] = dh * act;
    a.dgu[2 * t * a.width + f] = (dh * u) * (g * fmaf(x, 1.0f - g, 1.0f));
}

extern "C" tv_status gate_backward_cuda(const tv_gate_backward_args *a, void *stream)
{
    if (!a->tokens || !a->width)
        return TV_OK;
    gate_backward_kernel<<<tv_cuda_blocks(a->tokens * a->width, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("gate_backward");
}

__global__ static void rotary_kernel(tv_rotary_args a)
{
    int64_t half = a.width / 2, i = element_index();
    if (i >= a.tokens * a.heads * half)
        return;
    int64_t c = i % half, item = i / half, position = item / a.heads % a.context;
    float cosine = a.cos_table[position * half + c], sine = a.sin_table[position * half + c];
    float *x = a.x + item * a.width + c, p = x[0], q = x[half];
    if (a.inverse)
        sine = -sine;
    x[0] = fmaf(p, cosine, -(q * sine));
    x[half] = fmaf(p, sine, q * cosine);
}

extern "C" tv_status rotary_cuda(const tv_rotary_args *a, void *stream)
{
    int64_t pairs = a->tokens * a->heads * (a->width / 2);
    if (!pairs || !a->context)
        return TV_OK;
    rotary_kernel<<<tv_cuda_blocks(pairs, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("rotary");
}

__global__ static void add_kernel(tv_add_args a)
{
    int64_t i = element_index();
    if (i < a.count)
        a.y[i] = a.y[i] + a.x[i];
}

extern "C" tv_status add_cuda(const tv_add_args *a, void *stream)
{
    if (!a->count)
        return TV_OK;
    add_kernel<<<tv_cuda_blocks(a->count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("add");
}

__global__ static void fill_kernel(tv_fill_args a)
{
    int64_t i = element_index();
    if (i < a.count)
        a.y[i] = a.value;
}

extern "C" tv_status fill_cuda(const tv_fill_args *a, void *stream)
{
    if (!a->count)
        return TV_OK;
    fill_kernel<<<tv_cuda_blocks(a->count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("fill");
}

__global__ static void row_sum_kernel(tv_row_sum_args a)
{
    int64_t r = tv_warp_row();
    int lane = tv_warp_lane();
    if (r >= a.rows)
        return;
    float sum = 0.0f;
    for (int64_t c = lane; c < a.cols; c += TV_WARP)
        sum += a.x[r * a.cols + c];
    sum = tv_warp_combine(sum);
    if (lane == 0)
        a.out[r] = sum;
}

extern "C" tv_status row_sum_cuda(const tv_row_sum_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    row_sum_kernel<<<tv_cuda_blocks(a->rows, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0,
                     tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("row_sum");
}

// Loss and gradient of a row by a warp. logits and grad may be the same row: each lane reads an element before it writes it.
__device__ static void xent_row(const tv_xent_args *a, int64_t t, const float *logits, float *grad)
{
    int64_t vocab = a->vocab;
    int32_t target = a->targets[t];
    int lane = tv_warp_lane();
    float top = logits[0], wanted = logits[target], sum = 0.0f;
    for (int64_t v = lane; v < vocab; v += TV_WARP)
        top = logits[v] > top ? logits[v] : top;
    top = tv_warp_max_float(top);
    __syncwarp();
    for (int64_t v = lane; v < vocab; v += TV_WARP) {
        float e = tv_exp(logits[v] - top);
        sum += e;
        if (grad)
            grad[v] = e;
    }
    float z = tv_warp_combine(sum), inverse = 1.0f / z;
    for (int64_t v = lane; grad && v < vocab; v += TV_WARP) {
        float p = grad[v] * inverse;
        grad[v] = (v == target ? p - 1.0f : p) * a->weight;
    }
    if (lane == 0) {
        a->loss[t] = (tv_log(z) + top) - wanted;
        if ((tv_float_bits(a->loss[t]) & 0x7FFFFFFFu) >= TV_BITS_INF)
            *a->fault = 1;
    }
}

__global__ static void xent_kernel(tv_xent_args a)
{
    int64_t t = tv_warp_row();
    int lane = tv_warp_lane();
    if (t >= a.rows)
        return;
    const float *logits = a.logits + t * a.vocab;
    float *grad = a.grad ? a.grad + t * a.vocab : NULL;
    for (int64_t v = lane; v < a.vocab; v += TV_WARP)
        if ((tv_float_bits(logits[v]) & 0x7FFFFFFFu) >= TV_BITS_INF)
            *a.fault = 1;
    __syncwarp();
    if (a.targets[t] >= 0) {
        xent_row(&a, t, logits, grad);
        return;
    }
    if (lane == 0)
        a.loss[t] = 0.0f;
    for (int64_t v = lane; grad && v < a.vocab; v += TV_WARP)
        grad[v] = 0.0f;
}

extern "C" tv_status xent_cuda(const tv_xent_args *a, void *stream)
{
    if (!a->rows || !a->vocab)
        return TV_OK;
    xent_kernel<<<tv_cuda_blocks(a->rows, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0, tv_cuda_stream(stream)>>>(
        *a);
    TV_CUDA_LAUNCHED("xent");
}
