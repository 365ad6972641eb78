// Pieces of the gated activation that its kernels share, for tokens and for the experts' rows.
#ifndef TV_KERNELS_GATE_VECTOR_CUH
#define TV_KERNELS_GATE_VECTOR_CUH

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/channels_vector.cuh"

#define TV_GATE_THREADS_MAX 512
#define TV_GATE_WARPS_MAX (TV_GATE_THREADS_MAX / TV_WARP)

// Maxima of N numbers over the block; every thread gets them. `room` must not be in use by the last call.
template <int N> __device__ static inline void tv_block_max(uint32_t *value, uint32_t (*room)[TV_GATE_WARPS_MAX])
{
#pragma unroll
    for (int n = 0; n < N; n++) {
        value[n] = tv_lanes_max<TV_WARP>(value[n]);
        if (tv_warp_lane() == 0)
            room[n][threadIdx.x / TV_WARP] = value[n];
    }
    __syncthreads();
    for (int w = 0; w < (int)blockDim.x / TV_WARP; w++)
#pragma unroll
        for (int n = 0; n < N; n++)
            value[n] = max(value[n], room[n][w]);
}

__device__ static inline float4 tv_gate4(float4 gate, float4 up) { return tv_mul4(tv_cuda_silu4(gate), up); }

__device__ static inline int8_t tv_quantize_one(float v, float inverse)
{
    return inverse == 0.0f ? 0 : (int8_t)tv_rounded(v * inverse);
}

// Threads of a block with KEEP quads each: whole warps.
static inline unsigned tv_gate_threads(int64_t quads, int keep)
{
    return (unsigned)(tv_ceil_div(tv_ceil_div(quads, keep), TV_WARP) * TV_WARP);
}

// What the backward needs of 4 neighbouring gates and their up parts.
struct tv_gate_raw {
    uint32_t gate, up;
    float gate_scale, up_scale;
    float4 dh;
};

// g: the gate's sigmoid.
__device__ static inline void tv_gate_link(float x, float g, float u, float dh, float *dgate, float *dup)
{
    float act = x * g;
    *dup = dh * act;
    *dgate = (dh * u) * (g * fmaf(x, 1.0f - g, 1.0f));
}

__device__ static inline void tv_gate_gradient1(float x, float u, float dh, float *dgate, float *dup)
{
    tv_gate_link(x, tv_cuda_sigmoid(x), u, dh, dgate, dup);
}

// v[0] the gradient of the gates, v[1] of the up parts
__device__ static inline void tv_gate_gradient4(const tv_gate_raw &in, float4 *v)
{
    float4 x = tv_scale4(tv_word_floats(in.gate), in.gate_scale), u = tv_scale4(tv_word_floats(in.up), in.up_scale);
    float4 g = tv_cuda_sigmoid4(x);
    tv_gate_link(x.x, g.x, u.x, in.dh.x, &v[0].x, &v[1].x);
    tv_gate_link(x.y, g.y, u.y, in.dh.y, &v[0].y, &v[1].y);
    tv_gate_link(x.z, g.z, u.z, in.dh.z, &v[0].z, &v[1].z);
    tv_gate_link(x.w, g.w, u.w, in.dh.w, &v[0].w, &v[1].w);
}

// A row's gates are 255 integers times one scale, so what the gradient takes from a gate is worked out once for each: silu(a) and its
// slope, for byte q at place q + 128.
#define TV_GATE_VALUES 256

__device__ static inline void tv_gate_fill(float2 *table, float scale)
{
    for (int i = threadIdx.x; i < TV_GATE_VALUES; i += blockDim.x) {
        float x = (float)(i - 128) * scale, g = tv_cuda_sigmoid(x);
        table[i] = make_float2(x * g, g * fmaf(x, 1.0f - g, 1.0f));
    }
}

__device__ static inline void tv_gate_look1(float2 at, float u, float dh, float *dgate, float *dup)
{
    *dup = dh * at.x;
    *dgate = (dh * u) * at.y;
}

// tv_gate_gradient4 by the row's table.
__device__ static inline void tv_gate_look4(const tv_gate_raw &in, const float2 *table, float4 *v)
{
    float4 u = tv_scale4(tv_word_floats(in.up), in.up_scale);
    uint32_t at = in.gate ^ 0x80808080u;
    tv_gate_look1(table[at & 255], u.x, in.dh.x, &v[0].x, &v[1].x);
    tv_gate_look1(table[at >> 8 & 255], u.y, in.dh.y, &v[0].y, &v[1].y);
    tv_gate_look1(table[at >> 16 & 255], u.z, in.dh.z, &v[0].z, &v[1].z);
    tv_gate_look1(table[at >> 24], u.w, in.dh.w, &v[0].w, &v[1].w);
}

#endif
