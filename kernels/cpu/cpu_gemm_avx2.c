// Panels and micro-kernel with AVX2.
//
// vpmaddwd multiplies signed 16-bit numbers and adds two neighbours into an int32: exact for every int8. Panels hold
// int16. (The byte form, vpmaddubsw, needs a sign and an absolute value per product and gains nothing over it.)
//   panel of a: [pair][6 rows][2 int16]    panel of b: [pair][16 rows][2 int16]
// A step loads two vectors of b and broadcasts 6 pairs of a: 12 sums in registers.
#include <immintrin.h>

#include "kernels/cpu/cpu_gemm.h"

enum { PAIR = 2, VECTOR_BYTES = 32, VECTOR_SUMS = 8 };

static void pack(const tv_cpu_panel *panel, int panel_rows)
{
    int pairs = (panel->depth + PAIR - 1) / PAIR, whole = panel->depth / PAIR;
    int16_t *to = panel->to;
    for (int i = 0; i < panel_rows; i++) {
        const int8_t *from = panel->from + i * panel->stride;
        int filled = i < panel->rows ? whole : 0;
        for (int p = 0; p < filled; p++) {
            to[(p * panel_rows + i) * PAIR] = from[p * PAIR];
            to[(p * panel_rows + i) * PAIR + 1] = from[p * PAIR + 1];
        }
        for (int p = filled; p < pairs; p++) {
            to[(p * panel_rows + i) * PAIR] = i < panel->rows ? from[p * PAIR] : 0;
            to[(p * panel_rows + i) * PAIR + 1] = 0;
        }
    }
}

void TV_ISA_NAME(tv_cpu_pack_a)(const tv_cpu_panel *panel, int32_t *start)
{
    pack(panel, TV_GEMM_MR);
    for (int i = 0; i < TV_GEMM_PACK_ROWS; i++)
        start[i] = 0;
}

void TV_ISA_NAME(tv_cpu_pack_b)(const tv_cpu_panel *panel) { pack(panel, TV_GEMM_NR); }

static inline __m256i load(const void *at) { return _mm256_loadu_si256((const __m256i *)at); }

void TV_ISA_NAME(tv_cpu_micro_run)(const tv_cpu_micro *micro)
{
    __m256i sum[TV_GEMM_MR][2];
    int32_t *sums = micro->sums;
    int64_t stride = micro->stride;
#pragma GCC unroll 6
    for (int i = 0; i < TV_GEMM_MR; i++) {
        sum[i][0] = micro->first ? _mm256_setzero_si256() : load(sums + i * stride);
        sum[i][1] = micro->first ? _mm256_setzero_si256() : load(sums + i * stride + VECTOR_SUMS);
    }
    const char *a = micro->a, *b = micro->b;
    for (int pairs = (micro->depth + PAIR - 1) / PAIR; pairs > 0; pairs--) {
        __m256i b0 = load(b), b1 = load(b + VECTOR_BYTES);
#pragma GCC unroll 6
        for (int i = 0; i < TV_GEMM_MR; i++) {
            __m256i two = _mm256_set1_epi32(((const int32_t *)a)[i]);
            sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(b0, two));
            sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(b1, two));
        }
        a += TV_GEMM_MR * PAIR * sizeof(int16_t);
        b += 2 * VECTOR_BYTES;
    }
#pragma GCC unroll 6
    for (int i = 0; i < TV_GEMM_MR; i++) {
        _mm256_storeu_si256((__m256i *)(sums + i * stride), sum[i][0]);
        _mm256_storeu_si256((__m256i *)(sums + i * stride + VECTOR_SUMS), sum[i][1]);
    }
}
