// Epilogues of the vote product on Hopper: the z-score test of tv_vote_rule on the sums in registers, votes added in place.
//
// tv_hopper_vote: one level, eight votes at a time (K a multiple of 8, votes on a 16-byte border). tv_hopper_vote_any: all the rest.
#ifndef TV_KERNELS_GEMM_HOPPER_VOTE_CUH
#define TV_KERNELS_GEMM_HOPPER_VOTE_CUH

#include "kernels/cuda/gemm_hopper.cuh"

// An epilogue's value as a float.
template <bool TWO> __device__ static inline float tv_hopper_float(int32_t value)
{
    return TWO ? tv_bits_float((uint32_t)value) : (float)value;
}

template <bool TWO> __device__ static inline float tv_hopper_g_square(const tv_gemm_vote_args &a, int64_t n)
{
    return TWO ? (float)a.g_sumsq2[n] : (float)a.g_sumsq[n];
}

// The sums of squares of a thread's two rows, and of the column of the tile that has the thread's number.
template <bool TWO> struct tv_hopper_squares {
    float g[2];
    int32_t x;

    __device__ void load(const tv_gemm_vote_args &a, const tv_hopper_place &p)
    {
        static_assert(TV_HOPPER_WIDTH == TV_HOPPER_WARPGROUP, "a thread a column");
#pragma unroll
        for (int h = 0; h < 2; h++)
            g[h] = p.row + 8 * h < a.n ? tv_hopper_g_square<TWO>(a, p.row + 8 * h) : 0.0f;
        x = p.col + p.thread < a.k ? a.x_sumsq[p.col + p.thread] : 0;
    }

    // rx of the tile's columns in shared memory, for the whole warpgroup.
    __device__ const float *share_rx(const tv_gemm_vote_args &a, const tv_hopper_place &p) const
    {
        float *rx = (float *)p.scratch;
        tv_named_sync(1 + p.group, TV_HOPPER_WARPGROUP); // all are done with the ones before
        rx[p.thread] = sqrtf((float)x / (float)a.tokens);
        tv_named_sync(1 + p.group, TV_HOPPER_WARPGROUP);
        return rx;
    }
};

// Eight votes beside each other in the int8 or int16 array, as words.
template <int BITS> struct tv_hopper_votes {
    alignas(BITS) uint32_t word[BITS / 4];

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
    // Top bit of every item; it is kept out of sums and differences, so that nothing is carried from item to item.
    static constexpr uint32_t top = BITS == 8 ? 0x80808080u : 0x80008000u;

    // Subtract `by`, 0 .. 127, from each vote: what is added then need not be negative.
    __device__ void lower(uint32_t by)
    {
        uint32_t each = by * (BITS == 8 ? 0x01010101u : 0x00010001u);
#pragma unroll
        for (int i = 0; i < BITS / 4; i++)
            word[i] = ((word[i] | top) - each) ^ (~word[i] & top);
    }
    // Add eight bytes of 0 .. 127.
    __device__ void add(uint32_t low, uint32_t high)
    {
        uint32_t by[4] = {low, high, 0, 0};
        if (BITS == 16) {
            by[0] = __byte_perm(low, 0, 0x4140), by[1] = __byte_perm(low, 0, 0x4342);
            by[2] = __byte_perm(high, 0, 0x4140), by[3] = __byte_perm(high, 0, 0x4342);
        }
#pragma unroll
        for (int i = 0; i < BITS / 4; i++)
            word[i] = ((word[i] & ~top) + by[i]) ^ (word[i] & top);
    }
};

// Four lanes hold two columns of each of four 8-column fragments (`first`: fragments 0 and 1, `second`: 2 and 3, 16 bits each). After
// it, lane q holds the eight columns of fragment q: a transposition in two exchanges. The selectors of byte_perm depend on the lane alone.
struct tv_hopper_gather {
    bool upper;
    uint32_t kept, sent, first, second;

    __device__ tv_hopper_gather()
    {
        const uint32_t low = 0x5410, high = 0x7632, low_swapped = 0x1054, high_swapped = 0x3276;
        bool odd = threadIdx.x & 1;
        upper = threadIdx.x & 2;
        kept = odd ? high : low, sent = odd ? low : high;
        uint32_t a = odd ? low_swapped : low, b = odd ? high_swapped : high;
        first = upper ? b : a, second = upper ? a : b;
    }
    __device__ void operator()(uint32_t *a, uint32_t *b) const
    {
        uint32_t own = upper ? *b : *a, got = __shfl_xor_sync(0xFFFFFFFFu, upper ? *a : *b, 2);
        uint32_t half = __byte_perm(own, got, kept);
        got = __shfl_xor_sync(0xFFFFFFFFu, __byte_perm(own, got, sent), 1);
        *a = __byte_perm(half, got, first);
        *b = __byte_perm(half, got, second);
    }
};

// The test in float arithmetic, which has twice the rate of integer arithmetic here. For an integer sum f and threshold t >= 0,
// clamp(2^30 f - 2^30 t, 0, 1) is 1 when f > t and 0 otherwise: unequal floats with f >= 1 are at least 2^-24 apart, and a fused
// multiply-add rounds once, so it keeps the sign. A NaN clamps to 0.
#define TV_HOPPER_STEEP 0x1p30f

__device__ static inline float tv_hopper_exceeds(float f, float steep_threshold)
{
    float out;
    asm("fma.rn.sat.f32 %0, %1, %2, %3;" : "=f"(out) : "f"(f), "f"(TV_HOPPER_STEEP), "f"(-steep_threshold));
    return out;
}

// 1 + vote of two sums, as bytes 0 and 1 of the word. Bytes 2 and 3 are no use.
__device__ static inline uint32_t tv_hopper_two_votes(float f0, float f1, float steep0, float steep1)
{
    const float bytes = 0x1p23f + 0x1p22f + 0x0101; // from here a unit is the last bit
    float vote0 = tv_hopper_exceeds(f0, steep0) - tv_hopper_exceeds(-f0, steep0);
    float vote1 = tv_hopper_exceeds(f1, steep1) - tv_hopper_exceeds(-f1, steep1);
    return tv_float_bits(fmaf(vote1, 256.0f, bytes + vote0));
}

template <int BITS, bool TWO> struct tv_hopper_vote {
    typedef tv_gemm_vote_args args;
    static constexpr bool two = TWO, raw = false;
    static constexpr int stages = 6, scratch_bytes = 1024;
    static constexpr int blocks = TV_HOPPER_WIDTH / 32; // of columns

    const args &a;
    tv_hopper_squares<TWO> squares[TV_HOPPER_BLOCKS];

    __device__ explicit tv_hopper_vote(const args &args) : a(args) {}
    __device__ void turn(const tv_hopper_item &) {}
    __device__ void begin(int m, const tv_hopper_place &p) { squares[m].load(a, p); }
    __device__ void end(const tv_hopper_place &) {}

    // What a thread adds to: in each block the eight columns of the lane, in two rows.
    struct view {
        int64_t element, down, room[2]; // index in the votes; elements between the rows; columns left in each

        __device__ view(const args &a, const tv_hopper_place &p)
        {
            int64_t col = p.col + p.thread % 4 * 8;
            element = p.row * a.k + col, down = 8 * a.k;
            room[0] = p.row < a.n ? a.k - col : 0, room[1] = p.row + 8 < a.n ? a.k - col : 0;
        }
    };

    // Add the votes of one row in 32 columns. rx: of this lane's columns.
    __device__ static void count(tv_hopper_votes<BITS> &votes, const int32_t *sums, const float *rx, float steep,
                                 const tv_hopper_gather &gather)
    {
        uint32_t bytes[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float2 pair = *(const float2 *)(rx + 8 * j);
            bytes[j] = tv_hopper_two_votes(tv_hopper_float<TWO>(sums[4 * j]), tv_hopper_float<TWO>(sums[4 * j + 1]),
                                           steep * pair.x, steep * pair.y);
        }
        uint32_t low = __byte_perm(bytes[0], bytes[1], 0x5410), high = __byte_perm(bytes[2], bytes[3], 0x5410);
        gather(&low, &high);
        votes.lower(1);
        votes.add(low, high);
    }

    template <bool WHOLE>
    __device__ static void write(void *all, const view &v, const float steep[2], const float *rx,
                                 const int32_t (&sums)[TV_HOPPER_SUMS])
    {
        tv_hopper_gather gather;
        tv_hopper_votes<BITS> votes[blocks][2] = {};
#pragma unroll
        for (int i = 0; i < 2 * blocks; i++) {
            int right = i / 2 * 32, h = i % 2;
            if (WHOLE || right < v.room[h])
                votes[i / 2][h] = tv_hopper_votes<BITS>::load(all, v.element + h * v.down + right);
        }
#pragma unroll
        for (int i = 0; i < 2 * blocks; i++) {
            int right = i / 2 * 32, h = i % 2;
            count(votes[i / 2][h], sums + right / 2 + 2 * h, rx + right, steep[h], gather);
            if (WHOLE || right < v.room[h])
                votes[i / 2][h].store(all, v.element + h * v.down + right);
        }
    }

    __device__ void store(int m, const tv_hopper_place &p, const int32_t (&sums)[TV_HOPPER_SUMS]) const
    {
        const float *rx = squares[m].share_rx(a, p) + p.thread % 4 * 2;
        view v(a, p);
        float steep[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float test = a.rule.tau * sqrtf(squares[m].g[h]);
            steep[h] = (test < 0.0f ? 0.0f : test) * TV_HOPPER_STEEP; // at 0 every sum but 0 votes, as below 0
        }
        if (tv_hopper_inside(a.n, a.k, p))
            write<true>(a.votes, v, steep, rx, sums);
        else
            write<false>(a.votes, v, steep, rx, sums);
    }
};

// Any levels, any width: each warp puts 64 columns of its 16 rows into shared memory, then every lane takes eight columns of a row.
template <bool TWO> struct tv_hopper_vote_any {
    typedef tv_gemm_vote_args args;
    static constexpr bool two = TWO, raw = false;
    static constexpr int rx_bytes = 1024;
    static constexpr int stages = 5, scratch_bytes = rx_bytes + 64 * 64 * (int)sizeof(int32_t);

    const args &a;
    tv_hopper_squares<TWO> squares[TV_HOPPER_BLOCKS];

    __device__ explicit tv_hopper_vote_any(const args &args) : a(args) {}
    __device__ void turn(const tv_hopper_item &) {}
    __device__ void begin(int m, const tv_hopper_place &p) { squares[m].load(a, p); }
    __device__ void end(const tv_hopper_place &) {}

    __device__ static int vote(const args &a, int32_t value, float root_g, float rx, uint32_t r16)
    {
        float sum = tv_hopper_float<TWO>(value);
        if (a.rule.levels > 1)
            return tv_vote_level(sum, root_g * rx, a.rule.levels, r16);
        return fabsf(sum) > a.rule.tau * root_g * rx ? (sum > 0.0f) - (sum < 0.0f) : 0;
    }

    // Eight columns of a row from (n, k) on; `width` of them exist. The draws of eight elements may lie in two blocks.
    __device__ static void row_votes(const args &a, const int32_t *sums, const float *rx, int64_t n, int64_t k,
                                     int width)
    {
        float root_g = sqrtf(tv_hopper_g_square<TWO>(a, n));
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
        float root_g = sqrtf(tv_hopper_g_square<TWO>(a, n));
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
        const int bias = 16; // above all levels
        uint32_t word[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int v = vote(a, sums[i], root_g, rx[i], tv_rng_lane(draws, i));
            word[i / 4] |= (uint32_t)(v + bias) << (8 * (i % 4));
        }
        if (a.rule.vote_bits == 8) {
            bytes.lower(bias);
            bytes.add(word[0], word[1]);
            bytes.store(a.votes, element);
        } else {
            halves.lower(bias);
            halves.add(word[0], word[1]);
            halves.store(a.votes, element);
        }
    }

    __device__ void store(int m, const tv_hopper_place &p, const int32_t (&sums)[TV_HOPPER_SUMS]) const
    {
        const float *rx = squares[m].share_rx(a, p);
        bool whole = a.k % 8 == 0 && ((uintptr_t)a.votes & 15) == 0;
        int lane = p.thread % TV_WARP;
        int64_t row0 = p.row - lane / 4; // of the warp
        int32_t *shared = (int32_t *)((uint8_t *)p.scratch + rx_bytes) + p.thread / TV_WARP * 16 * 64;
#pragma unroll
        for (int part = 0; part < TV_HOPPER_WIDTH / 64; part++) {
            __syncwarp();
#pragma unroll
            for (int j = 0; j < 8; j++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    int row = lane / 4 + 8 * h, at = row * 64 + ((j ^ (row & 7)) * 8) + lane % 4 * 2;
                    const int32_t *from = sums + part * 32 + 4 * j + 2 * h;
                    *(int2 *)(shared + at) = make_int2(from[0], from[1]);
                }
            __syncwarp();
#pragma unroll 1
            for (int i = lane; i < 16 * 8; i += TV_WARP) {
                int row = i / 8, j = i % 8;
                int64_t n = row0 + row, k = p.col + part * 64 + j * 8;
                const int32_t *from = shared + row * 64 + ((j ^ (row & 7)) * 8);
                if (n < a.n && k < a.k && whole)
                    whole_votes(a, from, rx + part * 64 + j * 8, n, k);
                else if (n < a.n && k < a.k)
                    row_votes(a, from, rx + part * 64 + j * 8, n, k, (int)min(a.k - k, (int64_t)8));
            }
        }
    }
};

#endif
