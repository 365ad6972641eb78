// The experts' gated activation, between integer rows on both sides: a block a row, gate and up in registers between the maxima and the
// rounding.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/gate_vector.cuh"
#include "kernels/cuda/moe_segments.cuh"

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
        top[2] = max(top[2], tv_magnitude(tv_cuda_silu(gate[f]) * up[f]));
    }
    tv_block_max<3>(top, room);
    row_scales(a, r, top, inverse);
    for (int64_t f = threadIdx.x; f < a.width; f += blockDim.x) {
        a.q[r * a.width + f] = tv_quantize_one(tv_cuda_silu(gate[f]) * up[f], inverse[2]);
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
