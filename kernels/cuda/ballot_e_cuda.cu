// The ballot on exponents. Fast: a block takes some whole rows; each thread adds the scores of 40 elements to their groups' in shared
// memory, then a thread a group moves the exponents. Rows that do not fit: a thread a group, element by element.
#include "kernels/cuda/ballot_cuda.cuh"
#include "kernels/cuda/ballot_fast.h"
#include "kernels/cuda/ballot_fast_cuda.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/many_cuda.cuh"

#define THREADS 256
#define SCORES_MAX 4096 // groups of a block

__global__ static void ballot_e_kernel(tv_ballot_e_args a)
{
    int64_t groups = tv_row_groups(a.cols, a.group), i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= a.rows * groups)
        return;
    int64_t n = i / groups, from = i % groups * a.group, to = from + a.group < a.cols ? from + a.group : a.cols;
    const uint8_t *T = a.T + n * tv_row_bytes(a.cols);
    int score = 0;
    for (int64_t k = from; k < to; k++)
        score += tv_sign(tv_vote_get(a.votes, a.vote_bits, n * a.cols + k)) * tv_byte_trit(T[k / 5], (int)(k % 5));
    if (tv_move_exponent(a, i, score, (uint32_t)(to - from)))
        atomicAdd((unsigned long long *)a.stats, 1ull);
}

// Rows of a block of the fast kernel: as many as give each thread a chunk.
static inline TV_HOST_DEVICE int64_t rows_of_block(int64_t cols)
{
    int64_t rows = THREADS / tv_row_chunks(cols);
    return rows > 1 ? rows : 1;
}

// Add the scores of a chunk at column k0 of row n to those of the row's groups.
template <int BITS>
__device__ static inline void score_chunk(const tv_ballot_e_args &a, int64_t n, uint32_t k0, int *scores)
{
    uint32_t digits[TV_CHUNK], group = (uint32_t)a.group, at = k0 / group;
    int64_t row_bytes = tv_row_bytes(a.cols);
    tv_chunk_load(a.T + n * row_bytes + k0 / 5, row_bytes - k0 / 5, digits);
    int score = 0;
#pragma unroll
    for (int b = 0; b < TV_CHUNK_BLOCKS; b++) {
        if (k0 + 8 * b >= a.cols)
            break;
        if (at != (k0 + 8 * b) / group) {
            atomicAdd(scores + at, score);
            at = (k0 + 8 * b) / group, score = 0;
        }
        int votes[8];
        tv_chunk_votes<BITS>(a.votes, n * a.cols + k0 + 8 * b, votes);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            int t = (int)digits[8 * b + j] - 1;
            score += votes[j] > 0 ? t : votes[j] < 0 ? -t : 0;
        }
    }
    atomicAdd(scores + at, score);
}

template <int BITS>
__global__ static void __launch_bounds__(THREADS)
    ballot_e_fast_kernel(const __grid_constant__ tv_many<tv_ballot_e_args> many)
{
    __shared__ int scores[SCORES_MAX], warps[THREADS / TV_WARP];
    unsigned block;
    const tv_ballot_e_args &a = many.item[tv_many_find(many, &block)];
    uint32_t chunks = (uint32_t)tv_row_chunks(a.cols), groups = (uint32_t)tv_row_groups(a.cols, a.group);
    int64_t first = block * rows_of_block(a.cols);
    uint32_t rows = (uint32_t)min(rows_of_block(a.cols), a.rows - first);
    for (uint32_t i = threadIdx.x; i < rows * groups; i += THREADS)
        scores[i] = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < rows * chunks; i += THREADS)
        score_chunk<BITS>(a, first + i / chunks, i % chunks * TV_CHUNK, scores + i / chunks * groups);
    __syncthreads();
    int moved = 0;
    for (uint32_t i = threadIdx.x; i < rows * groups; i += THREADS) {
        uint32_t left = (uint32_t)a.cols - i % groups * (uint32_t)a.group;
        moved += tv_move_exponent(a, first * groups + i, scores[i], min((uint32_t)a.group, left));
    }
    moved = tv_block_sum(moved, warps);
    if (moved)
        atomicAdd((unsigned long long *)a.stats, (unsigned long long)moved);
}

extern "C" int ballot_e_fast_fits(const tv_ballot_e_args *a)
{
    return a->cols > 0 && a->group % 8 == 0 && a->rows < INT32_MAX && a->cols < INT32_MAX &&
           rows_of_block(a->cols) * tv_row_groups(a->cols, a->group) <= SCORES_MAX &&
           tv_chunks_fit(a->cols, a->votes, a->vote_bits, NULL);
}

extern "C" tv_status ballot_e_fast(const tv_ballot_e_args *list, int64_t count, int64_t *done, void *stream)
{
    tv_many<tv_ballot_e_args> many = {};
    for (*done = 0; *done < count; ++*done) {
        const tv_ballot_e_args *a = &list[*done];
        if (a->vote_bits != list->vote_bits || !ballot_e_fast_fits(a) ||
            !tv_many_add(&many, a, tv_ceil_div(a->rows, rows_of_block(a->cols))))
            break;
    }
    auto kernel = list->vote_bits == 8 ? ballot_e_fast_kernel<8> : ballot_e_fast_kernel<16>;
    kernel<<<many.blocks, THREADS, 0, tv_cuda_stream(stream)>>>(many);
    TV_CUDA_LAUNCHED("ballot_e");
}

static tv_status one(const tv_ballot_e_args *a, void *stream)
{
    ballot_e_kernel<<<tv_cuda_blocks(a->rows * tv_row_groups(a->cols, a->group), THREADS), THREADS, 0,
                      tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("ballot_e");
}

extern "C" tv_status ballot_e_many_cuda(const tv_ballot_e_args *list, int64_t count, void *stream)
{
    int64_t done = 1;
    for (int64_t i = 0; i < count; i += done, done = 1) {
        if (!list[i].rows || !list[i].cols)
            continue;
        if (ballot_e_fast_fits(&list[i]))
            TV_TRY(ballot_e_fast(list + i, count - i, &done, stream));
        else
            TV_TRY(one(&list[i], stream));
    }
    return TV_OK;
}

extern "C" tv_status ballot_e_cuda(const tv_ballot_e_args *a, void *stream) { return ballot_e_many_cuda(a, 1, stream); }
