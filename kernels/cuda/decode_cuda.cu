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

#define PACKED_PITCH 38          // of four rows
#define VALUES_PITCH (ROWS + 16) // of a group
#define TABLES 4
#define TILE_PITCH (4 * COLS / 4 + 4) // of four rows

typedef struct decode_shared {
    uint32_t table[256][TABLES];            // one for every fourth lane
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

// A tile of an array: its first row and column, and how many of each there are, at most ROWS and COLS.
typedef struct decode_tile {
    int64_t n0, k0;
    int rows, cols;
} decode_tile;

__device__ static inline decode_tile tile_of(const tv_decode_args &a, unsigned block)
{
    unsigned across = (unsigned)tv_ceil_div(a.cols, COLS);
    decode_tile t = {(int64_t)(block / across) * ROWS, (int64_t)(block % across) * COLS, ROWS, COLS};
    t.rows = a.rows - t.n0 < ROWS ? (int)(a.rows - t.n0) : ROWS;
    t.cols = a.cols - t.k0 < COLS ? (int)(a.cols - t.k0) : COLS;
    return t;
}

__device__ static inline int tile_quad(int q) { return q * TILE_PITCH + q / 8 % 2 * 2; }

#define PACKED_ROWS (TV_WARP / PACKED_WORDS) // of a warp at once
#define PACKED_STRIDE (WARPS * PACKED_ROWS)  // rows of the block at once
#define PACKED_TURNS ((ROWS + PACKED_STRIDE - 1) / PACKED_STRIDE)
#define VALUES_STRIDE (THREADS / ROWS) // groups of the block at once
#define VALUES_TURNS ((GROUPS + VALUES_STRIDE - 1) / VALUES_STRIDE)

// What a thread brings to the tile: words that hold packed bytes, a row's first byte anywhere in its first word, and exponents.
typedef struct decode_share {
    uint32_t packed[PACKED_TURNS];
    int E[VALUES_TURNS];
} decode_share;

__device__ static inline int packed_row(void)
{
    return (int)threadIdx.x / TV_WARP * PACKED_ROWS + tv_warp_lane() / PACKED_WORDS;
}
__device__ static inline int groups_of(const tv_decode_args &a, const decode_tile &t, int bits)
{
    return ((int)(t.k0 & (a.group - 1)) + t.cols - 1 >> bits) + 1;
}

__device__ static inline decode_share fetch(const tv_decode_args &a, const decode_tile &t, int bits)
{
    decode_share share;
    int row_bytes = (int)tv_row_bytes(a.cols), at = 4 * (tv_warp_lane() % PACKED_WORDS), first = (int)t.k0 / 5;
    int row = packed_row(), left = tv_warp_lane() < PACKED_ROWS * PACKED_WORDS ? row_bytes - first - at : -4;
    const uint8_t *from = a.T + (t.n0 + row) * row_bytes + first;
#pragma unroll
    for (int i = 0; i < PACKED_TURNS; i++, row += PACKED_STRIDE, from += (int64_t)PACKED_STRIDE * row_bytes) {
        int skew = (int)(uintptr_t)from & 3;
        share.packed[i] = NO_TRITS;
        if (row < t.rows && -skew < left)
            share.packed[i] = *(const uint32_t *)(from - skew + at);
    }
    int groups = (int)tv_row_groups(a.cols, a.group), group = threadIdx.x / ROWS;
    const int8_t *E = a.E + (t.n0 + threadIdx.x % ROWS) * groups + (int)(t.k0 >> bits) + group;
    int count = (int)threadIdx.x % ROWS < t.rows ? groups_of(a, t, bits) : 0;
#pragma unroll
    for (int i = 0; i < VALUES_TURNS; i++)
        share.E[i] = group + i * VALUES_STRIDE < count ? E[i * VALUES_STRIDE] : a.base;
    return share;
}

// The words as they are; of each group what digits 0, 1, 2 stand for, as bytes.
__device__ static inline void put(const tv_decode_args &a, const decode_tile &t, int bits, const decode_share &share,
                                  decode_shared &s)
{
    int row = packed_row();
    uint32_t *to = s.packed + row / 4 * PACKED_PITCH + row % 4 * PACKED_WORDS + tv_warp_lane() % PACKED_WORDS;
#pragma unroll
    for (int i = 0; i < PACKED_TURNS; i++)
        if (tv_warp_lane() < PACKED_ROWS * PACKED_WORDS && row + i * PACKED_STRIDE < ROWS)
            to[i * (PACKED_STRIDE / 4 * PACKED_PITCH)] = share.packed[i];
    uint32_t *values = s.values + threadIdx.x / ROWS * VALUES_PITCH + threadIdx.x % 4 * QUADS + threadIdx.x % ROWS / 4;
    int count = groups_of(a, t, bits);
#pragma unroll
    for (int i = 0; i < VALUES_TURNS; i++)
        if ((int)threadIdx.x / ROWS + i * VALUES_STRIDE < count) {
            int L = tv_lattice_value(a.mantissa_bits, share.E[i] - a.base);
            values[i * VALUES_STRIDE * VALUES_PITCH] = (uint32_t)(-L & 255) | (uint32_t)L << 16;
        }
}

// The five words of four packed bytes; values[j] of word j.
__device__ static inline void unpack(uint32_t bytes, const uint32_t *table, const uint32_t values[CHUNK_WORDS],
                                     uint32_t words[CHUNK_WORDS])
{
    uint32_t a = table[(bytes & 255) * TABLES], b = table[(bytes >> 8 & 255) * TABLES];
    uint32_t c = table[(bytes >> 16 & 255) * TABLES], d = table[(bytes >> 24) * TABLES];
    words[0] = __byte_perm(values[0], 0, a);
    words[1] = __byte_perm(values[1], 0, (a >> 16) + b * 16);
    words[2] = __byte_perm(values[2], 0, (b >> 12) + c * 256);
    words[3] = __byte_perm(values[3], 0, (c >> 8) + d * 4096);
    words[4] = __byte_perm(values[4], 0, d >> 4);
}

// Four rows of a thread's columns into w8t, whose columns are whole words. `left` of the columns are there.
__device__ static inline void store_columns(int8_t *to, int64_t pitch, int left, const uint32_t words[4][CHUNK_WORDS])
{
#pragma unroll
    for (int j = 0; j < CHUNK_WORDS; j++) {
        uint32_t four[4] = {words[0][j], words[1][j], words[2][j], words[3][j]}, turned[4];
        tv_turn4(four, turned);
#pragma unroll
        for (int c = 0; c < 4; c++, to += pitch)
            if (4 * j + c < left)
                *(uint32_t *)to = turned[c];
    }
}

// The tile's rows into w8, whose rows are whole pieces of eight bytes. A warp takes every eighth four of them.
__device__ static inline void store_rows(const tv_decode_args &a, const decode_tile &t, const decode_shared &s)
{
    const int pieces = COLS / 8;
    int warp = threadIdx.x / TV_WARP;
#pragma unroll
    for (int i = 0; i < 4 * pieces; i += TV_WARP) {
        int piece = i + tv_warp_lane(), row = 4 * warp + piece / pieces, column = piece % pieces * 8;
        int8_t *to = a.w8 + (t.n0 + row) * a.cols + t.k0 + column;
        const uint32_t *from = s.tile + TILE_PITCH * warp + 2 * piece;
        int rows = piece < 4 * pieces && column < t.cols ? t.rows - row : 0;
#pragma unroll
        for (int n = 0; n < ROWS; n += 4 * WARPS, to += 4 * WARPS * a.cols)
            if (n < rows)
                *(uint2 *)to = *(const uint2 *)(from + tile_quad(n / 4));
    }
}

// Outputs of other shapes, a byte at a time.
__device__ __noinline__ static void store_bytes(const tv_decode_args &a, const decode_tile &t, bool turned,
                                                const decode_shared &s)
{
#pragma unroll 1
    for (int i = threadIdx.x; i < ROWS * COLS; i += THREADS) {
        int row = turned ? i % ROWS : i / COLS, column = turned ? i / ROWS : i % COLS;
        int64_t n = t.n0 + row, k = t.k0 + column;
        const uint32_t *words = s.tile + tile_quad(row / 4) + row % 4 * (COLS / 4);
        if (row < t.rows && column < t.cols)
            (turned ? a.w8t : a.w8)[turned ? k * a.rows + n : n * a.cols + k] = ((const int8_t *)words)[column];
    }
}

__global__ static void __launch_bounds__(THREADS, 4) decode_kernel(const __grid_constant__ tv_many<tv_decode_args> many)
{
    __shared__ __align__(16) decode_shared s;
    unsigned block;
    const tv_decode_args &a = many.item[tv_many_find(many, &block)];
    decode_tile t = tile_of(a, block);
    int lane = tv_warp_lane(), warp = threadIdx.x / TV_WARP, bits = 31 - __clz(a.group);
    int q = warp % 2 * 16 + lane % 16, chunk = warp / 2 * 2 + lane / 16;
    decode_share share = fetch(a, t, bits);
    uint32_t digits = digits_of_byte.word[threadIdx.x];
    *(uint4 *)s.table[threadIdx.x] = make_uint4(digits, digits, digits, digits);
    put(a, t, bits, share, s);
    __syncthreads();
    uint32_t words[4][CHUNK_WORDS], row_bytes = (uint32_t)tv_row_bytes(a.cols);
    uint32_t start = (uint32_t)(uintptr_t)a.T + (uint32_t)(t.n0 + 4 * q) * row_bytes + (uint32_t)t.k0 / 5;
    const uint32_t *values_at[CHUNK_WORDS], *packed = s.packed + q * PACKED_PITCH + chunk;
#pragma unroll
    for (int j = 0; j < CHUNK_WORDS; j++)
        values_at[j] = s.values + (((int)t.k0 & (a.group - 1)) + chunk * CHUNK + 4 * j >> bits) * VALUES_PITCH + q;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t bytes =
            __funnelshift_r(packed[i * PACKED_WORDS], packed[i * PACKED_WORDS + 1], (start + i * row_bytes) % 4 * 8);
        uint32_t values[CHUNK_WORDS];
#pragma unroll
        for (int j = 0; j < CHUNK_WORDS; j++)
            values[j] = values_at[j][i * QUADS];
        unpack(bytes, s.table[0] + lane % TABLES, values, words[i]);
    }
    bool whole_columns = ((uintptr_t)a.w8t | (uintptr_t)a.rows) % 4 == 0;
    bool whole_rows = ((uintptr_t)a.w8 | (uintptr_t)a.cols) % 8 == 0;
    if (a.w8t && whole_columns && 4 * q < t.rows)
        store_columns(a.w8t + (t.k0 + chunk * CHUNK) * a.rows + t.n0 + 4 * q, a.rows, t.cols - chunk * CHUNK, words);
    if (!a.w8 && whole_columns)
        return;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < CHUNK_WORDS; j++)
            s.tile[tile_quad(q) + i * (COLS / 4) + chunk * CHUNK_WORDS + j] = words[i][j];
    __syncthreads();
    if (a.w8 && whole_rows)
        store_rows(a, t, s);
    else if (a.w8)
        store_bytes(a, t, false, s);
    if (a.w8t && !whole_columns)
        store_bytes(a, t, true, s);
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
