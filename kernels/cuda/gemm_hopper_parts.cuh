// Vote products with few tiles, cut along the tokens: the epilogue that keeps the sums of a part, and the kernel that joins the parts and
// votes. Sums of a block's part of a tile are TV_HOPPER_TILE_SUMS int32, four of a thread (quad j of its 64 rows: sums[4 j] ..) beside
// each other: [m, quad, thread] of int4.
#ifndef TV_KERNELS_GEMM_HOPPER_PARTS_CUH
#define TV_KERNELS_GEMM_HOPPER_PARTS_CUH

#include "kernels/cuda/gemm_hopper.cuh"
#include "kernels/cuda/vote_cuda.cuh"

#define TV_HOPPER_QUADS (TV_HOPPER_SUMS / 4)

struct tv_hopper_parts {
    int32_t *sums; // [parts, tiles, TV_HOPPER_CLUSTER, TV_HOPPER_TILE_SUMS]
    int parts, tiles_m, tiles_n;
};

template <bool TWO> struct tv_hopper_part {
    typedef tv_hopper_parts args;
    static constexpr bool two = TWO, raw = true;
    static constexpr int stages = 6, scratch_bytes = 0;
    static constexpr int quads = TWO ? TV_HOPPER_QUADS : TV_HOPPER_BLOCKS * TV_HOPPER_QUADS; // of the output

    const args &a;

    __device__ explicit tv_hopper_part(const args &args) : a(args) {}
    __device__ void turn(const tv_hopper_item &) {}
    __device__ void begin(int, const tv_hopper_place &) {}
    __device__ void end(const tv_hopper_place &) {}
    __device__ void store(int m, const tv_hopper_place &p, const int32_t (&values)[TV_HOPPER_SUMS]) const
    {
        int4 *to = (int4 *)(a.sums + p.piece * TV_HOPPER_TILE_SUMS) + m * TV_HOPPER_QUADS * TV_HOPPER_WARPGROUP;
#pragma unroll
        for (int j = 0; j < TV_HOPPER_QUADS; j++)
            __stcg(to + j * TV_HOPPER_WARPGROUP + p.thread,
                   make_int4(values[4 * j], values[4 * j + 1], values[4 * j + 2], values[4 * j + 3]));
    }
};

// Add the quads of all parts.
__device__ static inline int4 tv_hopper_quad_sum(const int4 *from, int parts, int64_t stride)
{
    int4 sum = make_int4(0, 0, 0, 0);
#pragma unroll 8
    for (int i = 0; i < parts; i++) {
        int4 x = __ldcg(from + i * stride);
        sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
    }
    return sum;
}

// A block a quad of a block's tile, a thread the quad's sums of one thread of the product: 2 rows x 2 columns.
template <bool TWO>
__global__ static void __launch_bounds__(TV_HOPPER_WARPGROUP) vote_parts_kernel(tv_gemm_vote_args a, tv_hopper_parts p)
{
    const int quads = tv_hopper_part<TWO>::quads, rows = TV_HOPPER_TILE_ROWS(TWO);
    int quad = blockIdx.x % quads, piece = blockIdx.x / quads, thread = threadIdx.x;
    tv_hopper_tile tile = tv_hopper_tile_at(piece / TV_HOPPER_CLUSTER, p.tiles_m, p.tiles_n);
    int64_t stride = (int64_t)p.tiles_m * p.tiles_n * TV_HOPPER_CLUSTER * TV_HOPPER_TILE_SUMS / 4;
    int64_t n0 = ((int64_t)tile.m * TV_HOPPER_CLUSTER + piece % TV_HOPPER_CLUSTER) * rows +
                 quad / TV_HOPPER_QUADS * 64 + thread / TV_WARP * 16 + thread % TV_WARP / 4;
    int64_t k0 = (int64_t)tile.n * TV_HOPPER_WIDTH + quad % TV_HOPPER_QUADS * 8 + thread % 4 * 2;
    const int4 *from =
        (const int4 *)p.sums + (int64_t)piece * (TV_HOPPER_TILE_SUMS / 4) + quad * TV_HOPPER_WARPGROUP + thread;
    if (n0 >= a.n || k0 >= a.k)
        return;
    int4 hi = tv_hopper_quad_sum(from, p.parts, stride), lo = make_int4(0, 0, 0, 0);
    if (TWO)
        lo = tv_hopper_quad_sum(from + TV_HOPPER_QUADS * TV_HOPPER_WARPGROUP, p.parts, stride);
    int32_t sums[4] = {hi.x, hi.y, hi.z, hi.w}, low[4] = {lo.x, lo.y, lo.z, lo.w};
    int old[4], votes[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int64_t n = n0 + i / 2 * 8, k = k0 + i % 2;
        votes[i] = old[i] = 0;
        if (n >= a.n || k >= a.k)
            continue;
        float sum = TWO ? (float)(127 * (int64_t)sums[i] + low[i]) : (float)sums[i];
        float root_g = sqrtf(TWO ? (float)a.g_sumsq2[n] : (float)a.g_sumsq[n]);
        float rx = sqrtf((float)a.x_sumsq[k] / (float)a.tokens);
        old[i] = tv_vote_get(a.votes, a.rule.vote_bits, n * a.k + k);
        votes[i] = tv_vote_of(a.rule, sum, root_g, rx, n * a.k + k);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int64_t element = (n0 + i / 2 * 8) * a.k + k0 + i % 2;
        if (votes[i] && a.rule.vote_bits == 8)
            ((int8_t *)a.votes)[element] = (int8_t)(old[i] + votes[i]);
        else if (votes[i])
            ((int16_t *)a.votes)[element] = (int16_t)(old[i] + votes[i]);
    }
}

#endif
