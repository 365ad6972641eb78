// Transposes a square of bytes with AVX2 (both instruction sets have it).
#ifndef TV_KERNELS_CPU_TRANSPOSE_H
#define TV_KERNELS_CPU_TRANSPOSE_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { TV_SQUARE = 64 }; // side of a square, one cache line

// to[c][r] = from[r][c] for 16 rows and 32 columns: two squares of 16 side by side, one in each half of the
// registers. Four rounds that interleave row i with row i + 8 are a transposition of 16 x 16.
static inline __attribute__((always_inline)) void tv_transpose_strip(const int8_t *from, int64_t from_stride,
                                                                     int8_t *to, int64_t to_stride)
{
    __m256i r[16], s[16];
    for (int i = 0; i < 16; i++)
        r[i] = _mm256_loadu_si256((const __m256i *)(from + i * from_stride));
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 8; i++) {
            s[2 * i] = _mm256_unpacklo_epi8(r[i], r[i + 8]);
            s[2 * i + 1] = _mm256_unpackhi_epi8(r[i], r[i + 8]);
        }
        for (int i = 0; i < 8; i++) {
            r[2 * i] = _mm256_unpacklo_epi8(s[i], s[i + 8]);
            r[2 * i + 1] = _mm256_unpackhi_epi8(s[i], s[i + 8]);
        }
    }
    for (int i = 0; i < 16; i++) {
        _mm_storeu_si128((__m128i *)(to + i * to_stride), _mm256_castsi256_si128(r[i]));
        _mm_storeu_si128((__m128i *)(to + (i + 16) * to_stride), _mm256_extracti128_si256(r[i], 1));
    }
}

// to[c][r] = from[r][c]; rows of `from` lie from_stride apart.
static inline void tv_transpose_square(const int8_t *from, int64_t from_stride, int8_t to[TV_SQUARE][TV_SQUARE])
{
    for (int row = 0; row < TV_SQUARE; row += 16)
        for (int col = 0; col < TV_SQUARE; col += 32)
            tv_transpose_strip(from + row * from_stride + col, from_stride, &to[col][row], TV_SQUARE);
}

// Columns [0, cols) of a square to rows of `to`, `bytes` of each.
static inline void tv_square_store(const int8_t square[TV_SQUARE][TV_SQUARE], int rows, int bytes, int8_t *to,
                                   int64_t stride)
{
    for (int i = 0; i < rows; i++) {
        if (bytes == TV_SQUARE)
            memcpy(to + i * stride, square[i], TV_SQUARE);
        else
            memcpy(to + i * stride, square[i], (size_t)bytes);
    }
}

#endif
