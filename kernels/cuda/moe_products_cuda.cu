// The experts' products on s8 tensor cores: the tiles of gemm_cuda.cu, found by segment on the device.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/gemm_hopper.h"
#include "kernels/cuda/mma_cuda.cuh"
#include "kernels/cuda/moe_segments.cuh"
#include "kernels/cuda/vote_tile_cuda.cuh"

#define FEW_ROWS 1024
#define FEW_STEPS 32

// The tile of columns col0 in piece `number` of all segments' rows; there may be fewer.
template <int PIECE>
__device__ static inline void gemm_tile(const tv_moe_gemm_args &a, int number, int64_t col0, int8_t *shared)
{
    __shared__ int32_t end[TV_MOE_SEGMENTS_MAX];
    int count = (int)a.segment_count;
    tv_moe_row_pieces pieces = {a.segments, TV_MMA_M};
    if (number >= tv_moe_segments_sum(end, count, pieces))
        return;
    tv_moe_piece piece = tv_moe_piece_at(end, count, number);
    tv_segment s = a.segments[piece.segment];
    int64_t row0 = (int64_t)piece.index * TV_MMA_M;
    int32_t acc[4][4][4];
    tv_mma_block<PIECE>({a.a + s.first * a.reduce, s.rows, a.reduce}, {a.b + s.expert * a.n * a.reduce, a.n, a.reduce},
                        row0, col0, shared, acc);
    float unit = tv_exp2i(a.exponent);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int64_t row = tv_mma_row(row0, i, e), col = tv_mma_col(col0, j, e);
                if (row < s.rows && col < a.n)
                    a.y[(s.first + row) * a.n + col] = (float)acc[i][j][e] * (a.scale[s.first + row] * unit);
            }
}

// Grid: column tiles x row tiles of all segments, at most.
template <int PIECE> __global__ static void __launch_bounds__(TV_MMA_THREADS) moe_gemm_kernel(tv_moe_gemm_args a)
{
    extern __shared__ __align__(128) int8_t shared[];
    gemm_tile<PIECE>(a, (int)blockIdx.y, (int64_t)blockIdx.x * TV_MMA_N, shared);
}

// One segment's votes of the tile, added by the threads that own its places. Not inline: the loop that calls it would keep all places in
// registers.
template <int PIECE>
__device__ static __noinline__ void vote_segment(const tv_moe_vote_args &a, int segment, int64_t row0, int64_t col0,
                                                 int8_t *shared)
{
    const tv_segment s = a.segments[segment];
    int64_t reduce = tv_ceil_div(s.rows, TV_SEGMENT_PAD) * TV_SEGMENT_PAD, stack = a.n * a.k;
    tv_vote_rule rule = a.rule;
    rule.unit = (uint32_t)s.unit;
    int32_t acc[4][4][4];
    tv_mma_block<PIECE>({a.gt + s.padded, a.n, reduce, a.columns}, {a.xt + s.padded, a.k, reduce, a.columns}, row0,
                        col0, shared, acc);
    void *votes = (char *)a.votes + s.expert * stack * (rule.vote_bits / 8);
    tv_vote_tile(
        {rule, votes, a.n, a.k, (a.first_expert + (int64_t)s.expert) * stack}, row0, col0,
        [&](int64_t n) { return sqrtf((float)a.g_sumsq[segment * a.n + n]); },
        [&](int64_t k) { return sqrtf((float)a.x_sumsq[segment * a.k + k] / (float)s.tokens); },
        [&](int i, int j, int e) { return (float)acc[i][j][e]; });
}

// The first segment of an expert does those of all its segments, so that nobody else adds to its votes.
template <int PIECE>
__device__ static inline void vote_tile(const tv_moe_vote_args &a, int segment, int64_t row0, int64_t col0,
                                        int8_t *shared)
{
    int expert = a.segments[segment].expert;
    for (int s = 0; s < segment; s++)
        if (a.segments[s].expert == expert)
            return;
    for (int s = segment; s < (int)a.segment_count; s++)
        if (a.segments[s].expert == expert && a.segments[s].tokens > 0)
            vote_segment<PIECE>(a, s, row0, col0, shared);
}

// Grid: tiles x segments.
template <int PIECE> __global__ static void __launch_bounds__(TV_MMA_THREADS, 2) moe_vote_kernel(tv_moe_vote_args a)
{
    extern __shared__ __align__(128) int8_t shared[];
    vote_tile<PIECE>(a, (int)blockIdx.z, (int64_t)blockIdx.y * TV_MMA_M, (int64_t)blockIdx.x * TV_MMA_N, shared);
}

// Both products of the backward: `tiles` tiles of the gradient, at most, then those of votes, segment by segment.
template <int PIECE>
__global__ static void __launch_bounds__(TV_MMA_THREADS, 2) moe_products_kernel(tv_moe_products_args a, int tiles)
{
    extern __shared__ __align__(128) int8_t shared[];
    int t = (int)blockIdx.x, gradient_wide = (int)tv_ceil_div(a.gradient.n, TV_MMA_N),
        wide = (int)tv_ceil_div(a.vote.k, TV_MMA_N), high = (int)tv_ceil_div(a.vote.n, TV_MMA_M);
    if (t < tiles) {
        gemm_tile<PIECE>(a.gradient, t / gradient_wide, (int64_t)(t % gradient_wide) * TV_MMA_N, shared);
        return;
    }
    t -= tiles;
    vote_tile<PIECE>(a.vote, t / (wide * high), (int64_t)(t / wide % high) * TV_MMA_M, (int64_t)(t % wide) * TV_MMA_N,
                     shared);
}

static tv_status raise_limit(const void *kernel)
{
    TV_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, TV_MMA_SHARED_BYTES));
    return TV_OK;
}

extern "C" tv_status moe_open_cuda(void)
{
    TV_TRY(raise_limit((const void *)moe_gemm_kernel<16>));
    TV_TRY(raise_limit((const void *)moe_gemm_kernel<8>));
    TV_TRY(raise_limit((const void *)moe_gemm_kernel<1>));
    TV_TRY(raise_limit((const void *)moe_products_kernel<16>));
    TV_TRY(raise_limit((const void *)moe_products_kernel<1>));
    TV_TRY(raise_limit((const void *)moe_vote_kernel<16>));
    return raise_limit((const void *)moe_vote_kernel<1>);
}

// The longest copy that rows of these operands allow.
static int piece_of(int64_t pitch, const void *a, const void *b)
{
    uintptr_t all = (uintptr_t)pitch | (uintptr_t)a | (uintptr_t)b;
    return all % 16 == 0 ? 16 : all % 8 == 0 ? 8 : 1;
}

extern "C" tv_status moe_gemm_cuda(const tv_moe_gemm_args *a, void *stream)
{
    if (!a->segment_count || !a->rows || !a->n || !a->reduce)
        return TV_OK;
    if (moe_gemm_hopper_fits(a))
        return moe_gemm_hopper(a, stream);
    TV_TRY(tv_moe_segments_check("moe_gemm", a->segment_count));
    int piece = piece_of(a->reduce, a->a, a->b);
    auto kernel = piece == 16 ? moe_gemm_kernel<16> : piece == 8 ? moe_gemm_kernel<8> : moe_gemm_kernel<1>;
    dim3 grid(tv_cuda_blocks(a->n, TV_MMA_N), (unsigned)(tv_ceil_div(a->rows, TV_MMA_M) + a->segment_count));
    kernel<<<grid, TV_MMA_THREADS, TV_MMA_SHARED_BYTES, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("moe_gemm");
}

extern "C" tv_status moe_vote_cuda(const tv_moe_vote_args *a, void *stream)
{
    if (!a->segment_count || !a->columns || !a->n || !a->k)
        return TV_OK;
    if (moe_vote_hopper_fits(a))
        return moe_vote_hopper(a, stream);
    TV_TRY(tv_moe_segments_check("moe_vote", a->segment_count));
    auto kernel = piece_of(a->columns, a->gt, a->xt) == 16 ? moe_vote_kernel<16> : moe_vote_kernel<1>;
    dim3 grid(tv_cuda_blocks(a->k, TV_MMA_N), tv_cuda_blocks(a->n, TV_MMA_M), (unsigned)a->segment_count);
    kernel<<<grid, TV_MMA_THREADS, TV_MMA_SHARED_BYTES, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("moe_vote");
}

// Few rows take one launch, as in gemm_cuda.cu.
extern "C" tv_status moe_products_cuda(const tv_moe_products_args *a, void *stream)
{
    const tv_moe_gemm_args *g = &a->gradient;
    const tv_moe_vote_args *v = &a->vote;
    if (g->rows > FEW_ROWS || g->reduce > FEW_STEPS * TV_MMA_K || !g->rows || !g->segment_count || !g->n ||
        !g->reduce || !v->segment_count || !v->columns || !v->n || !v->k || g->segment_count > TV_MOE_SEGMENTS_MAX) {
        TV_TRY(moe_gemm_cuda(g, stream));
        return moe_vote_cuda(v, stream);
    }
    uintptr_t borders = (uintptr_t)g->a | (uintptr_t)g->b | (uintptr_t)v->gt | (uintptr_t)v->xt;
    bool whole = piece_of(g->reduce | v->columns, (const void *)borders, NULL) == 16;
    int64_t tiles = tv_ceil_div(g->n, TV_MMA_N) * (tv_ceil_div(g->rows, TV_MMA_M) + g->segment_count);
    int64_t votes = tv_ceil_div(v->n, TV_MMA_M) * tv_ceil_div(v->k, TV_MMA_N) * v->segment_count;
    auto kernel = whole ? moe_products_kernel<16> : moe_products_kernel<1>;
    kernel<<<(unsigned)(tiles + votes), TV_MMA_THREADS, TV_MMA_SHARED_BYTES, tv_cuda_stream(stream)>>>(*a, (int)tiles);
    TV_CUDA_LAUNCHED("moe_products");
}
