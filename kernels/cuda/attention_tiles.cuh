// What the tiled attention kernels share. A warp owns 16 rows, queries or keys, and walks over the other side, a block of 32 rows
// (block_sum.h) a step.
//
// Both kinds of products run on int8 tensor cores, m16n8k32. In the dots of a step lane 4 g + t gets the rows g and g + 8 and the columns
// 8 n + 2 t + e, so it always sees the same eight of sum32's 32 lanes, and they stay in registers. The weights that it makes of them become
// two digits of a byte, Q = 256 high + low, and are the left operand of the block's sums as they lie: the order in which a product goes
// through a step's columns is free, so the right operand, turned in shared memory, follows the lanes. The other side's rows of the next step
// are on their way in registers meanwhile.
//
// A pair that the causal mask takes out gets weight +0: it raises no top and adds nothing.
#ifndef TV_KERNELS_ATTENTION_TILES_CUH
#define TV_KERNELS_ATTENTION_TILES_CUH

#include "kernels/block_sum.h"
#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/mma_cuda.cuh"
#include "kernels/cuda/vector_cuda.cuh"

#define TV_TILE_WIDTH 64
#define TV_TILE_ROWS 16 // of a warp
#define TV_TILE_WARPS 4
#define TV_TILE_BLOCK (TV_TILE_ROWS * TV_TILE_WARPS)
#define TV_TILE_THREADS (TV_TILE_WARPS * TV_WARP)
#define TV_TILE_STEP TV_BLOCK_ROWS
#define TV_TILE_GROUPS (TV_TILE_STEP / 8)  // products a step
#define TV_TILE_PIECES (TV_TILE_WIDTH / 4) // words of a row
#define TV_TILE_PITCH 40 // words of four turned channels: the lanes' stores and loads then meet few banks twice

// One window and head: token i of the window is item first + i heads of [M, H]. The warp's rows begin at `row`, the block's at `tile`.
typedef struct tv_tile_view {
    int64_t first;
    int heads, context, tile, row;
    float inv_sqrt;
} tv_tile_view;

// A step's rows as they are, for the dots: word p of row r at p xor 4 ((r / 2) mod 4).
typedef uint32_t tv_tile_bytes[TV_TILE_STEP][TV_TILE_PIECES];

// A step's rows turned, for the sums: [c / 4][8 (c mod 4) + 2 t + half] holds channel c of the columns that lane t of four has in the first
// or second half of the step.
typedef uint32_t tv_tile_turned[TV_TILE_PIECES][TV_TILE_PITCH];

// A thread's share of a step's rows: one word of each of the four rows that meet in a turned word.
typedef struct tv_tile_share {
    uint32_t word[4];
} tv_tile_share;

// A lane's weights of a step: [h][n][e] of row g + 8 h and column 8 n + 2 t + e.
typedef float tv_tile_weights[2][TV_TILE_GROUPS][2];

// The same as integers, and what their sums are multiplied by.
typedef struct tv_tile_integers {
    uint32_t low[4], high[4];
    float from_integer[2];
} tv_tile_integers;

// Sums of the rows g + 8 h, channels 8 n + 2 t + e: [n][2 h + e].
typedef float tv_tile_sums[TV_TILE_WIDTH / 8][4];

__device__ static inline int tv_tile_g(void) { return tv_warp_lane() / 4; }
__device__ static inline int tv_tile_t(void) { return tv_warp_lane() % 4; }

// Blocks come in the order of their work, longest first: for queries that is from the last tile, for keys from the first.
__device__ static inline tv_tile_view tv_tile_view_of(int64_t tokens, int64_t heads, int64_t context, bool queries)
{
    unsigned windows = (unsigned)tokens / (unsigned)context, pairs = windows * (unsigned)heads;
    unsigned pair = blockIdx.x % pairs, tile = blockIdx.x / pairs, window = pair / (unsigned)heads;
    tv_tile_view v = {(int64_t)window * context * heads + pair % (unsigned)heads,
                      (int)heads,
                      (int)context,
                      0,
                      0,
                      1.0f / sqrtf((float)TV_TILE_WIDTH)};
    if (queries)
        tile = gridDim.x / pairs - 1 - tile;
    v.tile = (int)tile * TV_TILE_BLOCK;
    v.row = v.tile + (int)threadIdx.x / TV_WARP * TV_TILE_ROWS;
    return v;
}

// Tokens behind the window give its last one.
__device__ static inline int tv_tile_token(const tv_tile_view &v, int i) { return i < v.context ? i : v.context - 1; }

// Row of token i in x [M, H, 64] and its value in [M, H].
__device__ static inline const int8_t *tv_tile_row(const tv_tile_view &v, const int8_t *x, int i)
{
    return x + v.first * TV_TILE_WIDTH + (int64_t)tv_tile_token(v, i) * (v.heads * TV_TILE_WIDTH);
}
__device__ static inline float tv_tile_value(const tv_tile_view &v, const float *x, int i)
{
    return x[v.first + (int64_t)tv_tile_token(v, i) * v.heads];
}
// Where the value of a token inside the window lies.
__device__ static inline int64_t tv_tile_item(const tv_tile_view &v, int i) { return v.first + (int64_t)i * v.heads; }

// Behind the last key that a query of these `rows` rows sees.
__device__ static inline int tv_tile_end(const tv_tile_view &v, int row, int rows)
{
    return row >= v.context ? 0 : row + rows < v.context ? row + rows : v.context;
}

// Whether each of the warp's queries sees all keys of the step from j0 on.
__device__ static inline bool tv_tile_all_before(const tv_tile_view &v, int j0)
{
    return j0 + TV_TILE_STEP <= v.row + 1;
}

// A lane's quarter of row i. Which bytes of a row meet in which product does not matter, as long as both sides agree.
__device__ static inline int4 tv_tile_quarter(const tv_tile_view &v, const int8_t *x, int i)
{
    return *(const int4 *)(tv_tile_row(v, x, i) + tv_tile_t() * 16);
}

typedef struct tv_tile_side {
    int4 low, high; // quarters of the rows g and g + 8
} tv_tile_side;

__device__ static inline tv_tile_side tv_tile_side_of(const tv_tile_view &v, const int8_t *x)
{
    return {tv_tile_quarter(v, x, v.row + tv_tile_g()), tv_tile_quarter(v, x, v.row + tv_tile_g() + 8)};
}

// dots[2 h + e]: row g + 8 h with column 2 t + e of the n-th eight rows of the step. The sums stay below 2^22: they are counted up from the bits of
// 1.5 2^23 and are floats when that is taken off.
__device__ static inline void tv_tile_dots(const tv_tile_side &side, const tv_tile_bytes x, int n, float dots[4])
{
    const int32_t start = 0x4B400000;
    int g = tv_tile_g();
    int4 other = *(const int4 *)&x[8 * n + g][(tv_tile_t() ^ g / 2) * 4];
    uint32_t a[2][4] = {{(uint32_t)side.low.x, (uint32_t)side.high.x, (uint32_t)side.low.y, (uint32_t)side.high.y},
                        {(uint32_t)side.low.z, (uint32_t)side.high.z, (uint32_t)side.low.w, (uint32_t)side.high.w}};
    uint32_t b[2][2] = {{(uint32_t)other.x, (uint32_t)other.y}, {(uint32_t)other.z, (uint32_t)other.w}};
    int32_t sums[4] = {start, start, start, start};
    tv_mma_16832(sums, a[0], b[0]);
    tv_mma_16832(sums, a[1], b[1]);
#pragma unroll
    for (int i = 0; i < 4; i++)
        dots[i] = __int_as_float(sums[i]) - __int_as_float(start);
}

// Where a thread's share lies: piece `piece` of the rows 16 half + 8 (i / 2) + 2 t + i mod 2, i = 0..3.
typedef struct tv_tile_place {
    int t, half, piece;
} tv_tile_place;

__device__ static inline tv_tile_place tv_tile_place_of(void)
{
    int lane = tv_warp_lane(), warp = threadIdx.x / TV_WARP;
    return {lane / 8, warp % 2, warp / 2 * 8 + lane % 8};
}

__device__ static inline int tv_tile_place_row(const tv_tile_place &at, int i)
{
    return 16 * at.half + 8 * (i / 2) + 2 * at.t + i % 2;
}

// This thread's share of the rows from token i on.
__device__ static inline tv_tile_share tv_tile_fetch(const tv_tile_view &v, const int8_t *x, int i)
{
    tv_tile_share share;
    tv_tile_place at = tv_tile_place_of();
#pragma unroll
    for (int n = 0; n < 4; n++)
        share.word[n] = *(const uint32_t *)(tv_tile_row(v, x, i + tv_tile_place_row(at, n)) + 4 * at.piece);
    return share;
}

__device__ static inline void tv_tile_put_bytes(const tv_tile_share &share, tv_tile_bytes to)
{
    tv_tile_place at = tv_tile_place_of();
#pragma unroll
    for (int n = 0; n < 4; n++)
        to[tv_tile_place_row(at, n)][at.piece ^ 4 * at.t] = share.word[n];
}

__device__ static inline void tv_tile_put_turned(const tv_tile_share &share, tv_tile_turned to)
{
    tv_tile_place at = tv_tile_place_of();
    uint32_t turned[4];
    tv_turn4(share.word, turned);
#pragma unroll
    for (int n = 0; n < 4; n++)
        to[at.piece][8 * n + 2 * at.t + at.half] = turned[n];
}

// Scales of a step: those of `low` for the first TV_TILE_STEP threads, those of `high` for as many behind them; others get 0.
__device__ static inline float tv_tile_fetch_scale(const tv_tile_view &v, const float *low, const float *high, int i)
{
    int row = threadIdx.x % TV_TILE_STEP;
    if (threadIdx.x >= 2 * TV_TILE_STEP)
        return 0.0f;
    return tv_tile_value(v, threadIdx.x < TV_TILE_STEP ? low : high, i + row);
}

__device__ static inline void tv_tile_put_scale(float scale, float to[2][TV_TILE_STEP])
{
    if (threadIdx.x < 2 * TV_TILE_STEP)
        to[threadIdx.x / TV_TILE_STEP][threadIdx.x % TV_TILE_STEP] = scale;
}

// The larger one; NaN when one of them is.
__device__ static inline float tv_tile_larger(float a, float b)
{
    float larger;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
    return larger;
}

// tv_exp(x) for x <= 0: the value before the last scaling by 2^-64 is normal, so only that rounds. 0 x lets a NaN through.
__device__ static inline float tv_tile_exp(float x)
{
    float p, clamped = tv_tile_larger(x, -105.0f);
    int n;
    tv_exp_parts(clamped, &p, &n);
    return fmaf(tv_near_scale(p, n + 64), 0x1p-64f, clamped * 0.0f);
}

__device__ static inline tv_tile_integers tv_tile_integers_of(const tv_tile_weights w)
{
    const float magic = 12582912.0f; // leaves an integer in the low bits
    tv_tile_integers q;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = 0.0f;
#pragma unroll
        for (int n = 0; n < TV_TILE_GROUPS; n++)
            top = tv_tile_larger(tv_tile_larger(fabsf(w[h][n][0]), fabsf(w[h][n][1])), top);
        top = tv_tile_larger(top, __shfl_xor_sync(0xFFFFFFFFu, top, 1));
        top = tv_tile_larger(top, __shfl_xor_sync(0xFFFFFFFFu, top, 2));
        tv_block_scale scale = tv_block_scale_of(tv_float_bits(top));
        q.from_integer[h] = scale.from_integer;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float *x = w[h][2 * half], *y = w[h][2 * half + 1];
            float by = scale.to_integer;
            uint32_t a =
                __byte_perm(tv_float_bits(fmaf(x[0], by, magic)), tv_float_bits(fmaf(x[1], by, magic)), 0x5140u);
            uint32_t b =
                __byte_perm(tv_float_bits(fmaf(y[0], by, magic)), tv_float_bits(fmaf(y[1], by, magic)), 0x5140u);
            q.low[h + 2 * half] = __byte_perm(a, b, 0x5410u);
            q.high[h + 2 * half] = __byte_perm(a, b, 0x7632u);
        }
    }
    return q;
}

// Add a block's sums with the rows x.
__device__ static inline void tv_tile_add(const tv_tile_integers &q, const tv_tile_turned x, tv_tile_sums acc)
{
    int g = tv_tile_g(), t = tv_tile_t();
#pragma unroll
    for (int n = 0; n < TV_TILE_WIDTH / 8; n++) {
        uint2 columns = *(const uint2 *)&x[2 * n + g / 4][8 * (g % 4) + 2 * t];
        uint32_t b[2] = {columns.x, columns.y};
        int32_t sums[4] = {0, 0, 0, 0};
        tv_mma_16832(sums, q.high, b);
#pragma unroll
        for (int i = 0; i < 4; i++)
            sums[i] *= 256;
        tv_mma_16832_unsigned(sums, q.low, b);
#pragma unroll
        for (int i = 0; i < 4; i++)
            acc[n][i] = fmaf((float)sums[i], q.from_integer[i / 2], acc[n][i]);
    }
}

// out = acc times `low` for row g and `high` for row g + 8, where they lie inside the window.
__device__ static inline void tv_tile_store(const tv_tile_view &v, const tv_tile_sums acc, float low, float high,
                                            float *out)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int i = v.row + tv_tile_g() + 8 * h;
        float factor = h == 0 ? low : high, *row = out + tv_tile_item(v, i) * TV_TILE_WIDTH + 2 * tv_tile_t();
        if (i >= v.context)
            continue;
#pragma unroll
        for (int n = 0; n < TV_TILE_WIDTH / 8; n++)
            *(float2 *)(row + 8 * n) = make_float2(acc[n][2 * h] * factor, acc[n][2 * h + 1] * factor);
    }
}

// sum32's tree over sums[n][e], the lanes 8 n + 2 t + e of one row; every t gets the sum.
__device__ static inline float tv_tile_combine(const float sums[TV_TILE_GROUPS][2])
{
    float y[2];
#pragma unroll
    for (int e = 0; e < 2; e++) {
        y[e] = (sums[0][e] + sums[2][e]) + (sums[1][e] + sums[3][e]);
        y[e] = y[e] + __shfl_xor_sync(0xFFFFFFFFu, y[e], 2);
        y[e] = y[e] + __shfl_xor_sync(0xFFFFFFFFu, y[e], 1);
    }
    return y[0] + y[1];
}

// Blocks of a kernel.
static inline unsigned tv_tile_grid(int64_t tokens, int64_t heads, int64_t context)
{
    return (unsigned)(tokens / context * heads * tv_ceil_div(context, TV_TILE_BLOCK));
}

#endif
