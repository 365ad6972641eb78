// Panels and micro-kernel with AVX-512 VNNI.
//
// vpdpbusd multiplies unsigned by signed bytes and adds four neighbours into an int32. b is kept as b + 128 (its
// sign bit flipped), so that sum (b + 128) a = sum b a + 128 sum a; the row's correction -128 sum a is where its
// sums start. Steps may wrap mod 2^32; the result does not.
//   panel of a: [group][16 rows][4 bytes], 14 of the rows used    panel of b: [group][32 rows][4 bytes]
// A step loads two vectors of b and broadcasts 14 groups of a: 28 sums in registers, 16 loads for 28 multiplications.
#include <immintrin.h>

#include "kernels/cpu/cpu_gemm.h"

enum { GROUP = 4, VECTOR_BYTES = 64, ROWS = 16 };

// r[i] lane j -> r[j] lane i, lanes of 32 bits: inside 128-bit quarters first, then the quarters.
static inline void transpose(__m512i r[ROWS])
{
    __m512i s[ROWS];
    for (int i = 0; i < ROWS; i += 2) {
        s[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        s[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < ROWS; i += 4) {
        r[i] = _mm512_unpacklo_epi64(s[i], s[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(s[i], s[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(s[i + 1], s[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(s[i + 1], s[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        s[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        s[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xDD);
        s[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        s[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xDD);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(s[i], s[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(s[i], s[i + 8], 0xDD);
        r[i + 4] = _mm512_shuffle_i32x4(s[i + 4], s[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(s[i + 4], s[i + 12], 0xDD);
    }
}

// Rows [row, row + 16) of the panel's source, columns [at, at + 64), as 16 groups of 16 rows; what lies outside is 0.
static inline void load_square(const tv_cpu_panel *panel, int row, int at, __m512i r[ROWS])
{
    int left = panel->depth - at;
    __mmask64 mask = left >= VECTOR_BYTES ? ~(__mmask64)0 : ((__mmask64)1 << left) - 1;
    for (int i = 0; i < ROWS; i++)
        r[i] = _mm512_maskz_loadu_epi8(row + i < panel->rows ? mask : 0, panel->from + (row + i) * panel->stride + at);
    transpose(r);
}

void TV_ISA_NAME(tv_cpu_pack_a)(const tv_cpu_panel *panel, int32_t *start)
{
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sum = _mm512_setzero_si512();
    char *to = panel->to;
    for (int at = 0; at < panel->depth; at += VECTOR_BYTES) {
        __m512i r[ROWS];
        load_square(panel, 0, at, r);
        for (int g = 0; g < ROWS && at + g * GROUP < panel->depth; g++) {
            sum = _mm512_dpbusd_epi32(sum, ones, r[g]);
            _mm512_store_si512(to, r[g]);
            to += VECTOR_BYTES;
        }
    }
    _mm512_store_si512(start, _mm512_mullo_epi32(sum, _mm512_set1_epi32(-128)));
}

void TV_ISA_NAME(tv_cpu_pack_b)(const tv_cpu_panel *panel)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    for (int half = 0; half < 2; half++) {
        char *to = (char *)panel->to + half * VECTOR_BYTES;
        for (int at = 0; at < panel->depth; at += VECTOR_BYTES) {
            __m512i r[ROWS];
            load_square(panel, half * ROWS, at, r);
            for (int g = 0; g < ROWS && at + g * GROUP < panel->depth; g++) {
                _mm512_store_si512(to, _mm512_xor_si512(r[g], flip));
                to += 2 * VECTOR_BYTES;
            }
        }
    }
}

void TV_ISA_NAME(tv_cpu_micro_run)(const tv_cpu_micro *micro)
{
    __m512i sum[TV_GEMM_MR][2];
    const int32_t *start = micro->start;
    int32_t *sums = micro->sums;
    int64_t stride = micro->stride;
#pragma GCC unroll 14
    for (int i = 0; i < TV_GEMM_MR; i++) {
        sum[i][0] = sum[i][1] = _mm512_set1_epi32(start[i]);
        if (!micro->first) {
            sum[i][0] = _mm512_add_epi32(sum[i][0], _mm512_loadu_si512(sums + i * stride));
            sum[i][1] = _mm512_add_epi32(sum[i][1], _mm512_loadu_si512(sums + i * stride + 16));
        }
    }
    const char *a = micro->a, *b = micro->b;
    for (int groups = (micro->depth + GROUP - 1) / GROUP; groups > 0; groups--) {
        __m512i b0 = _mm512_load_si512(b), b1 = _mm512_load_si512(b + VECTOR_BYTES);
#pragma GCC unroll 14
        for (int i = 0; i < TV_GEMM_MR; i++) {
            __m512i four = _mm512_set1_epi32(((const int32_t *)a)[i]);
            sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], b0, four);
            sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], b1, four);
        }
        a += VECTOR_BYTES;
        b += 2 * VECTOR_BYTES;
    }
#pragma GCC unroll 14
    for (int i = 0; i < TV_GEMM_MR; i++) {
        _mm512_storeu_si512(sums + i * stride, sum[i][0]);
        _mm512_storeu_si512(sums + i * stride + 16, sum[i][1]);
    }
}
