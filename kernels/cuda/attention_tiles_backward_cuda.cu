// Attention backward for heads of width 64, in three kernels: delta, then dk and dv, then dq. Until the last one stores dq, the first
// channel of a row of dq keeps its delta. Scores and dp are made anew each time; they cost less than keeping them.
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/attention_tiles.h"

// What a pair takes from its query.
typedef struct query_values {
    float c, top, inverse, g_scale;
} query_values;

// p and dp of one (query, key) pair.
typedef struct pair_weights {
    float p, dp;
} pair_weights;

__device__ static inline query_values query_at(const tv_attention_backward_args &a, const tv_tile_view &v, int i)
{
    return {tv_tile_value(v, a.q_scale, i) * v.inv_sqrt, tv_tile_value(v, a.top, i), 1.0f / tv_tile_value(v, a.norm, i),
            tv_tile_value(v, a.g_scale, i)};
}

__device__ static inline pair_weights weigh(const query_values &q, float k_scale, float v_scale, float score_dot,
                                            float dp_dot)
{
    float score = score_dot * (q.c * k_scale);
    return {tv_tile_exp(score - q.top) * q.inverse, dp_dot * (q.g_scale * v_scale)};
}

// The keys of a step: for the dots k and v, for dq's sums k. Steps take turns in two of them.
typedef struct key_step {
    tv_tile_bytes keys, values;
    tv_tile_turned turned;
    float scales[2][TV_TILE_STEP]; // s_k, s_v
} key_step;

// What a thread brings to a step of keys.
typedef struct key_share {
    tv_tile_share keys, values;
    float scale;
} key_share;

__device__ static inline key_share fetch_keys(const tv_attention_backward_args &a, const tv_tile_view &v, int j)
{
    return {tv_tile_fetch(v, a.k, j), tv_tile_fetch(v, a.v, j), tv_tile_fetch_scale(v, a.k_scale, a.v_scale, j)};
}

__device__ static inline void put_keys(const key_share &share, key_step &step)
{
    tv_tile_put_bytes(share.keys, step.keys);
    tv_tile_put_bytes(share.values, step.values);
    tv_tile_put_scale(share.scale, step.scales);
}

__global__ static void __launch_bounds__(TV_TILE_THREADS, 5) delta_kernel(tv_attention_backward_args a)
{
    __shared__ __align__(16) key_step steps[2];
    tv_tile_view v = tv_tile_view_of(a.tokens, a.heads, a.context, true);
    int end = tv_tile_end(v, v.tile, TV_TILE_BLOCK), own_end = tv_tile_end(v, v.row, TV_TILE_ROWS);
    tv_tile_side q = tv_tile_side_of(v, a.q), g = tv_tile_side_of(v, a.g);
    query_values at[2] = {query_at(a, v, v.row + tv_tile_g()), query_at(a, v, v.row + tv_tile_g() + 8)};
    float sums[2][TV_TILE_GROUPS][2] = {{{0}}};
    key_share next = fetch_keys(a, v, 0);
    for (int j0 = 0; j0 < end; j0 += TV_TILE_STEP) {
        key_step &step = steps[j0 / TV_TILE_STEP % 2];
        put_keys(next, step);
        __syncthreads();
        next = fetch_keys(a, v, j0 + TV_TILE_STEP);
        if (j0 >= own_end)
            continue;
#pragma unroll
        for (int n = 0; n < TV_TILE_GROUPS; n++) {
            float scores[4], dps[4];
            tv_tile_dots(q, step.keys, n, scores);
            tv_tile_dots(g, step.values, n, dps);
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int column = 8 * n + 2 * tv_tile_t() + e;
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    pair_weights w =
                        weigh(at[h], step.scales[0][column], step.scales[1][column], scores[2 * h + e], dps[2 * h + e]);
                    float sum = fmaf(w.p, w.dp, sums[h][n][e]);
                    sums[h][n][e] = j0 + column <= v.row + tv_tile_g() + 8 * h ? sum : sums[h][n][e];
                }
            }
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int i = v.row + tv_tile_g() + 8 * h;
        float delta = tv_tile_combine(sums[h]);
        if (tv_tile_t() == 0 && i < v.context)
            a.dq[tv_tile_item(v, i) * TV_TILE_WIDTH] = delta;
    }
}

// The weights ds s_k[j] of a step.
template <bool MASKED>
__device__ static inline void weigh_keys(const tv_tile_view &v, const tv_tile_side side[2], int j0,
                                         const query_values at[2], const float delta[2], const key_step &step,
                                         tv_tile_weights weights)
{
#pragma unroll
    for (int n = 0; n < TV_TILE_GROUPS; n++) {
        float scores[4], dps[4];
        tv_tile_dots(side[0], step.keys, n, scores);
        tv_tile_dots(side[1], step.values, n, dps);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int column = 8 * n + 2 * tv_tile_t() + e;
#pragma unroll
            for (int h = 0; h < 2; h++) {
                pair_weights w =
                    weigh(at[h], step.scales[0][column], step.scales[1][column], scores[2 * h + e], dps[2 * h + e]);
                float to_q = (w.p * (w.dp - delta[h])) * step.scales[0][column];
                bool seen = !MASKED || j0 + column <= v.row + tv_tile_g() + 8 * h;
                weights[h][n][e] = seen ? to_q : 0.0f;
            }
        }
    }
}

__global__ static void __launch_bounds__(TV_TILE_THREADS, 4) dq_kernel(tv_attention_backward_args a)
{
    __shared__ __align__(16) key_step steps[2];
    tv_tile_view v = tv_tile_view_of(a.tokens, a.heads, a.context, true);
    int end = tv_tile_end(v, v.tile, TV_TILE_BLOCK);
    tv_tile_side side[2] = {tv_tile_side_of(v, a.q), tv_tile_side_of(v, a.g)};
    query_values at[2];
    float delta[2];
    tv_tile_sums acc = {{0}};
    for (int h = 0; h < 2; h++) {
        int i = v.row + tv_tile_g() + 8 * h;
        at[h] = query_at(a, v, i);
        delta[h] = i < v.context ? a.dq[tv_tile_item(v, i) * TV_TILE_WIDTH] : 0.0f;
    }
    key_share next = fetch_keys(a, v, 0);
    for (int j0 = 0; j0 < end; j0 += TV_TILE_STEP) {
        key_step &step = steps[j0 / TV_TILE_STEP % 2];
        put_keys(next, step);
        tv_tile_put_turned(next.keys, step.turned);
        __syncthreads();
        next = fetch_keys(a, v, j0 + TV_TILE_STEP);
        if (j0 >= tv_tile_end(v, v.row, TV_TILE_ROWS))
            continue;
        tv_tile_weights weights;
        if (tv_tile_all_before(v, j0))
            weigh_keys<false>(v, side, j0, at, delta, step, weights);
        else
            weigh_keys<true>(v, side, j0, at, delta, step, weights);
        tv_tile_add(tv_tile_integers_of(weights), step.turned, acc);
    }
    __syncwarp(); // every lane has read its delta
    tv_tile_store(v, acc, v.inv_sqrt, v.inv_sqrt, a.dq);
}

// What a step of dk and dv takes from its queries.
typedef struct query_step {
    query_values at[TV_TILE_STEP];
    float delta[TV_TILE_STEP];
    tv_tile_bytes queries, gradients;
    tv_tile_turned turned_queries, turned_gradients;
} query_step;

// What a thread brings to it; the values of a query come from the first TV_TILE_STEP threads.
typedef struct query_share {
    tv_tile_share queries, gradients;
    query_values at;
    float delta;
} query_share;

__device__ static inline query_share fetch_queries(const tv_attention_backward_args &a, const tv_tile_view &v, int i)
{
    query_share share = {tv_tile_fetch(v, a.q, i), tv_tile_fetch(v, a.g, i), {0, 0, 0, 0}, 0};
    if (threadIdx.x < TV_TILE_STEP) {
        share.at = query_at(a, v, i + threadIdx.x);
        share.delta = a.dq[tv_tile_item(v, tv_tile_token(v, i + threadIdx.x)) * TV_TILE_WIDTH];
    }
    return share;
}

__device__ static inline void put_queries(const query_share &share, query_step &step)
{
    tv_tile_put_bytes(share.queries, step.queries);
    tv_tile_put_bytes(share.gradients, step.gradients);
    tv_tile_put_turned(share.queries, step.turned_queries);
    tv_tile_put_turned(share.gradients, step.turned_gradients);
    if (threadIdx.x < TV_TILE_STEP) {
        step.at[threadIdx.x] = share.at;
        step.delta[threadIdx.x] = share.delta;
    }
}

// to_k = ds c and to_v = p s_g of a step of queries, one block of their sums. side: k and v of the warp's keys; scales: their s_k and s_v.
template <bool MASKED>
__device__ static inline void weigh_queries(const tv_tile_view &v, const tv_tile_side side[2], int i0,
                                            const float scales[2][2], const query_step &step, tv_tile_weights to_k,
                                            tv_tile_weights to_v)
{
#pragma unroll
    for (int n = 0; n < TV_TILE_GROUPS; n++) {
        float scores[4], dps[4];
        tv_tile_dots(side[0], step.queries, n, scores);
        tv_tile_dots(side[1], step.gradients, n, dps);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int column = 8 * n + 2 * tv_tile_t() + e, i = i0 + column;
            query_values at = step.at[column];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int row = tv_tile_g() + 8 * h;
                pair_weights w = weigh(at, scales[0][h], scales[1][h], scores[2 * h + e], dps[2 * h + e]);
                float ds = w.p * (w.dp - step.delta[column]);
                bool seen = !MASKED || (i >= v.row + row && i < v.context);
                to_k[h][n][e] = seen ? ds * at.c : 0.0f;
                to_v[h][n][e] = seen ? w.p * at.g_scale : 0.0f;
            }
        }
    }
}

__global__ static void __launch_bounds__(TV_TILE_THREADS, 3) dk_dv_kernel(tv_attention_backward_args a)
{
    __shared__ __align__(16) query_step steps[2];
    tv_tile_view v = tv_tile_view_of(a.tokens, a.heads, a.context, false);
    tv_tile_side side[2] = {tv_tile_side_of(v, a.k), tv_tile_side_of(v, a.v)};
    float scales[2][2];
    tv_tile_sums dk = {{0}}, dv = {{0}};
    for (int h = 0; h < 2; h++) {
        int j = v.row + tv_tile_g() + 8 * h;
        scales[0][h] = tv_tile_value(v, a.k_scale, j);
        scales[1][h] = tv_tile_value(v, a.v_scale, j);
    }
    query_share next = fetch_queries(a, v, v.tile);
    for (int i0 = v.tile; i0 < v.context; i0 += TV_TILE_STEP) {
        query_step &step = steps[i0 / TV_TILE_STEP % 2];
        put_queries(next, step);
        __syncthreads();
        next = fetch_queries(a, v, i0 + TV_TILE_STEP);
        if (i0 + TV_TILE_STEP <= v.row || v.row >= v.context)
            continue;
        tv_tile_weights to_k, to_v;
        if (i0 + 1 >= v.row + TV_TILE_ROWS && i0 + TV_TILE_STEP <= v.context)
            weigh_queries<false>(v, side, i0, scales, step, to_k, to_v);
        else
            weigh_queries<true>(v, side, i0, scales, step, to_k, to_v);
        tv_tile_add(tv_tile_integers_of(to_v), step.turned_gradients, dv);
        tv_tile_add(tv_tile_integers_of(to_k), step.turned_queries, dk);
    }
    tv_tile_store(v, dk, 1.0f, 1.0f, a.dk);
    tv_tile_store(v, dv, 1.0f, 1.0f, a.dv);
}

extern "C" int attention_backward_tiles_fits(const tv_attention_backward_args *a)
{
    uintptr_t bits = (uintptr_t)a->q | (uintptr_t)a->k | (uintptr_t)a->v | (uintptr_t)a->g | (uintptr_t)a->dq |
                     (uintptr_t)a->dk | (uintptr_t)a->dv;
    return a->width == TV_TILE_WIDTH && (bits & 15) == 0;
}

extern "C" tv_status attention_backward_tiles(const tv_attention_backward_args *a, void *stream)
{
    unsigned blocks = tv_tile_grid(a->tokens, a->heads, a->context);
    cudaStream_t on = tv_cuda_stream(stream);
    delta_kernel<<<blocks, TV_TILE_THREADS, 0, on>>>(*a);
    dk_dv_kernel<<<blocks, TV_TILE_THREADS, 0, on>>>(*a);
    dq_kernel<<<blocks, TV_TILE_THREADS, 0, on>>>(*a);
    TV_CUDA_LAUNCHED("attention_backward_tiles");
}
