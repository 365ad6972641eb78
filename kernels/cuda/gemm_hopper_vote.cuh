// Epilogues of the vote product on Hopper: the z-score test of tv_vote_rule on the sums in registers, votes added in place.
//
// tv_hopper_vote: one level, eight votes at a time (K a multiple of 8, votes on a 16-byte border). tv_hopper_vote_any: all the rest.
#ifndef TV_KERNELS_GEMM_HOPPER_VOTE_CUH
#define TV_KERNELS_GEMM_HOPPER_VOTE_CUH

#include "kernels/cuda/gemm_hopper.cuh"

// The sums of squares of a thread's two rows and, spread over the warpgroup, of the tile's columns.
template <int WIDTH> struct tv_hopper_squares {
    int32_t g[2], x[WIDTH / TV_HOPPER_WARPGROUP];

    __device__ static tv_hopper_squares load(const tv_gemm_vote_args &a, const tv_hopper_place &p)
    {
        tv_hopper_squares s;
#pragma unroll
        for (int h = 0; h < 2; h++)
            s.g[h] = p.row + 8 * h < a.n ? a.g_sumsq[p.row + 8 * h] : 0;
#pragma unroll
        for (int i = 0; i < WIDTH / TV_HOPPER_WARPGROUP; i++) {
            int64_t col = p.col + i * TV_HOPPER_WARPGROUP + p.thread;
            s.x[i] = col < a.k ? a.x_sumsq[col] : 0;
        }
        return s;
    }

    // rx of the tile's columns, for the whole warpgroup, in shared memory.
    __device__ float *share_rx(const tv_gemm_vote_args &a, const tv_hopper_place &p) const
    {
        float *rx = (float *)p.scratch;
        tv_warpgroup_sync(p.named_barrier); // the tile before is done with it
#pragma unroll
        for (int i = 0; i < WIDTH / TV_HOPPER_WARPGROUP; i++)
            rx[i * TV_HOPPER_WARPGROUP + p.thread] = sqrtf((float)x[i] / (float)a.tokens);
        tv_warpgroup_sync(p.named_barrier);
        return rx;
    }
};

// Two signed bytes of `bytes` as two int16: 0 and 1, or 2 and 3.
__device__ static inline uint32_t tv_hopper_widen(uint32_t bytes, bool upper)
{
    uint32_t out; // a selector of 8 + i repeats the sign of byte i
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(out) : "r"(bytes), "r"(upper ? 0xB3A2 : 0x9180));
    return out;
}

// Eight votes beside each other in the int8 or int16 array, as words.
template <int BITS> struct tv_hopper_votes {
    uint32_t word[BITS / 4];

    __device__ static tv_hopper_votes load(const void *votes, int64_t element)
    {
        tv_hopper_votes v;
        if (BITS == 8)
            *(uint2 *)v.word = *(const uint2 *)((const int8_t *)votes + element);
        else
            *(uint4 *)v.word = *(const uint4 *)((const int16_t *)votes + element);
        return v;
    }
    __device__ void store(void *votes, int64_t element) const
    {
        if (BITS == 8)
            *(uint2 *)((int8_t *)votes + element) = *(const uint2 *)word;
        else
            *(uint4 *)((int16_t *)votes + element) = *(const uint4 *)word;
    }
    // Add eight int8 votes.
    __device__ void add(uint32_t low, uint32_t high)
    {
        if (BITS == 8) {
            word[0] = __vadd4(word[0], low);
            word[1] = __vadd4(word[1], high);
        } else { // each byte with its sign as a second byte
            word[0] = __vadd2(word[0], tv_hopper_widen(low, false));
            word[1] = __vadd2(word[1], tv_hopper_widen(low, true));
            word[BITS / 4 - 2] = __vadd2(word[BITS / 4 - 2], tv_hopper_widen(high, false));
            word[BITS / 4 - 1] = __vadd2(word[BITS / 4 - 1], tv_hopper_widen(high, true));
        }
    }
};

__device__ static inline uint32_t tv_hopper_low_halves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x5410); }
__device__ static inline uint32_t tv_hopper_high_halves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x7632); }

// Four lanes hold two columns of each of four 8-column fragments (`first`: fragments 0 and 1, `second`: 2 and 3, 16 bits each). After
// it, lane q holds the eight columns of fragment q: a transposition in two exchanges.
__device__ static inline void tv_hopper_gather(uint32_t &first, uint32_t &second)
{
    bool upper = threadIdx.x & 2, odd = threadIdx.x & 1;
    uint32_t got = __shfl_xor_sync(0xFFFFFFFFu, upper ? first : second, 2), kept = upper ? second : first;
    uint32_t low = tv_hopper_low_halves(kept, got), high = tv_hopper_high_halves(kept, got);
    got = __shfl_xor_sync(0xFFFFFFFFu, odd ? low : high, 1), kept = odd ? high : low;
    uint32_t even_lanes = odd ? got : kept, odd_lanes = odd ? kept : got; // low half: this half of the four, high: the other
    low = tv_hopper_low_halves(even_lanes, odd_lanes), high = tv_hopper_high_halves(even_lanes, odd_lanes);
    first = upper ? high : low;
    second = upper ? low : high;
}

template <int WIDTH, int BITS> struct tv_hopper_vote {
    typedef tv_gemm_vote_args args;
    typedef tv_hopper_squares<WIDTH> early;
    static constexpr int scratch_bytes = WIDTH * (int)sizeof(float);
    static constexpr int blocks = WIDTH / 32;

    __device__ static early load(const args &a, const tv_hopper_place &p) { return early::load(a, p); }

    // sign(sum) when |sum| > threshold >= 0, else 0
    __device__ static uint32_t vote(int32_t sum, float threshold)
    {
        return fabsf((float)sum) > threshold ? (uint32_t)(sum >> 31 | 1) : 0u;
    }

    // Votes of this lane's columns in two fragments: a byte each.
    __device__ static uint32_t votes4(const int32_t *sums, float test, const float *rx)
    {
        float2 left = *(const float2 *)rx, right = *(const float2 *)(rx + 8);
        uint32_t low = __byte_perm(vote(sums[0], test * left.x), vote(sums[1], test * left.y), 0x0040);
        uint32_t high = __byte_perm(vote(sums[4], test * right.x), vote(sums[5], test * right.y), 0x0040);
        return tv_hopper_low_halves(low, high);
    }

    __device__ static void store(const args &a, const early &e, const tv_hopper_place &p, const int32_t (&acc)[WIDTH / 2])
    {
        const float *rx = e.share_rx(a, p);
        int lane = p.thread % 4;
        int64_t col = p.col + 8 * lane;
        tv_hopper_votes<BITS> votes[blocks][2];
#pragma unroll
        for (int i = 0; i < 2 * blocks; i++) {
            int64_t row = p.row + i % 2 * 8, c = col + 32 * (i / 2);
            if (row < a.n && c < a.k)
                votes[i / 2][i % 2] = tv_hopper_votes<BITS>::load(a.votes, row * a.k + c);
        }
#pragma unroll
        for (int i = 0; i < 2 * blocks; i++) {
            int b = i / 2, h = i % 2;
            int64_t row = p.row + 8 * h, c = col + 32 * b;
            float test = a.rule.tau * sqrtf((float)e.g[h]);
            test = test < 0.0f ? 0.0f : test; // then every sum but 0 votes, as below 0 it would
            uint32_t first = votes4(acc + 16 * b + 2 * h, test, rx + 32 * b + 2 * lane);
            uint32_t second = votes4(acc + 16 * b + 8 + 2 * h, test, rx + 32 * b + 16 + 2 * lane);
            tv_hopper_gather(first, second);
            if (row < a.n && c < a.k) {
                votes[b][h].add(first, second);
                votes[b][h].store(a.votes, row * a.k + c);
            }
        }
    }
};

// Any levels, any width: each warp puts 64 columns of its 16 rows into shared memory, then every lane takes eight columns of a row.
template <int WIDTH> struct tv_hopper_vote_any {
    typedef tv_gemm_vote_args args;
    typedef tv_hopper_squares<WIDTH> early;
    static constexpr int rx_bytes = WIDTH * (int)sizeof(float);
    static constexpr int scratch_bytes = rx_bytes + 64 * 64 * (int)sizeof(int32_t);

    __device__ static early load(const args &a, const tv_hopper_place &p) { return early::load(a, p); }

    __device__ static int vote(const args &a, int32_t sum, float root_g, float rx, uint32_t r16)
    {
        if (a.rule.levels > 1)
            return tv_vote_level((float)sum, root_g * rx, a.rule.levels, r16);
        return fabsf((float)sum) > a.rule.tau * root_g * rx ? tv_sign(sum) : 0;
    }

    // Eight columns of a row from (n, k) on; `width` of them exist. The draws of eight elements may lie in two blocks.
    __device__ static void row_votes(const args &a, const int32_t *sums, const float *rx, int64_t n, int64_t k, int width)
    {
        float root_g = sqrtf((float)a.g_sumsq[n]);
        int64_t element = n * a.k + k;
        tv_rng_key key = tv_vote_level_key(&a.rule);
        uint64_t index = (uint64_t)element >> 3;
        tv_rng_block draws = {{0, 0, 0, 0}};
        if (a.rule.levels > 1)
            draws = tv_rng_at(key, index);
        for (int i = 0; i < width; i++, element++) {
            if (a.rule.levels > 1 && (uint64_t)element >> 3 != index) {
                index = (uint64_t)element >> 3;
                draws = tv_rng_at(key, index);
            }
            int v = vote(a, sums[i], root_g, rx[i], tv_rng_lane(draws, (int)(element & 7)));
            if (v)
                tv_vote_add(a.votes, a.rule.vote_bits, element, v);
        }
    }

    // The same where eight votes lie on their own border, so that their draws are one block and they are added as words.
    __device__ static void whole_votes(const args &a, const int32_t *sums, const float *rx, int64_t n, int64_t k)
    {
        float root_g = sqrtf((float)a.g_sumsq[n]);
        int64_t element = n * a.k + k;
        tv_hopper_votes<8> bytes = {};
        tv_hopper_votes<16> halves = {};
        if (a.rule.vote_bits == 8)
            bytes = tv_hopper_votes<8>::load(a.votes, element);
        else
            halves = tv_hopper_votes<16>::load(a.votes, element);
        tv_rng_block draws = {{0, 0, 0, 0}};
        if (a.rule.levels > 1)
            draws = tv_rng_at(tv_vote_level_key(&a.rule), (uint64_t)element >> 3);
        uint32_t word[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int v = vote(a, sums[i], root_g, rx[i], tv_rng_lane(draws, i));
            word[i / 4] |= (uint32_t)(v & 0xFF) << (8 * (i % 4));
        }
        if (a.rule.vote_bits == 8) {
            bytes.add(word[0], word[1]);
            bytes.store(a.votes, element);
        } else {
            halves.add(word[0], word[1]);
            halves.store(a.votes, element);
        }
    }

    __device__ static void store(const args &a, const early &e, const tv_hopper_place &p, const int32_t (&acc)[WIDTH / 2])
    {
        const float *rx = e.share_rx(a, p);
        bool whole = a.k % 8 == 0 && ((uintptr_t)a.votes & 15) == 0;
        int lane = p.thread % TV_WARP;
        int64_t row0 = p.row - lane / 4; // of the warp
        int32_t *sums = (int32_t *)((uint8_t *)p.scratch + rx_bytes) + p.thread / TV_WARP * 16 * 64;
#pragma unroll
        for (int part = 0; part < WIDTH / 64; part++) {
            __syncwarp();
#pragma unroll
            for (int j = 0; j < 8; j++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    int row = lane / 4 + 8 * h, at = row * 64 + ((j ^ (row & 7)) * 8) + lane % 4 * 2;
                    const int32_t *from = acc + part * 32 + 4 * j + 2 * h;
                    *(int2 *)(sums + at) = make_int2(from[0], from[1]);
                }
            __syncwarp();
#pragma unroll 1
            for (int i = lane; i < 16 * 8; i += TV_WARP) {
                int row = i / 8, j = i % 8;
                int64_t n = row0 + row, k = p.col + part * 64 + j * 8;
                const int32_t *from = sums + row * 64 + ((j ^ (row & 7)) * 8);
                if (n < a.n && k < a.k && whole)
                    whole_votes(a, from, rx + part * 64 + j * 8, n, k);
                else if (n < a.n && k < a.k)
                    row_votes(a, from, rx + part * 64 + j * 8, n, k, (int)min(a.k - k, (int64_t)8));
            }
        }
    }
};

#endif
