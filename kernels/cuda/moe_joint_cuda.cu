// What lies between tokens and their experts' rows, with the rounding on either side in the same launch: the gated sum, its gradient's way
// to the rows, and the rows' way back through the norm. A token is a warp's, or on the way back a group's of 8 lanes.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/norm_vector.cuh"

#define FEW_TOKENS 1024 // up to so many a block has one warp, so that the warps spread
#define WARPS 4

__device__ static inline int64_t token_of_warp(void)
{
    return (int64_t)blockIdx.x * (blockDim.x / TV_WARP) + threadIdx.x / TV_WARP;
}

static unsigned block_warps(int64_t tokens) { return tokens <= FEW_TOKENS ? 1 : WARPS; }

__device__ static inline float inverse_of(float absmax, float qmax) { return absmax == 0.0f ? 0.0f : qmax / absmax; }

// ---- the gated sum -----------------------------------------------------------------------------------------------------------

// Quad i of a token's sum.
__device__ static inline float4 sum_at(const tv_moe_combine_args &a, int64_t t, int64_t quads, int64_t i)
{
    float4 sum = tv_quad_zero();
    for (int j = 0; j < a.slots; j++) {
        int64_t r = a.place[t * a.slots + j];
        float w = a.gate ? a.gate[t * a.slots + j] * a.scale[r] : a.scale[r];
        float4 v = tv_word_floats(tv_word(a.q, r * quads + i));
        sum = make_float4(fmaf(w, v.x, sum.x), fmaf(w, v.y, sum.y), fmaf(w, v.z, sum.z), fmaf(w, v.w, sum.w));
    }
    return sum;
}

// The sum is worked out twice, for the maximum and for the rounding.
__global__ __launch_bounds__(WARPS *TV_WARP) static void sum_kernel(tv_moe_sum_args a)
{
    int64_t t = token_of_warp(), quads = a.combine.cols / TV_QUAD;
    int lane = tv_warp_lane();
    uint32_t top = 0;
    if (t >= a.combine.tokens)
        return;
#pragma unroll 4
    for (int64_t i = lane; i < quads; i += TV_WARP)
        top = max(top, tv_magnitude4(sum_at(a.combine, t, quads, i)));
    float qmax = (float)a.rows.qmax, absmax = tv_usable_absmax(tv_lanes_max<TV_WARP>(top), lane == 0, a.rows.fault);
    float inverse = inverse_of(absmax, qmax);
    if (lane == 0)
        a.rows.scale[t] = absmax / qmax;
#pragma unroll 4
    for (int64_t i = lane; i < quads; i += TV_WARP)
        ((uint32_t *)a.rows.q)[t * quads + i] = tv_quantize4(sum_at(a.combine, t, quads, i), inverse);
}

extern "C" tv_status moe_sum_cuda(const tv_moe_sum_args *a, void *stream)
{
    const tv_moe_combine_args *c = &a->combine;
    if (!c->tokens || !c->cols || c->accumulate || c->cols % TV_QUAD != 0 || !tv_cuda_aligned({c->q, a->rows.q})) {
        TV_TRY(moe_combine_cuda(c, stream));
        return quantize_rows_cuda(&a->rows, stream);
    }
    unsigned warps = block_warps(c->tokens);
    sum_kernel<<<tv_cuda_blocks(c->tokens, warps), warps * TV_WARP, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("moe_sum");
}

// ---- its gradient to gates and rows --------------------------------------------------------------------------------------------

// combine_backward's sums: a group of 8 lanes a slot. Each group reads the whole gradient, so every lane gets its largest magnitude.
__device__ static uint32_t gate_gradients(const tv_moe_combine_backward_args &a, int64_t t, int64_t quads)
{
    uint32_t top = 0;
    for (int j0 = 0; j0 < a.slots; j0 += TV_WARP / TV_GROUP) {
        int j = j0 + tv_warp_lane() / TV_GROUP;
        int64_t r = a.place[t * a.slots + (j < a.slots ? j : 0)];
        float scale = a.scale[r];
        float4 sum = tv_quad_zero();
#pragma unroll 4
        for (int64_t i = tv_group_lane(); i < quads; i += TV_GROUP) {
            float4 dy = tv_quad(a.dy, t * quads + i);
            tv_fma4(sum, dy, tv_scale4(tv_word_floats(tv_word(a.q, r * quads + i)), scale));
            top = max(top, tv_magnitude4(dy));
        }
        float all = tv_group_combine(sum);
        if (j < a.slots && tv_group_lane() == 0)
            a.grad[t * a.slots + j] = all;
    }
    __syncwarp(); // all lanes read the gradients
    return tv_lanes_max<TV_GROUP>(top);
}

// route_backward of the token.
__device__ static void logit_gradients(const tv_moe_route_backward_args &a, int64_t t)
{
    const float *gate = a.gate + t * a.slots, *grad = a.grad + t * a.slots;
    float *out = a.logits + t * a.experts, mean = 0.0f;
    for (int j = 0; j < a.slots; j++)
        mean = fmaf(gate[j], grad[j], mean);
    for (int64_t e = tv_warp_lane(); e < a.experts; e += TV_WARP)
        out[e] = 0.0f;
    __syncwarp();
    for (int j = tv_warp_lane(); j < a.slots; j += TV_WARP)
        out[a.expert[t * a.slots + j]] = gate[j] * (grad[j] - mean);
}

// The token's rows are its slots' places, or of a dense plan row e M + t of every expert e.
__device__ static inline int64_t row_of(const tv_moe_split_args &a, int64_t t, int n, bool dense)
{
    return dense ? n * a.combine.tokens + t : a.combine.place[t * a.combine.slots + n];
}

__global__ __launch_bounds__(WARPS *TV_WARP) static void split_kernel(tv_moe_split_args a, int rows, bool dense)
{
    int64_t t = token_of_warp(), quads = a.combine.cols / TV_QUAD;
    int lane = tv_warp_lane();
    if (t >= a.combine.tokens)
        return;
    uint32_t top = gate_gradients(a.combine, t, quads);
    logit_gradients(a.route, t);
    float qmax = (float)a.digits.qmax, absmax = tv_usable_absmax(top, lane == 0, a.digits.fault);
    float inverse = inverse_of(absmax, qmax), scale = absmax / qmax;
    for (int n = lane; n < rows; n += TV_WARP) {
        int64_t r = row_of(a, t, n, dense);
        int item = a.gather.item[r];
        a.gather.out_scale[r] = item < 0 ? 0.0f : scale * a.gather.factor[item];
    }
#pragma unroll 2
    for (int64_t i = lane; i < quads; i += TV_WARP) {
        uint32_t word = tv_quantize4(tv_quad(a.digits.x, t * quads + i), inverse);
        for (int n = 0; n < rows; n++) {
            int64_t r = row_of(a, t, n, dense);
            ((uint32_t *)a.gather.out_q)[r * quads + i] = a.gather.item[r] < 0 ? 0u : word;
        }
    }
}

extern "C" tv_status moe_split_cuda(const tv_moe_split_args *a, void *stream)
{
    const tv_moe_combine_backward_args *c = &a->combine;
    const tv_rows_gather_args *g = &a->gather;
    bool dense = g->rows != c->tokens * c->slots;
    if (!c->tokens || !c->cols || !c->slots || c->cols % TV_QUAD != 0 || !g->factor || a->route.grad != c->grad ||
        a->digits.x != c->dy || g->rows % c->tokens != 0 || !tv_cuda_aligned({c->q, c->dy, g->out_q})) {
        TV_TRY(moe_combine_backward_cuda(c, stream));
        TV_TRY(moe_route_backward_cuda(&a->route, stream));
        TV_TRY(quantize_rows_cuda(&a->digits, stream));
        return rows_gather_cuda(g, stream);
    }
    unsigned warps = block_warps(c->tokens);
    split_kernel<<<tv_cuda_blocks(c->tokens, warps), warps * TV_WARP, 0, tv_cuda_stream(stream)>>>(
        *a, (int)(g->rows / c->tokens), dense);
    TV_CUDA_LAUNCHED("moe_split");
}

// ---- rows back to their tokens -------------------------------------------------------------------------------------------------

#define GROUPS (TV_NORM_THREADS / TV_GROUP)

// What is needed to round a slot's row.
struct slot {
    int64_t row;
    float inverse, scale;
};

// For few tokens: rows are read twice, where the ops of many keep them in registers. The norm's backward is norm_cuda.cu's, with the sum just written by the lane that reads it.
__global__ __launch_bounds__(TV_NORM_THREADS) static void join_kernel(tv_moe_join_args a)
{
    __shared__ slot slots[GROUPS][TV_MOE_SLOTS_MAX];
    const tv_moe_combine_args &c = a.combine;
    const tv_norm_backward_args &norm = a.norm;
    int64_t group = tv_group_row(), t = group < c.tokens ? group : 0, quads = c.cols / TV_QUAD;
    bool active = group < c.tokens;
    int lane = tv_group_lane(), count = active ? (int)(quads / TV_GROUP) : 0;
    slot *own = slots[threadIdx.x / TV_GROUP];
    float qmax = (float)a.digits.qmax;
    for (int j = 0; j < c.slots; j++) {
        int64_t r = c.place[t * c.slots + j];
        uint32_t top = 0;
#pragma unroll 16
        for (int k = 0; k < count; k++)
            top = max(top, tv_magnitude4(tv_quad(a.digits.x, r * quads + lane + k * TV_GROUP)));
        float absmax = tv_usable_absmax(tv_lanes_max<TV_GROUP>(top), active && lane == 0, a.digits.fault);
        if (lane == 0)
            own[j] = {r, inverse_of(absmax, qmax), absmax / qmax};
    }
    __syncwarp();
    float r = norm.saved_rstd[t], scale = norm.saved_scale[t] * r, unit = tv_exp2i(norm.exponent);
    float4 sum = tv_quad_zero(), *y = (float4 *)c.y + t * quads, *dx = (float4 *)norm.dx + t * quads;
    auto h = [&](int64_t i) { return tv_norm_h(tv_word(norm.saved_q, t * quads + i), scale); };
#pragma unroll 4
    for (int k = 0; k < count; k++) {
        int64_t i = lane + k * TV_GROUP;
        float4 back = tv_quad_zero();
        for (int j = 0; j < c.slots; j++) {
            float4 v = tv_word_floats(tv_quantize4(tv_quad(a.digits.x, own[j].row * quads + i), own[j].inverse));
            float w = own[j].scale;
            back = make_float4(fmaf(w, v.x, back.x), fmaf(w, v.y, back.y), fmaf(w, v.z, back.z), fmaf(w, v.w, back.w));
        }
        float4 all = tv_sum4(y[i], back);
        y[i] = all;
        tv_fma4(sum, tv_mul4(all, tv_norm_weights(norm.w8, i, unit)), h(i));
    }
    float mean = tv_group_combine(sum) / (float)c.cols;
#pragma unroll 8
    for (int k = 0; k < count; k++) {
        int64_t i = lane + k * TV_GROUP;
        float4 g = tv_norm_gradient4(r, mean, h(i), tv_mul4(y[i], tv_norm_weights(norm.w8, i, unit)));
        dx[i] = norm.accumulate ? tv_sum4(g, dx[i]) : g;
    }
}

extern "C" tv_status moe_join_cuda(const tv_moe_join_args *a, void *stream)
{
    const tv_moe_combine_args *c = &a->combine;
    const tv_norm_backward_args *n = &a->norm;
    if (!c->tokens || !c->cols || c->tokens > FEW_TOKENS || c->cols % TV_GROUP_SPAN != 0 ||
        c->slots > TV_MOE_SLOTS_MAX || c->gate || !c->accumulate || n->dy != c->y || n->rows != c->tokens ||
        c->q != a->digits.q || !tv_cuda_aligned({a->digits.x, c->y, n->w8, n->saved_q, n->dx})) {
        TV_TRY(quantize_rows_cuda(&a->digits, stream));
        TV_TRY(moe_combine_cuda(c, stream));
        return norm_backward_cuda(n, stream);
    }
    join_kernel<<<tv_group_blocks(c->tokens), TV_NORM_THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("moe_join");
}
