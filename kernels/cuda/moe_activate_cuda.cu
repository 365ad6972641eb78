// The experts' gated activation, between integer rows on both sides. Forward: a block a row, gate and up in registers between the maxima
// and the rounding. Backward: a block a run of rows, which finds their scales and the channels' maxima of each segment that it meets; the
// channels then come from tiles, which work the gradient out once more. The gradient is never written as floats.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/gate_vector.cuh"
#include "kernels/cuda/moe_channels_cuda.cuh"

// ---- forward ---------------------------------------------------------------------------------------------------------------

// Scales of gate, up and h, told by one thread; inverse for each.
__device__ static inline void row_scales(const tv_moe_activate_args &a, int64_t r, const uint32_t *top, float *inverse)
{
    bool tell = threadIdx.x == 0;
    float h = tv_usable_absmax(top[2], tell, a.fault), qmax = (float)a.qmax;
    inverse[2] = h == 0.0f ? 0.0f : qmax / h;
    if (tell)
        a.scale[r] = h / qmax;
    for (int part = 0; a.saved_q && part < 2; part++) {
        float absmax = tv_usable_absmax(top[part], tell, a.fault);
        inverse[part] = tv_inverse127(absmax);
        if (tell)
            a.saved_scale[2 * r + part] = absmax / 127.0f;
    }
}

template <int KEEP>
__global__ __launch_bounds__(TV_GATE_THREADS_MAX) static void activate_kernel(tv_moe_activate_args a)
{
    __shared__ uint32_t room[3][TV_GATE_WARPS_MAX];
    int64_t r = blockIdx.x, quads = a.width / TV_QUAD;
    const float *gu = a.gu + r * 2 * a.width;
    float4 gate[KEEP], up[KEEP], h[KEEP];
    uint32_t top[3] = {0, 0, 0};
    float inverse[3] = {0.0f, 0.0f, 0.0f};
    if (tv_moe_segment_of_row(a.segments, (int)a.segment_count, r) < 0)
        return;
#pragma unroll
    for (int k = 0; k < KEEP; k++) {
        int64_t i = threadIdx.x + k * (int)blockDim.x;
        gate[k] = i < quads ? tv_quad(gu, i) : tv_quad_zero();
        up[k] = i < quads ? tv_quad(gu, quads + i) : tv_quad_zero();
    }
#pragma unroll
    for (int k = 0; k < KEEP; k++) {
        h[k] = tv_gate4(gate[k], up[k]);
        top[0] = max(top[0], tv_magnitude4(gate[k]));
        top[1] = max(top[1], tv_magnitude4(up[k]));
        top[2] = max(top[2], tv_magnitude4(h[k]));
    }
    tv_block_max<3>(top, room);
    row_scales(a, r, top, inverse);
#pragma unroll
    for (int k = 0; k < KEEP; k++) {
        int64_t i = threadIdx.x + k * (int)blockDim.x;
        if (i >= quads)
            continue;
        ((uint32_t *)a.q)[r * quads + i] = tv_quantize4(h[k], inverse[2]);
        if (a.saved_q) {
            ((uint32_t *)a.saved_q)[2 * r * quads + i] = tv_quantize4(gate[k], inverse[0]);
            ((uint32_t *)a.saved_q)[(2 * r + 1) * quads + i] = tv_quantize4(up[k], inverse[1]);
        }
    }
}

// Any width: the row is read and worked out twice.
__global__ __launch_bounds__(TV_GATE_THREADS_MAX) static void activate_any_kernel(tv_moe_activate_args a)
{
    __shared__ uint32_t room[3][TV_GATE_WARPS_MAX];
    int64_t r = blockIdx.x;
    const float *gate = a.gu + r * 2 * a.width, *up = gate + a.width;
    uint32_t top[3] = {0, 0, 0};
    float inverse[3] = {0.0f, 0.0f, 0.0f};
    if (tv_moe_segment_of_row(a.segments, (int)a.segment_count, r) < 0)
        return;
    for (int64_t f = threadIdx.x; f < a.width; f += blockDim.x) {
        top[0] = max(top[0], tv_magnitude(gate[f]));
        top[1] = max(top[1], tv_magnitude(up[f]));
        top[2] = max(top[2], tv_magnitude(tv_silu(gate[f]) * up[f]));
    }
    tv_block_max<3>(top, room);
    row_scales(a, r, top, inverse);
    for (int64_t f = threadIdx.x; f < a.width; f += blockDim.x) {
        a.q[r * a.width + f] = tv_quantize_one(tv_silu(gate[f]) * up[f], inverse[2]);
        if (a.saved_q) {
            a.saved_q[2 * r * a.width + f] = tv_quantize_one(gate[f], inverse[0]);
            a.saved_q[(2 * r + 1) * a.width + f] = tv_quantize_one(up[f], inverse[1]);
        }
    }
}

extern "C" tv_status moe_activate_cuda(const tv_moe_activate_args *a, void *stream)
{
    cudaStream_t s = tv_cuda_stream(stream);
    int64_t quads = a->width / TV_QUAD;
    if (!a->rows || !a->width || !a->segment_count)
        return TV_OK;
    if (a->width % TV_QUAD != 0 || quads > 4 * TV_GATE_THREADS_MAX || !tv_cuda_aligned({a->gu, a->saved_q, a->q}))
        activate_any_kernel<<<(unsigned)a->rows, 256, 0, s>>>(*a);
    else if (quads > 2 * TV_GATE_THREADS_MAX)
        activate_kernel<4><<<(unsigned)a->rows, tv_gate_threads(quads, 4), 0, s>>>(*a);
    else
        activate_kernel<2><<<(unsigned)a->rows, tv_gate_threads(quads, 2), 0, s>>>(*a);
    TV_CUDA_LAUNCHED("moe_activate");
}

// ---- backward --------------------------------------------------------------------------------------------------------------

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

template <int KEEP>
__global__ __launch_bounds__(TV_GATE_THREADS_MAX) static void gradient_rows_kernel(tv_moe_activate_backward_args a,
                                                                                   uint32_t *tops, int run)
{
    __shared__ uint32_t room[2][1][TV_GATE_WARPS_MAX]; // in turns: one barrier a row is enough
    __shared__ float2 table[2][TV_GATE_VALUES];        // the next row's is filled before that barrier
    int64_t quads = a.width / TV_QUAD, first = (int64_t)blockIdx.x * run,
            last = first + run < a.rows ? first + run : a.rows;
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
            if (segment >= 0)
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
    if (segment >= 0)
        give_tops<KEEP>(most, tops + segment * 2 * a.width, a.width);
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

static void backward_by_tiles(const tv_moe_activate_backward_args *a, const tv_moe_turn &o, cudaStream_t s)
{
    // About five blocks on each multiprocessor.
    int64_t run = tv_ceil_div(a->rows, 5 * (int64_t)moe_processors_cuda()), quads = a->width / TV_QUAD;
    unsigned blocks = tv_cuda_blocks(a->rows, run);
    dim3 tiles(tv_cuda_blocks(a->width, 32), tv_cuda_blocks(a->columns, TV_TILE_T));
    if (quads > 2 * TV_GATE_THREADS_MAX)
        gradient_rows_kernel<4><<<blocks, tv_gate_threads(quads, 4), 0, s>>>(*a, o.top, (int)run);
    else
        gradient_rows_kernel<2><<<blocks, tv_gate_threads(quads, 2), 0, s>>>(*a, o.top, (int)run);
    tv_moe_tile_kernel<<<tiles, TV_TILE_T_THREADS, 0, s>>>(gradient_tiles{*a}, o);
}

extern "C" tv_status moe_activate_backward_cuda(const tv_moe_activate_backward_args *a, void *stream)
{
    cudaStream_t s = tv_cuda_stream(stream);
    if (!a->width || !a->segment_count)
        return TV_OK;
    tv_moe_turn o = {
        a->segments, (int)a->segment_count, a->item, a->rows, 2 * a->width, a->columns, NULL, a->dt, a->sumsq,
        a->fault};
    TV_TRY(tv_moe_turn_start(&o, s));
    if (!a->rows)
        return TV_OK;
    if (a->width % TV_QUAD == 0 && a->width / TV_QUAD <= 4 * TV_GATE_THREADS_MAX && tv_moe_turn_fits(o) &&
        tv_cuda_aligned({a->q, a->saved_q, a->dq})) {
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

extern "C" tv_status moe_channels_cuda(const tv_moe_channels_args *a, void *stream)
{
    cudaStream_t s = tv_cuda_stream(stream);
    if (!a->channels || !a->segment_count)
        return TV_OK;
    tv_moe_turn o = {
        a->segments, (int)a->segment_count, a->item, a->rows, a->channels, a->columns, NULL, a->qt, a->sumsq, a->fault};
    TV_TRY(tv_moe_turn_start(&o, s));
    if (!a->rows)
        return TV_OK;
    if (a->channels % 16 == 0 && tv_moe_turn_fits(o) && tv_cuda_aligned({a->q})) {
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
