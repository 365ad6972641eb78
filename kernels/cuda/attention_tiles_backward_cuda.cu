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
    int64_t qi = tv_tile_item(v, i);
    return {a.q_scale[qi] * v.inv_sqrt, a.top[qi], 1.0f / a.norm[qi], a.g_scale[qi]};
}

__device__ static inline pair_weights weigh(const query_values &q, float k_scale, float v_scale, int32_t score_dot,
                                            int32_t dp_dot)
{
    float score = (float)score_dot * (q.c * k_scale);
    return {tv_exp(score - q.top) * q.inverse, (float)dp_dot * (q.g_scale * v_scale)};
}

__global__ static void __launch_bounds__(TV_TILE_THREADS) delta_kernel(tv_attention_backward_args a)
{
    tv_tile_view v = tv_tile_view_of(a.tokens, a.heads, a.context, true);
    int end = tv_tile_end(v, v.row, TV_TILE_ROWS);
    tv_tile_side q = tv_tile_side_of(v, a.q), g = tv_tile_side_of(v, a.g);
    query_values at[2] = {query_at(a, v, v.row + tv_tile_g()), query_at(a, v, v.row + tv_tile_g() + 8)};
    float sums[2][TV_TILE_GROUPS][2] = {{{0}}};
    for (int j0 = 0; j0 < end; j0 += TV_TILE_STEP) {
#pragma unroll
        for (int n = 0; n < TV_TILE_GROUPS; n++) {
            int32_t scores[4], dps[4];
            tv_tile_dots(v, q, a.k, j0 + 8 * n, scores);
            tv_tile_dots(v, g, a.v, j0 + 8 * n, dps);
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int j = j0 + 8 * n + 2 * tv_tile_t() + e;
                float k_scale = a.k_scale[tv_tile_item(v, j)], v_scale = a.v_scale[tv_tile_item(v, j)];
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    pair_weights w = weigh(at[h], k_scale, v_scale, scores[2 * h + e], dps[2 * h + e]);
                    float sum = fmaf(w.p, w.dp, sums[h][n][e]);
                    sums[h][n][e] = j <= v.row + tv_tile_g() + 8 * h ? sum : sums[h][n][e];
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

// The weights ds s_k[j] of a step. scales: s_k and s_v of the step's keys.
__device__ static inline void weigh_keys(const tv_attention_backward_args &a, const tv_tile_view &v,
                                         const tv_tile_side side[2], int j0, const query_values at[2],
                                         const float delta[2], const float scales[2][TV_TILE_STEP],
                                         tv_tile_weights weights)
{
#pragma unroll
    for (int n = 0; n < TV_TILE_GROUPS; n++) {
        int32_t scores[4], dps[4];
        tv_tile_dots(v, side[0], a.k, j0 + 8 * n, scores);
        tv_tile_dots(v, side[1], a.v, j0 + 8 * n, dps);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int column = 8 * n + 2 * tv_tile_t() + e;
#pragma unroll
            for (int h = 0; h < 2; h++) {
                pair_weights w = weigh(at[h], scales[0][column], scales[1][column], scores[2 * h + e], dps[2 * h + e]);
                float to_q = (w.p * (w.dp - delta[h])) * scales[0][column];
                bool seen = j0 + column <= v.row + tv_tile_g() + 8 * h;
                weights[column][tv_tile_g() + 8 * h] = seen ? to_q : 0.0f;
            }
        }
    }
}

__global__ static void __launch_bounds__(TV_TILE_THREADS, 4) dq_kernel(tv_attention_backward_args a)
{
    __shared__ __align__(16) tv_tile_weights weights[TV_TILE_WARPS];
    __shared__ tv_tile_floats keys;
    __shared__ float scales[2][TV_TILE_STEP];
    tv_tile_view v = tv_tile_view_of(a.tokens, a.heads, a.context, true);
    int warp = threadIdx.x / TV_WARP, end = tv_tile_end(v, v.tile, TV_TILE_BLOCK);
    tv_tile_side side[2] = {tv_tile_side_of(v, a.q), tv_tile_side_of(v, a.g)};
    query_values at[2];
    float delta[2], acc[8][4] = {{0}}, factor[8];
    for (int h = 0; h < 2; h++) {
        int i = v.row + tv_tile_g() + 8 * h;
        at[h] = query_at(a, v, i);
        delta[h] = i < v.context ? a.dq[tv_tile_item(v, i) * TV_TILE_WIDTH] : 0.0f;
    }
    for (int j0 = 0; j0 < end; j0 += TV_TILE_STEP) {
        __syncthreads();
        tv_tile_load(v, a.k, j0, keys);
        if (threadIdx.x < 2 * TV_TILE_STEP) {
            int j = threadIdx.x % TV_TILE_STEP;
            const float *from = threadIdx.x < TV_TILE_STEP ? a.k_scale : a.v_scale;
            scales[threadIdx.x / TV_TILE_STEP][j] = from[tv_tile_item(v, j0 + j)];
        }
        __syncthreads();
        if (j0 >= tv_tile_end(v, v.row, TV_TILE_ROWS))
            continue;
        weigh_keys(a, v, side, j0, at, delta, scales, weights[warp]);
        __syncwarp();
        tv_tile_chain(weights[warp], keys, acc);
        __syncwarp();
    }
#pragma unroll
    for (int m = 0; m < 8; m++)
        factor[m] = v.inv_sqrt;
    __syncwarp();
    tv_tile_store(v, acc, factor, a.dq);
}

// What a step of dk and dv takes from its queries.
typedef struct query_step {
    query_values at[TV_TILE_STEP];
    float delta[TV_TILE_STEP];
} query_step;

// to_k = ds c and to_v = p s_g of a step of queries. side: k and v of the warp's keys; scales: their s_k and s_v.
__device__ static inline void weigh_queries(const tv_attention_backward_args &a, const tv_tile_view &v,
                                            const tv_tile_side side[2], int i0, const float scales[2][2],
                                            const query_step &step, tv_tile_weights to_k, tv_tile_weights to_v)
{
#pragma unroll
    for (int n = 0; n < TV_TILE_GROUPS; n++) {
        int32_t scores[4], dps[4];
        tv_tile_dots(v, side[0], a.q, i0 + 8 * n, scores);
        tv_tile_dots(v, side[1], a.g, i0 + 8 * n, dps);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int column = 8 * n + 2 * tv_tile_t() + e, i = i0 + column;
            query_values at = step.at[column];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int row = tv_tile_g() + 8 * h;
                pair_weights w = weigh(at, scales[0][h], scales[1][h], scores[2 * h + e], dps[2 * h + e]);
                float ds = w.p * (w.dp - step.delta[column]);
                bool seen = i >= v.row + row && i < v.context;
                to_k[column][row] = seen ? ds * at.c : 0.0f;
                to_v[column][row] = seen ? w.p * at.g_scale : 0.0f;
            }
        }
    }
}

__global__ static void __launch_bounds__(TV_TILE_THREADS, 3) dk_dv_kernel(tv_attention_backward_args a)
{
    __shared__ __align__(16) tv_tile_weights to_k[TV_TILE_WARPS], to_v[TV_TILE_WARPS];
    __shared__ tv_tile_floats queries, gradients;
    __shared__ query_step step;
    tv_tile_view v = tv_tile_view_of(a.tokens, a.heads, a.context, false);
    int warp = threadIdx.x / TV_WARP;
    tv_tile_side side[2] = {tv_tile_side_of(v, a.k), tv_tile_side_of(v, a.v)};
    float scales[2][2], dk[8][4] = {{0}}, dv[8][4] = {{0}}, factor[8];
    for (int h = 0; h < 2; h++) {
        int64_t kj = tv_tile_item(v, v.row + tv_tile_g() + 8 * h);
        scales[0][h] = a.k_scale[kj];
        scales[1][h] = a.v_scale[kj];
    }
    for (int i0 = v.tile; i0 < v.context; i0 += TV_TILE_STEP) {
        __syncthreads();
        tv_tile_load(v, a.q, i0, queries);
        tv_tile_load(v, a.g, i0, gradients);
        if (threadIdx.x < TV_TILE_STEP) {
            step.at[threadIdx.x] = query_at(a, v, i0 + threadIdx.x);
            step.delta[threadIdx.x] = a.dq[tv_tile_item(v, i0 + threadIdx.x) * TV_TILE_WIDTH];
        }
        __syncthreads();
        if (i0 + TV_TILE_STEP <= v.row || v.row >= v.context)
            continue;
        weigh_queries(a, v, side, i0, scales, step, to_k[warp], to_v[warp]);
        __syncwarp();
        tv_tile_chain(to_k[warp], queries, dk);
        tv_tile_chain(to_v[warp], gradients, dv);
        __syncwarp();
    }
#pragma unroll
    for (int m = 0; m < 8; m++)
        factor[m] = 1.0f;
    tv_tile_store(v, dk, factor, a.dk);
    tv_tile_store(v, dv, factor, a.dv);
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
