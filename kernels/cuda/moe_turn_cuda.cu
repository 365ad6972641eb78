// The backward of the experts' gated activation, and channels of the rows that came in. The activation: a block a run of rows, which finds
// their scales and the channels' maxima of each segment that it meets; the channels then come from tiles, which work the gradient out once
// more. The gradient is never written as floats.
//
// Both together take two launches: maxima of both, then tiles of both. Few rows take one, where a tile finds its maxima itself.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/gate_vector.cuh"
#include "kernels/cuda/moe_channels_cuda.cuh"

// ---- the gradient's rows -----------------------------------------------------------------------------------------------------

__device__ static inline tv_gate_raw load_row(const tv_moe_activate_backward_args &a, int64_t r, int64_t quads,
                                              int64_t i)
{
    return {tv_word(a.saved_q, 2 * r * quads + i), tv_word(a.saved_q, (2 * r + 1) * quads + i), a.saved_scale[2 * r],
            a.saved_scale[2 * r + 1], tv_scale4(tv_word_floats(tv_word(a.q, r * quads + i)), a.scale[r])};
}

// The channels' maxima of a segment, from this block's rows; they start anew.
template <int KEEP> __device__ static inline void give_tops(uint32_t (*most)[2][TV_QUAD], uint32_t *top, int64_t width)
{
#pragma unroll
    for (int k = 0; k < KEEP; k++)
        for (int part = 0; part < 2; part++)
            for (int j = 0; j < TV_QUAD; j++) {
                if (most[k][part][j])
                    atomicMax(top + part * width + TV_QUAD * (threadIdx.x + k * (int)blockDim.x) + j, most[k][part][j]);
                most[k][part][j] = 0;
            }
}

// Rows of the block's run, and with tops what they bring to the channels' maxima.
template <int KEEP>
__device__ static void gradient_rows(const tv_moe_activate_backward_args &a, uint32_t *tops, int run, int64_t block)
{
    __shared__ uint32_t room[2][1][TV_GATE_WARPS_MAX]; // in turns: one barrier a row is enough
    __shared__ float2 table[2][TV_GATE_VALUES];        // the next row's is filled before that barrier
    int64_t quads = a.width / TV_QUAD, first = block * run, last = first + run < a.rows ? first + run : a.rows;
    int64_t end = first; // of the segment at hand
    int segment = -1, turn = 0;
    uint32_t most[KEEP][2][TV_QUAD] = {{{0}}};
    if (first < last)
        tv_gate_fill(table[0], a.saved_scale[2 * first]);
    __syncthreads();
    for (int64_t r = first; r < last; r++) {
        float4 v[KEEP][2];
        uint32_t top = 0;
        if (r >= end) {
            if (segment >= 0 && tops)
                give_tops<KEEP>(most, tops + segment * 2 * a.width, a.width);
            segment = tv_moe_segment_of_row(a.segments, (int)a.segment_count, r);
            end = segment < 0 ? r + 1 : a.segments[segment].first + a.segments[segment].rows;
        }
        if (r + 1 < last)
            tv_gate_fill(table[turn ^ 1], a.saved_scale[2 * (r + 1)]);
        if (segment < 0) {
            __syncthreads();
            turn ^= 1;
            continue;
        }
        bool counts = !a.item || a.item[r] >= 0;
#pragma unroll
        for (int k = 0; k < KEEP; k++) {
            int64_t i = threadIdx.x + k * (int)blockDim.x;
            v[k][0] = v[k][1] = tv_quad_zero();
            if (i < quads)
                tv_gate_look4(load_row(a, r, quads, i), table[turn], v[k]);
            if (counts) {
                tv_raise4(most[k][0], v[k][0]);
                tv_raise4(most[k][1], v[k][1]);
            }
            top = max(top, max(tv_magnitude4(v[k][0]), tv_magnitude4(v[k][1])));
        }
        tv_block_max<1>(&top, room[turn]);
        turn ^= 1;
        float absmax = tv_usable_absmax(top, threadIdx.x == 0, a.fault), inverse = tv_inverse127(absmax);
        if (threadIdx.x == 0)
            a.dscale[r] = absmax / 127.0f;
        uint32_t *q = (uint32_t *)a.dq + r * 2 * quads;
#pragma unroll
        for (int k = 0; k < KEEP; k++) {
            int64_t i = threadIdx.x + k * (int)blockDim.x;
            if (i < quads) {
                q[i] = tv_quantize4(v[k][0], inverse);
                q[quads + i] = tv_quantize4(v[k][1], inverse);
            }
        }
    }
    if (segment >= 0 && tops)
        give_tops<KEEP>(most, tops + segment * 2 * a.width, a.width);
}

template <int KEEP>
__global__ __launch_bounds__(TV_GATE_THREADS_MAX) static void gradient_rows_kernel(tv_moe_activate_backward_args a,
                                                                                   uint32_t *tops, int run)
{
    gradient_rows<KEEP>(a, tops, run, blockIdx.x);
}

// A source of tiles: 32 gates in the rows 0..31 and their up parts below them.
struct gradient_tiles {
    static constexpr int QUADS = 2, BLOCKS = 3;
    typedef tv_gate_raw raw;
    tv_moe_activate_backward_args a;
    __device__ int64_t channel(int64_t tile, int row) const
    {
        int64_t f = tile * 32 + row % 32;
        return f >= a.width ? -1 : row < 32 ? f : a.width + f;
    }
    __device__ static int row_of(int g, int quad) { return 32 * quad + 4 * g; }
    __device__ static int writer(int row) { return row % 32 / 4; }
    __device__ raw load(int64_t r, int64_t tile, int g) const
    {
        int64_t i = tile * 8 + g, quads = a.width / TV_QUAD;
        return r < a.rows && i < quads ? load_row(a, r, quads, i) : tv_gate_raw{0, 0, 0.0f, 0.0f, tv_quad_zero()};
    }
    __device__ static void expand(const raw &in, float4 *v) { tv_gate_gradient4(in, v); }
};

// One value of the gradient.
struct gradient_value {
    tv_moe_activate_backward_args a;
    __device__ float operator()(int64_t r, int64_t c) const
    {
        int64_t f = c < a.width ? c : c - a.width;
        float gate = (float)a.saved_q[2 * r * a.width + f] * a.saved_scale[2 * r];
        float up = (float)a.saved_q[(2 * r + 1) * a.width + f] * a.saved_scale[2 * r + 1], d[2];
        tv_gate_gradient1(gate, up, (float)a.q[r * a.width + f] * a.scale[r], &d[0], &d[1]);
        return c < a.width ? d[0] : d[1];
    }
};

// Any width: the row is worked out twice.
__global__ static void gradient_any_kernel(gradient_value value)
{
    __shared__ uint32_t room[1][TV_GATE_WARPS_MAX];
    const tv_moe_activate_backward_args &a = value.a;
    int64_t r = blockIdx.x;
    uint32_t top = 0;
    if (tv_moe_segment_of_row(a.segments, (int)a.segment_count, r) < 0)
        return;
    for (int64_t c = threadIdx.x; c < 2 * a.width; c += blockDim.x)
        top = max(top, tv_magnitude(value(r, c)));
    tv_block_max<1>(&top, room);
    float absmax = tv_usable_absmax(top, threadIdx.x == 0, a.fault), inverse = tv_inverse127(absmax);
    if (threadIdx.x == 0)
        a.dscale[r] = absmax / 127.0f;
    for (int64_t c = threadIdx.x; c < 2 * a.width; c += blockDim.x)
        a.dq[r * 2 * a.width + c] = tv_quantize_one(value(r, c), inverse);
}

// Rows of a block: about five blocks on each multiprocessor.
static int rows_of_block(int64_t rows) { return (int)tv_ceil_div(rows, 5 * (int64_t)moe_processors_cuda()); }

static bool gradient_fits(const tv_moe_activate_backward_args *a, const tv_moe_channel_job &o)
{
    return a->width % TV_QUAD == 0 && tv_moe_channels_fit(o) && tv_cuda_aligned({a->q, a->saved_q, a->dq});
}

static void backward_by_tiles(const tv_moe_activate_backward_args *a, const tv_moe_channel_job &o, cudaStream_t s)
{
    int64_t run = rows_of_block(a->rows), quads = a->width / TV_QUAD;
    unsigned blocks = tv_cuda_blocks(a->rows, run);
    dim3 tiles(tv_cuda_blocks(a->width, 32), tv_cuda_blocks(a->columns, TV_TILE_T));
    if (quads > 2 * TV_GATE_THREADS_MAX)
        gradient_rows_kernel<4><<<blocks, tv_gate_threads(quads, 4), 0, s>>>(*a, o.top, (int)run);
    else
        gradient_rows_kernel<2><<<blocks, tv_gate_threads(quads, 2), 0, s>>>(*a, o.top, (int)run);
    tv_moe_tile_kernel<<<tiles, TV_TILE_T_THREADS, 0, s>>>(gradient_tiles{*a}, o);
}

static tv_moe_channel_job gradient_job(const tv_moe_activate_backward_args *a)
{
    return {a->segments, (int)a->segment_count, a->item, a->rows, 2 * a->width, a->columns, NULL, a->dt, a->sumsq,
            a->fault};
}

extern "C" tv_status moe_activate_backward_cuda(const tv_moe_activate_backward_args *a, void *stream)
{
    cudaStream_t s = tv_cuda_stream(stream);
    if (!a->width || !a->segment_count)
        return TV_OK;
    tv_moe_channel_job o = gradient_job(a);
    TV_TRY(tv_moe_channels_start(&o, s));
    if (!a->rows)
        return TV_OK;
    if (gradient_fits(a, o) && a->width / TV_QUAD <= 4 * TV_GATE_THREADS_MAX) {
        backward_by_tiles(a, o, s);
    } else {
        gradient_any_kernel<<<(unsigned)a->rows, 256, 0, s>>>(gradient_value{*a});
        tv_moe_any_kernel<<<dim3((unsigned)o.channels, (unsigned)o.segment_count), TV_MOE_ANY_THREADS, 0, s>>>(
            gradient_value{*a}, o);
    }
    TV_CUDA_LAUNCHED("moe_activate_backward");
}

// ---- channels of a saved operand ---------------------------------------------------------------------------------------------

struct saved_value {
    const int8_t *q;
    const float *scale;
    int64_t channels;
    __device__ float operator()(int64_t r, int64_t c) const { return (float)q[r * channels + c] * scale[r]; }
};

static tv_moe_channel_job input_job(const tv_moe_channels_args *a)
{
    return {a->segments, (int)a->segment_count, a->item, a->rows, a->channels, a->columns, NULL, a->qt, a->sumsq,
            a->fault};
}

static bool input_fits(const tv_moe_channels_args *a, const tv_moe_channel_job &o)
{
    return a->channels % 16 == 0 && tv_moe_channels_fit(o) && tv_cuda_aligned({a->q});
}

extern "C" tv_status moe_channels_cuda(const tv_moe_channels_args *a, void *stream)
{
    cudaStream_t s = tv_cuda_stream(stream);
    if (!a->channels || !a->segment_count)
        return TV_OK;
    tv_moe_channel_job o = input_job(a);
    TV_TRY(tv_moe_channels_start(&o, s));
    if (!a->rows)
        return TV_OK;
    if (input_fits(a, o)) {
        tv_saved_tiles source = {a->rows, a->channels, a->q, a->scale};
        unsigned pieces = tv_cuda_blocks(a->columns, TV_TILE_T);
        dim3 tops(tv_cuda_blocks(a->channels, TV_WARP * 4 * tv_saved_tiles::QUADS), pieces);
        dim3 tiles(tv_cuda_blocks(a->channels, 128), pieces);
        tv_moe_tops_kernel<<<tops, 256, 0, s>>>(source, o);
        tv_moe_tile_kernel<<<tiles, TV_TILE_T_THREADS, 0, s>>>(source, o);
    } else {
        tv_moe_any_kernel<<<dim3((unsigned)o.channels, (unsigned)o.segment_count), TV_MOE_ANY_THREADS, 0, s>>>(
            saved_value{a->q, a->scale, a->channels}, o);
    }
    TV_CUDA_LAUNCHED("moe_channels");
}

// ---- both ------------------------------------------------------------------------------------------------------------------

#define FEW_ROWS 1024
#define THREADS TV_TILE_T_THREADS

typedef struct turn_job {
    tv_moe_activate_backward_args a;
    tv_moe_channel_job gradient, input;
    tv_saved_tiles x;
    int run, row_blocks;             // rows of a block, and blocks of rows
    int gradient_tiles, input_tiles; // of channels
    int input_tops;                  // blocks of channels
    int64_t gradient_pieces;
    tv_channel_tops tops; // the gradient's, then the input's
} turn_job;

template <int KEEP> __global__ __launch_bounds__(THREADS) static void turn_tops_kernel(turn_job job)
{
    int64_t block = (int64_t)blockIdx.x - job.row_blocks;
    tv_grid_clear(job.gradient.sumsq, job.gradient.segment_count * job.gradient.channels);
    tv_grid_clear(job.input.sumsq, job.input.segment_count * job.input.channels);
    if (block < 0)
        gradient_rows<KEEP>(job.a, job.gradient.top, job.run, blockIdx.x);
    else
        tv_moe_tops(job.x, job.input, block % job.input_tops, block / job.input_tops);
}

__global__ __launch_bounds__(THREADS, 3) static void turn_tiles_kernel(turn_job job)
{
    int64_t gradients = job.gradient_pieces * job.gradient_tiles, block = (int64_t)blockIdx.x - gradients;
    tv_grid_clear(job.tops.spent, job.tops.spent_count);
    if (block < 0)
        tv_moe_tile_piece(gradient_tiles{job.a}, job.gradient, blockIdx.x % job.gradient_tiles,
                          blockIdx.x / job.gradient_tiles);
    else
        tv_moe_tile_piece(job.x, job.input, block % job.input_tiles, block / job.input_tiles);
}

// Tiles of each segment, which take longest, then blocks of rows.
template <int KEEP> __global__ __launch_bounds__(THREADS) static void turn_few_kernel(turn_job job)
{
    int tiles = job.gradient_tiles + job.input_tiles, block = (int)blockIdx.x;
    if (block >= tiles * job.gradient.segment_count)
        gradient_rows<KEEP>(job.a, NULL, job.run, block - tiles * job.gradient.segment_count);
    else if (block % tiles < job.gradient_tiles)
        tv_moe_tile_segment(gradient_tiles{job.a}, job.gradient, block % tiles, block / tiles);
    else
        tv_moe_tile_segment(job.x, job.input, block % tiles - job.gradient_tiles, block / tiles);
}

static turn_job plan_turn(const tv_moe_turn_args *a)
{
    turn_job job = {};
    job.a = a->gradient;
    job.gradient = gradient_job(&a->gradient);
    job.input = input_job(&a->input);
    job.x = {a->input.rows, a->input.channels, a->input.q, a->input.scale};
    job.run = a->gradient.rows <= FEW_ROWS ? 1 : rows_of_block(a->gradient.rows);
    job.row_blocks = (int)tv_ceil_div(a->gradient.rows, job.run);
    job.gradient_tiles = (int)tv_ceil_div(a->gradient.width, 32);
    job.input_tiles = (int)tv_ceil_div(a->input.channels, 128);
    job.input_tops = (int)tv_ceil_div(a->input.channels, TV_WARP * 4 * tv_saved_tiles::QUADS);
    job.gradient_pieces = tv_ceil_div(a->gradient.columns, TV_TILE_T);
    return job;
}

template <int KEEP> static tv_status turn(const tv_moe_turn_args *a, cudaStream_t stream)
{
    turn_job job = plan_turn(a);
    int64_t tiles = job.gradient_tiles + job.input_tiles, input_pieces = tv_ceil_div(a->input.columns, TV_TILE_T);
    if (a->gradient.rows <= FEW_ROWS) {
        turn_few_kernel<KEEP>
            <<<(unsigned)(job.row_blocks + tiles * a->gradient.segment_count), THREADS, 0, stream>>>(job);
        TV_CUDA_LAUNCHED("moe_turn");
    }
    int64_t tops = a->gradient.segment_count * job.gradient.channels;
    TV_TRY(moe_tops_cuda(tops + a->input.segment_count * job.input.channels, stream, &job.tops));
    job.gradient.top = job.tops.top;
    job.input.top = job.gradient.top + tops;
    turn_tops_kernel<KEEP><<<(unsigned)(job.row_blocks + job.input_tops * input_pieces), THREADS, 0, stream>>>(job);
    turn_tiles_kernel<<<(unsigned)(job.gradient_pieces * job.gradient_tiles + input_pieces * job.input_tiles), THREADS,
                        0, stream>>>(job);
    TV_CUDA_LAUNCHED("moe_turn");
}

extern "C" tv_status moe_turn_cuda(const tv_moe_turn_args *a, void *stream)
{
    int64_t quads = a->gradient.width / TV_QUAD;
    if (!a->gradient.rows || !quads || !a->input.channels || !a->gradient.segment_count ||
        a->input.segments != a->gradient.segments || quads > 4 * THREADS ||
        !gradient_fits(&a->gradient, gradient_job(&a->gradient)) || !input_fits(&a->input, input_job(&a->input))) {
        TV_TRY(moe_activate_backward_cuda(&a->gradient, stream));
        return moe_channels_cuda(&a->input, stream);
    }
    cudaStream_t s = tv_cuda_stream(stream);
    return quads <= THREADS ? turn<1>(a, s) : quads <= 2 * THREADS ? turn<2>(a, s) : turn<4>(a, s);
}
