// The votes of a block's tile of mma_cuda.cuh: sums in registers, votes added in place.
//
// Two neighbouring columns of a thread are read and written at once, and all votes of a fragment's row are read before one is written, so
// that a thread does not wait for each.
#ifndef TV_KERNELS_VOTE_TILE_CUDA_CUH
#define TV_KERNELS_VOTE_TILE_CUDA_CUH

#include "kernels/cuda/mma_cuda.cuh"
#include "kernels/cuda/vote_cuda.cuh"

typedef struct tv_vote_target {
    tv_vote_rule rule;
    void *votes; // [n, k]
    int64_t n, k;
    int64_t draw; // element of the draws that votes[0, 0] has
} tv_vote_target;

// Two votes from an even element on, in one number.
__device__ static inline uint32_t tv_votes_load2(const tv_vote_target &t, int64_t element)
{
    return t.rule.vote_bits == 8 ? ((const uint16_t *)t.votes)[element / 2] : ((const uint32_t *)t.votes)[element / 2];
}

__device__ static inline void tv_votes_add2(const tv_vote_target &t, int64_t element, uint32_t old, int first,
                                            int second)
{
    if (t.rule.vote_bits == 8)
        ((uint16_t *)t.votes)[element / 2] =
            (uint16_t)(((old + (uint32_t)first) & 0xFFu) | (((old >> 8) + (uint32_t)second) & 0xFFu) << 8);
    else
        ((uint32_t *)t.votes)[element / 2] = ((old + (uint32_t)first) & 0xFFFFu) | ((old >> 16) + (uint32_t)second)
                                                                                       << 16;
}

// root_g(n), rx(k) of tv_vote_of; sum(i, j, e): the fragment's sum as a float.
template <class ROOT, class RX, class SUM>
__device__ static inline void tv_vote_tile(const tv_vote_target &t, int64_t row0, int64_t col0, const ROOT &root_g,
                                           const RX &rx, const SUM &sum)
{
    bool pairs = t.k % 2 == 0 && (uintptr_t)t.votes % 4 == 0;
    float x[4][2];
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int64_t k = tv_mma_col(col0, j, e);
            x[j][e] = k < t.k ? rx(k) : 0.0f;
        }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float g[2];
        uint32_t old[2][4];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int64_t n = tv_mma_row(row0, i, 2 * h);
            g[h] = n < t.n ? root_g(n) : 0.0f;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int64_t k = tv_mma_col(col0, j, 0);
                old[h][j] = pairs && n < t.n && k < t.k ? tv_votes_load2(t, n * t.k + k) : 0;
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int64_t n = tv_mma_row(row0, i, 2 * h), k = tv_mma_col(col0, j, 0), element = n * t.k + k;
                if (n >= t.n || k >= t.k)
                    continue;
                bool second = k + 1 < t.k;
                int a = tv_vote_of(t.rule, sum(i, j, 2 * h), g[h], x[j][0], t.draw + element);
                int b = second ? tv_vote_of(t.rule, sum(i, j, 2 * h + 1), g[h], x[j][1], t.draw + element + 1) : 0;
                if (pairs && (a || b))
                    tv_votes_add2(t, element, old[h][j], a, b);
                if (!pairs && a)
                    tv_vote_add(t.votes, t.rule.vote_bits, element, a);
                if (!pairs && b)
                    tv_vote_add(t.votes, t.rule.vote_bits, element + 1, b);
            }
    }
}

#endif
