// Channels of each segment's rows to int8, turned: channels_vector.cuh by segment. A tile is 128 columns of one segment, pads included.
#ifndef TV_KERNELS_MOE_CHANNELS_CUDA_CUH
#define TV_KERNELS_MOE_CHANNELS_CUDA_CUH

#include "kernels/cuda/channels_vector.cuh"
#include "kernels/cuda/moe_segments.cuh"

#define TV_MOE_ANY_THREADS 128

typedef struct tv_moe_channel_job {
    const tv_segment *segments;
    int segment_count;
    const int32_t *item; // rows below 0 count as zeros; or NULL
    int64_t rows, channels, columns;
    uint32_t *top; // [segments, channels] the maxima
    int8_t *qt;
    int32_t *sumsq;
    int32_t *fault;
} tv_moe_channel_job;

// 128 columns of one segment.
typedef struct tv_moe_tile {
    int segment;
    int64_t first, end; // rows
    int64_t column;     // of row `first`
    bool tell;          // the segment's first tile tells of faults
} tv_moe_tile;

__device__ static inline tv_moe_tile tv_moe_tile_of(const tv_moe_channel_job &o, int64_t piece)
{
    int64_t column = piece * TV_TILE_T;
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
__device__ static inline int64_t tv_moe_row_at(const tv_moe_channel_job &o, const tv_moe_tile &tile, int t)
{
    int64_t r = tile.first + t;
    return r < tile.end && (!o.item || o.item[r] >= 0) ? r : o.rows;
}

// Maxima of 32 lanes' channels, the `number`-th so many, in a piece of 128 columns. A block of 256 threads.
template <class Source>
__device__ static void tv_moe_tops(const Source &s, const tv_moe_channel_job &o, int64_t number, int64_t piece)
{
    constexpr int SPAN = 4 * Source::QUADS;
    __shared__ uint32_t tops[SPAN][TV_WARP];
    tv_moe_tile tile = tv_moe_tile_of(o, piece);
    int64_t group = number * TV_WARP + tv_warp_lane();
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
        int64_t c = number * SPAN * TV_WARP + i;
        if (c < s.channels)
            atomicMax(o.top + tile.segment * o.channels + c, tops[i % SPAN][i / SPAN]);
    }
}

template <class Source> __global__ __launch_bounds__(256) static void tv_moe_tops_kernel(Source s, tv_moe_channel_job o)
{
    tv_moe_tops(s, o, blockIdx.x, blockIdx.y);
}

// A thread's four rows of a tile.
template <class Source>
__device__ static inline void tv_moe_tile_load(const Source &s, const tv_moe_channel_job &o, const tv_moe_tile &at,
                                               int64_t number, typename Source::raw (&in)[4])
{
#pragma unroll
    for (int j = 0; j < 4; j++)
        in[j] = s.load(tv_moe_row_at(o, at, 4 * ((int)threadIdx.x / 8) + j), number, threadIdx.x % 8);
}

// The rounded tile to memory; the thread's squares are added to sum.
template <class Source>
__device__ static inline void tv_moe_tile_store(const Source &s, const tv_moe_channel_job &o, const tv_moe_tile &at,
                                                int64_t number, const uint32_t (*tile)[TV_TILE_T_WORDS],
                                                int (&sum)[Source::QUADS])
{
    int g = threadIdx.x % 8, r = threadIdx.x / 8;
#pragma unroll
    for (int n = 0; n < Source::QUADS; n++) {
        int row = r + 32 * n;
        int64_t c = s.channel(number, row);
        uint4 piece = ((const uint4 *)tile[row])[g ^ Source::writer(row)];
        if (c >= 0)
            *(uint4 *)(o.qt + c * o.columns + at.column + 16 * g) = piece;
        sum[n] = tv_squares(piece, sum[n]);
    }
}

// Tile `number` of the channels, in a piece of 128 columns, by maxima that are known.
template <class Source>
__device__ static void tv_moe_tile_piece(const Source &s, const tv_moe_channel_job &o, int64_t number, int64_t piece)
{
    constexpr int ROWS = 32 * Source::QUADS;
    __shared__ __align__(16) uint32_t tile[ROWS][TV_TILE_T_WORDS];
    __shared__ __align__(16) float inverse[ROWS];
    tv_moe_tile at = tv_moe_tile_of(o, piece);
    typename Source::raw in[4];
    int sum[Source::QUADS] = {0};
    if (at.segment < 0)
        return;
    for (int row = threadIdx.x; row < ROWS; row += TV_TILE_T_THREADS) {
        int64_t c = s.channel(number, row);
        uint32_t top = c < 0 ? 0 : o.top[at.segment * o.channels + c];
        inverse[row] = c < 0 ? 0.0f : tv_inverse127(tv_usable_absmax(top, at.tell, o.fault));
    }
    tv_moe_tile_load(s, o, at, number, in);
    __syncthreads();
    tv_tile_fill<Source>(in, inverse, tile);
    __syncthreads();
    tv_moe_tile_store(s, o, at, number, tile, sum);
#pragma unroll
    for (int n = 0; n < Source::QUADS; n++) {
        int64_t c = s.channel(number, (int)threadIdx.x / 8 + 32 * n);
        int all = tv_tile_sum(sum[n]);
        if (threadIdx.x % 8 == 0 && c >= 0)
            atomicAdd(o.sumsq + at.segment * o.channels + c, all);
    }
}

template <class Source>
__global__ __launch_bounds__(TV_TILE_T_THREADS, Source::BLOCKS) static void tv_moe_tile_kernel(Source s,
                                                                                               tv_moe_channel_job o)
{
    tv_moe_tile_piece(s, o, blockIdx.x, blockIdx.y);
}

// Tile `number` of the channels in all columns of a segment, which finds its maxima itself: for short segments. o.top is not looked at.
template <class Source>
__device__ static void tv_moe_tile_segment(const Source &s, const tv_moe_channel_job &o, int64_t number, int segment)
{
    constexpr int ROWS = 32 * Source::QUADS;
    __shared__ __align__(16) uint32_t tile[ROWS][TV_TILE_T_WORDS];
    __shared__ __align__(16) float inverse[ROWS];
    __shared__ uint32_t tops[ROWS];
    tv_segment segment_at = o.segments[segment];
    typename Source::raw in[4];
    uint32_t most[4 * Source::QUADS] = {0};
    int g = threadIdx.x % 8, sum[Source::QUADS] = {0};
    auto at = [&](int64_t n) {
        return tv_moe_tile{segment, segment_at.first + n, segment_at.first + segment_at.rows, segment_at.padded + n,
                           true};
    };
    for (int row = threadIdx.x; row < ROWS; row += TV_TILE_T_THREADS)
        tops[row] = 0;
    __syncthreads();
    for (int64_t n = 0; n < segment_at.rows; n += TV_TILE_T) {
        tv_moe_tile_load(s, o, at(n), number, in);
        tv_tile_raise<Source>(in, most);
    }
    tv_tile_inverses(s, number, most, tops, inverse, o.fault);
    for (int64_t n = 0; n < segment_at.rows; n += TV_TILE_T) {
        if (segment_at.rows > TV_TILE_T)
            tv_moe_tile_load(s, o, at(n), number, in);
        __syncthreads(); // inverse is there, and nobody reads the tile before this one
        tv_tile_fill<Source>(in, inverse, tile);
        __syncthreads();
        tv_moe_tile_store(s, o, at(n), number, tile, sum);
    }
#pragma unroll
    for (int n = 0; n < Source::QUADS; n++) {
        int64_t c = s.channel(number, (int)threadIdx.x / 8 + 32 * n);
        int all = tv_tile_sum(sum[n]);
        if (g == 0 && c >= 0)
            o.sumsq[segment * o.channels + c] = all;
    }
}

// Any widths: a block a channel of a segment. Value: (row, channel) -> float.
template <class Value> __global__ static void tv_moe_any_kernel(Value value, tv_moe_channel_job o)
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
static inline tv_status tv_moe_channels_start(tv_moe_channel_job *o, cudaStream_t stream)
{
    void *memory;
    size_t bytes = (size_t)o->segment_count * (size_t)o->channels * sizeof(uint32_t);
    TV_TRY(moe_scratch_cuda(bytes, &memory));
    o->top = (uint32_t *)memory;
    TV_CUDA_TRY(cudaMemsetAsync(o->top, 0, bytes, stream));
    TV_CUDA_TRY(cudaMemsetAsync(o->sumsq, 0, bytes, stream));
    return TV_OK;
}

static inline bool tv_moe_channels_fit(const tv_moe_channel_job &o)
{
    return o.columns % 16 == 0 && tv_cuda_aligned({o.qt});
}

#endif
