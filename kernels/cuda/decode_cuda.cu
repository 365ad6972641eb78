// decode: a block turns the packed trits of a tile of 128 x 160 weights into both orders of int8 weights.
//
// A table in shared memory gives the five digits of a byte, 4 bits each: as they stand they select four of a group's values -L, 0 and L
// for a word. The transposed copy is made of 4 x 4 bytes in registers, so that all stores are of 16 bytes where the output's borders allow.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/many_cuda.cuh"

#define THREADS 320
#define ROWS 128
#define COLS 160 // 32 packed bytes, 10 pieces of 16 weights
#define WORDS (COLS / 4)
#define TURN 16 // rows that turn together

// Word w of row r. Every 16 rows begin four words further on: reads along a column then go to different banks.
__device__ static inline int place(int r, int w) { return r * WORDS + (w + r / TURN * 4) % WORDS; }

// Digit j of byte b, trit + 1, at bits 4 j.
__device__ static inline void fill_table(uint32_t *table)
{
    for (int b = threadIdx.x; b < 256; b += THREADS) {
        uint32_t digits = 0;
        for (int j = 0; j < 5; j++)
            digits |= (uint32_t)(tv_byte_trit((uint32_t)b, j) + 1) << (4 * j);
        table[b] = digits;
    }
}

// What digits 0, 1, 2 stand for in the group of exponent E, as bytes.
__device__ static inline uint32_t values(const tv_decode_args &a, int E)
{
    int L = tv_lattice_value(a.mantissa_bits, E - a.base);
    return (uint32_t)(uint8_t)-L | (uint32_t)L << 16;
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

#define NO_TRITS 121 // the byte of five zeros
#define TURNS ((ROWS * 8 + THREADS - 1) / THREADS)

// What a thread unpacks in a turn: four packed bytes of row r, the weights of five words.
__device__ static inline int share_row(int turn) { return (turn * THREADS + (int)threadIdx.x) / 8; }
__device__ static inline int share_word(int turn) { return (turn * THREADS + (int)threadIdx.x) % 8 * 5; }

__device__ static inline uint32_t fetch(const tv_decode_args &a, int64_t n0, uint32_t k0, int turn)
{
    int64_t n = n0 + share_row(turn);
    uint32_t row_bytes = (uint32_t)tv_row_bytes(a.cols), at = (k0 + 4 * (uint32_t)share_word(turn)) / 5, bytes = 0;
    const uint8_t *T = a.T + n * row_bytes + at;
    bool here = share_row(turn) < ROWS && n < a.rows;
#pragma unroll
    for (uint32_t j = 0; j < 4; j++)
        bytes |= (uint32_t)(here && at + j < row_bytes ? T[j] : NO_TRITS) << (8 * j);
    return bytes;
}

__device__ static inline void unpack(const tv_decode_args &a, int64_t n0, uint32_t k0, int turn, uint32_t bytes,
                                     const uint32_t *table, uint32_t *tile)
{
    int64_t n = n0 + share_row(turn);
    const int8_t *E = a.E + n * tv_row_groups(a.cols, a.group);
    int bits = 31 - __clz((int)a.group); // of a power of two
    if (share_row(turn) >= ROWS || n >= a.rows)
        return;
    uint32_t last = table[bytes >> 24];
    uint64_t digits = (uint64_t)table[bytes & 255] | (uint64_t)table[bytes >> 8 & 255] << 20 |
                      (uint64_t)table[bytes >> 16 & 255] << 40 | (uint64_t)last << 60;
#pragma unroll
    for (int i = 0; i < 5; i++) {
        uint32_t k = k0 + 4 * (uint32_t)(share_word(turn) + i),
                 four = i == 4 ? last >> 4 : (uint32_t)(digits >> (16 * i));
        if (k < a.cols)
            tile[place(share_row(turn), share_word(turn) + i)] =
                a.group % 4 == 0 ? __byte_perm(values(a, E[k >> bits]), 0, four) : mixed_word(a, E, k, four);
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

// out[j]: byte j of a, b, c, d.
__device__ static inline void turn4(const uint32_t *x, uint32_t out[4])
{
    uint32_t a = __byte_perm(x[0], x[1], 0x5140), b = __byte_perm(x[2], x[3], 0x5140);
    uint32_t c = __byte_perm(x[0], x[1], 0x7362), d = __byte_perm(x[2], x[3], 0x7362);
    out[0] = __byte_perm(a, b, 0x5410), out[1] = __byte_perm(a, b, 0x7632);
    out[2] = __byte_perm(c, d, 0x5410), out[3] = __byte_perm(c, d, 0x7632);
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
        turn4(x + 4 * i, turned[i]);
#pragma unroll
    for (int j = 0; j < 4; j++)
        if (k0 + 4 * word + j < a.cols)
            put(a.w8t + (k0 + 4 * word + j) * a.rows + n,
                make_uint4(turned[0][j], turned[1][j], turned[2][j], turned[3][j]), a.rows - n);
}

__global__ static void __launch_bounds__(THREADS, 4) decode_kernel(const __grid_constant__ tv_many<tv_decode_args> many)
{
    __shared__ __align__(16) uint32_t tile[ROWS * WORDS];
    __shared__ uint32_t table[256];
    unsigned block;
    const tv_decode_args &a = many.item[tv_many_find(many, &block)];
    unsigned across = (unsigned)tv_ceil_div(a.cols, COLS);
    int64_t n0 = (int64_t)(block / across) * ROWS, k0 = (int64_t)(block % across) * COLS;
    uint32_t shares[TURNS];
#pragma unroll
    for (int turn = 0; turn < TURNS; turn++)
        shares[turn] = fetch(a, n0, (uint32_t)k0, turn);
    fill_table(table);
    __syncthreads();
#pragma unroll
    for (int turn = 0; turn < TURNS; turn++)
        unpack(a, n0, (uint32_t)k0, turn, shares[turn], table, tile);
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
