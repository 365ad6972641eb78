// decode: a block turns the packed trits of a tile of 128 x 160 weights into both orders of int8 weights.
//
// A thread has four rows of 20 columns, four packed bytes each. A table in shared memory gives a byte's five digits, 4 bits each: as they
// stand they select four of a group's values -L, 0 and L for a word. Words of w8 pass through shared memory, so that rows are stored whole;
// those of w8t are made of 4 x 4 bytes in registers and stored as they are, 16 lanes side by side. Where things lie in shared memory, and
// that a warp has 16 times four rows of two such stretches of columns, is so that its lanes meet no bank twice.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/many_cuda.cuh"
#include "kernels/cuda/vector_cuda.cuh"

#define THREADS 256
#define WARPS (THREADS / TV_WARP)
#define ROWS 128
#define QUADS (ROWS / 4)
#define COLS 160
#define CHUNK 20 // columns of a thread
#define CHUNK_WORDS (CHUNK / 4)
#define PACKED_WORDS (COLS / 20 + 1) // that hold a row's 32 packed bytes, wherever they begin
#define NO_TRITS 0x79797979u         // four bytes of five zeros

// Groups of at least 16 weights; a tile then meets at most 11 of a row.
#define SMALLEST_GROUP 16
#define GROUPS ((COLS + SMALLEST_GROUP - 2) / SMALLEST_GROUP + 1)

#define PACKED_PITCH 38               // of four rows
#define VALUES_PITCH (ROWS + 16)      // of a group
#define TILE_PITCH (4 * COLS / 4 + 4) // of four rows

typedef struct decode_shared {
    uint32_t table[256];
    uint32_t packed[QUADS * PACKED_PITCH];  // words of row 4 q + i at q PACKED_PITCH + i PACKED_WORDS
    uint32_t values[GROUPS * VALUES_PITCH]; // of row 4 q + i at i QUADS + q
    uint32_t tile[QUADS * TILE_PITCH + 2];  // words of row 4 q + i at tile_quad(q) + i COLS / 4
} decode_shared;

// Digit j of byte b, trit + 1, at bits 4 j of word b.
struct digit_table {
    uint32_t word[256];
    constexpr digit_table() : word()
    {
        for (int b = 0; b < 256; b++)
            for (int j = 0, rest = b; j < 5; j++, rest /= 3)
                word[b] |= (uint32_t)(b > TV_TRIT_BYTE_MAX ? 1 : rest % 3) << (4 * j);
    }
};
__device__ static constexpr digit_table digits_of_byte;

// What digits 0, 1, 2 stand for in the group of exponent E, as bytes.
__device__ static inline uint32_t values_of(const tv_decode_args &a, int E)
{
    int L = tv_lattice_value(a.mantissa_bits, E - a.base);
    return (uint32_t)(uint8_t)-L | (uint32_t)L << 16;
}

__device__ static inline int tile_quad(int q) { return q * TILE_PITCH + q / 8 % 2 * 2; }

// The packed bytes of the tile as the aligned words that hold them. A row's first byte lies anywhere in its first word.
__device__ static inline void load_packed(const tv_decode_args &a, int64_t n0, int64_t k0, decode_shared &s)
{
    const int rows_at_once = TV_WARP / PACKED_WORDS;
    int lane = tv_warp_lane(), j = lane % PACKED_WORDS;
    int row = (int)threadIdx.x / TV_WARP * rows_at_once + lane / PACKED_WORDS;
    int64_t row_bytes = tv_row_bytes(a.cols);
    const uint8_t *from = a.T + (n0 + row) * row_bytes + k0 / 5, *end = from + (row_bytes - k0 / 5);
    if (lane >= rows_at_once * PACKED_WORDS)
        return;
#pragma unroll
    for (int i = 0; i < (ROWS + WARPS * rows_at_once - 1) / (WARPS * rows_at_once); i++) {
        const uint8_t *word = (const uint8_t *)((uintptr_t)from & ~(uintptr_t)3) + 4 * j;
        if (row < ROWS)
            s.packed[row / 4 * PACKED_PITCH + row % 4 * PACKED_WORDS + j] =
                n0 + row < a.rows && word < end ? *(const uint32_t *)word : NO_TRITS;
        row += WARPS * rows_at_once;
        from += WARPS * rows_at_once * row_bytes;
        end += WARPS * rows_at_once * row_bytes;
    }
}

__device__ static inline void load_values(const tv_decode_args &a, int64_t n0, int64_t k0, int bits, decode_shared &s)
{
    int groups = (int)tv_row_groups(a.cols, a.group), first = (int)(k0 >> bits);
    int count = (((int)k0 & (a.group - 1)) + COLS - 1 >> bits) + 1, left = groups - first;
    for (int i = threadIdx.x; i < (count < left ? count : left) * ROWS; i += THREADS) {
        int row = i % ROWS, group = i / ROWS;
        if (n0 + row < a.rows)
            s.values[group * VALUES_PITCH + row % 4 * QUADS + row / 4] =
                values_of(a, a.E[(n0 + row) * groups + first + group]);
    }
}

// The five words of four packed bytes; values[j] of word j.
__device__ static inline void unpack(uint32_t bytes, const uint32_t *table, const uint32_t values[CHUNK_WORDS],
                                     uint32_t words[CHUNK_WORDS])
{
    uint32_t a = table[bytes & 255], b = table[bytes >> 8 & 255], c = table[bytes >> 16 & 255], d = table[bytes >> 24];
    words[0] = __byte_perm(values[0], 0, a);
    words[1] = __byte_perm(values[1], 0, a >> 16 | b << 4);
    words[2] = __byte_perm(values[2], 0, b >> 12 | c << 8);
    words[3] = __byte_perm(values[3], 0, c >> 8 | d << 12);
    words[4] = __byte_perm(values[4], 0, d >> 4);
}

// Rows n .. n + 3 of the columns from k on into w8t, whose columns are whole words.
__device__ static inline void store_columns(const tv_decode_args &a, int64_t n, int64_t k,
                                            const uint32_t words[4][CHUNK_WORDS])
{
    int8_t *to = a.w8t + k * a.rows + n;
    int64_t left = a.cols - k;
    if (n >= a.rows)
        return;
#pragma unroll
    for (int j = 0; j < CHUNK_WORDS; j++) {
        uint32_t four[4] = {words[0][j], words[1][j], words[2][j], words[3][j]}, turned[4];
        tv_turn4(four, turned);
#pragma unroll
        for (int c = 0; c < 4; c++, to += a.rows)
            if (4 * j + c < left)
                *(uint32_t *)to = turned[c];
    }
}

// The tile's rows into w8, whose rows are whole pieces of eight bytes. A warp takes every eighth four of them.
__device__ static inline void store_rows(const tv_decode_args &a, int64_t n0, int64_t k0, const decode_shared &s)
{
    const int pieces = COLS / 8;
    int warp = threadIdx.x / TV_WARP;
#pragma unroll
    for (int i = 0; i < (4 * pieces + TV_WARP - 1) / TV_WARP; i++) {
        int piece = i * TV_WARP + tv_warp_lane(), row = 4 * warp + piece / pieces;
        int64_t k = k0 + piece % pieces * 8;
        int8_t *to = a.w8 + (n0 + row) * a.cols + k;
        bool inside = piece < 4 * pieces && k < a.cols;
#pragma unroll
        for (int q = warp; q < QUADS; q += WARPS, row += 4 * WARPS, to += 4 * WARPS * a.cols)
            if (inside && n0 + row < a.rows)
                *(uint2 *)to = *(const uint2 *)(s.tile + tile_quad(q) + 2 * piece);
    }
}

__device__ static inline int8_t tile_byte(const decode_shared &s, int row, int column)
{
    return ((const int8_t *)(s.tile + tile_quad(row / 4) + row % 4 * (COLS / 4)))[column];
}

// Outputs of other shapes, a byte at a time.
__device__ __noinline__ static void store_bytes(const tv_decode_args &a, int64_t n0, int64_t k0, bool turned,
                                                const decode_shared &s)
{
#pragma unroll 1
    for (int i = threadIdx.x; i < ROWS * COLS; i += THREADS) {
        int row = turned ? i % ROWS : i / COLS, column = turned ? i / ROWS : i % COLS;
        int64_t n = n0 + row, k = k0 + column;
        if (n < a.rows && k < a.cols)
            (turned ? a.w8t : a.w8)[turned ? k * a.rows + n : n * a.cols + k] = tile_byte(s, row, column);
    }
}

__global__ static void __launch_bounds__(THREADS, 4) decode_kernel(const __grid_constant__ tv_many<tv_decode_args> many)
{
    __shared__ __align__(16) decode_shared s;
    unsigned block;
    const tv_decode_args &a = many.item[tv_many_find(many, &block)];
    unsigned across = (unsigned)tv_ceil_div(a.cols, COLS);
    int64_t n0 = (int64_t)(block / across) * ROWS, k0 = (int64_t)(block % across) * COLS;
    int lane = tv_warp_lane(), warp = threadIdx.x / TV_WARP, bits = 31 - __clz(a.group);
    int q = warp % 2 * 16 + lane % 16, chunk = warp / 2 * 2 + lane / 16;
    load_packed(a, n0, k0, s);
    s.table[threadIdx.x] = digits_of_byte.word[threadIdx.x];
    load_values(a, n0, k0, bits, s);
    __syncthreads();
    uint32_t words[4][CHUNK_WORDS];
    uint32_t row_bytes = (uint32_t)tv_row_bytes(a.cols);
    uint32_t start = (uint32_t)(uintptr_t)a.T + (uint32_t)(n0 + 4 * q) * row_bytes + (uint32_t)(k0 / 5);
#pragma unroll
    for (int i = 0; i < 4; i++, start += row_bytes) {
        const uint32_t *packed = s.packed + q * PACKED_PITCH + i * PACKED_WORDS + chunk;
        uint32_t values[CHUNK_WORDS];
#pragma unroll
        for (int j = 0; j < CHUNK_WORDS; j++) {
            int column = ((int)k0 & (a.group - 1)) + chunk * CHUNK + 4 * j;
            values[j] = s.values[(column >> bits) * VALUES_PITCH + i * QUADS + q];
        }
        unpack(__funnelshift_r(packed[0], packed[1], start % 4 * 8), s.table, values, words[i]);
    }
    bool whole_columns = ((uintptr_t)a.w8t | (uintptr_t)a.rows) % 4 == 0;
    bool whole_rows = ((uintptr_t)a.w8 | (uintptr_t)a.cols) % 8 == 0;
    if (a.w8t && whole_columns)
        store_columns(a, n0 + 4 * q, k0 + chunk * CHUNK, words);
    if (!a.w8 && whole_columns)
        return;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < CHUNK_WORDS; j++)
            s.tile[tile_quad(q) + i * (COLS / 4) + chunk * CHUNK_WORDS + j] = words[i][j];
    __syncthreads();
    if (a.w8 && whole_rows)
        store_rows(a, n0, k0, s);
    else if (a.w8)
        store_bytes(a, n0, k0, false, s);
    if (a.w8t && !whole_columns)
        store_bytes(a, n0, k0, true, s);
}

// Any group, a packed byte a thread.
__global__ static void decode_plain_kernel(tv_decode_args a)
{
    int64_t row_bytes = tv_row_bytes(a.cols), i = (int64_t)blockIdx.x * THREADS + threadIdx.x, n = i / row_bytes;
    if (n >= a.rows)
        return;
    uint32_t digits = digits_of_byte.word[a.T[i]];
    for (int64_t k = i % row_bytes * 5; k < a.cols && k < (i % row_bytes + 1) * 5; k++, digits >>= 4) {
        int L = tv_lattice_value(a.mantissa_bits, a.E[n * tv_row_groups(a.cols, a.group) + k / a.group] - a.base);
        int8_t value = (int8_t)(((int)(digits & 15) - 1) * L);
        if (a.w8)
            a.w8[n * a.cols + k] = value;
        if (a.w8t)
            a.w8t[k * a.rows + n] = value;
    }
}

extern "C" tv_status decode_many_cuda(const tv_decode_args *list, int64_t count, void *stream)
{
    cudaStream_t on = tv_cuda_stream(stream);
    for (int64_t i = 0; i < count;) {
        tv_many<tv_decode_args> many = {};
        for (; i < count; i++) {
            const tv_decode_args *a = &list[i];
            int64_t blocks = tv_ceil_div(a->rows, ROWS) * tv_ceil_div(a->cols, COLS);
            if (!blocks)
                continue;
            if (a->group % SMALLEST_GROUP != 0)
                decode_plain_kernel<<<tv_cuda_blocks(a->rows * tv_row_bytes(a->cols), THREADS), THREADS, 0, on>>>(*a);
            else if (!tv_many_add(&many, a, blocks))
                break;
        }
        if (many.count)
            decode_kernel<<<many.blocks, THREADS, 0, on>>>(many);
    }
    TV_CUDA_LAUNCHED("decode");
}

extern "C" tv_status decode_cuda(const tv_decode_args *a, void *stream) { return decode_many_cuda(a, 1, stream); }
