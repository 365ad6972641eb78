// Attention forward for heads of width 64: one walk over the keys for the largest score, one for the weights, their sum and the output.
// Nothing of the size of the context is kept, so any context will do.
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/attention_tiles.h"

// The keys of a step and, for the second walk, their values.
typedef struct key_step {
    tv_tile_bytes keys;
    tv_tile_floats values;
    float scales[2][TV_TILE_STEP]; // s_k, s_v
} key_step;

// top[h] of row g + 8 h; all warps of the block walk together.
__device__ static void find_tops(const tv_attention_args &a, const tv_tile_view &v, const tv_tile_side &q,
                                 const float c[2], key_step &step, float top[2])
{
    int end = tv_tile_end(v, v.tile, TV_TILE_BLOCK), own_end = tv_tile_end(v, v.row, TV_TILE_ROWS);
    tv_tile_share keys = tv_tile_fetch(v, a.k, 0);
    float scale = tv_tile_fetch_scale(v, a.k_scale, a.v_scale, 0);
    top[0] = top[1] = tv_bits_float(0xFF800000u);
    for (int j0 = 0; j0 < end; j0 += TV_TILE_STEP) {
        __syncthreads();
        tv_tile_put_bytes(keys, step.keys);
        tv_tile_put_scale(scale, step.scales);
        __syncthreads();
        keys = tv_tile_fetch(v, a.k, j0 + TV_TILE_STEP);
        scale = tv_tile_fetch_scale(v, a.k_scale, a.v_scale, j0 + TV_TILE_STEP);
        if (j0 >= own_end)
            continue;
#pragma unroll
        for (int n = 0; n < TV_TILE_GROUPS; n++) {
            int32_t dots[4];
            tv_tile_dots(q, step.keys, n, dots);
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int column = 8 * n + 2 * tv_tile_t() + e;
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float score = (float)dots[2 * h + e] * (c[h] * step.scales[0][column]);
                    top[h] = j0 + column <= v.row + tv_tile_g() + 8 * h && score > top[h] ? score : top[h];
                }
            }
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        for (int x = 2; x >= 1; x >>= 1) {
            float other = __shfl_xor_sync(0xFFFFFFFFu, top[h], x);
            top[h] = other > top[h] ? other : top[h];
        }
        top[h] = top[h] + 0.0f;
    }
}

// The weights e_j s_v[j] of a step, and their links of the sums.
__device__ static inline void weigh(const tv_tile_view &v, const tv_tile_side &q, int j0, const float c[2],
                                    const float top[2], const key_step &step, tv_tile_weights weights,
                                    float sums[2][TV_TILE_GROUPS][2])
{
#pragma unroll
    for (int n = 0; n < TV_TILE_GROUPS; n++) {
        int32_t dots[4];
        tv_tile_dots(q, step.keys, n, dots);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int column = 8 * n + 2 * tv_tile_t() + e;
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float score = (float)dots[2 * h + e] * (c[h] * step.scales[0][column]);
                float y = j0 + column <= v.row + tv_tile_g() + 8 * h ? tv_exp(score - top[h]) : 0.0f;
                sums[h][n][e] += y;
                weights[column][tv_tile_g() + 8 * h] = y * step.scales[1][column];
            }
        }
    }
}

__global__ static void __launch_bounds__(TV_TILE_THREADS, 4) attention_tiles_kernel(tv_attention_args a)
{
    __shared__ __align__(16) tv_tile_weights weights[TV_TILE_WARPS];
    __shared__ __align__(16) key_step step;
    __shared__ float inverse[TV_TILE_BLOCK];
    tv_tile_view v = tv_tile_view_of(a.tokens, a.heads, a.context, true);
    int warp = threadIdx.x / TV_WARP, end = tv_tile_end(v, v.tile, TV_TILE_BLOCK);
    tv_tile_side q = tv_tile_side_of(v, a.q);
    float c[2], top[2], acc[8][4] = {{0}}, sums[2][TV_TILE_GROUPS][2] = {{{0}}}, factor[8];
    for (int h = 0; h < 2; h++)
        c[h] = a.q_scale[tv_tile_item(v, v.row + tv_tile_g() + 8 * h)] * v.inv_sqrt;
    find_tops(a, v, q, c, step, top);
    tv_tile_share keys = tv_tile_fetch(v, a.k, 0), values = tv_tile_fetch(v, a.v, 0);
    float scale = tv_tile_fetch_scale(v, a.k_scale, a.v_scale, 0);
    for (int j0 = 0; j0 < end; j0 += TV_TILE_STEP) {
        __syncthreads();
        tv_tile_put_bytes(keys, step.keys);
        tv_tile_put_floats(values, step.values);
        tv_tile_put_scale(scale, step.scales);
        __syncthreads();
        keys = tv_tile_fetch(v, a.k, j0 + TV_TILE_STEP);
        values = tv_tile_fetch(v, a.v, j0 + TV_TILE_STEP);
        scale = tv_tile_fetch_scale(v, a.k_scale, a.v_scale, j0 + TV_TILE_STEP);
        if (j0 >= tv_tile_end(v, v.row, TV_TILE_ROWS))
            continue;
        weigh(v, q, j0, c, top, step, weights[warp], sums);
        __syncwarp();
        tv_tile_chain(weights[warp], step.values, acc);
        __syncwarp();
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = tv_tile_g() + 8 * h;
        float norm = tv_tile_combine(sums[h]);
        if (tv_tile_t() == 0)
            inverse[warp * TV_TILE_ROWS + row] = 1.0f / norm;
        if (tv_tile_t() == 0 && v.row + row < v.context && a.top)
            a.top[tv_tile_item(v, v.row + row)] = top[h];
        if (tv_tile_t() == 0 && v.row + row < v.context && a.norm)
            a.norm[tv_tile_item(v, v.row + row)] = norm;
    }
    __syncwarp();
#pragma unroll
    for (int m = 0; m < 8; m++)
        factor[m] = inverse[warp * TV_TILE_ROWS + tv_warp_lane() / 16 * 8 + m];
    tv_tile_store(v, acc, factor, a.out);
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
