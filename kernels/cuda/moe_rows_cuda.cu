// Rows of tokens for their experts: gathered, or in the form in which they travel.
//
// With B = 3^k, five values of k digits are the base-B digits of a number whose base-243 digits are k bytes (kernels/cpu does the same). A
// chunk is 20 values: 5 words of int8 on one side, k words of the wire on the other. A warp has a row, a lane a chunk of it at a time; the lanes
// hand their words over in shared memory, so that a warp stores neighbours.
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

#define CHUNK_WORDS (CHUNK / 4)
#define WARPS (THREADS / TV_WARP)

template <int DIGITS> struct digits_of {
    static constexpr uint32_t BASE = 3 * digits_of<DIGITS - 1>::BASE;
    static constexpr int HALF = (int)(BASE - 1) / 2;
};
template <> struct digits_of<0> {
    static constexpr uint32_t BASE = 1;
};
// BASE^5 = 243^DIGITS: up to 4 digits it fits 32 bits.
template <bool LONG> struct number_of {
    typedef uint32_t type;
};
template <> struct number_of<true> {
    typedef uint64_t type;
};

// Words of a warp's lanes, WIDTH each (odd: no two lanes meet in a bank), go to `to` as `count` neighbours.
template <int WIDTH>
__device__ static inline void store_words(uint32_t *stage, const uint32_t words[WIDTH], uint32_t *to, int64_t count)
{
    int lane = tv_warp_lane();
#pragma unroll
    for (int w = 0; w < WIDTH; w++)
        stage[lane * WIDTH + w] = words[w];
    __syncwarp();
#pragma unroll
    for (int w = 0; w < WIDTH; w++)
        if (w * TV_WARP + lane < count)
            to[w * TV_WARP + lane] = stage[w * TV_WARP + lane];
    __syncwarp();
}

// Bytes of five values, which are words' bytes `first` to first + 4 of the chunk.
template <int DIGITS> __device__ static inline void pack_group(const uint32_t *words, int first, uint8_t *bytes)
{
    typedef digits_of<DIGITS> d;
    typename number_of<(DIGITS > 4)>::type number = 0;
#pragma unroll
    for (int i = GROUP - 1; i >= 0; i--) {
        int at = first + i, value = (int8_t)(words[at / 4] >> (8 * (at % 4)));
        number = number * d::BASE + (uint32_t)(value + d::HALF);
    }
#pragma unroll
    for (int b = 0; b < DIGITS; b++) {
        auto rest = number / 243u;
        bytes[b] = (uint8_t)(number - rest * 243u);
        number = rest;
    }
}

// Words of a row at value `first`, zeros behind its end. WORDS: rows begin on words.
template <bool WORDS>
__device__ static inline void load_chunk(const int8_t *row, int64_t cols, int64_t first, uint32_t words[CHUNK_WORDS])
{
#pragma unroll
    for (int w = 0; w < CHUNK_WORDS; w++) {
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
    __shared__ uint32_t stages[WARPS][TV_WARP * DIGITS];
    int64_t r = (int64_t)blockIdx.x * WARPS + threadIdx.x / TV_WARP;
    if (r >= a.rows)
        return;
    int64_t row_bytes = tv_wire_row_bytes(a.cols, DIGITS), packed = tv_row_bytes(a.cols * DIGITS);
    int64_t tail = row_bytes - TV_WIRE_TAIL_BYTES, t = a.slots ? item_token(a.item[r], a.slots) : r;
    uint8_t *row = a.bytes + r * row_bytes;
    for (int64_t base = 0; base < chunks; base += TV_WARP) {
        uint32_t words[CHUNK_WORDS], out[DIGITS];
        uint8_t bytes[4 * DIGITS];
        int64_t chunk = base + tv_warp_lane();
        load_chunk<WORDS>(a.q + t * a.cols, a.cols, chunk * CHUNK, words);
#pragma unroll
        for (int g = 0; g < CHUNK / GROUP; g++)
            pack_group<DIGITS>(words, g * GROUP, bytes + g * DIGITS);
#pragma unroll
        for (int w = 0; w < DIGITS; w++) {
            int64_t left = packed - (chunk * DIGITS + w) * 4;
            out[w] = (uint32_t)bytes[4 * w] | (uint32_t)bytes[4 * w + 1] << 8 | (uint32_t)bytes[4 * w + 2] << 16 |
                     (uint32_t)bytes[4 * w + 3] << 24;
            if (left < 4)
                out[w] &= left > 0 ? (1u << (8 * left)) - 1u : 0u;
        }
        store_words<DIGITS>(stages[threadIdx.x / TV_WARP], out, (uint32_t *)row + base * DIGITS,
                            tail / 4 - base * DIGITS);
    }
    if (tv_warp_lane() == 0) {
        uint32_t *end = (uint32_t *)(row + tail);
        end[0] = tv_float_bits(a.slots && a.factor ? a.scale[t] * a.factor[a.item[r]] : a.scale[t]);
        end[1] = a.slots && a.expert ? (uint32_t)a.expert[a.item[r]] : 0u;
        end[2] = (uint32_t)a.unit;
    }
}

template <int DIGITS> static void pack_start(const tv_rows_pack_args *a, cudaStream_t stream)
{
    int64_t chunks = tv_ceil_div(a->cols, CHUNK);
    unsigned blocks = tv_cuda_blocks(a->rows, WARPS);
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

// Digits as they stand in the number: HALF more than the value.
template <int DIGITS> __device__ static inline void unpack_group(const uint8_t *bytes, uint32_t digits[GROUP])
{
    typedef digits_of<DIGITS> d;
    typename number_of<(DIGITS > 4)>::type number = 0;
#pragma unroll
    for (int b = DIGITS - 1; b >= 0; b--)
        number = number * 243u + bytes[b];
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
        auto rest = number / d::BASE;
        digits[i] = (uint32_t)(number - rest * d::BASE);
        number = rest;
    }
}

// Bytes of a chunk of the wire; those behind the digits are the last chunk's, as digits of zeros. True when one is no five trits.
template <int DIGITS>
__device__ static inline bool load_wire(const uint8_t *row, int64_t packed, int64_t chunk, uint8_t bytes[4 * DIGITS])
{
    bool bad = false;
#pragma unroll
    for (int w = 0; w < DIGITS; w++) {
        int64_t at = (chunk * DIGITS + w) * 4, left = packed - at;
        uint32_t word = left > 0 ? *(const uint32_t *)(row + at) : 0u;
        if (left < 4)
            word &= left > 0 ? (1u << (8 * left)) - 1u : 0u;
#pragma unroll
        for (int b = 0; b < 4; b++) {
            bytes[4 * w + b] = (uint8_t)(word >> (8 * b));
            bad = bad || bytes[4 * w + b] > TV_TRIT_BYTE_MAX;
        }
    }
    return bad;
}

__device__ static bool tail_is_bad(const tv_rows_unpack_args &a, int segment, const uint32_t *tail)
{
    bool bad = !(__uint_as_float(tail[0]) >= 0.0f) || (tail[0] & 0x7FFFFFFFu) >= TV_BITS_INF;
    return bad || (a.segments && ((int32_t)tail[1] != a.first_expert + a.segments[segment].expert ||
                                  (int32_t)tail[2] != a.segments[segment].unit));
}

// Words of a chunk at value `first`. Where rows begin on words the warp's lanes store together.
template <bool WORDS>
__device__ static inline void store_chunk(uint32_t *stage, int8_t *row, int64_t cols, int64_t first,
                                          const uint32_t words[CHUNK_WORDS])
{
    if (WORDS) {
        int64_t base = first - tv_warp_lane() * CHUNK;
        store_words<CHUNK_WORDS>(stage, words, (uint32_t *)(row + base), (cols - base) / 4);
    }
    for (int i = 0; !WORDS && i < CHUNK; i++)
        if (first + i < cols)
            row[first + i] = (int8_t)(words[i / 4] >> (8 * (i % 4)));
}

// A row that is not sound is written again, as zeros.
template <int DIGITS, bool WORDS> __global__ static void unpack_kernel(tv_rows_unpack_args a, int64_t chunks)
{
    __shared__ uint32_t stages[WARPS][TV_WARP * CHUNK_WORDS];
    int64_t r = (int64_t)blockIdx.x * WARPS + threadIdx.x / TV_WARP;
    if (r >= a.rows)
        return;
    int64_t row_bytes = tv_wire_row_bytes(a.cols, DIGITS), packed = tv_row_bytes(a.cols * DIGITS);
    const uint8_t *row = a.bytes + r * row_bytes;
    const uint32_t *tail = (const uint32_t *)(row + row_bytes - TV_WIRE_TAIL_BYTES);
    int8_t *q = a.q + r * a.cols;
    int segment = a.segments ? tv_moe_segment_of_row(a.segments, (int)a.segment_count, r) : 0;
    if (segment < 0)
        return;
    bool bad = tail_is_bad(a, segment, tail);
    for (int64_t base = 0; base < chunks; base += TV_WARP) {
        uint8_t bytes[4 * DIGITS];
        uint32_t digits[CHUNK], words[CHUNK_WORDS];
        int64_t chunk = base + tv_warp_lane();
        bad = load_wire<DIGITS>(row, packed, chunk, bytes) || bad;
#pragma unroll
        for (int g = 0; g < CHUNK / GROUP; g++)
            unpack_group<DIGITS>(bytes + g * DIGITS, digits + g * GROUP);
#pragma unroll
        for (int w = 0; w < CHUNK_WORDS; w++) {
            uint32_t four = digits[4 * w] + digits[4 * w + 1] * 0x100u + digits[4 * w + 2] * 0x10000u +
                            digits[4 * w + 3] * 0x1000000u;
            // Less HALF in each byte: the top bits keep the bytes apart.
            words[w] =
                ((four | 0x80808080u) - 0x01010101u * digits_of<DIGITS>::HALF) ^ ((four ^ 0x80808080u) & 0x80808080u);
        }
        store_chunk<WORDS>(stages[threadIdx.x / TV_WARP], q, a.cols, chunk * CHUNK, words);
    }
    bad = __any_sync(0xFFFFFFFFu, bad);
    __syncwarp(); // what the other lanes have written comes before the zeros
    if (bad)
        for (int64_t c = tv_warp_lane(); c < a.cols; c += TV_WARP)
            q[c] = 0;
    if (tv_warp_lane() == 0) {
        a.scale[r] = bad ? 0.0f : __uint_as_float(tail[0]);
        if (bad)
            *a.fault = 1;
    }
}

template <int DIGITS> static void unpack_start(const tv_rows_unpack_args *a, cudaStream_t stream)
{
    int64_t chunks = tv_ceil_div(a->cols, CHUNK);
    unsigned blocks = tv_cuda_blocks(a->rows, WARPS);
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
