// Rows to int8, 16 bytes at a time: LANES lanes share a row and keep up to KEEP float4 each between its maximum and its rounding; with
// KEEP 0 the row is read twice. On the way the kernel can find the channels' maxima too (TOPS): a lane stays with its channels.
#ifndef TV_KERNELS_ROWS_VECTOR_CUH
#define TV_KERNELS_ROWS_VECTOR_CUH

#include "kernels/cuda/vector_cuda.cuh"

#define TV_ROWS_KEEP_MAX 24
#define TV_ROWS_TOPS_MAX (TV_ROWS_KEEP_MAX * TV_WARP * TV_QUAD) // channels that TOPS can hold

// Rows of a matrix.
struct tv_plain_rows {
    const float *x;
    int64_t quads;
    struct row {
        const float *x;
        __device__ float4 at(int64_t i) const { return tv_quad(x, i); }
    };
    __device__ row at(int64_t t) const { return {x + t * quads * TV_QUAD}; }
};

// A token beside the two before it in its window, `part` quads each; zeros before the window's start.
struct tv_trigram_rows {
    const float *x;
    int64_t part, context;
    struct row {
        const float *x;
        int64_t part;
        int seen; // 0, 1 or 2 tokens before it
        __device__ float4 at(int64_t i) const
        {
            int back = i >= 2 * part ? 0 : i >= part ? 1 : 2;
            return back <= seen ? tv_quad(x, i - 2 * part) : tv_quad_zero();
        }
    };
    // Quad i of the row is quad i - 2 part of memory, seen from the token's own.
    __device__ row at(int64_t t) const
    {
        int64_t position = t % context;
        return {x + t * part * TV_QUAD, part, position < 2 ? (int)position : 2};
    }
};

typedef struct tv_rows_out {
    int64_t rows, quads; // of a row
    float qmax;
    int8_t *q;
    float *scale;
    int32_t *fault;
    uint32_t *top;  // [C] raised to the channels' maxima, with TOPS
    int32_t *sumsq; // [C] zeroed, with TOPS
} tv_rows_out;

// The channels' maxima of a block, then of all: lane's quad k is number lane + 32 k.
template <int KEEP> __device__ static inline void tv_rows_join(const uint32_t *most, const tv_rows_out &o)
{
    __shared__ uint32_t tops[KEEP * TV_WARP * TV_QUAD];
    for (int c = threadIdx.x; c < KEEP * TV_WARP * TV_QUAD; c += blockDim.x)
        tops[c] = 0;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < KEEP; k++)
        for (int j = 0; j < TV_QUAD; j++)
            atomicMax(tops + j * KEEP * TV_WARP + k * TV_WARP + tv_warp_lane(), most[TV_QUAD * k + j]);
    __syncthreads();
    for (int c = threadIdx.x; c < o.quads * TV_QUAD; c += blockDim.x) {
        uint32_t most_here = tops[c % TV_QUAD * KEEP * TV_WARP + c / TV_QUAD];
        if (most_here)
            atomicMax(o.top + c, most_here);
    }
}

// One row: its maximum, scale and q. v keeps the row for the caller.
template <class Row, int LANES, int KEEP>
__device__ static inline void tv_rows_one(const Row &row, bool active, int64_t t, const tv_rows_out &o, float4 *v)
{
    int lane = threadIdx.x % LANES;
    int quads = active ? (int)o.quads : 0;
    uint32_t top = 0;
#pragma unroll
    for (int k = 0; k < KEEP; k++)
        v[k] = lane + k * LANES < quads ? row.at(lane + k * LANES) : tv_quad_zero();
#pragma unroll
    for (int k = 0; k < KEEP; k++)
        top = max(top, tv_magnitude4(v[k]));
    for (int i = lane; !KEEP && i < quads; i += LANES)
        top = max(top, tv_magnitude4(row.at(i)));
    float absmax = tv_usable_absmax(tv_lanes_max<LANES>(top), active && lane == 0, o.fault);
    float inverse = absmax == 0.0f ? 0.0f : o.qmax / absmax;
    uint32_t *q = (uint32_t *)o.q + t * o.quads;
    if (active && lane == 0)
        o.scale[t] = absmax / o.qmax;
#pragma unroll
    for (int k = 0; k < KEEP; k++)
        if (lane + k * LANES < quads)
            q[lane + k * LANES] = tv_quantize4(v[k], inverse);
    for (int i = lane; !KEEP && i < quads; i += LANES)
        q[i] = tv_quantize4(row.at(i), inverse);
}

template <class Rows, int LANES, int KEEP, bool TOPS>
__global__ __launch_bounds__(256) static void tv_rows_kernel(Rows in, tv_rows_out o)
{
    float4 v[KEEP ? KEEP : 1];
    uint32_t most[TOPS ? TV_QUAD * KEEP : 1] = {0};
    int64_t at_once = blockDim.x / LANES;
    if (TOPS)
        tv_grid_clear(o.sumsq, o.quads * TV_QUAD);
    for (int64_t first = blockIdx.x * at_once; first < o.rows; first += gridDim.x * at_once) {
        int64_t t = o.rows - 1 - (first + threadIdx.x / LANES);
        bool active = t >= 0;
        tv_rows_one<typename Rows::row, LANES, KEEP>(in.at(active ? t : 0), active, t, o, v);
#pragma unroll
        for (int k = 0; TOPS && k < KEEP; k++)
            tv_raise4(most + TV_QUAD * k, v[k]);
    }
    if constexpr (TOPS)
        tv_rows_join<KEEP>(most, o);
}

template <class Rows, int LANES, int KEEP>
static inline void tv_rows_start(const Rows &in, const tv_rows_out &o, cudaStream_t stream)
{
    tv_rows_kernel<Rows, LANES, KEEP, false><<<tv_cuda_blocks(o.rows, 128 / LANES), 128, 0, stream>>>(in, o);
}

// Choose lanes and quads a lane by the row's length.
template <class Rows> static inline void tv_rows_launch(const Rows &in, const tv_rows_out &o, cudaStream_t stream)
{
    if (o.quads <= 8)
        tv_rows_start<Rows, 8, 1>(in, o, stream);
    else if (o.quads <= 16)
        tv_rows_start<Rows, 8, 2>(in, o, stream);
    else if (o.quads <= 64)
        tv_rows_start<Rows, 32, 2>(in, o, stream);
    else if (o.quads <= 128)
        tv_rows_start<Rows, 32, 4>(in, o, stream);
    else if (o.quads <= 384)
        tv_rows_start<Rows, 32, 12>(in, o, stream);
    else if (o.quads <= 768)
        tv_rows_start<Rows, 32, 24>(in, o, stream);
    else
        tv_rows_start<Rows, 32, 0>(in, o, stream);
}

template <int KEEP> static inline void tv_rows_tops_start(const tv_plain_rows &in, const tv_rows_out &o, cudaStream_t s)
{
    // About four blocks of 8 rows at once on each of 132 multiprocessors, each with the same number of rounds.
    int64_t groups = tv_ceil_div(o.rows, 8), rounds = tv_ceil_div(groups, 4 * 132);
    tv_rows_kernel<tv_plain_rows, TV_WARP, KEEP, true><<<tv_cuda_blocks(groups, rounds), 256, 0, s>>>(in, o);
}

// The same with the channels' maxima, for up to TV_ROWS_TOPS_MAX channels.
static inline void tv_rows_tops_launch(const tv_plain_rows &in, const tv_rows_out &o, cudaStream_t stream)
{
    if (o.quads <= 32)
        tv_rows_tops_start<1>(in, o, stream);
    else if (o.quads <= 64)
        tv_rows_tops_start<2>(in, o, stream);
    else if (o.quads <= 128)
        tv_rows_tops_start<4>(in, o, stream);
    else if (o.quads <= 384)
        tv_rows_tops_start<12>(in, o, stream);
    else
        tv_rows_tops_start<TV_ROWS_KEEP_MAX>(in, o, stream);
}

#endif
