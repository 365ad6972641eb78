// Sums of blocks with AVX2: vpmaddwd multiplies signed 16-bit neighbours and adds both products.
#include <immintrin.h>

#include "kernels/cpu/cpu_attention.h"

enum { LANES = 8, VECTORS = TV_SUM_CHANNELS / LANES };

// Sums have the type of their lanes: gcc 12 keeps copies of __m512i and __m256i on the stack where the type changes.
typedef int32_t ints __attribute__((vector_size(32)));

// One block, TV_SUM_CHANNELS channels: pairs [begin, end), at least one, with exact sums in registers.
static inline void sum_block(const tv_block_sum *at, int64_t channel, int64_t begin, int64_t end)
{
    ints sum[TV_SUM_ROWS][VECTORS];
    const uint32_t *w = at->w + begin * at->pair_stride, *x = at->x + begin * at->channels + channel;
    const float *from = at->from + begin / TV_BLOCK_PAIRS;
    int64_t row_stride = at->row_stride, pair_stride = at->pair_stride, channels = at->channels;
#pragma GCC unroll 8
    for (int r = 0; r < TV_SUM_ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            sum[r][v] = (ints){0};
    do {
        __m256i value[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            value[v] = _mm256_loadu_si256((const __m256i *)(x + v * LANES));
#pragma GCC unroll 8
        for (int r = 0; r < TV_SUM_ROWS; r++) {
            __m256i weight = _mm256_set1_epi32(tv_pair_load(w + r * row_stride));
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                sum[r][v] += (ints)_mm256_madd_epi16(weight, value[v]);
        }
        w += pair_stride;
        x += channels;
    } while (++begin < end);
#pragma GCC unroll 8
    for (int r = 0; r < TV_SUM_ROWS; r++) {
        float *out = at->out + r * channels + channel;
        __m256 factor = _mm256_set1_ps(from[r * at->from_stride]);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            _mm256_storeu_ps(out + v * LANES, _mm256_fmadd_ps(_mm256_cvtepi32_ps((__m256i)sum[r][v]), factor,
                                                              _mm256_loadu_ps(out + v * LANES)));
    }
}

void TV_ISA_NAME(tv_block_sum_run)(const tv_block_sum *at)
{
    for (int64_t channel = 0; channel < at->channels; channel += TV_SUM_CHANNELS)
        for (int64_t begin = at->skip, end; begin < at->pairs; begin = end) {
            end = (begin / TV_BLOCK_PAIRS + 1) * TV_BLOCK_PAIRS;
            end = end < at->pairs ? end : at->pairs;
            sum_block(at, channel, begin, end);
        }
}
