// Rows of tokens for their experts: gathered, or in the form in which they travel.
//
// With B = 3^k, five values of k digits are the base-B digits of a number whose base-243 digits are k bytes (kernels/cpu does the same). A
// chunk is 20 values: 5 words of int8 on one side, k words of the wire on the other. A thread has a chunk; chunks of a row lie side by side.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/moe_segments.cuh"
#include "kernels/cuda/vector_cuda.cuh"

#define CHUNK 20 // values
#define GROUP 5
#define THREADS 256

__device__ static inline int64_t item_token(int32_t item, int slots)
{
    return item < 0 ? -(int64_t)item - 1 : item / slots;
}

// ---- gather ----------------------------------------------------------------------------------------------------------------

// UNIT bytes at a time; a warp a row.
template <class UNIT> __global__ static void gather_kernel(tv_rows_gather_args a)
{
    int64_t r = (int64_t)blockIdx.x * (THREADS / TV_WARP) + threadIdx.x / TV_WARP;
    if (r >= a.rows)
        return;
    int32_t item = a.item[r];
    int64_t t = item_token(item, a.slots), units = a.cols / (int64_t)sizeof(UNIT);
    bool lost = a.factor && item < 0;
    const UNIT *from = (const UNIT *)(a.q + t * a.cols);
    UNIT *to = (UNIT *)(a.out_q + r * a.cols);
    for (int64_t i = tv_warp_lane(); i < units; i += TV_WARP)
        to[i] = lost ? UNIT{} : from[i];
    if (tv_warp_lane() == 0)
        a.out_scale[r] = lost ? 0.0f : a.factor ? a.scale[t] * a.factor[item] : a.scale[t];
}

extern "C" tv_status rows_gather_cuda(const tv_rows_gather_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    unsigned blocks = tv_cuda_blocks(a->rows, THREADS / TV_WARP);
    if (a->cols % 16 == 0 && tv_cuda_aligned({a->q, a->out_q}))
        gather_kernel<uint4><<<blocks, THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    else
        gather_kernel<int8_t><<<blocks, THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("rows_gather");
}

// ---- pack ------------------------------------------------------------------------------------------------------------------

template <int DIGITS> struct digits_of {
    static constexpr uint32_t BASE = 3 * digits_of<DIGITS - 1>::BASE;
    static constexpr int HALF = (int)(BASE - 1) / 2;
};
template <> struct digits_of<0> {
    static constexpr uint32_t BASE = 1;
};

// Bytes of five values, which are words' bytes `first` to first + 4 of the chunk.
template <int DIGITS> __device__ static inline void pack_group(const uint32_t *words, int first, uint8_t *bytes)
{
    typedef digits_of<DIGITS> d;
    uint64_t number = 0;
#pragma unroll
    for (int i = GROUP - 1; i >= 0; i--) {
        int at = first + i, value = (int8_t)(words[at / 4] >> (8 * (at % 4)));
        number = number * d::BASE + (uint32_t)(value + d::HALF);
    }
#pragma unroll
    for (int b = 0; b < DIGITS; b++) {
        // Up to 3 digits a value the number fits 32 bits.
        uint64_t rest = DIGITS <= 4 && number <= 0xFFFFFFFFu ? (uint32_t)number / 243u : number / 243u;
        bytes[b] = (uint8_t)(number - rest * 243u);
        number = rest;
    }
}

// Words of a row at value `first`, zeros behind its end. WORDS: rows begin on words.
template <bool WORDS>
__device__ static inline void load_chunk(const int8_t *row, int64_t cols, int64_t first, uint32_t words[CHUNK / 4])
{
#pragma unroll
    for (int w = 0; w < CHUNK / 4; w++) {
        int64_t c = first + 4 * w;
        words[w] = 0;
        if (WORDS && c < cols)
            words[w] = *(const uint32_t *)(row + c);
        for (int b = 0; !WORDS && b < 4; b++)
            if (c + b < cols)
                words[w] |= (uint32_t)(uint8_t)row[c + b] << (8 * b);
    }
}

template <int DIGITS, bool WORDS> __global__ static void pack_kernel(tv_rows_pack_args a, int64_t chunks)
{
    int64_t n = (int64_t)blockIdx.x * THREADS + threadIdx.x, r = n / chunks, chunk = n % chunks;
    if (r >= a.rows)
        return;
    int64_t row_bytes = tv_wire_row_bytes(a.cols, DIGITS), packed = tv_row_bytes(a.cols * DIGITS);
    int64_t tail = row_bytes - TV_WIRE_TAIL_BYTES, t = a.slots ? item_token(a.item[r], a.slots) : r;
    uint32_t words[CHUNK / 4], out[DIGITS];
    uint8_t bytes[4 * DIGITS];
    load_chunk<WORDS>(a.q + t * a.cols, a.cols, chunk * CHUNK, words);
#pragma unroll
    for (int g = 0; g < CHUNK / GROUP; g++)
        pack_group<DIGITS>(words, g * GROUP, bytes + g * DIGITS);
#pragma unroll
    for (int w = 0; w < DIGITS; w++)
        out[w] = (uint32_t)bytes[4 * w] | (uint32_t)bytes[4 * w + 1] << 8 | (uint32_t)bytes[4 * w + 2] << 16 |
                 (uint32_t)bytes[4 * w + 3] << 24;
    int64_t first = chunk * 4 * DIGITS;
#pragma unroll
    for (int w = 0; w < DIGITS; w++) {
        int64_t at = first + 4 * w, left = packed - at;
        if (at < tail)
            *(uint32_t *)(a.bytes + r * row_bytes + at) = left >= 4 ? out[w] : out[w] & ((1u << (8 * left)) - 1u);
    }
    if (chunk == 0) {
        uint32_t *end = (uint32_t *)(a.bytes + r * row_bytes + tail);
        end[0] = tv_float_bits(a.slots && a.factor ? a.scale[t] * a.factor[a.item[r]] : a.scale[t]);
        end[1] = a.slots && a.expert ? (uint32_t)a.expert[a.item[r]] : 0u;
        end[2] = (uint32_t)a.unit;
    }
}

template <int DIGITS> static void pack_start(const tv_rows_pack_args *a, cudaStream_t stream)
{
    int64_t chunks = tv_ceil_div(a->cols, CHUNK);
    unsigned blocks = tv_cuda_blocks(a->rows * chunks, THREADS);
    if (a->cols % 4 == 0 && tv_cuda_aligned({a->q}))
        pack_kernel<DIGITS, true><<<blocks, THREADS, 0, stream>>>(*a, chunks);
    else
        pack_kernel<DIGITS, false><<<blocks, THREADS, 0, stream>>>(*a, chunks);
}

extern "C" tv_status rows_pack_cuda(const tv_rows_pack_args *a, void *stream)
{
    cudaStream_t s = tv_cuda_stream(stream);
    if (!a->rows || !a->cols)
        return TV_OK;
    switch (a->digits) {
    case 1: pack_start<1>(a, s); break;
    case 2: pack_start<2>(a, s); break;
    case 3: pack_start<3>(a, s); break;
    case 4: pack_start<4>(a, s); break;
    default: pack_start<5>(a, s); break;
    }
    TV_CUDA_LAUNCHED("rows_pack");
}

// ---- unpack ----------------------------------------------------------------------------------------------------------------

template <int DIGITS> __device__ static inline void unpack_group(const uint8_t *bytes, int8_t values[GROUP])
{
    typedef digits_of<DIGITS> d;
    uint64_t number = 0;
#pragma unroll
    for (int b = DIGITS - 1; b >= 0; b--)
        number = number * 243u + bytes[b];
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
        uint64_t rest = DIGITS <= 4 && number <= 0xFFFFFFFFu ? (uint32_t)number / d::BASE : number / d::BASE;
        values[i] = (int8_t)((int)(number - rest * d::BASE) - d::HALF);
        number = rest;
    }
}

// Bytes of a chunk of the wire; those behind the digits are the last chunk's, as digits of zeros.
template <int DIGITS>
__device__ static inline void load_wire(const uint8_t *row, int64_t packed, int64_t chunk, uint8_t bytes[4 * DIGITS])
{
#pragma unroll
    for (int w = 0; w < DIGITS; w++) {
        int64_t at = chunk * 4 * DIGITS + 4 * w;
        uint32_t word = at < packed ? *(const uint32_t *)(row + at) : 0u;
#pragma unroll
        for (int b = 0; b < 4; b++)
            bytes[4 * w + b] = at + b < packed ? (uint8_t)(word >> (8 * b)) : (uint8_t)0;
    }
}

// Whether row r can be used. All lanes of its warp call it.
template <int DIGITS>
__device__ static bool is_sound(const tv_rows_unpack_args &a, int segment, const uint8_t *row, int64_t chunks)
{
    int64_t packed = tv_row_bytes(a.cols * DIGITS);
    const uint32_t *tail = (const uint32_t *)(row + tv_wire_row_bytes(a.cols, DIGITS) - TV_WIRE_TAIL_BYTES);
    bool bad = !(__uint_as_float(tail[0]) >= 0.0f) || (tail[0] & 0x7FFFFFFFu) >= TV_BITS_INF;
    if (a.segments)
        bad = bad || (int32_t)tail[1] != a.first_expert + a.segments[segment].expert ||
              (int32_t)tail[2] != a.segments[segment].unit;
    for (int64_t chunk = tv_warp_lane(); chunk < chunks; chunk += TV_WARP) {
        uint8_t bytes[4 * DIGITS];
        load_wire<DIGITS>(row, packed, chunk, bytes);
        for (int b = 0; b < 4 * DIGITS; b++)
            bad = bad || bytes[b] > TV_TRIT_BYTE_MAX;
    }
    return !__any_sync(0xFFFFFFFFu, bad);
}

template <bool WORDS>
__device__ static inline void store_chunk(int8_t *row, int64_t cols, int64_t first, const int8_t values[CHUNK])
{
#pragma unroll
    for (int w = 0; w < CHUNK / 4; w++) {
        int64_t c = first + 4 * w;
        const int8_t *v = values + 4 * w;
        if (WORDS && c < cols)
            *(uint32_t *)(row + c) = (uint32_t)(uint8_t)v[0] | (uint32_t)(uint8_t)v[1] << 8 |
                                     (uint32_t)(uint8_t)v[2] << 16 | (uint32_t)(uint8_t)v[3] << 24;
        for (int b = 0; !WORDS && b < 4; b++)
            if (c + b < cols)
                row[c + b] = v[b];
    }
}

// A warp a row: it is looked through, then written.
template <int DIGITS, bool WORDS> __global__ static void unpack_kernel(tv_rows_unpack_args a, int64_t chunks)
{
    int64_t r = (int64_t)blockIdx.x * (THREADS / TV_WARP) + threadIdx.x / TV_WARP;
    if (r >= a.rows)
        return;
    int64_t row_bytes = tv_wire_row_bytes(a.cols, DIGITS), packed = tv_row_bytes(a.cols * DIGITS);
    const uint8_t *row = a.bytes + r * row_bytes;
    int segment = a.segments ? tv_moe_segment_of_row(a.segments, (int)a.segment_count, r) : 0;
    if (segment < 0)
        return;
    bool sound = is_sound<DIGITS>(a, segment, row, chunks);
    if (tv_warp_lane() == 0) {
        a.scale[r] = sound ? *(const float *)(row + row_bytes - TV_WIRE_TAIL_BYTES) : 0.0f;
        if (!sound)
            *a.fault = 1;
    }
    for (int64_t chunk = tv_warp_lane(); chunk < chunks; chunk += TV_WARP) {
        uint8_t bytes[4 * DIGITS];
        int8_t values[CHUNK] = {0};
        load_wire<DIGITS>(row, packed, chunk, bytes);
#pragma unroll
        for (int g = 0; g < CHUNK / GROUP; g++)
            if (sound)
                unpack_group<DIGITS>(bytes + g * DIGITS, values + g * GROUP);
        store_chunk<WORDS>(a.q + r * a.cols, a.cols, chunk * CHUNK, values);
    }
}

template <int DIGITS> static void unpack_start(const tv_rows_unpack_args *a, cudaStream_t stream)
{
    int64_t chunks = tv_ceil_div(a->cols, CHUNK);
    unsigned blocks = tv_cuda_blocks(a->rows, THREADS / TV_WARP);
    if (a->cols % 4 == 0 && tv_cuda_aligned({a->q}))
        unpack_kernel<DIGITS, true><<<blocks, THREADS, 0, stream>>>(*a, chunks);
    else
        unpack_kernel<DIGITS, false><<<blocks, THREADS, 0, stream>>>(*a, chunks);
}

extern "C" tv_status rows_unpack_cuda(const tv_rows_unpack_args *a, void *stream)
{
    cudaStream_t s = tv_cuda_stream(stream);
    if (!a->rows || !a->cols || (a->segments && !a->segment_count))
        return TV_OK;
    switch (a->digits) {
    case 1: unpack_start<1>(a, s); break;
    case 2: unpack_start<2>(a, s); break;
    case 3: unpack_start<3>(a, s); break;
    case 4: unpack_start<4>(a, s); break;
    default: unpack_start<5>(a, s); break;
    }
    TV_CUDA_LAUNCHED("rows_unpack");
}
