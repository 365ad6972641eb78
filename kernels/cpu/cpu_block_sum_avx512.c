// Sums of blocks with AVX-512 VNNI: vpdpwssd multiplies signed 16-bit neighbours and adds both products into an int32.
#include <immintrin.h>
#include <stdint.h>

enum { LANES = 16 };

// Sums have the type of their lanes: gcc 12 keeps copies of __m512i and __m256i on the stack where the type changes.
typedef int32_t ints __attribute__((vector_size(64)));
typedef __m512i pairs_of_16;

static inline pairs_of_16 load_pairs(const uint32_t *x) { return _mm512_loadu_si512(x); }
static inline pairs_of_16 spread_pair(int32_t pair) { return _mm512_set1_epi32(pair); }
static inline ints add_products(ints sum, pairs_of_16 w, pairs_of_16 x)
{
    return (ints)_mm512_dpwssd_epi32((__m512i)sum, w, x);
}
static inline void add_scaled(float *out, ints sum, float factor)
{
    __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps((__m512i)sum), _mm512_set1_ps(factor), _mm512_loadu_ps(out));
    _mm512_storeu_ps(out, y);
}

#include "kernels/cpu/cpu_block_sum.h"
