// RMS norm, forward and backward, alone and with the quantisation of its result. Rows of whole 32 elements: a group of 8 lanes a row,
// which stays in registers up to 512 elements. Others: a warp a row; the row sum is the warp's 32 lanes.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/norm_vector.cuh"

#define KEEP_SPAN (16 * TV_GROUP_SPAN) // longest row in registers

// norm, norm_quantize or norm_digits: y, or q and scale, or also digits with a scale of their own.
typedef struct norm_job {
    tv_norm_args in;
    int8_t *q;
    float *scale;
    int8_t *digits; // or NULL
    float *digits_scale, qmax;
} norm_job;

__device__ static inline float digits_inverse(const norm_job &a, float absmax)
{
    return absmax == 0.0f ? 0.0f : a.qmax / absmax;
}

__device__ static inline float norm_value(const norm_job &a, const float *x, int64_t c, float r, float unit)
{
    return (x[c] * r) * ((float)a.in.w8[c] * unit);
}

__device__ static void quantize_result(const norm_job &a, int64_t t, float r, float unit)
{
    const float *x = a.in.x + t * a.in.cols;
    int lane = tv_warp_lane();
    uint32_t top = 0;
    for (int64_t c = lane; c < a.in.cols; c += TV_WARP)
        top = max(top, tv_magnitude(norm_value(a, x, c, r, unit)));
    float absmax = tv_usable_absmax(tv_warp_max(top), lane == 0, a.in.fault), inverse = tv_inverse127(absmax);
    float other = digits_inverse(a, absmax);
    for (int64_t c = lane; c < a.in.cols; c += TV_WARP) {
        float y = norm_value(a, x, c, r, unit);
        a.q[t * a.in.cols + c] = absmax == 0.0f ? 0 : (int8_t)tv_rounded(y * inverse);
        if (a.digits)
            a.digits[t * a.in.cols + c] = absmax == 0.0f ? 0 : (int8_t)tv_rounded(y * other);
    }
    if (lane == 0)
        a.scale[t] = absmax / 127.0f;
    if (lane == 0 && a.digits)
        a.digits_scale[t] = absmax / a.qmax;
}

__global__ static void norm_kernel(norm_job job)
{
    const tv_norm_args &a = job.in;
    int64_t t = tv_warp_row();
    int lane = tv_warp_lane();
    if (t >= a.rows)
        return;
    const float *x = a.x + t * a.cols;
    uint32_t top = 0;
    float sum = 0.0f, unit = tv_exp2i(a.exponent);
    for (int64_t c = lane; c < a.cols; c += TV_WARP) {
        top = max(top, tv_magnitude(x[c]));
        sum = fmaf(x[c], x[c], sum);
    }
    float absmax = tv_usable_absmax(tv_warp_max(top), lane == 0, a.fault);
    float r = 1.0f / sqrtf(tv_warp_combine(sum) / (float)a.cols + 1e-5f), inverse = tv_inverse127(absmax);
    for (int64_t c = lane; c < a.cols; c += TV_WARP) {
        if (a.y)
            a.y[t * a.cols + c] = norm_value(job, x, c, r, unit);
        if (a.saved_q)
            a.saved_q[t * a.cols + c] = absmax == 0.0f ? 0 : (int8_t)tv_rounded(x[c] * inverse);
    }
    if (a.saved_q && lane == 0) {
        a.saved_scale[t] = absmax / 127.0f;
        a.saved_rstd[t] = r;
    }
    if (job.q)
        quantize_result(job, t, r, unit);
}

// KEEP 0: the row is read again where it is needed.
template <int KEEP> __global__ __launch_bounds__(TV_NORM_THREADS) static void norm_groups_kernel(norm_job job)
{
    const tv_norm_args &a = job.in;
    int64_t row = tv_group_row(), t = row < a.rows ? row : 0;
    bool first = row < a.rows && tv_group_lane() == 0;
    int lane = tv_group_lane(), count = row < a.rows ? (int)(a.cols / TV_GROUP_SPAN) : 0, steps = KEEP ? KEEP : count;
    float4 v[KEEP ? KEEP : 1] = {}, sum = tv_quad_zero();
    uint32_t top = 0, y_top = 0;
    float unit = tv_exp2i(a.exponent);
    auto place = [&](int k) { return t * (a.cols / TV_QUAD) + lane + k * TV_GROUP; };
    auto value = [&](int k) {
        if constexpr (KEEP > 0)
            return v[k];
        else
            return tv_quad(a.x, place(k));
    };
    auto weights = [&](int k) { return tv_norm_weights(a.w8, lane + k * TV_GROUP, unit); };
#pragma unroll
    for (int k = 0; k < KEEP; k++)
        v[k] = k < count ? tv_quad(a.x, place(k)) : tv_quad_zero();
#pragma unroll
    for (int k = 0; k < steps; k++)
        if (k < count) {
            top = max(top, tv_magnitude4(value(k)));
            tv_fma4(sum, value(k), value(k));
        }
    float absmax = tv_usable_absmax(tv_lanes_max<TV_GROUP>(top), first, a.fault);
    float r = tv_rstd(sum, a.cols), inverse = tv_inverse127(absmax);
    if (first && a.saved_q) {
        a.saved_scale[t] = absmax / 127.0f;
        a.saved_rstd[t] = r;
    }
#pragma unroll
    for (int k = 0; k < steps; k++)
        if (k < count) {
            float4 x = value(k), y = tv_mul4(tv_scale4(x, r), weights(k));
            if (a.saved_q)
                ((uint32_t *)a.saved_q)[place(k)] = tv_quantize4(x, inverse);
            if (a.y)
                ((float4 *)a.y)[place(k)] = y;
            y_top = max(y_top, tv_magnitude4(y));
        }
    if (!job.q)
        return;
    absmax = tv_usable_absmax(tv_lanes_max<TV_GROUP>(y_top), first, a.fault);
    inverse = tv_inverse127(absmax);
    float other = digits_inverse(job, absmax);
    if (first)
        job.scale[t] = absmax / 127.0f;
    if (first && job.digits)
        job.digits_scale[t] = absmax / job.qmax;
#pragma unroll
    for (int k = 0; k < steps; k++)
        if (k < count) {
            float4 y = tv_mul4(tv_scale4(value(k), r), weights(k));
            ((uint32_t *)job.q)[place(k)] = tv_quantize4(y, inverse);
            if (job.digits)
                ((uint32_t *)job.digits)[place(k)] = tv_quantize4(y, other);
        }
}

static void norm_start(const norm_job &job, cudaStream_t s)
{
    const tv_norm_args &a = job.in;
    unsigned blocks = tv_group_blocks(a.rows);
    if (a.cols % TV_GROUP_SPAN != 0 || !tv_cuda_aligned({a.x, a.w8, a.y, a.saved_q, job.q, job.digits}))
        norm_kernel<<<tv_cuda_blocks(a.rows, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0, s>>>(job);
    else if (a.cols > KEEP_SPAN)
        norm_groups_kernel<0><<<blocks, TV_NORM_THREADS, 0, s>>>(job);
    else if (a.cols > KEEP_SPAN / 2)
        norm_groups_kernel<16><<<blocks, TV_NORM_THREADS, 0, s>>>(job);
    else if (a.cols > KEEP_SPAN / 8)
        norm_groups_kernel<8><<<blocks, TV_NORM_THREADS, 0, s>>>(job);
    else
        norm_groups_kernel<2><<<blocks, TV_NORM_THREADS, 0, s>>>(job);
}

extern "C" tv_status norm_cuda(const tv_norm_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    norm_start(norm_job{*a, NULL, NULL, NULL, NULL, 0.0f}, tv_cuda_stream(stream));
    TV_CUDA_LAUNCHED("norm");
}

extern "C" tv_status norm_quantize_cuda(const tv_norm_quantize_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    norm_job job = {
        {a->rows, a->cols, a->x, a->w8, a->exponent, NULL, a->saved_q, a->saved_scale, a->saved_rstd, a->fault},
        a->q,
        a->scale,
        NULL,
        NULL,
        0.0f};
    norm_start(job, tv_cuda_stream(stream));
    TV_CUDA_LAUNCHED("norm_quantize");
}

extern "C" tv_status norm_digits_cuda(const tv_norm_digits_args *a, void *stream)
{
    if (!a->norm.rows || !a->norm.cols)
        return TV_OK;
    norm_job job = {a->norm, a->input.q, a->input.scale, a->digits.q, a->digits.scale, (float)a->digits.qmax};
    job.in.y = NULL;
    norm_start(job, tv_cuda_stream(stream));
    TV_CUDA_LAUNCHED("norm_digits");
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

// dx may be dy: a lane reads its quads before it writes them.
template <int KEEP>
__global__ __launch_bounds__(TV_NORM_THREADS) static void norm_backward_groups_kernel(tv_norm_backward_args a)
{
    int64_t row = tv_group_row(), t = row < a.rows ? row : 0;
    int lane = tv_group_lane(), count = row < a.rows ? (int)(a.cols / TV_GROUP_SPAN) : 0, steps = KEEP ? KEEP : count;
    float r = a.saved_rstd[t], scale = a.saved_scale[t] * r, unit = tv_exp2i(a.exponent);
    float4 v[KEEP ? KEEP : 1] = {}, sum = tv_quad_zero(), *dx = (float4 *)a.dx;
    uint32_t word[KEEP ? KEEP : 1] = {};
    auto place = [&](int k) { return t * (a.cols / TV_QUAD) + lane + k * TV_GROUP; };
    auto dy = [&](int k) {
        if constexpr (KEEP > 0)
            return v[k];
        else
            return tv_quad(a.dy, place(k));
    };
    auto u = [&](int k) { return tv_mul4(dy(k), tv_norm_weights(a.w8, lane + k * TV_GROUP, unit)); };
    auto h = [&](int k) {
        if constexpr (KEEP > 0)
            return tv_norm_h(word[k], scale);
        else
            return tv_norm_h(tv_word(a.saved_q, place(k)), scale);
    };
#pragma unroll
    for (int k = 0; k < KEEP; k++) {
        v[k] = k < count ? tv_quad(a.dy, place(k)) : tv_quad_zero();
        word[k] = k < count ? tv_word(a.saved_q, place(k)) : 0;
    }
#pragma unroll
    for (int k = 0; k < steps; k++)
        if (k < count)
            tv_fma4(sum, u(k), h(k));
    float mean = tv_group_combine(sum) / (float)a.cols;
#pragma unroll
    for (int k = 0; k < steps; k++)
        if (k < count) {
            float4 g = tv_norm_gradient4(r, mean, h(k), u(k));
            dx[place(k)] = a.accumulate ? tv_sum4(g, dx[place(k)]) : g;
        }
}

extern "C" tv_status norm_backward_cuda(const tv_norm_backward_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    cudaStream_t s = tv_cuda_stream(stream);
    unsigned blocks = tv_group_blocks(a->rows);
    if (a->cols % TV_GROUP_SPAN != 0 || !tv_cuda_aligned({a->dy, a->w8, a->saved_q, a->dx}))
        norm_backward_kernel<<<tv_cuda_blocks(a->rows, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0, s>>>(*a);
    else if (a->cols > KEEP_SPAN)
        norm_backward_groups_kernel<0><<<blocks, TV_NORM_THREADS, 0, s>>>(*a);
    else if (a->cols > KEEP_SPAN / 2)
        norm_backward_groups_kernel<16><<<blocks, TV_NORM_THREADS, 0, s>>>(*a);
    else if (a->cols > KEEP_SPAN / 8)
        norm_backward_groups_kernel<8><<<blocks, TV_NORM_THREADS, 0, s>>>(*a);
    else
        norm_backward_groups_kernel<2><<<blocks, TV_NORM_THREADS, 0, s>>>(*a);
    TV_CUDA_LAUNCHED("norm_backward");
}
