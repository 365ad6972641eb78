// What the tiled attention kernels share. A warp owns 16 rows, queries or keys, and walks over the other side, 32 rows a step.
//
// The integer dots of a step are m16n8k32 products. Lane 4 g + t holds the rows g and g + 8 and the columns 8 n + 2 t + e of a step, so
// it always sees the same eight of sum32's 32 lanes, and they stay in registers. The weights then go to shared memory, and the float
// chains run as an outer product a link: each lane has 8 rows x 4 channels in registers. The other side's rows lie in shared memory, as
// bytes for the dots and as floats for the chains; those of the next step are on their way in registers meanwhile.
//
// A pair that the causal mask takes out gets weight +0. That link changes nothing: a chain starts at +0, its terms are whole multiples of
// 2^-149, which never round to zero, and a sum of opposites is +0; so it is never -0, the only value to which +-0 adds a change.
#ifndef TV_KERNELS_ATTENTION_TILES_CUH
#define TV_KERNELS_ATTENTION_TILES_CUH

#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/mma_cuda.cuh"

#define TV_TILE_WIDTH 64
#define TV_TILE_ROWS 16 // of a warp
#define TV_TILE_WARPS 4
#define TV_TILE_BLOCK (TV_TILE_ROWS * TV_TILE_WARPS)
#define TV_TILE_THREADS (TV_TILE_WARPS * TV_WARP)
#define TV_TILE_STEP 32
#define TV_TILE_GROUPS (TV_TILE_STEP / 8) // products a step
#define TV_TILE_PITCH 20                  // of a column of weights: the lanes' stores then go to 32 banks

// One window and head: token i of the window is item first + i heads of [M, H]. The warp's rows begin at `row`, the block's at `tile`.
typedef struct tv_tile_view {
    int64_t first, heads;
    int context, tile, row;
    float inv_sqrt;
} tv_tile_view;

typedef float tv_tile_weights[TV_TILE_STEP][TV_TILE_PITCH];
typedef float4 tv_tile_floats[TV_TILE_STEP][TV_TILE_WIDTH / 4];
typedef uint32_t tv_tile_bytes[TV_TILE_STEP][TV_TILE_WIDTH / 4];

// A thread's share of a step's rows: words beside each other of every eighth row.
typedef struct tv_tile_share {
    uint32_t word[TV_TILE_STEP * TV_TILE_WIDTH / 4 / TV_TILE_THREADS];
} tv_tile_share;

__device__ static inline int tv_tile_g(void) { return tv_warp_lane() / 4; }
__device__ static inline int tv_tile_t(void) { return tv_warp_lane() % 4; }

// Blocks come in the order of their work, longest first: for queries that is from the last tile, for keys from the first.
__device__ static inline tv_tile_view tv_tile_view_of(int64_t tokens, int64_t heads, int64_t context, bool queries)
{
    int64_t pairs = tokens / context * heads, pair = blockIdx.x % pairs, tile = blockIdx.x / pairs;
    tv_tile_view v = {
        pair / heads * context * heads + pair % heads, heads, (int)context, 0, 0, 1.0f / sqrtf((float)TV_TILE_WIDTH)};
    if (queries)
        tile = gridDim.x / pairs - 1 - tile;
    v.tile = (int)tile * TV_TILE_BLOCK;
    v.row = v.tile + (int)threadIdx.x / TV_WARP * TV_TILE_ROWS;
    return v;
}

// Item of token i; tokens behind the window give its last one.
__device__ static inline int64_t tv_tile_item(const tv_tile_view &v, int i)
{
    return v.first + (i < v.context ? i : v.context - 1) * v.heads;
}

// Behind the last key that a query of these `rows` rows sees.
__device__ static inline int tv_tile_end(const tv_tile_view &v, int row, int rows)
{
    return row >= v.context ? 0 : row + rows < v.context ? row + rows : v.context;
}

// A lane's quarter of row i. Which bytes of a row meet in which product does not matter, as long as both sides agree.
__device__ static inline int4 tv_tile_quarter(const tv_tile_view &v, const int8_t *x, int i)
{
    return *(const int4 *)(x + tv_tile_item(v, i) * TV_TILE_WIDTH + tv_tile_t() * 16);
}

typedef struct tv_tile_side {
    int4 low, high; // quarters of the rows g and g + 8
} tv_tile_side;

__device__ static inline tv_tile_side tv_tile_side_of(const tv_tile_view &v, const int8_t *x)
{
    return {tv_tile_quarter(v, x, v.row + tv_tile_g()), tv_tile_quarter(v, x, v.row + tv_tile_g() + 8)};
}

// dots[2 h + e]: row g + 8 h with column 2 t + e of the n-th eight rows of the step.
__device__ static inline void tv_tile_dots(const tv_tile_side &side, const tv_tile_bytes x, int n, int32_t dots[4])
{
    int4 other = *(const int4 *)&x[8 * n + tv_tile_g()][tv_tile_t() * 4];
    uint32_t a[2][4] = {{(uint32_t)side.low.x, (uint32_t)side.high.x, (uint32_t)side.low.y, (uint32_t)side.high.y},
                        {(uint32_t)side.low.z, (uint32_t)side.high.z, (uint32_t)side.low.w, (uint32_t)side.high.w}};
    uint32_t b[2][2] = {{(uint32_t)other.x, (uint32_t)other.y}, {(uint32_t)other.z, (uint32_t)other.w}};
    dots[0] = dots[1] = dots[2] = dots[3] = 0;
    tv_mma_16832(dots, a[0], b[0]);
    tv_mma_16832(dots, a[1], b[1]);
}

#define TV_TILE_ROW_WORDS (TV_TILE_WIDTH / 4)
#define TV_TILE_SHARE_ROWS (TV_TILE_THREADS / TV_TILE_ROW_WORDS) // between a thread's words

// This thread's share of the rows from token i on.
__device__ static inline tv_tile_share tv_tile_fetch(const tv_tile_view &v, const int8_t *x, int i)
{
    tv_tile_share share;
    int row = threadIdx.x / TV_TILE_ROW_WORDS, at = threadIdx.x % TV_TILE_ROW_WORDS * 4;
#pragma unroll
    for (int n = 0; n < (int)(sizeof share.word / sizeof *share.word); n++)
        share.word[n] = *(const uint32_t *)(x + tv_tile_item(v, i + row + n * TV_TILE_SHARE_ROWS) * TV_TILE_WIDTH + at);
    return share;
}

__device__ static inline void tv_tile_put_bytes(const tv_tile_share &share, tv_tile_bytes to)
{
    int row = threadIdx.x / TV_TILE_ROW_WORDS, piece = threadIdx.x % TV_TILE_ROW_WORDS;
#pragma unroll
    for (int n = 0; n < (int)(sizeof share.word / sizeof *share.word); n++)
        to[row + n * TV_TILE_SHARE_ROWS][piece] = share.word[n];
}

__device__ static inline void tv_tile_put_floats(const tv_tile_share &share, tv_tile_floats to)
{
    int row = threadIdx.x / TV_TILE_ROW_WORDS, piece = threadIdx.x % TV_TILE_ROW_WORDS;
#pragma unroll
    for (int n = 0; n < (int)(sizeof share.word / sizeof *share.word); n++) {
        uint32_t w = share.word[n];
        to[row + n * TV_TILE_SHARE_ROWS][piece] =
            make_float4((float)(int8_t)w, (float)(int8_t)(w >> 8), (float)(int8_t)(w >> 16), (float)(int8_t)(w >> 24));
    }
}

// Scales of a step: those of `low` for the first TV_TILE_STEP threads, those of `high` for as many behind them; others get 0.
__device__ static inline float tv_tile_fetch_scale(const tv_tile_view &v, const float *low, const float *high, int i)
{
    int row = threadIdx.x % TV_TILE_STEP;
    if (threadIdx.x >= 2 * TV_TILE_STEP)
        return 0.0f;
    return (threadIdx.x < TV_TILE_STEP ? low : high)[tv_tile_item(v, i + row)];
}

__device__ static inline void tv_tile_put_scale(float scale, float to[2][TV_TILE_STEP])
{
    if (threadIdx.x < 2 * TV_TILE_STEP)
        to[threadIdx.x / TV_TILE_STEP][threadIdx.x % TV_TILE_STEP] = scale;
}

// One step of the chains acc[m][c] of rows 8 (lane / 16) + m, channels 4 (lane mod 16) + c.
__device__ static inline void tv_tile_chain(const tv_tile_weights weights, const tv_tile_floats x, float acc[8][4])
{
    int lane = tv_warp_lane(), row = lane / 16 * 8;
#pragma unroll 8
    for (int j = 0; j < TV_TILE_STEP; j++) {
        float4 low = *(const float4 *)&weights[j][row], high = *(const float4 *)&weights[j][row + 4];
        float4 y = x[j][lane % 16];
        float w[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
        for (int m = 0; m < 8; m++) {
            acc[m][0] = fmaf(w[m], y.x, acc[m][0]);
            acc[m][1] = fmaf(w[m], y.y, acc[m][1]);
            acc[m][2] = fmaf(w[m], y.z, acc[m][2]);
            acc[m][3] = fmaf(w[m], y.w, acc[m][3]);
        }
    }
}

// out = acc times factor[row of the warp], for the rows inside the window.
__device__ static inline void tv_tile_store(const tv_tile_view &v, const float acc[8][4], const float factor[8],
                                            float *out)
{
    int lane = tv_warp_lane(), row = v.row + lane / 16 * 8;
#pragma unroll
    for (int m = 0; m < 8; m++)
        if (row + m < v.context) {
            float4 y =
                make_float4(acc[m][0] * factor[m], acc[m][1] * factor[m], acc[m][2] * factor[m], acc[m][3] * factor[m]);
            *(float4 *)(out + tv_tile_item(v, row + m) * TV_TILE_WIDTH + lane % 16 * 4) = y;
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
