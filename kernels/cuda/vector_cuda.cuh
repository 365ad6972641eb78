// Sixteen bytes at a time: what the vectorised kernels share.
//
// A group of 8 lanes reads a row as float4, lane i the elements 4 i .. 4 i + 3 of every 32. So it holds four of sum32's 32 lanes, and the
// combining steps 16, 8, 4 are its lanes' distances 4, 2, 1; the steps 2 and 1 stay inside the float4. Kernels that only want a maximum
// share a row among more lanes.
//
// Kernels that go through rows begin at the last one, and those that turn channels at the first: what the kernel before touched last is
// then still in L2. The products write and read their rows from the first on.
#ifndef TV_KERNELS_VECTOR_CUDA_CUH
#define TV_KERNELS_VECTOR_CUDA_CUH

#include <initializer_list>

#include "kernels/cuda/cuda_common.cuh"

#define TV_QUAD 4        // floats of a float4, bytes of a word
#define TV_GROUP 8       // lanes of a row sum
#define TV_GROUP_SPAN 32 // elements that a group reads at once

// Whether 16-byte accesses fit; NULL does.
static inline bool tv_cuda_aligned(std::initializer_list<const void *> pointers)
{
    uintptr_t bits = 0;
    for (const void *p : pointers)
        bits |= (uintptr_t)p;
    return bits % 16 == 0;
}

__device__ static inline float4 tv_quad(const float *x, int64_t i) { return ((const float4 *)x)[i]; }
__device__ static inline uint32_t tv_word(const int8_t *q, int64_t i) { return ((const uint32_t *)q)[i]; }
__device__ static inline float4 tv_quad_zero(void) { return make_float4(0.0f, 0.0f, 0.0f, 0.0f); }

// The signed bytes of a word as floats, exactly: the byte plus 128 becomes the low bits of 2^23.
__device__ static inline float tv_byte_float(uint32_t word, int j)
{
    return __uint_as_float(__byte_perm(word ^ 0x80808080u, 0x4B000000u, 0x7540u | (uint32_t)j)) - 8388736.0f;
}

__device__ static inline float4 tv_word_floats(uint32_t word)
{
    return make_float4(tv_byte_float(word, 0), tv_byte_float(word, 1), tv_byte_float(word, 2), tv_byte_float(word, 3));
}

// rint(v) for |v| < 2^22, in the low bits: 1.5 2^23 leaves no room for a fraction, and the addition rounds half to even.
__device__ static inline uint32_t tv_rounded(float v) { return __float_as_uint(v + 12582912.0f); }

// The low bytes of four words.
__device__ static inline uint32_t tv_pack4(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return __byte_perm(__byte_perm(a, b, 0x0040u), __byte_perm(c, d, 0x0040u), 0x5410u);
}

// out[j]: byte j of x[0], x[1], x[2], x[3].
__device__ static inline void tv_turn4(const uint32_t *x, uint32_t out[4])
{
    uint32_t a = __byte_perm(x[0], x[1], 0x5140u), b = __byte_perm(x[2], x[3], 0x5140u);
    uint32_t c = __byte_perm(x[0], x[1], 0x7362u), d = __byte_perm(x[2], x[3], 0x7362u);
    out[0] = __byte_perm(a, b, 0x5410u), out[1] = __byte_perm(a, b, 0x7632u);
    out[2] = __byte_perm(c, d, 0x5410u), out[3] = __byte_perm(c, d, 0x7632u);
}

// rint(v inverse) of four; inverse 0 stands for a row whose q are all 0, whatever v holds.
__device__ static inline uint32_t tv_quantize4(float4 v, float inverse)
{
    uint32_t word = tv_pack4(tv_rounded(v.x * inverse), tv_rounded(v.y * inverse), tv_rounded(v.z * inverse),
                             tv_rounded(v.w * inverse));
    return inverse == 0.0f ? 0u : word;
}

__device__ static inline float tv_inverse127(float absmax) { return absmax == 0.0f ? 0.0f : 127.0f / absmax; }

__device__ static inline uint32_t tv_magnitude(float v) { return __float_as_uint(v) & 0x7FFFFFFFu; }

__device__ static inline uint32_t tv_magnitude4(float4 v)
{
    return max(max(tv_magnitude(v.x), tv_magnitude(v.y)), max(tv_magnitude(v.z), tv_magnitude(v.w)));
}

// most[j] = max(most[j], |v[j]|) of four channels.
__device__ static inline void tv_raise4(uint32_t *most, float4 v)
{
    most[0] = max(most[0], tv_magnitude(v.x));
    most[1] = max(most[1], tv_magnitude(v.y));
    most[2] = max(most[2], tv_magnitude(v.z));
    most[3] = max(most[3], tv_magnitude(v.w));
}

// Maximum over LANES neighbouring lanes; each of them gets it. All lanes of the warp call it.
template <int LANES> __device__ static inline uint32_t tv_lanes_max(uint32_t value)
{
    if constexpr (LANES == TV_WARP)
        return __reduce_max_sync(0xFFFFFFFFu, value);
    else {
        for (int x = LANES / 2; x >= 1; x >>= 1)
            value = max(value, __shfl_xor_sync(0xFFFFFFFFu, value, x));
        return value;
    }
}

// s = fma(a, b, s) in each of the four sum32 lanes
__device__ static inline void tv_fma4(float4 &s, float4 a, float4 b)
{
    s.x = fmaf(a.x, b.x, s.x);
    s.y = fmaf(a.y, b.y, s.y);
    s.z = fmaf(a.z, b.z, s.z);
    s.w = fmaf(a.w, b.w, s.w);
}

// sum32's last step over a group; each lane gets the sum.
__device__ static inline float tv_group_combine(float4 s)
{
    for (int x = TV_GROUP / 2; x >= 1; x >>= 1) {
        s.x = s.x + __shfl_xor_sync(0xFFFFFFFFu, s.x, x);
        s.y = s.y + __shfl_xor_sync(0xFFFFFFFFu, s.y, x);
        s.z = s.z + __shfl_xor_sync(0xFFFFFFFFu, s.z, x);
        s.w = s.w + __shfl_xor_sync(0xFFFFFFFFu, s.w, x);
    }
    return (s.x + s.z) + (s.y + s.w);
}

__device__ static inline float4 tv_scale4(float4 v, float by)
{
    return make_float4(v.x * by, v.y * by, v.z * by, v.w * by);
}

__device__ static inline float4 tv_mul4(float4 a, float4 b)
{
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

__device__ static inline float4 tv_sum4(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// Zero an array of a channel's sums, all threads of the grid together.
template <class T> __device__ static inline void tv_grid_clear(T *array, int64_t count)
{
    int64_t block = blockIdx.x + (int64_t)gridDim.x * blockIdx.y;
    for (int64_t i = block * blockDim.x + threadIdx.x; i < count; i += (int64_t)gridDim.x * gridDim.y * blockDim.x)
        array[i] = 0;
}

#endif
