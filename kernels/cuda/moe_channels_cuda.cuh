// Channels of each segment's rows to int8, turned: channels_vector.cuh by segment. A tile is 128 columns of one segment, pads included.
#ifndef TV_KERNELS_MOE_CHANNELS_CUDA_CUH
#define TV_KERNELS_MOE_CHANNELS_CUDA_CUH

#include "kernels/cuda/channels_vector.cuh"
#include "kernels/cuda/moe_segments.cuh"

#define TV_MOE_ANY_THREADS 128

typedef struct tv_moe_turn {
    const tv_segment *segments;
    int segment_count;
    const int32_t *item; // rows below 0 count as zeros; or NULL
    int64_t rows, channels, columns;
    uint32_t *top; // [segments, channels] the maxima
    int8_t *qt;
    int32_t *sumsq;
    int32_t *fault;
} tv_moe_turn;

// This block's 128 columns.
typedef struct tv_moe_tile {
    int segment;
    int64_t first, end; // rows
    int64_t column;     // of row `first`
    bool tell;          // the segment's first tile tells of faults
} tv_moe_tile;

__device__ static inline tv_moe_tile tv_moe_tile_of(const tv_moe_turn &o)
{
    int64_t column = (int64_t)blockIdx.y * TV_TILE_T;
    tv_moe_tile tile = {tv_moe_segment_of_column(o.segments, o.segment_count, column), 0, 0, column, false};
    if (tile.segment < 0)
        return tile;
    const tv_segment &s = o.segments[tile.segment];
    tile.first = s.first + column - s.padded;
    tile.end = s.first + s.rows;
    tile.tell = column == s.padded;
    return tile;
}

// The row behind column t of the tile; o.rows, which sources take as zeros, where there is none that counts.
__device__ static inline int64_t tv_moe_row_at(const tv_moe_turn &o, const tv_moe_tile &tile, int t)
{
    int64_t r = tile.first + t;
    return r < tile.end && (!o.item || o.item[r] >= 0) ? r : o.rows;
}

template <class Source> __global__ __launch_bounds__(256) static void tv_moe_tops_kernel(Source s, tv_moe_turn o)
{
    constexpr int SPAN = 4 * Source::QUADS;
    __shared__ uint32_t tops[SPAN][TV_WARP];
    tv_moe_tile tile = tv_moe_tile_of(o);
    int64_t group = (int64_t)blockIdx.x * TV_WARP + tv_warp_lane();
    uint32_t most[SPAN] = {0};
    if (tile.segment < 0)
        return;
    for (int i = threadIdx.x; i < SPAN * TV_WARP; i += blockDim.x)
        tops[i / TV_WARP][i % TV_WARP] = 0;
    __syncthreads();
#pragma unroll 4
    for (int n = 0; n < TV_TILE_T / 8; n++) {
        float4 v[Source::QUADS];
        int64_t r = tv_moe_row_at(o, tile, n * 8 + (int)threadIdx.x / TV_WARP);
        s.expand(s.load(r, group / 8, (int)(group % 8)), v);
#pragma unroll
        for (int quad = 0; quad < Source::QUADS; quad++)
            tv_raise4(most + 4 * quad, v[quad]);
    }
#pragma unroll
    for (int i = 0; i < SPAN; i++)
        atomicMax(&tops[i][tv_warp_lane()], most[i]);
    __syncthreads();
    for (int i = threadIdx.x; i < SPAN * TV_WARP; i += blockDim.x) {
        int64_t c = (int64_t)blockIdx.x * SPAN * TV_WARP + i;
        if (c < s.channels)
            atomicMax(o.top + tile.segment * o.channels + c, tops[i % SPAN][i / SPAN]);
    }
}

template <class Source>
__global__ __launch_bounds__(TV_TILE_T_THREADS, Source::BLOCKS) static void tv_moe_tile_kernel(Source s, tv_moe_turn o)
{
    constexpr int ROWS = 32 * Source::QUADS;
    __shared__ __align__(16) uint32_t tile[ROWS][TV_TILE_T_WORDS];
    __shared__ __align__(16) float inverse[ROWS];
    int g = threadIdx.x % 8, r = threadIdx.x / 8;
    tv_moe_tile at = tv_moe_tile_of(o);
    typename Source::raw in[4];
    if (at.segment < 0)
        return;
    for (int row = threadIdx.x; row < ROWS; row += TV_TILE_T_THREADS) {
        int64_t c = s.channel(blockIdx.x, row);
        uint32_t top = c < 0 ? 0 : o.top[at.segment * o.channels + c];
        inverse[row] = c < 0 ? 0.0f : tv_inverse127(tv_usable_absmax(top, at.tell, o.fault));
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
        in[j] = s.load(tv_moe_row_at(o, at, 4 * r + j), blockIdx.x, g);
    __syncthreads();
    tv_tile_fill<Source>(in, inverse, tile);
    __syncthreads();
#pragma unroll
    for (int n = 0; n < Source::QUADS; n++) {
        int row = r + 32 * n;
        int64_t c = s.channel(blockIdx.x, row);
        uint4 piece = ((const uint4 *)tile[row])[g ^ Source::writer(row)];
        if (c >= 0)
            *(uint4 *)(o.qt + c * o.columns + at.column + 16 * g) = piece;
        int sum = tv_squares(piece, 0);
        for (int x = 4; x >= 1; x >>= 1)
            sum += __shfl_xor_sync(0xFFFFFFFFu, sum, x);
        if (g == 0 && c >= 0)
            atomicAdd(o.sumsq + at.segment * o.channels + c, sum);
    }
}

// Any widths: a block a channel of a segment. Value: (row, channel) -> float.
template <class Value> __global__ static void tv_moe_any_kernel(Value value, tv_moe_turn o)
{
    __shared__ uint32_t top;
    __shared__ int sum;
    int64_t c = blockIdx.x;
    int segment = (int)blockIdx.y, squares = 0;
    tv_segment s = o.segments[segment];
    uint32_t most = 0;
    if (threadIdx.x == 0)
        top = 0, sum = 0;
    __syncthreads();
    for (int64_t r = s.first + threadIdx.x; r < s.first + s.rows; r += blockDim.x)
        if (!o.item || o.item[r] >= 0)
            most = max(most, tv_magnitude(value(r, c)));
    atomicMax(&top, most);
    __syncthreads();
    float inverse = tv_inverse127(tv_usable_absmax(top, threadIdx.x == 0, o.fault));
    int8_t *qt = o.qt + c * o.columns + s.padded;
    for (int64_t i = threadIdx.x; i < (s.rows + TV_SEGMENT_PAD - 1) / TV_SEGMENT_PAD * TV_SEGMENT_PAD;
         i += blockDim.x) {
        int64_t r = s.first + i;
        bool counts = i < s.rows && (!o.item || o.item[r] >= 0) && inverse != 0.0f;
        int q = counts ? (int)rintf(value(r, c) * inverse) : 0;
        qt[i] = (int8_t)q;
        squares += q * q;
    }
    atomicAdd(&sum, squares);
    __syncthreads();
    if (threadIdx.x == 0)
        o.sumsq[segment * o.channels + c] = sum;
}

// Room for the maxima, and zeros in it and in the sums.
static inline tv_status tv_moe_turn_start(tv_moe_turn *o, cudaStream_t stream)
{
    void *memory;
    size_t bytes = (size_t)o->segment_count * (size_t)o->channels * sizeof(uint32_t);
    TV_TRY(moe_scratch_cuda(bytes, &memory));
    o->top = (uint32_t *)memory;
    TV_CUDA_TRY(cudaMemsetAsync(o->top, 0, bytes, stream));
    TV_CUDA_TRY(cudaMemsetAsync(o->sumsq, 0, bytes, stream));
    return TV_OK;
}

static inline bool tv_moe_turn_fits(const tv_moe_turn &o) { return o.columns % 16 == 0 && tv_cuda_aligned({o.qt}); }

#endif
