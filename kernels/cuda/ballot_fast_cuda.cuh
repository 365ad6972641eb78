// What the fast kernels of the ballot share: a thread takes 40 neighbours of a row, which are eight packed bytes and five blocks of
// random draws. Rows then begin on a border of eight elements.
#ifndef TV_KERNELS_BALLOT_FAST_CUDA_CUH
#define TV_KERNELS_BALLOT_FAST_CUDA_CUH

#include "kernels/cuda/cuda_common.cuh"

#define TV_CHUNK 40
#define TV_CHUNK_BYTES (TV_CHUNK / 5)
#define TV_CHUNK_BLOCKS (TV_CHUNK / 8) // of eight elements

static inline TV_HOST_DEVICE int64_t tv_row_chunks(int64_t cols) { return tv_ceil_div(cols, TV_CHUNK); }

// Five digits 0..2 of a packed byte; of one that is no five trits, the digits of zeros.
__device__ static inline void tv_chunk_digits(uint32_t byte, uint32_t digits[5])
{
    uint32_t rest = byte > TV_TRIT_BYTE_MAX ? 121 : byte; // 121: five digits 1
#pragma unroll
    for (int j = 0; j < 5; j++) {
        uint32_t third = rest * 171 >> 9; // rest / 3, for rest < 256
        digits[j] = rest - 3 * third;
        rest = third;
    }
}

// Digits of a chunk of a row, digit 1 behind the row's end. T: the chunk's first byte; `bytes` of them are left in the row.
__device__ static inline void tv_chunk_load(const uint8_t *T, int64_t bytes, uint32_t digits[TV_CHUNK])
{
#pragma unroll
    for (int i = 0; i < TV_CHUNK_BYTES; i++)
        tv_chunk_digits(i < bytes ? T[i] : 121, digits + 5 * i);
}

// Votes of eight elements.
template <int BITS> __device__ static inline void tv_chunk_votes(const void *votes, int64_t i, int v[8])
{
    if (BITS == 8) {
        uint2 w = *(const uint2 *)((const int8_t *)votes + i);
#pragma unroll
        for (int j = 0; j < 8; j++)
            v[j] = (int8_t)((j < 4 ? w.x : w.y) >> (8 * (j % 4)));
    } else {
        uint4 w = *(const uint4 *)((const int16_t *)votes + i);
        uint32_t word[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
        for (int j = 0; j < 8; j++)
            v[j] = (int16_t)(word[j / 2] >> (16 * (j % 2)));
    }
}

// Whether a block of rows is made of whole blocks of eight, whose votes and counters can be loaded as such.
static inline bool tv_chunks_fit(int64_t cols, const void *votes, int vote_bits, const void *counters)
{
    return cols % 8 == 0 && ((uintptr_t)votes & (uintptr_t)(vote_bits - 1)) == 0 && ((uintptr_t)counters & 7) == 0;
}

// The sum over a block of 256 threads, in thread 0. `shared`: one word a warp.
__device__ static inline int tv_block_sum(int value, int *shared)
{
    for (int x = 16; x >= 1; x >>= 1)
        value += __shfl_xor_sync(0xFFFFFFFFu, value, x);
    if (tv_warp_lane() == 0)
        shared[threadIdx.x / TV_WARP] = value;
    __syncthreads();
    int sum = 0;
    for (int w = 0; threadIdx.x == 0 && w < (int)blockDim.x / TV_WARP; w++)
        sum += shared[w];
    return sum;
}

#endif
