// The experts' products on s8 tensor cores: the tiles of gemm_cuda.cu, found by segment on the device.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/gemm_hopper.h"
#include "kernels/cuda/mma_cuda.cuh"
#include "kernels/cuda/moe_segments.cuh"
#include "kernels/cuda/vote_cuda.cuh"

// Grid: column tiles x row tiles of all segments, at most.
template <int PIECE> __global__ static void __launch_bounds__(TV_MMA_THREADS) moe_gemm_kernel(tv_moe_gemm_args a)
{
    extern __shared__ __align__(128) int8_t shared[];
    __shared__ int32_t end[TV_MOE_SEGMENTS_MAX];
    int count = (int)a.segment_count;
    tv_moe_row_pieces pieces = {a.segments, TV_MMA_M};
    if ((int)blockIdx.y >= tv_moe_segments_sum(end, count, pieces))
        return;
    tv_moe_piece piece = tv_moe_piece_at(end, count, (int)blockIdx.y);
    tv_segment s = a.segments[piece.segment];
    int64_t row0 = (int64_t)piece.index * TV_MMA_M, col0 = (int64_t)blockIdx.x * TV_MMA_N;
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

// One segment's votes of the tile, added by the threads that own its places.
template <int PIECE>
__device__ static void vote_segment(const tv_moe_vote_args &a, int segment, int64_t row0, int64_t col0, int8_t *shared)
{
    const tv_segment s = a.segments[segment];
    int64_t reduce = tv_ceil_div(s.rows, TV_SEGMENT_PAD) * TV_SEGMENT_PAD, stack = a.n * a.k;
    int64_t first = (a.first_expert + (int64_t)s.expert) * stack;
    tv_vote_rule rule = a.rule;
    rule.unit = (uint32_t)s.unit;
    int32_t acc[4][4][4];
    tv_mma_block<PIECE>({a.gt + s.padded, a.n, reduce, a.columns}, {a.xt + s.padded, a.k, reduce, a.columns}, row0,
                        col0, shared, acc);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int64_t n = tv_mma_row(row0, i, e), k = tv_mma_col(col0, j, e), element = n * a.k + k;
                if (n >= a.n || k >= a.k)
                    continue;
                float root_g = sqrtf((float)a.g_sumsq[segment * a.n + n]);
                float rx = sqrtf((float)a.x_sumsq[segment * a.k + k] / (float)s.tokens);
                int vote = tv_vote_of(rule, (float)acc[i][j][e], root_g, rx, first + element);
                if (vote)
                    tv_vote_add(a.votes, rule.vote_bits, s.expert * stack + element, vote);
            }
}

// Grid: tiles x segments. The first segment of an expert does those of all its segments, so that nobody else adds to its votes.
template <int PIECE> __global__ static void __launch_bounds__(TV_MMA_THREADS) moe_vote_kernel(tv_moe_vote_args a)
{
    extern __shared__ __align__(128) int8_t shared[];
    int segment = (int)blockIdx.z, expert = a.segments[segment].expert;
    int64_t row0 = (int64_t)blockIdx.y * TV_MMA_M, col0 = (int64_t)blockIdx.x * TV_MMA_N;
    for (int s = 0; s < segment; s++)
        if (a.segments[s].expert == expert)
            return;
    for (int s = segment; s < (int)a.segment_count; s++)
        if (a.segments[s].expert == expert && a.segments[s].tokens > 0)
            vote_segment<PIECE>(a, s, row0, col0, shared);
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
