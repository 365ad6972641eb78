// Quantisation of channels over a unit, written transposed: the operands of the vote product.
//
// Where 16-byte accesses fit it is done by channels_vector.cuh. The kernels here serve every shape. A block owns CHANNELS neighbouring channels and a slice of the tokens. Kernel 1: absmax a channel, threads striding over tokens;
// the slices meet in an atomic maximum. Kernel 2: tiles of TILE tokens x CHANNELS channels are quantised and turned through shared
// memory, so that reads run along channels and writes along tokens; the sums of squares are integers, so the order of their
// atomic additions does not show.
#include "kernels/cuda/channels_vector.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/rows_vector.cuh"

#define CHANNELS 32
#define ROWS 16                // threads (CHANNELS, ROWS)
#define TILE 128               // tokens a tile
#define SLICE 512              // tokens a block
#define CHANNELS_MAX (1 << 18) // of one call
#define TWO_DIGITS_MAX 16129.0f

// absmax of each channel, as bits, between the two kernels of a call: calls take turns (channels_vector.cuh).
__device__ static uint32_t channel_tops[2][CHANNELS_MAX];

tv_status tv_channel_tops_take(int64_t channels, tv_channel_tops *out)
{
    static tv_tops_turns turns;
    void *memory = NULL;
    if (channels > CHANNELS_MAX)
        return TV_FAIL(TV_BACKEND, "%lld channels: the cuda backend quantises at most %d at once", (long long)channels,
                       CHANNELS_MAX);
    TV_CUDA_TRY(cudaGetSymbolAddress(&memory, channel_tops));
    *out = tv_tops_take(&turns, (uint32_t *)memory, CHANNELS_MAX, channels);
    return TV_OK;
}

typedef struct channel_source {
    const float *x; // or NULL
    const int8_t *q;
    const float *scale;
    int64_t tokens, channels;
    tv_channel_tops tops;
} channel_source;

__device__ static inline float value_at(const channel_source &s, int64_t t, int64_t c)
{
    int64_t i = t * s.channels + c;
    return s.x ? s.x[i] : (float)s.q[i] * s.scale[t];
}

__device__ static inline int64_t slice_end(const channel_source &s, int64_t first)
{
    return first + SLICE < s.tokens ? first + SLICE : s.tokens;
}

__global__ static void absmax_kernel(channel_source s)
{
    __shared__ uint32_t top[ROWS][CHANNELS];
    int64_t c = (int64_t)blockIdx.x * CHANNELS + threadIdx.x, first = (int64_t)blockIdx.y * SLICE;
    uint32_t most = 0;
    for (int64_t t = first + threadIdx.y; c < s.channels && t < slice_end(s, first); t += ROWS) {
        uint32_t bits = tv_float_bits(value_at(s, t, c)) & 0x7FFFFFFFu;
        most = bits > most ? bits : most;
    }
    top[threadIdx.y][threadIdx.x] = most;
    __syncthreads();
    if (threadIdx.y != 0 || c >= s.channels)
        return;
    for (int r = 1; r < ROWS; r++)
        most = top[r][threadIdx.x] > most ? top[r][threadIdx.x] : most;
    atomicMax(s.tops.top + c, most);
}

// absmax of channel c over all tokens; 0 when unusable, which the channel's first thread tells.
__device__ static inline float channel_absmax(const channel_source &s, int64_t c, int32_t *fault)
{
    return c < s.channels ? tv_usable_absmax(s.tops.top[c], threadIdx.y == 0 && blockIdx.y == 0, fault) : 0.0f;
}

// One tile of int8 values, turned: value (token, channel) of the tile goes to out[channel, token].
__device__ static void store_tile(int8_t (*tile)[TILE + 4], int64_t first_token, int64_t first_channel,
                                  const channel_source &s, int8_t *out)
{
    int thread = threadIdx.y * CHANNELS + threadIdx.x;
    for (int i = thread; i < CHANNELS * TILE; i += CHANNELS * ROWS) {
        int c = i / TILE, t = i % TILE;
        if (first_channel + c < s.channels && first_token + t < s.tokens)
            out[(first_channel + c) * s.tokens + first_token + t] = tile[c][t];
    }
}

__global__ static void channels_kernel(channel_source s, int8_t *qt, int32_t *sumsq, int32_t *fault)
{
    __shared__ int32_t sums[ROWS][CHANNELS];
    __shared__ int8_t tile[CHANNELS][TILE + 4];
    int64_t c0 = (int64_t)blockIdx.x * CHANNELS, c = c0 + threadIdx.x, first = (int64_t)blockIdx.y * SLICE;
    float absmax = channel_absmax(s, c, fault);
    float inverse = absmax == 0.0f ? 0.0f : 127.0f / absmax;
    int32_t sum = 0;
    for (int64_t t0 = first; t0 < slice_end(s, first); t0 += TILE) {
        for (int r = threadIdx.y; r < TILE; r += ROWS) {
            int q = 0;
            if (absmax != 0.0f && c < s.channels && t0 + r < s.tokens)
                q = (int)rintf(value_at(s, t0 + r, c) * inverse);
            tile[threadIdx.x][r] = (int8_t)q;
            sum += q * q;
        }
        __syncthreads();
        store_tile(tile, t0, c0, s, qt);
        __syncthreads();
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < s.channels) {
        for (int r = 1; r < ROWS; r++)
            sum += sums[r][threadIdx.x];
        atomicAdd(sumsq + c, sum);
    }
}

static dim3 slice_grid(const channel_source &s)
{
    return dim3(tv_cuda_blocks(s.channels, CHANNELS), tv_cuda_blocks(s.tokens, SLICE));
}

// The first kernel, and zeros where the second adds and where the next call looks for maxima.
static tv_status start(channel_source &s, void *sumsq, size_t sum_bytes, void *stream)
{
    TV_TRY(tv_channel_tops_take(s.channels, &s.tops));
    TV_CUDA_TRY(
        cudaMemsetAsync(s.tops.spent, 0, (size_t)s.tops.spent_count * sizeof(uint32_t), tv_cuda_stream(stream)));
    TV_CUDA_TRY(cudaMemsetAsync(sumsq, 0, (size_t)s.channels * sum_bytes, tv_cuda_stream(stream)));
    absmax_kernel<<<slice_grid(s), dim3(CHANNELS, ROWS), 0, tv_cuda_stream(stream)>>>(s);
    TV_CUDA_LAUNCHED("quantize_channels");
}

// Whether tiles fit: channels in whole loads, tokens in whole stores.
static bool tiles_fit(const tv_quantize_channels_args *a)
{
    return a->tokens % 16 == 0 && a->channels % (a->x ? 4 : 16) == 0 && a->channels <= CHANNELS_MAX &&
           tv_cuda_aligned({a->x, a->x ? NULL : a->q, a->qt});
}

static tv_status channels_by_tiles(const tv_quantize_channels_args *a, cudaStream_t stream)
{
    tv_tile_out out = {{}, a->qt, a->sumsq, a->fault};
    if (a->x)
        TV_TRY(tv_channels_launch(tv_float_tiles{a->tokens, a->channels, a->x}, out, stream));
    else
        TV_TRY(tv_channels_launch(tv_saved_tiles{a->tokens, a->channels, a->q, a->scale}, out, stream));
    TV_CUDA_LAUNCHED("quantize_channels");
}

extern "C" tv_status quantize_channels_cuda(const tv_quantize_channels_args *a, void *stream)
{
    if (!a->tokens || !a->channels)
        return TV_OK;
    if (tiles_fit(a))
        return channels_by_tiles(a, tv_cuda_stream(stream));
    channel_source s = {a->x, a->q, a->scale, a->tokens, a->channels, {}};
    TV_TRY(start(s, a->sumsq, sizeof *a->sumsq, stream));
    channels_kernel<<<slice_grid(s), dim3(CHANNELS, ROWS), 0, tv_cuda_stream(stream)>>>(s, a->qt, a->sumsq, a->fault);
    TV_CUDA_LAUNCHED("quantize_channels");
}

__global__ static void channels2_kernel(channel_source s, int8_t *hi_out, int8_t *lo_out, int64_t *sumsq,
                                        int32_t *fault)
{
    __shared__ int64_t sums[ROWS][CHANNELS];
    __shared__ int8_t tile_hi[CHANNELS][TILE + 4], tile_lo[CHANNELS][TILE + 4];
    int64_t c0 = (int64_t)blockIdx.x * CHANNELS, c = c0 + threadIdx.x, first = (int64_t)blockIdx.y * SLICE;
    float absmax = channel_absmax(s, c, fault);
    float inverse = absmax == 0.0f ? 0.0f : TWO_DIGITS_MAX / absmax;
    int64_t sum = 0;
    for (int64_t t0 = first; t0 < slice_end(s, first); t0 += TILE) {
        for (int r = threadIdx.y; r < TILE; r += ROWS) {
            int Q = 0;
            if (absmax != 0.0f && c < s.channels && t0 + r < s.tokens)
                Q = (int)rintf(value_at(s, t0 + r, c) * inverse);
            int hi = (Q + 63 + 127 * 127) / 127 - 127;
            tile_hi[threadIdx.x][r] = (int8_t)hi;
            tile_lo[threadIdx.x][r] = (int8_t)(Q - 127 * hi);
            sum += (int64_t)Q * Q;
        }
        __syncthreads();
        store_tile(tile_hi, t0, c0, s, hi_out);
        store_tile(tile_lo, t0, c0, s, lo_out);
        __syncthreads();
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < s.channels) {
        for (int r = 1; r < ROWS; r++)
            sum += sums[r][threadIdx.x];
        atomicAdd((unsigned long long *)sumsq + c, (unsigned long long)sum);
    }
}

extern "C" tv_status quantize_channels2_cuda(const tv_quantize_channels2_args *a, void *stream)
{
    if (!a->tokens || !a->channels)
        return TV_OK;
    channel_source s = {a->x, NULL, NULL, a->tokens, a->channels, {}};
    TV_TRY(start(s, a->sumsq, sizeof *a->sumsq, stream));
    channels2_kernel<<<slice_grid(s), dim3(CHANNELS, ROWS), 0, tv_cuda_stream(stream)>>>(s, a->hi, a->lo, a->sumsq,
                                                                                         a->fault);
    TV_CUDA_LAUNCHED("quantize_channels2");
}

extern "C" tv_status quantize_both_cuda(const tv_quantize_both_args *a, void *stream)
{
    if (!a->tokens || !a->channels)
        return TV_OK;
    tv_quantize_channels_args channels = {a->tokens, a->channels, a->x, NULL, NULL, a->qt, a->sumsq, a->fault};
    if (a->channels > TV_ROWS_TOPS_MAX || !tiles_fit(&channels) || !tv_cuda_aligned({a->q})) {
        tv_quantize_rows_args rows = {a->tokens, a->channels, 127, a->x, a->q, a->scale, a->fault};
        TV_TRY(quantize_rows_cuda(&rows, stream));
        return quantize_channels_cuda(&channels, stream);
    }
    tv_tile_out out = {{}, a->qt, a->sumsq, a->fault};
    TV_TRY(tv_channel_tops_take(a->channels, &out.tops));
    tv_rows_out rows = {a->tokens, a->channels / TV_QUAD, 127.0f, a->q, a->scale, a->fault, out.tops.top, a->sumsq};
    tv_rows_tops_launch(tv_plain_rows{a->x, rows.quads}, rows, tv_cuda_stream(stream));
    tv_tile_launch(tv_float_tiles{a->tokens, a->channels, a->x}, out, tv_ceil_div(a->channels, 32),
                   tv_cuda_stream(stream));
    TV_CUDA_LAUNCHED("quantize_both");
}

// ---- a layer's operands, of few tokens -----------------------------------------------------------------------------------------

typedef struct turn_job {
    tv_rows_out rows;
    tv_float_tiles gradient;
    tv_saved_tiles input;
    tv_tile_out gradient_out, input_out;
    int row_blocks, gradient_tiles;
} turn_job;

// Blocks of 8 rows of the gradient, then its tiles, then the input's.
__global__ __launch_bounds__(TV_TILE_T_THREADS) static void turn_kernel(turn_job job)
{
    int block = (int)blockIdx.x - job.row_blocks;
    if (block < 0) {
        float4 none[1];
        tv_plain_rows in = {job.gradient.x, job.rows.quads};
        int64_t t = (int64_t)blockIdx.x * (TV_TILE_T_THREADS / TV_WARP) + threadIdx.x / TV_WARP;
        bool active = t < job.rows.rows;
        tv_rows_one<tv_plain_rows::row, TV_WARP, 0>(in.at(active ? t : 0), active, t, job.rows, none);
    } else if (block < job.gradient_tiles) {
        tv_lone_tile(job.gradient, job.gradient_out, block);
    } else {
        tv_lone_tile(job.input, job.input_out, block - job.gradient_tiles);
    }
}

extern "C" tv_status linear_turn_cuda(const tv_linear_turn_args *a, void *stream)
{
    const tv_quantize_both_args *g = &a->gradient;
    const tv_quantize_channels_args *x = &a->input;
    tv_quantize_channels_args channels = {g->tokens, g->channels, g->x, NULL, NULL, g->qt, g->sumsq, g->fault};
    if (!g->tokens || !g->channels || !x->channels || x->x || x->tokens != g->tokens || g->tokens > TV_TILE_T ||
        !tiles_fit(&channels) || !tiles_fit(x) || !tv_cuda_aligned({g->q})) {
        TV_TRY(quantize_both_cuda(g, stream));
        return quantize_channels_cuda(x, stream);
    }
    turn_job job = {{g->tokens, g->channels / TV_QUAD, 127.0f, g->q, g->scale, g->fault, NULL, NULL},
                    {g->tokens, g->channels, g->x},
                    {x->tokens, x->channels, x->q, x->scale},
                    {{}, g->qt, g->sumsq, g->fault},
                    {{}, x->qt, x->sumsq, x->fault},
                    (int)tv_ceil_div(g->tokens, TV_TILE_T_THREADS / TV_WARP),
                    (int)tv_ceil_div(g->channels, 32)};
    unsigned blocks = (unsigned)(job.row_blocks + job.gradient_tiles + tv_ceil_div(x->channels, 128));
    turn_kernel<<<blocks, TV_TILE_T_THREADS, 0, tv_cuda_stream(stream)>>>(job);
    TV_CUDA_LAUNCHED("linear_turn");
}
