// The products on s8 tensor cores, with their epilogues: scale to float (forward, grad-x) and vote. A block a 128 x 128 tile.
//
// On Hopper, products go to gemm_hopper.cu when they fit.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/gemm_hopper.h"
#include "kernels/cuda/mma_cuda.cuh"
#include "kernels/cuda/vote_cuda.cuh"

// v = (float)acc (scale[i] 2^exponent); y = v or y + v. Two digits: acc = 127 hi + lo in int64.
template <int PIECE, bool TWO> __global__ static void __launch_bounds__(TV_MMA_THREADS) gemm_kernel(tv_gemm_args a)
{
    extern __shared__ __align__(128) int8_t shared[];
    int64_t row0 = (int64_t)blockIdx.y * TV_MMA_M, col0 = (int64_t)blockIdx.x * TV_MMA_N;
    int32_t acc[4][4][4], lo[4][4][4];
    tv_mma_operand b = {a.b, a.n, a.reduce};
    tv_mma_block<PIECE>({a.a, a.m, a.reduce}, b, row0, col0, shared, acc);
    if (TWO)
        tv_mma_block<PIECE>({a.a_lo, a.m, a.reduce}, b, row0, col0, shared, lo);
    float unit = tv_exp2i(a.exponent);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int64_t row = tv_mma_row(row0, i, e), col = tv_mma_col(col0, j, e);
                if (row >= a.m || col >= a.n)
                    continue;
                float sum = TWO ? (float)(127 * (int64_t)acc[i][j][e] + lo[i][j][e]) : (float)acc[i][j][e];
                float v = sum * (a.scale[row] * unit);
                float *y = a.y + row * a.n + col;
                *y = a.accumulate ? *y + v : v;
            }
}

template <int PIECE, bool TWO> __global__ static void __launch_bounds__(TV_MMA_THREADS) vote_kernel(tv_gemm_vote_args a)
{
    extern __shared__ __align__(128) int8_t shared[];
    int64_t row0 = (int64_t)blockIdx.y * TV_MMA_M, col0 = (int64_t)blockIdx.x * TV_MMA_N;
    int32_t acc[4][4][4], lo[4][4][4];
    tv_mma_operand b = {a.xt, a.k, a.tokens};
    tv_mma_block<PIECE>({a.gt, a.n, a.tokens}, b, row0, col0, shared, acc);
    if (TWO)
        tv_mma_block<PIECE>({a.gt_lo, a.n, a.tokens}, b, row0, col0, shared, lo);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int64_t n = tv_mma_row(row0, i, e), k = tv_mma_col(col0, j, e);
                if (n >= a.n || k >= a.k)
                    continue;
                int64_t sum = TWO ? 127 * (int64_t)acc[i][j][e] + lo[i][j][e] : acc[i][j][e];
                float root_g = sqrtf(TWO ? (float)a.g_sumsq2[n] : (float)a.g_sumsq[n]);
                float rx = sqrtf((float)a.x_sumsq[k] / (float)a.tokens);
                int64_t element = n * a.k + k;
                int vote = tv_vote_of(a.rule, (float)sum, root_g, rx, element);
                if (vote)
                    tv_vote_add(a.votes, a.rule.vote_bits, element, vote);
            }
}

template <bool TWO> static tv_status raise_limits(void)
{
    const void *kernels[] = {(const void *)gemm_kernel<16, TWO>, (const void *)gemm_kernel<8, TWO>,
                             (const void *)gemm_kernel<1, TWO>,  (const void *)vote_kernel<16, TWO>,
                             (const void *)vote_kernel<8, TWO>,  (const void *)vote_kernel<1, TWO>};
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        TV_CUDA_TRY(cudaFuncSetAttribute(kernels[i], cudaFuncAttributeMaxDynamicSharedMemorySize, TV_MMA_SHARED_BYTES));
    return TV_OK;
}

extern "C" tv_status gemm_open_cuda(void)
{
    TV_TRY(raise_limits<false>());
    TV_TRY(raise_limits<true>());
    return gemm_hopper_open();
}

// The longest copy that rows of these operands allow.
static int piece_of(int64_t reduce, const void *a, const void *b, const void *c)
{
    uintptr_t all = (uintptr_t)reduce | (uintptr_t)a | (uintptr_t)b | (uintptr_t)c;
    return all % 16 == 0 ? 16 : all % 8 == 0 ? 8 : 1;
}

static dim3 tile_grid(int64_t rows, int64_t cols)
{
    return dim3(tv_cuda_blocks(cols, TV_MMA_N), tv_cuda_blocks(rows, TV_MMA_M));
}

template <bool TWO> static void launch_gemm(const tv_gemm_args *a, void *stream)
{
    int piece = piece_of(a->reduce, a->a, a->a_lo, a->b);
    auto kernel = piece == 16 ? gemm_kernel<16, TWO> : piece == 8 ? gemm_kernel<8, TWO> : gemm_kernel<1, TWO>;
    kernel<<<tile_grid(a->m, a->n), TV_MMA_THREADS, TV_MMA_SHARED_BYTES, tv_cuda_stream(stream)>>>(*a);
}

extern "C" tv_status gemm_cuda(const tv_gemm_args *a, void *stream)
{
    if (!a->m || !a->n || !a->reduce)
        return TV_OK;
    if (gemm_hopper_fits(a))
        return gemm_hopper(a, stream);
    if (a->a_lo)
        launch_gemm<true>(a, stream);
    else
        launch_gemm<false>(a, stream);
    TV_CUDA_LAUNCHED("gemm");
}

template <bool TWO> static void launch_vote(const tv_gemm_vote_args *a, void *stream)
{
    int piece = piece_of(a->tokens, a->gt, a->gt_lo, a->xt);
    auto kernel = piece == 16 ? vote_kernel<16, TWO> : piece == 8 ? vote_kernel<8, TWO> : vote_kernel<1, TWO>;
    kernel<<<tile_grid(a->n, a->k), TV_MMA_THREADS, TV_MMA_SHARED_BYTES, tv_cuda_stream(stream)>>>(*a);
}

extern "C" tv_status gemm_vote_cuda(const tv_gemm_vote_args *a, void *stream)
{
    if (!a->n || !a->k || !a->tokens)
        return TV_OK;
    if (gemm_vote_hopper_fits(a))
        return gemm_vote_hopper(a, stream);
    if (a->gt_lo)
        launch_vote<true>(a, stream);
    else
        launch_vote<false>(a, stream);
    TV_CUDA_LAUNCHED("gemm_vote");
}
