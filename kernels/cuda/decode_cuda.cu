// decode: a block turns the packed trits of a tile of 128 x 160 weights into both orders of int8 weights.
//
// A table in shared memory gives the five digits of a byte, 4 bits each: as they stand they select four of a group's values -L, 0 and L
// for a word. The transposed copy is made of 4 x 4 bytes in registers, so that all stores are of 16 bytes where the output's borders allow.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/many_cuda.cuh"
#include "kernels/cuda/vector_cuda.cuh"

#define THREADS 320
#define ROWS 128
#define COLS 160 // 32 packed bytes, 10 pieces of 16 weights
#define WORDS (COLS / 4)
#define TURN 16 // rows that turn together

// Word w of row r. Every 16 rows begin four words further on: reads along a column then go to different banks.
__device__ static inline int turned(int r, int w)
{
    w += r / TURN * 4 % WORDS;
    return w < WORDS ? w : w - WORDS;
}
__device__ static inline int place(int r, int w) { return r * WORDS + turned(r, w); }

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
__device__ static inline uint32_t values(const tv_decode_args &a, int E)
{
    int L = tv_lattice_value(a.mantissa_bits, E - a.base);
    return (uint32_t)(uint8_t)-L | (uint32_t)L << 16;
}

// Groups of at least 16 weights: a tile's values lie in shared memory, row by row. A tile has at most 11 groups of a row.
#define GROUPS 11
__device__ static inline bool has_shared_values(const tv_decode_args &a) { return a.group % 16 == 0; }
__device__ static inline int group_bits(const tv_decode_args &a) { return 31 - __clz((int)a.group); }

__device__ static inline void fill_values(const tv_decode_args &a, int64_t n0, uint32_t k0, uint32_t *shared)
{
    uint32_t groups = (uint32_t)tv_row_groups(a.cols, a.group), first = k0 >> group_bits(a);
    for (int i = threadIdx.x; i < ROWS * GROUPS; i += THREADS) {
        int64_t n = n0 + i / GROUPS;
        uint32_t g = first + (uint32_t)i % GROUPS;
        if (n < a.rows && g < groups)
            shared[i] = values(a, a.E[n * groups + g]);
    }
}

// Four weights from column k, where a group may end between them.
__device__ __noinline__ static uint32_t mixed_word(const tv_decode_args &a, const int8_t *E, uint32_t k,
                                                   uint32_t digits)
{
    uint32_t out = 0, group = (uint32_t)a.group;
    for (uint32_t j = 0; j < 4 && k + j < a.cols; j++)
        out |= (__byte_perm(values(a, E[(k + j) / group]), 0, digits >> (4 * j)) & 255u) << (8 * j);
    return out;
}

#define NO_TRITS 0x79797979u // four bytes of five zeros
#define TURNS ((ROWS * 8 + THREADS - 1) / THREADS)

// What a thread unpacks in a turn: four packed bytes of row r, the weights of five words.
__device__ static inline int share_row(int turn) { return (turn * THREADS + (int)threadIdx.x) / 8; }
__device__ static inline int share_word(int turn) { return (turn * THREADS + (int)threadIdx.x) % 8 * 5; }

// Four bytes from `at`, out of two aligned words that hold some of them.
__device__ static inline uint32_t read4(const uint8_t *at)
{
    const uint32_t *word = (const uint32_t *)((uintptr_t)at & ~(uintptr_t)3);
    unsigned shift = (unsigned)(uintptr_t)at % 4 * 8;
    uint32_t low = word[0];
    return shift == 0 ? low : __funnelshift_r(low, word[1], shift);
}

__device__ static inline uint32_t fetch(const tv_decode_args &a, int64_t n0, uint32_t k0, int turn)
{
    int64_t n = n0 + share_row(turn), row_bytes = tv_row_bytes(a.cols);
    uint32_t at = (k0 + 4 * (uint32_t)share_word(turn)) / 5, bytes = NO_TRITS;
    const uint8_t *T = a.T + n * row_bytes + at;
    if (share_row(turn) >= ROWS || n >= a.rows)
        return NO_TRITS;
    if (at + 4 <= row_bytes)
        return read4(T);
    for (uint32_t j = 0; at + j < row_bytes; j++)
        bytes = (bytes & ~(255u << (8 * j))) | (uint32_t)T[j] << (8 * j);
    return bytes;
}

__device__ static inline void unpack(const tv_decode_args &a, int64_t n0, uint32_t k0, int turn, uint32_t bytes,
                                     const uint32_t *table, const uint32_t *shared, uint32_t *tile)
{
    int r = share_row(turn);
    int64_t n = n0 + r;
    if (r >= ROWS || n >= a.rows)
        return;
    uint32_t first = k0 & ((uint32_t)a.group - 1), last = table[bytes >> 24];
    uint64_t digits = (uint64_t)table[bytes & 255] | (uint64_t)table[bytes >> 8 & 255] << 20 |
                      (uint64_t)table[bytes >> 16 & 255] << 40 | (uint64_t)last << 60;
#pragma unroll
    for (int i = 0; i < 5; i++) {
        int word = share_word(turn) + i;
        uint32_t four = i == 4 ? last >> 4 : (uint32_t)(digits >> (16 * i)), out;
        if (has_shared_values(a))
            out = __byte_perm(shared[r * GROUPS + ((first + 4 * (uint32_t)word) >> group_bits(a))], 0, four);
        else
            out = mixed_word(a, a.E + n * tv_row_groups(a.cols, a.group), k0 + 4 * (uint32_t)word, four);
        tile[place(r, word)] = out;
    }
}

// Store up to 16 bytes, `room` of them.
__device__ static inline void put(int8_t *to, uint4 value, int64_t room)
{
    uint32_t words[4] = {value.x, value.y, value.z, value.w};
    if (room >= 16 && (uintptr_t)to % 16 == 0) {
        *(uint4 *)to = value;
    } else if (room >= 16 && (uintptr_t)to % 8 == 0) {
        *(uint2 *)to = make_uint2(value.x, value.y);
        *(uint2 *)(to + 8) = make_uint2(value.z, value.w);
    } else {
#pragma unroll
        for (int i = 0; i < 16; i++)
            if (i < room)
                to[i] = (int8_t)(words[i / 4] >> (8 * (i % 4)));
    }
}

// Four columns of 16 rows into w8t.
__device__ static inline void store_turned(const tv_decode_args &a, int64_t n0, int64_t k0, int group, int word,
                                           const uint32_t *tile)
{
    uint32_t x[TURN], turned[TURN / 4][4];
    int64_t n = n0 + group * TURN;
#pragma unroll
    for (int i = 0; i < TURN; i++)
        x[i] = tile[place(group * TURN + i, word)];
#pragma unroll
    for (int i = 0; i < TURN / 4; i++)
        tv_turn4(x + 4 * i, turned[i]);
#pragma unroll
    for (int j = 0; j < 4; j++)
        if (k0 + 4 * word + j < a.cols)
            put(a.w8t + (k0 + 4 * word + j) * a.rows + n,
                make_uint4(turned[0][j], turned[1][j], turned[2][j], turned[3][j]), a.rows - n);
}

__global__ static void __launch_bounds__(THREADS, 4) decode_kernel(const __grid_constant__ tv_many<tv_decode_args> many)
{
    __shared__ __align__(16) uint32_t tile[ROWS * WORDS];
    __shared__ uint32_t table[256], group_values[ROWS * GROUPS];
    unsigned block;
    const tv_decode_args &a = many.item[tv_many_find(many, &block)];
    unsigned across = (unsigned)tv_ceil_div(a.cols, COLS);
    int64_t n0 = (int64_t)(block / across) * ROWS, k0 = (int64_t)(block % across) * COLS;
    uint32_t shares[TURNS];
#pragma unroll
    for (int turn = 0; turn < TURNS; turn++)
        shares[turn] = fetch(a, n0, (uint32_t)k0, turn);
    if (threadIdx.x < 256)
        table[threadIdx.x] = digits_of_byte.word[threadIdx.x];
    if (has_shared_values(a))
        fill_values(a, n0, (uint32_t)k0, group_values);
    __syncthreads();
#pragma unroll
    for (int turn = 0; turn < TURNS; turn++)
        unpack(a, n0, (uint32_t)k0, turn, shares[turn], table, group_values, tile);
    __syncthreads();
    for (int i = threadIdx.x; a.w8 && i < ROWS * (COLS / 16); i += THREADS) {
        int r = i / (COLS / 16), piece = i % (COLS / 16);
        int64_t n = n0 + r, k = k0 + 16 * piece;
        if (n < a.rows && k < a.cols)
            put(a.w8 + n * a.cols + k, *(const uint4 *)&tile[place(r, 4 * piece)], a.cols - k);
    }
    for (int i = threadIdx.x; a.w8t && i < WORDS * (ROWS / TURN); i += THREADS)
        if (n0 + i % (ROWS / TURN) * TURN < a.rows)
            store_turned(a, n0, k0, i % (ROWS / TURN), i / (ROWS / TURN), tile);
}

extern "C" tv_status decode_many_cuda(const tv_decode_args *list, int64_t count, void *stream)
{
    for (int64_t i = 0; i < count;) {
        tv_many<tv_decode_args> many = {};
        for (; i < count; i++) {
            int64_t blocks = tv_ceil_div(list[i].rows, ROWS) * tv_ceil_div(list[i].cols, COLS);
            if (blocks && !tv_many_add(&many, &list[i], blocks))
                break;
        }
        if (many.count)
            decode_kernel<<<many.blocks, THREADS, 0, tv_cuda_stream(stream)>>>(many);
    }
    TV_CUDA_LAUNCHED("decode");
}

extern "C" tv_status decode_cuda(const tv_decode_args *a, void *stream) { return decode_many_cuda(a, 1, stream); }
