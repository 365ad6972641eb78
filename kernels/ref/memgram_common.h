// Formulas of the n-gram ops that all backends share.
#ifndef TV_KERNELS_MEMGRAM_COMMON_H
#define TV_KERNELS_MEMGRAM_COMMON_H

#include "kernels/ref/ref_common.h"

// Row of the n-gram that ends at ids[0]; all n ids lie before it.
static inline TV_HOST_DEVICE int32_t tv_memgram_row(const int32_t *ids, int n, int64_t rows)
{
    uint64_t h = (uint64_t)n * 0x9E3779B97F4A7C15u;
    for (int i = n - 1; i >= 0; i--) {
        h = (h ^ (uint32_t)ids[-i]) * 0xFF51AFD7ED558CCDu;
        h ^= h >> 32;
    }
    return (int32_t)(h % (uint64_t)rows);
}

static inline TV_HOST_DEVICE int32_t tv_memgram_entry(const tv_memgram_hash_args *a, int64_t entry)
{
    int64_t t = entry / a->slots;
    int n = a->orders[entry % a->slots];
    return t % a->context + 1 < n ? -1 : tv_memgram_row(a->ids + t, n, a->rows);
}

// What an answer says beside its trits.
typedef struct tv_memgram_answer {
    int here;       // 0: it counts as absent
    float unit;     // L[E - b] 2^b
    float strength; // f
} tv_memgram_answer;

static inline TV_HOST_DEVICE float tv_memgram_factor(int strength) { return (float)(strength + 128) * 0x1p-8f; }

// r of a token.
static inline TV_HOST_DEVICE float tv_memgram_rstd(float zz, int64_t cols)
{
    return 1.0f / sqrtf(zz / (float)cols + 1e-5f);
}
// k of a row with n nonzero trits.
static inline TV_HOST_DEVICE float tv_memgram_sharpness(int n, int64_t cols)
{
    return n > 0 ? sqrtf((float)cols / (float)n) * 0.125f : 0.0f;
}

// The numbers of one entry's gradient.
typedef struct tv_memgram_slope {
    float weight;     // gate f
    float row, mean;  // row_grad = fma(row, fma(-mean, t, z), weight dy)
    float trit, back; // dz: fma(trit, t, .), then fma(-back, z, .)
} tv_memgram_slope;

// a: sum32 of dy w.
static inline TV_HOST_DEVICE tv_memgram_slope tv_memgram_slope_of(tv_memgram_answer answer, int n, float dot, float r,
                                                                  float a, int64_t cols)
{
    float k = tv_memgram_sharpness(n, cols), gate = tv_sigmoid((dot * r) * k);
    float s = ((a * answer.strength) * (gate * (1.0f - gate))) * k;
    tv_memgram_slope slope = {gate * answer.strength, 0.0f, 0.0f, s * r, (((s * dot) * r) * (r * r)) / (float)cols};
    if (n > 0) {
        slope.row = (s * r) / answer.unit;
        slope.mean = dot / (float)n;
    }
    return slope;
}

#endif
