// Attention forward for heads of width 64: one walk over the keys for the largest score, one for the weights, their sum and the output.
// Nothing of the size of the context is kept, so any context will do.
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/attention_tiles.h"

// The keys of a step and, for the second walk, their values. Steps take turns in two of them.
typedef struct key_step {
    tv_tile_bytes keys;
    tv_tile_turned values;
    float scales[2][TV_TILE_STEP]; // s_k, s_v
} key_step;

__device__ static inline float score_of(float dot, float c, float k_scale) { return dot * (c * k_scale); }

// top[h] of row g + 8 h; all warps of the block walk together.
__device__ static void find_tops(const tv_attention_args &a, const tv_tile_view &v, const tv_tile_side &q,
                                 const float c[2], key_step steps[2], float top[2])
{
    int end = tv_tile_end(v, v.tile, TV_TILE_BLOCK), own_end = tv_tile_end(v, v.row, TV_TILE_ROWS);
    tv_tile_share keys = tv_tile_fetch(v, a.k, 0);
    float scale = tv_tile_fetch_scale(v, a.k_scale, a.v_scale, 0);
    top[0] = top[1] = tv_bits_float(0xFF800000u);
    for (int j0 = 0; j0 < end; j0 += TV_TILE_STEP) {
        key_step &step = steps[j0 / TV_TILE_STEP % 2];
        tv_tile_put_bytes(keys, step.keys);
        tv_tile_put_scale(scale, step.scales);
        __syncthreads();
        keys = tv_tile_fetch(v, a.k, j0 + TV_TILE_STEP);
        scale = tv_tile_fetch_scale(v, a.k_scale, a.v_scale, j0 + TV_TILE_STEP);
        if (j0 >= own_end)
            continue;
#pragma unroll
        for (int n = 0; n < TV_TILE_GROUPS; n++) {
            float dots[4];
            tv_tile_dots(q, step.keys, n, dots);
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int column = 8 * n + 2 * tv_tile_t() + e;
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float score = score_of(dots[2 * h + e], c[h], step.scales[0][column]);
                    top[h] = j0 + column <= v.row + tv_tile_g() + 8 * h && score > top[h] ? score : top[h];
                }
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        for (int x = 2; x >= 1; x >>= 1) {
            float other = __shfl_xor_sync(0xFFFFFFFFu, top[h], x);
            top[h] = other > top[h] ? other : top[h];
        }
        top[h] = top[h] + 0.0f;
    }
}

// The weights e_j s_v[j] of a step, and their links of the sums of e_j.
template <bool MASKED>
__device__ static inline void weigh(const tv_tile_view &v, const tv_tile_side &q, int j0, const float c[2],
                                    const float top[2], const key_step &step, tv_tile_weights weights,
                                    float sums[2][TV_TILE_GROUPS][2])
{
#pragma unroll
    for (int n = 0; n < TV_TILE_GROUPS; n++) {
        float dots[4];
        tv_tile_dots(q, step.keys, n, dots);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int column = 8 * n + 2 * tv_tile_t() + e;
#pragma unroll
            for (int h = 0; h < 2; h++) {
                bool seen = !MASKED || j0 + column <= v.row + tv_tile_g() + 8 * h;
                float y = tv_tile_exp(score_of(dots[2 * h + e], c[h], step.scales[0][column]) - top[h]);
                sums[h][n][e] += seen ? y : 0.0f;
                weights[h][n][e] = seen ? y * step.scales[1][column] : 0.0f;
            }
        }
    }
}

__global__ static void __launch_bounds__(TV_TILE_THREADS, 4) attention_tiles_kernel(tv_attention_args a)
{
    __shared__ __align__(16) key_step steps[2];
    tv_tile_view v = tv_tile_view_of(a.tokens, a.heads, a.context, true);
    int end = tv_tile_end(v, v.tile, TV_TILE_BLOCK);
    tv_tile_side q = tv_tile_side_of(v, a.q);
    float c[2], top[2], sums[2][TV_TILE_GROUPS][2] = {{{0}}}, inverse[2];
    tv_tile_sums acc = {{0}};
    for (int h = 0; h < 2; h++)
        c[h] = tv_tile_value(v, a.q_scale, v.row + tv_tile_g() + 8 * h) * v.inv_sqrt;
    find_tops(a, v, q, c, steps, top);
    tv_tile_share keys = tv_tile_fetch(v, a.k, 0), values = tv_tile_fetch(v, a.v, 0);
    float scale = tv_tile_fetch_scale(v, a.k_scale, a.v_scale, 0);
    for (int j0 = 0; j0 < end; j0 += TV_TILE_STEP) {
        key_step &step = steps[j0 / TV_TILE_STEP % 2];
        tv_tile_put_bytes(keys, step.keys);
        tv_tile_put_turned(values, step.values);
        tv_tile_put_scale(scale, step.scales);
        __syncthreads();
        keys = tv_tile_fetch(v, a.k, j0 + TV_TILE_STEP);
        values = tv_tile_fetch(v, a.v, j0 + TV_TILE_STEP);
        scale = tv_tile_fetch_scale(v, a.k_scale, a.v_scale, j0 + TV_TILE_STEP);
        if (j0 >= tv_tile_end(v, v.row, TV_TILE_ROWS))
            continue;
        tv_tile_weights weights;
        if (tv_tile_all_before(v, j0))
            weigh<false>(v, q, j0, c, top, step, weights, sums);
        else
            weigh<true>(v, q, j0, c, top, step, weights, sums);
        tv_tile_add(tv_tile_integers_of(weights), step.values, acc);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int i = v.row + tv_tile_g() + 8 * h;
        float norm = tv_tile_combine(sums[h]);
        inverse[h] = 1.0f / norm;
        if (tv_tile_t() == 0 && i < v.context && a.top)
            a.top[tv_tile_item(v, i)] = top[h];
        if (tv_tile_t() == 0 && i < v.context && a.norm)
            a.norm[tv_tile_item(v, i)] = norm;
    }
    tv_tile_store(v, acc, inverse[0], inverse[1], a.out);
}

extern "C" int attention_tiles_fits(const tv_attention_args *a)
{
    uintptr_t bits = (uintptr_t)a->q | (uintptr_t)a->k | (uintptr_t)a->v | (uintptr_t)a->out;
    return a->width == TV_TILE_WIDTH && (bits & 15) == 0;
}

extern "C" tv_status attention_tiles(const tv_attention_args *a, void *stream)
{
    attention_tiles_kernel<<<tv_tile_grid(a->tokens, a->heads, a->context), TV_TILE_THREADS, 0,
                             tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("attention_tiles");
}
