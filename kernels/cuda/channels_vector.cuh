// Channels to int8, turned, 16 bytes at a time: the operands of the vote product.
//
// A tile is 128 tokens of some channels. Thread (g, r) of a block reads 4 tokens of a few neighbouring channels, rounds them and packs
// the tokens of a channel into a word; words go to shared memory, a row a channel, and leave as 16-byte pieces of its tokens. A row's eight
// pieces are swapped by xor with the g that wrote them, so that both the words of a warp and the pieces of a row lie in different banks.
//
// The maxima must be known before. They wait in one of two arrays that calls take in turns (tops_turn.h); the tile kernel of a call zeroes the
// other, for the next call. All calls must therefore be on one stream.
#ifndef TV_KERNELS_CHANNELS_VECTOR_CUH
#define TV_KERNELS_CHANNELS_VECTOR_CUH

#include "kernels/cuda/tops_turn.h"
#include "kernels/cuda/vector_cuda.cuh"

#define TV_TILE_T 128                   // tokens of a tile
#define TV_TILE_T_WORDS (TV_TILE_T / 4) // words of a channel
#define TV_TILE_T_THREADS 256
#define TV_TOPS_SLICE 32 // tokens of a block that looks for maxima

// TV_BACKEND: more channels than there is room for.
tv_status tv_channel_tops_take(int64_t channels, tv_channel_tops *out);

typedef struct tv_tile_out {
    tv_channel_tops tops;
    int8_t *qt;
    int32_t *sumsq; // zeros before
    int32_t *fault;
} tv_tile_out;

// Sources. BLOCKS: how many shall fit on a multiprocessor. QUADS: groups of 4 channels that a thread has; ROWS = 32 QUADS channels of a tile. raw: 16 bytes or so of a token.

// A float gradient.
struct tv_float_tiles {
    static constexpr int QUADS = 1, BLOCKS = 5;
    typedef float4 raw;
    int64_t tokens, channels;
    const float *x;
    __device__ int64_t channel(int64_t tile, int row) const
    {
        int64_t c = tile * 32 + row;
        return c < channels ? c : -1;
    }
    __device__ static int row_of(int g, int) { return 4 * g; }
    __device__ static int writer(int row) { return row / 4; }
    __device__ raw load(int64_t t, int64_t tile, int g) const
    {
        int64_t c = tile * 32 + 4 * g;
        return t < tokens && c < channels ? *(const float4 *)(x + t * channels + c) : tv_quad_zero();
    }
    __device__ static void expand(const raw &in, float4 *v) { v[0] = in; }
};

// A saved operand: the values q scale.
struct tv_saved_tiles {
    static constexpr int QUADS = 4, BLOCKS = 4;
    struct raw {
        uint4 q;
        float scale;
    };
    int64_t tokens, channels;
    const int8_t *q;
    const float *scale;
    __device__ int64_t channel(int64_t tile, int row) const
    {
        int64_t c = tile * 128 + row;
        return c < channels ? c : -1;
    }
    __device__ static int row_of(int g, int quad) { return 16 * g + 4 * quad; }
    __device__ static int writer(int row) { return row / 16; }
    __device__ raw load(int64_t t, int64_t tile, int g) const
    {
        int64_t c = tile * 128 + 16 * g;
        if (t >= tokens || c >= channels)
            return {make_uint4(0, 0, 0, 0), 0.0f};
        return {*(const uint4 *)(q + t * channels + c), scale[t]};
    }
    __device__ static void expand(const raw &in, float4 *v)
    {
        v[0] = tv_scale4(tv_word_floats(in.q.x), in.scale);
        v[1] = tv_scale4(tv_word_floats(in.q.y), in.scale);
        v[2] = tv_scale4(tv_word_floats(in.q.z), in.scale);
        v[3] = tv_scale4(tv_word_floats(in.q.w), in.scale);
    }
};

// Maxima over a slice of tokens: a warp's lanes take neighbouring groups of channels.
template <class Source>
__global__ __launch_bounds__(256) static void tv_tops_kernel(Source s, uint32_t *top, int32_t *sumsq)
{
    constexpr int SPAN = 4 * Source::QUADS;
    __shared__ uint32_t tops[SPAN][TV_WARP];
    int64_t group = (int64_t)blockIdx.x * TV_WARP + tv_warp_lane(),
            first = (int64_t)(gridDim.y - 1 - blockIdx.y) * TV_TOPS_SLICE;
    uint32_t most[SPAN] = {0};
    tv_grid_clear(sumsq, s.channels);
    for (int i = threadIdx.x; i < SPAN * TV_WARP; i += blockDim.x)
        tops[i / TV_WARP][i % TV_WARP] = 0;
    __syncthreads();
#pragma unroll
    for (int n = 0; n < TV_TOPS_SLICE / 8; n++) {
        float4 v[Source::QUADS];
        s.expand(s.load(first + n * 8 + threadIdx.x / TV_WARP, group / 8, (int)(group % 8)), v);
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
            atomicMax(top + c, tops[i % SPAN][i / SPAN]);
    }
}

// Raise the maxima of a thread's channels, 4 QUADS, by its 4 tokens.
template <class Source> __device__ static inline void tv_tile_raise(const typename Source::raw *in, uint32_t *most)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float4 v[Source::QUADS];
        Source::expand(in[j], v);
#pragma unroll
        for (int quad = 0; quad < Source::QUADS; quad++)
            tv_raise4(most + 4 * quad, v[quad]);
    }
}

// The block's threads put their maxima together in tops, which is zeros, and inverse gets 127 / absmax of tile `number`. Before inverse is read
// the threads must meet once more.
template <class Source>
__device__ static inline void tv_tile_inverses(const Source &s, int64_t number, const uint32_t *most, uint32_t *tops,
                                               float *inverse, int32_t *fault)
{
    int g = threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < 4 * Source::QUADS; i++)
        atomicMax(&tops[Source::row_of(g, i / 4) + i % 4], most[i]);
    __syncthreads();
    for (int row = threadIdx.x; row < 32 * Source::QUADS; row += TV_TILE_T_THREADS)
        inverse[row] = tv_inverse127(tv_usable_absmax(tops[row], s.channel(number, row) >= 0, fault));
}

// A thread's 4 tokens x 4 QUADS channels as words of the tile.
template <class Source>
__device__ static inline void tv_tile_fill(const typename Source::raw *in, const float *inverse,
                                           uint32_t (*tile)[TV_TILE_T_WORDS])
{
    int g = threadIdx.x % 8, r = threadIdx.x / 8, place = ((r / 4) ^ g) * 4 + r % 4;
    float4 v[4][Source::QUADS];
#pragma unroll
    for (int j = 0; j < 4; j++)
        Source::expand(in[j], v[j]);
#pragma unroll
    for (int quad = 0; quad < Source::QUADS; quad++) {
        int row = Source::row_of(g, quad);
        float4 by = *(const float4 *)(inverse + row), a = v[0][quad], b = v[1][quad], c = v[2][quad], d = v[3][quad];
        tile[row][place] = tv_quantize4(make_float4(a.x, b.x, c.x, d.x), by.x);
        tile[row + 1][place] = tv_quantize4(make_float4(a.y, b.y, c.y, d.y), by.y);
        tile[row + 2][place] = tv_quantize4(make_float4(a.z, b.z, c.z, d.z), by.z);
        tile[row + 3][place] = tv_quantize4(make_float4(a.w, b.w, c.w, d.w), by.w);
    }
}

// Sum of squares of 16 bytes.
__device__ static inline int tv_squares(uint4 p, int sum)
{
    sum = __dp4a((int)p.x, (int)p.x, sum);
    sum = __dp4a((int)p.y, (int)p.y, sum);
    sum = __dp4a((int)p.z, (int)p.z, sum);
    return __dp4a((int)p.w, (int)p.w, sum);
}

// The pieces of 16 tokens from t0 on of tile `number`, and their squares.
template <class Source>
__device__ static inline void tv_tile_store(const Source &s, const tv_tile_out &o, int64_t number, int64_t t0,
                                            const uint32_t (*tile)[TV_TILE_T_WORDS], int *sum)
{
    int g = threadIdx.x % 8, r = threadIdx.x / 8;
#pragma unroll
    for (int n = 0; n < Source::QUADS; n++) {
        int row = r + 32 * n;
        int64_t c = s.channel(number, row);
        uint4 piece = ((const uint4 *)tile[row])[g ^ Source::writer(row)];
        if (c >= 0 && t0 + 16 * g < s.tokens)
            *(uint4 *)(o.qt + c * s.tokens + t0 + 16 * g) = piece;
        sum[n] = tv_squares(piece, sum[n]);
    }
}

// A channel's sum of squares, in the thread with g = 0; the others have no use for theirs.
__device__ static inline int tv_tile_sum(int sum)
{
    for (int x = 4; x >= 1; x >>= 1)
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, x);
    return sum;
}

// Tiles of the channels blockIdx.x, tokens from blockIdx.y `slice` on.
template <class Source>
__global__ __launch_bounds__(TV_TILE_T_THREADS, Source::BLOCKS) static void tv_tile_kernel(Source s, tv_tile_out o,
                                                                                           int slice)
{
    constexpr int ROWS = 32 * Source::QUADS;
    __shared__ __align__(16) uint32_t tile[ROWS][TV_TILE_T_WORDS];
    __shared__ __align__(16) float inverse[ROWS];
    int g = threadIdx.x % 8, r = threadIdx.x / 8, sum[Source::QUADS] = {0};
    int64_t first = (int64_t)blockIdx.y * slice, end = first + slice < s.tokens ? first + slice : s.tokens;
    tv_grid_clear(o.tops.spent, o.tops.spent_count);
    for (int row = threadIdx.x; row < ROWS; row += TV_TILE_T_THREADS) {
        int64_t c = s.channel(blockIdx.x, row);
        inverse[row] = c < 0 ? 0.0f : tv_inverse127(tv_usable_absmax(o.tops.top[c], blockIdx.y == 0, o.fault));
    }
    __syncthreads();
    for (int64_t t0 = first; t0 < end; t0 += TV_TILE_T) {
        typename Source::raw in[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            in[j] = s.load(t0 + 4 * r + j, blockIdx.x, g);
        tv_tile_fill<Source>(in, inverse, tile);
        __syncthreads();
        tv_tile_store(s, o, blockIdx.x, t0, tile, sum);
        __syncthreads();
    }
#pragma unroll
    for (int n = 0; n < Source::QUADS; n++) {
        int64_t c = s.channel(blockIdx.x, r + 32 * n);
        int all = tv_tile_sum(sum[n]);
        if (g == 0 && c >= 0)
            atomicAdd(o.sumsq + c, all);
    }
}

// Tile `number`, which has all tokens: it finds its maxima itself, and o.tops is not looked at.
template <class Source> __device__ static void tv_lone_tile(const Source &s, const tv_tile_out &o, int64_t number)
{
    constexpr int ROWS = 32 * Source::QUADS;
    __shared__ __align__(16) uint32_t tile[ROWS][TV_TILE_T_WORDS];
    __shared__ __align__(16) float inverse[ROWS];
    __shared__ uint32_t tops[ROWS];
    int g = threadIdx.x % 8, r = threadIdx.x / 8, sum[Source::QUADS] = {0};
    uint32_t most[4 * Source::QUADS] = {0};
    typename Source::raw in[4];
    for (int row = threadIdx.x; row < ROWS; row += TV_TILE_T_THREADS)
        tops[row] = 0;
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 4; j++)
        in[j] = s.load(4 * r + j, number, g);
    tv_tile_raise<Source>(in, most);
    tv_tile_inverses(s, number, most, tops, inverse, o.fault);
    __syncthreads();
    tv_tile_fill<Source>(in, inverse, tile);
    __syncthreads();
    tv_tile_store(s, o, number, 0, tile, sum);
#pragma unroll
    for (int n = 0; n < Source::QUADS; n++) {
        int64_t c = s.channel(number, r + 32 * n);
        int all = tv_tile_sum(sum[n]);
        if (g == 0 && c >= 0)
            o.sumsq[c] = all;
    }
}

template <class Source>
__global__ __launch_bounds__(TV_TILE_T_THREADS) static void tv_lone_tile_kernel(Source s, tv_tile_out o)
{
    tv_lone_tile(s, o, blockIdx.x);
}

// `tiles` tiles of channels; tokens must be a multiple of 16. Slices as long as they leave the chip enough blocks.
template <class Source>
static inline void tv_tile_launch(const Source &s, const tv_tile_out &o, int64_t tiles, cudaStream_t stream)
{
    int slice = 4 * TV_TILE_T;
    while (slice > TV_TILE_T && tiles * tv_ceil_div(s.tokens, slice) < 4 * 132 * 3 / 4)
        slice /= 2;
    dim3 grid((unsigned)tiles, tv_cuda_blocks(s.tokens, slice));
    tv_tile_kernel<Source><<<grid, TV_TILE_T_THREADS, 0, stream>>>(s, o, slice);
}

// Maxima first, then tiles.
template <class Source> static inline void tv_tops_launch(const Source &s, const tv_tile_out &o, cudaStream_t stream)
{
    dim3 grid(tv_cuda_blocks(s.channels, TV_WARP * 4 * Source::QUADS), tv_cuda_blocks(s.tokens, TV_TOPS_SLICE));
    tv_tops_kernel<Source><<<grid, 256, 0, stream>>>(s, o.tops.top, o.sumsq);
}

// Channels of a whole source: in one launch where a tile has all tokens.
template <class Source> static inline tv_status tv_channels_launch(const Source &s, tv_tile_out o, cudaStream_t stream)
{
    int64_t tiles = tv_ceil_div(s.channels, 32 * Source::QUADS);
    if (s.tokens <= TV_TILE_T) {
        tv_lone_tile_kernel<Source><<<(unsigned)tiles, TV_TILE_T_THREADS, 0, stream>>>(s, o);
        return TV_OK;
    }
    TV_TRY(tv_channel_tops_take(s.channels, &o.tops));
    tv_tops_launch(s, o, stream);
    tv_tile_launch(s, o, tiles, stream);
    return TV_OK;
}

#endif
