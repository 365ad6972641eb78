// The ballot by the rules restart and classic without a flip cap, where rows are whole blocks of eight elements.
#include "kernels/cuda/ballot_cuda.cuh"
#include "kernels/cuda/ballot_fast.h"
#include "kernels/cuda/ballot_fast_cuda.cuh"
#include "kernels/cuda/many_cuda.cuh"

#define THREADS 256

// How large a step of the counter is.
typedef enum step_kind { STEP_MAJORITY, STEP_MEAN, STEP_CLASSIC } step_kind;

static step_kind kind_of(const tv_ballot_args *a)
{
    return a->rule == TV_RULE_CLASSIC ? STEP_CLASSIC : a->combine == TV_COMBINE_MEAN ? STEP_MEAN : STEP_MAJORITY;
}

template <step_kind KIND> __device__ static inline int step_size(const tv_ballot_args &a, uint32_t size, uint32_t r16)
{
    if (KIND == STEP_MEAN)
        return (int)((a.eta_q * size / (uint32_t)a.units + r16) >> 16);
    uint32_t step = KIND == STEP_CLASSIC ? (uint32_t)a.classic_step : (a.eta_q + r16) >> 16;
    return size >= (uint32_t)a.quorum ? (int)step : 0;
}

// Settle one element: counter and digit change in place; the flip.
template <step_kind KIND>
__device__ static inline int settle(const tv_ballot_args &a, int vote, uint32_t r16, int *counter, uint32_t *digit)
{
    int size = step_size<KIND>(a, (uint32_t)abs(vote), r16), d = vote > 0 ? size : vote < 0 ? -size : 0;
    int value = *counter - d, flip = 0;
    if (d != 0 && value >= a.threshold && *digit < 2)
        flip = 1;
    if (d != 0 && value <= -a.threshold && *digit > 0)
        flip = -1;
    if (flip)
        value = KIND == STEP_CLASSIC ? 0 : value - flip * a.threshold;
    *counter = min(max(value, 1 - a.threshold), a.threshold - 1);
    *digit += (uint32_t)flip;
    return flip;
}

// Eight elements from element i of the block on. Adds flips and zeros.
template <int BITS, step_kind KIND>
__device__ static inline void settle_block(const tv_ballot_args &a, int64_t i, uint32_t digits[8], int counts[2])
{
    tv_rng_key key = {a.seed, TV_RNG_BALLOT_T, a.tensor_id, a.step};
    tv_rng_block draws = {{0, 0, 0, 0}};
    if (KIND != STEP_CLASSIC)
        draws = tv_rng_at(key, (uint64_t)(a.first_row * a.cols + i) >> 3);
    int votes[8];
    tv_chunk_votes<BITS>(a.votes, i, votes);
    uint2 *at = (uint2 *)(a.T_accum + i), old = *at;
    uint32_t out[2] = {0, 0};
#pragma unroll
    for (int j = 0; j < 8; j++) {
        int counter = (int8_t)((j < 4 ? old.x : old.y) >> (8 * (j % 4)));
        int flip = settle<KIND>(a, votes[j], tv_rng_lane(draws, j), &counter, digits + j);
        out[j / 4] |= (uint32_t)(uint8_t)counter << (8 * (j % 4));
        counts[0] += flip != 0;
        counts[1] += digits[j] == 1;
    }
    *at = make_uint2(out[0], out[1]);
}

template <int BITS, step_kind KIND>
__global__ static void __launch_bounds__(THREADS)
    ballot_fast_kernel(const __grid_constant__ tv_many<tv_ballot_args> many)
{
    __shared__ int warps[2][THREADS / TV_WARP];
    unsigned block;
    const tv_ballot_args &a = many.item[tv_many_find(many, &block)];
    uint32_t chunks = (uint32_t)tv_row_chunks(a.cols), chunk = block * THREADS + threadIdx.x, n = chunk / chunks;
    int counts[2] = {0, 0};
    if (n < a.rows) {
        uint32_t digits[TV_CHUNK];
        int64_t k0 = (int64_t)(chunk - n * chunks) * TV_CHUNK, row_bytes = tv_row_bytes(a.cols);
        uint8_t *T = a.T + n * row_bytes + k0 / 5;
        int64_t bytes = row_bytes - k0 / 5;
        tv_chunk_load(T, bytes, digits);
#pragma unroll
        for (int b = 0; b < TV_CHUNK_BLOCKS; b++)
            if (k0 + 8 * b < a.cols)
                settle_block<BITS, KIND>(a, n * a.cols + k0 + 8 * b, digits + 8 * b, counts);
#pragma unroll
        for (int i = 0; i < TV_CHUNK_BYTES; i++)
            if (i < bytes) {
                const uint32_t *d = digits + 5 * i;
                T[i] = (uint8_t)(d[0] + 3 * d[1] + 9 * d[2] + 27 * d[3] + 81 * d[4]);
            }
    }
    int flips = tv_block_sum(counts[0], warps[0]), zeros = tv_block_sum(counts[1], warps[1]);
    if (threadIdx.x == 0) {
        atomicAdd((unsigned long long *)a.stats, (unsigned long long)flips);
        atomicAdd((unsigned long long *)a.stats + 1, (unsigned long long)zeros);
    }
}

static int64_t blocks_of(const tv_ballot_args *a) { return tv_ceil_div(a->rows * tv_row_chunks(a->cols), THREADS); }

extern "C" int ballot_fast_fits(const tv_ballot_args *a)
{
    // The largest step in 32 bits.
    uint64_t most = kind_of(a) == STEP_MEAN ? (uint64_t)a->eta_q << (a->vote_bits - 1) : a->eta_q;
    return a->rule != TV_RULE_BUDGET && a->cut < 0 && most + 0xFFFF <= UINT32_MAX && a->rows < INT32_MAX &&
           a->cols < INT32_MAX && blocks_of(a) * THREADS <= INT32_MAX &&
           tv_chunks_fit(a->cols, a->votes, a->vote_bits, a->T_accum);
}

template <int BITS> static void launch(step_kind kind, const tv_many<tv_ballot_args> *many, void *stream)
{
    auto kernel = kind == STEP_CLASSIC ? ballot_fast_kernel<BITS, STEP_CLASSIC>
                  : kind == STEP_MEAN  ? ballot_fast_kernel<BITS, STEP_MEAN>
                                       : ballot_fast_kernel<BITS, STEP_MAJORITY>;
    kernel<<<many->blocks, THREADS, 0, tv_cuda_stream(stream)>>>(*many);
}

extern "C" tv_status ballot_fast(const tv_ballot_args *list, int64_t count, int64_t *done, void *stream)
{
    tv_many<tv_ballot_args> many = {};
    step_kind kind = kind_of(list);
    for (*done = 0; *done < count; ++*done) {
        const tv_ballot_args *a = &list[*done];
        if (a->vote_bits != list->vote_bits || kind_of(a) != kind || !ballot_fast_fits(a) ||
            !tv_many_add(&many, a, blocks_of(a)))
            break;
    }
    if (list->vote_bits == 8)
        launch<8>(kind, &many, stream);
    else
        launch<16>(kind, &many, stream);
    TV_CUDA_LAUNCHED("ballot");
}
