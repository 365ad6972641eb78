// Queries and keys: norm a head, rotary positions and int8 in one pass, and the way back.
//
// Heads of 64, 128 and 256: a group of 8 lanes a head, which stays in registers. Lane i's k-th float4 is the head's quad i + 8 k, so both
// elements of a rotary pair are in one lane. Other widths: a warp a head forward, the ops one after the other backward.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/norm_vector.cuh"

// Place of a head's positions in the tables, in quads.
__device__ static inline uint32_t table_quad(uint32_t row, int64_t heads, int64_t context, int half)
{
    return row / (uint32_t)heads % (uint32_t)context * (uint32_t)half;
}

// (a, b) = (fma(a, cos, -(b sin)), fma(a, sin, b cos))
__device__ static inline void rotate(float &a, float &b, float cosine, float sine)
{
    float x = a, y = b;
    a = fmaf(x, cosine, -(y * sine));
    b = fmaf(x, sine, y * cosine);
}

// All pairs of a lane; half: quads of half a head.
template <int KEEP>
__device__ static inline void rotate_row(float4 *v, const float *cos_table, const float *sin_table, uint32_t at,
                                         bool inverse)
{
#pragma unroll
    for (int k = 0; k < KEEP / 2; k++) {
        float4 cosine = tv_quad(cos_table, at + k * TV_GROUP), sine = tv_quad(sin_table, at + k * TV_GROUP);
        float4 &a = v[k], &b = v[k + KEEP / 2];
        if (inverse)
            sine = make_float4(-sine.x, -sine.y, -sine.z, -sine.w);
        rotate(a.x, b.x, cosine.x, sine.x);
        rotate(a.y, b.y, cosine.y, sine.y);
        rotate(a.z, b.z, cosine.z, sine.z);
        rotate(a.w, b.w, cosine.w, sine.w);
    }
}

template <int KEEP> __global__ __launch_bounds__(TV_NORM_THREADS) static void heads_groups_kernel(tv_heads_args a)
{
    int64_t row = tv_group_row();
    bool active = row < a.tokens * a.heads;
    int64_t from = (active ? row : 0) * KEEP * TV_GROUP + tv_group_lane();
    float4 v[KEEP], sum = tv_quad_zero();
    uint32_t top = 0;
    float unit = tv_exp2i(a.exponent);
#pragma unroll
    for (int k = 0; k < KEEP; k++)
        v[k] = active ? tv_quad(a.x, from + k * TV_GROUP) : tv_quad_zero();
#pragma unroll
    for (int k = 0; k < KEEP; k++) {
        top = max(top, tv_magnitude4(v[k]));
        tv_fma4(sum, v[k], v[k]);
    }
    bool first = active && tv_group_lane() == 0;
    float absmax = tv_usable_absmax(tv_lanes_max<TV_GROUP>(top), first, a.fault);
    float r = tv_rstd(sum, a.width), inverse = tv_inverse127(absmax);
    if (first && a.saved_q) {
        a.saved_scale[row] = absmax / 127.0f;
        a.saved_rstd[row] = r;
    }
#pragma unroll
    for (int k = 0; k < KEEP; k++) {
        if (active && a.saved_q)
            ((uint32_t *)a.saved_q)[from + k * TV_GROUP] = tv_quantize4(v[k], inverse);
        v[k] = tv_mul4(tv_scale4(v[k], r), tv_norm_weights(a.w8, tv_group_lane() + k * TV_GROUP, unit));
    }
    uint32_t at = table_quad((uint32_t)(active ? row : 0), a.heads, a.context, KEEP / 2 * TV_GROUP) + tv_group_lane();
    rotate_row<KEEP>(v, a.cos_table, a.sin_table, at, false);
    top = 0;
#pragma unroll
    for (int k = 0; k < KEEP; k++)
        top = max(top, tv_magnitude4(v[k]));
    absmax = tv_usable_absmax(tv_lanes_max<TV_GROUP>(top), first, a.fault);
    inverse = tv_inverse127(absmax);
    if (first)
        a.scale[row] = absmax / 127.0f;
#pragma unroll
    for (int k = 0; k < KEEP; k++)
        if (active)
            ((uint32_t *)a.q)[from + k * TV_GROUP] = tv_quantize4(v[k], inverse);
}

// Element c of a head after norm and positions; the last element of an odd head has no partner and stays.
__device__ static float turned_value(const tv_heads_args &a, const float *x, int64_t table, float r, int64_t c)
{
    int64_t half = a.width / 2, low = c < half ? c : c - half;
    float unit = tv_exp2i(a.exponent);
    if (c >= 2 * half)
        return (x[c] * r) * ((float)a.w8[c] * unit);
    float p = (x[low] * r) * ((float)a.w8[low] * unit), q = (x[low + half] * r) * ((float)a.w8[low + half] * unit);
    rotate(p, q, a.cos_table[table + low], a.sin_table[table + low]);
    return c < half ? p : q;
}

__global__ static void heads_kernel(tv_heads_args a)
{
    int64_t row = tv_warp_row(), table = row / a.heads % a.context * (a.width / 2);
    int lane = tv_warp_lane();
    if (row >= a.tokens * a.heads)
        return;
    const float *x = a.x + row * a.width;
    uint32_t top = 0, turned_top = 0;
    float sum = 0.0f;
    for (int64_t c = lane; c < a.width; c += TV_WARP) {
        top = max(top, tv_magnitude(x[c]));
        sum = fmaf(x[c], x[c], sum);
    }
    float absmax = tv_usable_absmax(tv_warp_max(top), lane == 0, a.fault);
    float r = 1.0f / sqrtf(tv_warp_combine(sum) / (float)a.width + 1e-5f), inverse = tv_inverse127(absmax);
    for (int64_t c = lane; c < a.width; c += TV_WARP) {
        if (a.saved_q)
            a.saved_q[row * a.width + c] = absmax == 0.0f ? 0 : (int8_t)tv_rounded(x[c] * inverse);
        turned_top = max(turned_top, tv_magnitude(turned_value(a, x, table, r, c)));
    }
    float turned_absmax = tv_usable_absmax(tv_warp_max(turned_top), lane == 0, a.fault);
    float turned_inverse = tv_inverse127(turned_absmax);
    for (int64_t c = lane; c < a.width; c += TV_WARP)
        a.q[row * a.width + c] =
            turned_absmax == 0.0f ? 0 : (int8_t)tv_rounded(turned_value(a, x, table, r, c) * turned_inverse);
    if (lane == 0) {
        a.scale[row] = turned_absmax / 127.0f;
        if (a.saved_q) {
            a.saved_scale[row] = absmax / 127.0f;
            a.saved_rstd[row] = r;
        }
    }
}

extern "C" tv_status heads_cuda(const tv_heads_args *a, void *stream)
{
    int64_t rows = a->tokens * a->heads;
    if (!rows || !a->width || !a->context)
        return TV_OK;
    cudaStream_t s = tv_cuda_stream(stream);
    unsigned blocks = tv_group_blocks(rows);
    bool fits = rows < INT32_MAX && tv_cuda_aligned({a->x, a->w8, a->cos_table, a->sin_table, a->saved_q, a->q});
    if (fits && a->width == 64)
        heads_groups_kernel<2><<<blocks, TV_NORM_THREADS, 0, s>>>(*a);
    else if (fits && a->width == 128)
        heads_groups_kernel<4><<<blocks, TV_NORM_THREADS, 0, s>>>(*a);
    else if (fits && a->width == 256)
        heads_groups_kernel<8><<<blocks, TV_NORM_THREADS, 0, s>>>(*a);
    else
        heads_kernel<<<tv_cuda_blocks(rows, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0, s>>>(*a);
    TV_CUDA_LAUNCHED("heads");
}

template <int KEEP>
__global__ __launch_bounds__(TV_NORM_THREADS) static void heads_backward_groups_kernel(tv_heads_backward_args a)
{
    int64_t row = tv_group_row();
    bool active = row < a.tokens * a.heads;
    int64_t t = active ? row : 0, from = t * KEEP * TV_GROUP + tv_group_lane();
    float r = a.saved_rstd[t], scale = a.saved_scale[t] * r, unit = tv_exp2i(a.exponent);
    float4 v[KEEP], sum = tv_quad_zero();
    uint32_t word[KEEP];
#pragma unroll
    for (int k = 0; k < KEEP; k++) {
        v[k] = active ? tv_quad(a.dx, from + k * TV_GROUP) : tv_quad_zero();
        word[k] = active ? tv_word(a.saved_q, from + k * TV_GROUP) : 0;
    }
    uint32_t at = table_quad((uint32_t)t, a.heads, a.context, KEEP / 2 * TV_GROUP) + tv_group_lane();
    rotate_row<KEEP>(v, a.cos_table, a.sin_table, at, true);
#pragma unroll
    for (int k = 0; k < KEEP; k++) {
        v[k] = tv_mul4(v[k], tv_norm_weights(a.w8, tv_group_lane() + k * TV_GROUP, unit));
        tv_fma4(sum, v[k], tv_norm_h(word[k], scale));
    }
    float mean = tv_group_combine(sum) / (float)a.width;
#pragma unroll
    for (int k = 0; k < KEEP; k++)
        if (active)
            ((float4 *)a.dx)[from + k * TV_GROUP] = tv_norm_gradient4(r, mean, tv_norm_h(word[k], scale), v[k]);
}

static tv_status heads_backward_in_two(const tv_heads_backward_args *a, void *stream)
{
    tv_rotary_args turn = {a->tokens, a->heads, a->width, a->context, a->cos_table, a->sin_table, 1, a->dx};
    tv_norm_backward_args norm = {a->tokens * a->heads, a->width,       a->dx,         a->w8, a->exponent, 0,
                                  a->saved_q,           a->saved_scale, a->saved_rstd, a->dx};
    TV_TRY(rotary_cuda(&turn, stream));
    return norm_backward_cuda(&norm, stream);
}

extern "C" tv_status heads_backward_cuda(const tv_heads_backward_args *a, void *stream)
{
    int64_t rows = a->tokens * a->heads;
    if (!rows || !a->width || !a->context)
        return TV_OK;
    cudaStream_t s = tv_cuda_stream(stream);
    unsigned blocks = tv_group_blocks(rows);
    if (rows >= INT32_MAX || !tv_cuda_aligned({a->w8, a->cos_table, a->sin_table, a->saved_q, a->dx}))
        return heads_backward_in_two(a, stream);
    if (a->width == 64)
        heads_backward_groups_kernel<2><<<blocks, TV_NORM_THREADS, 0, s>>>(*a);
    else if (a->width == 128)
        heads_backward_groups_kernel<4><<<blocks, TV_NORM_THREADS, 0, s>>>(*a);
    else if (a->width == 256)
        heads_backward_groups_kernel<8><<<blocks, TV_NORM_THREADS, 0, s>>>(*a);
    else
        return heads_backward_in_two(a, stream);
    TV_CUDA_LAUNCHED("heads_backward");
}
