// The gated activation with the int8 forms around it. Forward: a block a token, gate and up in registers between the maxima and the
// rounding. Backward: the gradient [M, 2F] is never written as floats; its rows come from one kernel, its channels from the tile kernel,
// which works it out once more.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/gate_vector.cuh"

// Scales of gate, up and h, told by one thread; inverse for each.
__device__ static inline void gate_scales(const tv_gate_quantize_args &a, int64_t t, const uint32_t *top,
                                          float *inverse)
{
    bool tell = threadIdx.x == 0;
    float h = tv_usable_absmax(top[2], tell, a.fault);
    inverse[2] = tv_inverse127(h);
    if (tell)
        a.scale[t] = h / 127.0f;
    for (int part = 0; a.saved_q && part < 2; part++) {
        float absmax = tv_usable_absmax(top[part], tell, a.fault);
        inverse[part] = tv_inverse127(absmax);
        if (tell)
            a.saved_scale[2 * t + part] = absmax / 127.0f;
    }
}

template <int KEEP>
__global__ __launch_bounds__(TV_GATE_THREADS_MAX) static void gate_rows_kernel(tv_gate_quantize_args a)
{
    __shared__ uint32_t room[3][TV_GATE_WARPS_MAX];
    int64_t t = a.tokens - 1 - blockIdx.x, quads = a.width / TV_QUAD;
    const float *gu = a.gu + t * 2 * a.width;
    float4 gate[KEEP], up[KEEP], h[KEEP];
    uint32_t top[3] = {0, 0, 0};
    float inverse[3];
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
    gate_scales(a, t, top, inverse);
#pragma unroll
    for (int k = 0; k < KEEP; k++) {
        int64_t i = threadIdx.x + k * (int)blockDim.x;
        if (i >= quads)
            continue;
        ((uint32_t *)a.q)[t * quads + i] = tv_quantize4(h[k], inverse[2]);
        if (a.saved_q) {
            ((uint32_t *)a.saved_q)[2 * t * quads + i] = tv_quantize4(gate[k], inverse[0]);
            ((uint32_t *)a.saved_q)[(2 * t + 1) * quads + i] = tv_quantize4(up[k], inverse[1]);
        }
    }
}

// Any width: the row is read and worked out twice.
__global__ __launch_bounds__(TV_GATE_THREADS_MAX) static void gate_any_kernel(tv_gate_quantize_args a)
{
    __shared__ uint32_t room[3][TV_GATE_WARPS_MAX];
    int64_t t = blockIdx.x;
    const float *gate = a.gu + t * 2 * a.width, *up = gate + a.width;
    uint32_t top[3] = {0, 0, 0};
    float inverse[3];
    for (int64_t f = threadIdx.x; f < a.width; f += blockDim.x) {
        top[0] = max(top[0], tv_magnitude(gate[f]));
        top[1] = max(top[1], tv_magnitude(up[f]));
        top[2] = max(top[2], tv_magnitude(tv_cuda_silu(gate[f]) * up[f]));
    }
    tv_block_max<3>(top, room);
    gate_scales(a, t, top, inverse);
    for (int64_t f = threadIdx.x; f < a.width; f += blockDim.x) {
        a.q[t * a.width + f] = tv_quantize_one(tv_cuda_silu(gate[f]) * up[f], inverse[2]);
        if (a.saved_q) {
            a.saved_q[2 * t * a.width + f] = tv_quantize_one(gate[f], inverse[0]);
            a.saved_q[(2 * t + 1) * a.width + f] = tv_quantize_one(up[f], inverse[1]);
        }
    }
}

extern "C" tv_status gate_quantize_cuda(const tv_gate_quantize_args *a, void *stream)
{
    if (!a->tokens || !a->width)
        return TV_OK;
    cudaStream_t s = tv_cuda_stream(stream);
    int64_t quads = a->width / TV_QUAD;
    if (a->width % TV_QUAD != 0 || quads > 4 * TV_GATE_THREADS_MAX || !tv_cuda_aligned({a->gu, a->saved_q, a->q}))
        gate_any_kernel<<<(unsigned)a->tokens, 256, 0, s>>>(*a);
    else if (quads > 4 * 2 * TV_WARP) // four quads a thread leave more than two warps
        gate_rows_kernel<4><<<(unsigned)a->tokens, tv_gate_threads(quads, 4), 0, s>>>(*a);
    else
        gate_rows_kernel<2><<<(unsigned)a->tokens, tv_gate_threads(quads, 2), 0, s>>>(*a);
    TV_CUDA_LAUNCHED("gate_quantize");
}

__device__ static inline tv_gate_raw gate_load(const int8_t *q, const float *scale, const float *dh, int64_t t,
                                               int64_t quads, int64_t i)
{
    return {tv_word(q, 2 * t * quads + i), tv_word(q, (2 * t + 1) * quads + i), scale[2 * t], scale[2 * t + 1],
            tv_quad(dh, t * quads + i)};
}

// A source of tiles (channels_vector.cuh): 32 gates in the rows 0..31 and their up parts below them.
struct gate_tiles {
    static constexpr int QUADS = 2, BLOCKS = 3;
    typedef tv_gate_raw raw;
    int64_t tokens, width;
    const int8_t *q;
    const float *scale, *dh;
    __device__ int64_t channel(int64_t tile, int row) const
    {
        int64_t f = tile * 32 + row % 32;
        return f >= width ? -1 : row < 32 ? f : width + f;
    }
    __device__ static int row_of(int g, int quad) { return 32 * quad + 4 * g; }
    __device__ static int writer(int row) { return row % 32 / 4; }
    __device__ raw load(int64_t t, int64_t tile, int g) const
    {
        int64_t i = tile * 8 + g, quads = width / TV_QUAD;
        return t < tokens && i < quads ? gate_load(q, scale, dh, t, quads, i)
                                       : tv_gate_raw{0, 0, 0.0f, 0.0f, tv_quad_zero()};
    }
    __device__ static void expand(const raw &in, float4 *v) { tv_gate_gradient4(in, v); }
};

// Rows of the gradient to int8, and the channels' maxima. A block takes every gridDim.x-th token, from the last
// on.
template <int KEEP>
__global__ __launch_bounds__(TV_GATE_THREADS_MAX) static void gate_backward_rows_kernel(tv_gate_backward_both_args a,
                                                                                        uint32_t *tops)
{
    __shared__ uint32_t room[2][1][TV_GATE_WARPS_MAX]; // in turns: one barrier a token is enough
    __shared__ float2 table[2][TV_GATE_VALUES];        // the next token's is filled before that barrier
    int64_t quads = a.width / TV_QUAD;
    float4 v[KEEP][2];
    uint32_t most[KEEP][2][TV_QUAD] = {{{0}}};
    tv_gate_raw in[KEEP];
    int turn = 0;
    auto load = [&](int64_t n, int k) {
        int64_t i = threadIdx.x + k * (int)blockDim.x;
        return n < a.tokens && i < quads ? gate_load(a.saved_q, a.saved_scale, a.dh, a.tokens - 1 - n, quads, i)
                                         : tv_gate_raw{0, 0, 0.0f, 0.0f, tv_quad_zero()};
    };
    tv_grid_clear(a.sumsq, 2 * a.width);
    for (int k = 0; k < KEEP; k++)
        in[k] = load(blockIdx.x, k);
    if (blockIdx.x < a.tokens)
        tv_gate_fill(table[0], a.saved_scale[2 * (a.tokens - 1 - (int64_t)blockIdx.x)]);
    __syncthreads();
    for (int64_t n = blockIdx.x; n < a.tokens; n += gridDim.x, turn ^= 1) {
        int64_t t = a.tokens - 1 - n;
        uint32_t top = 0;
#pragma unroll
        for (int k = 0; k < KEEP; k++) {
            tv_gate_look4(in[k], table[turn], v[k]);
            in[k] = load(n + gridDim.x, k); // on its way while this token is finished
            tv_raise4(most[k][0], v[k][0]);
            tv_raise4(most[k][1], v[k][1]);
            top = max(top, max(tv_magnitude4(v[k][0]), tv_magnitude4(v[k][1])));
        }
        if (n + gridDim.x < a.tokens)
            tv_gate_fill(table[turn ^ 1], a.saved_scale[2 * (t - (int64_t)gridDim.x)]);
        tv_block_max<1>(&top, room[turn]);
        float absmax = tv_usable_absmax(top, threadIdx.x == 0, a.fault), inverse = tv_inverse127(absmax);
        if (threadIdx.x == 0)
            a.scale[t] = absmax / 127.0f;
        uint32_t *q = (uint32_t *)a.q + t * 2 * quads;
#pragma unroll
        for (int k = 0; k < KEEP; k++) {
            int64_t i = threadIdx.x + k * (int)blockDim.x;
            if (i < quads) {
                q[i] = tv_quantize4(v[k][0], inverse);
                q[quads + i] = tv_quantize4(v[k][1], inverse);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < KEEP; k++)
        for (int part = 0; part < 2; part++)
            for (int j = 0; j < TV_QUAD; j++)
                if (most[k][part][j])
                    atomicMax(tops + part * a.width + TV_QUAD * (threadIdx.x + k * (int)blockDim.x) + j,
                              most[k][part][j]);
}

// All blocks run at once, each with as many tokens as the others.
template <int KEEP>
static tv_status backward_rows(const tv_gate_backward_both_args *a, uint32_t *tops, int64_t quads, cudaStream_t s)
{
    int64_t resident;
    unsigned threads = tv_gate_threads(quads, KEEP);
    TV_TRY(tv_cuda_resident(gate_backward_rows_kernel<KEEP>, (int)threads, &resident));
    unsigned blocks = tv_cuda_blocks(a->tokens, tv_ceil_div(a->tokens, resident));
    gate_backward_rows_kernel<KEEP><<<blocks, threads, 0, s>>>(*a, tops);
    return TV_OK;
}

static tv_status backward_by_tiles(const tv_gate_backward_both_args *a, cudaStream_t s)
{
    int64_t quads = a->width / TV_QUAD;
    tv_tile_out out = {{}, a->qt, a->sumsq, a->fault};
    TV_TRY(tv_channel_tops_take(2 * a->width, &out.tops));
    if (quads > 2 * TV_GATE_THREADS_MAX)
        TV_TRY(backward_rows<4>(a, out.tops.top, quads, s));
    else
        TV_TRY(backward_rows<2>(a, out.tops.top, quads, s));
    gate_tiles tiles = {a->tokens, a->width, a->saved_q, a->saved_scale, a->dh};
    tv_tile_launch(tiles, out, tv_ceil_div(a->width, 32), s);
    TV_CUDA_LAUNCHED("gate_backward_both");
}

extern "C" tv_status gate_backward_both_cuda(const tv_gate_backward_both_args *a, void *stream)
{
    if (!a->tokens || !a->width)
        return TV_OK;
    if (a->width % TV_QUAD == 0 && a->width / TV_QUAD <= 4 * TV_GATE_THREADS_MAX && a->tokens % 16 == 0 &&
        tv_cuda_aligned({a->saved_q, a->dh, a->q, a->qt}))
        return backward_by_tiles(a, tv_cuda_stream(stream));
    tv_gate_backward_args gate = {a->tokens, a->width, a->saved_q, a->saved_scale, a->dh, a->dgu};
    tv_quantize_both_args both = {a->tokens, 2 * a->width, a->dgu, a->q, a->scale, a->qt, a->sumsq, a->fault};
    TV_TRY(gate_backward_cuda(&gate, stream));
    return quantize_both_cuda(&both, stream);
}
