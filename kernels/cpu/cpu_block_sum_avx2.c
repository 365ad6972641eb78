// Sums of blocks with AVX2: vpmaddwd multiplies signed 16-bit neighbours and adds both products.
#include <immintrin.h>
#include <stdint.h>

enum { LANES = 8 };

// Sums have the type of their lanes: gcc 12 keeps copies of __m512i and __m256i on the stack where the type changes.
typedef int32_t ints __attribute__((vector_size(32)));
typedef __m256i pairs_of_16;

static inline pairs_of_16 load_pairs(const uint32_t *x) { return _mm256_loadu_si256((const __m256i *)x); }
static inline pairs_of_16 spread_pair(int32_t pair) { return _mm256_set1_epi32(pair); }
static inline ints add_products(ints sum, pairs_of_16 w, pairs_of_16 x) { return sum + (ints)_mm256_madd_epi16(w, x); }
static inline void add_scaled(float *out, ints sum, float factor)
{
    __m256 y = _mm256_fmadd_ps(_mm256_cvtepi32_ps((__m256i)sum), _mm256_set1_ps(factor), _mm256_loadu_ps(out));
    _mm256_storeu_ps(out, y);
}

#include "kernels/cpu/cpu_block_sum.h"
