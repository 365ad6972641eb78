// The loops of mix and back: ref and cpu compile them, each for its own machine.
#ifndef TV_KERNELS_MEMGRAM_LOOPS_H
#define TV_KERNELS_MEMGRAM_LOOPS_H

#include "base/pack.h"
#include "kernels/ref/memgram_common.h"

// The answer at slot u and its trits.
static inline tv_memgram_answer tv_memgram_read(const uint8_t *bytes, int32_t u, int64_t cols, int base,
                                                int mantissa_bits, int8_t trits[TV_VQ_COLS_MAX], int32_t *fault)
{
    int64_t packed = tv_row_bytes(cols);
    tv_memgram_answer answer = {.here = 0};
    int32_t row, strength;
    if (u < 0)
        return answer;
    const uint8_t *at = bytes + u * tv_vq_answer_bytes(cols);
    int code = (int8_t)at[8 + packed] - base;
    memcpy(&row, at, 4);
    memcpy(&strength, at + 4, 4);
    int bad =
        code < 0 || code >= tv_lattice_codes(mantissa_bits) || strength < 0 || strength > TV_MEMGRAM_STRENGTH_WHOLE;
    for (int64_t i = 0; i < packed; i++)
        bad |= at[8 + i] > TV_TRIT_BYTE_MAX;
    if (bad && fault)
        *fault = 1;
    if (bad || row < 0)
        return answer;
    tv_unpack_row(at + 8, cols, trits);
    answer.here = 1;
    answer.unit = (float)tv_lattice_value(mantissa_bits, code) * tv_exp2i(base);
    answer.strength = tv_memgram_factor(strength);
    return answer;
}

static inline int tv_memgram_count(const int8_t *trits, int64_t cols)
{
    int n = 0;
    for (int64_t c = 0; c < cols; c++)
        n += trits[c] != 0;
    return n;
}

static inline float tv_memgram_dot(const float *x, const int8_t *trits, float unit, int64_t cols)
{
    float lane[32] = {0};
    for (int64_t first = 0; first < cols; first += 32)
        for (int64_t l = 0; l < 32 && first + l < cols; l++)
            lane[l] = fmaf(x[first + l], (float)trits[first + l] * unit, lane[l]);
    return tv_lanes_combine(lane);
}

static inline float tv_memgram_rstd_of(const float *z, int64_t cols)
{
    float lane[32] = {0};
    for (int64_t first = 0; first < cols; first += 32)
        for (int64_t l = 0; l < 32 && first + l < cols; l++)
            lane[l] = fmaf(z[first + l], z[first + l], lane[l]);
    return tv_memgram_rstd(tv_lanes_combine(lane), cols);
}

// Tokens [first, last) of mix.
static inline void tv_memgram_mix_tokens(const tv_memgram_mix_args *a, int64_t first, int64_t last)
{
    for (int64_t t = first; a->cols && t < last; t++) {
        const float *z = a->z + t * a->cols;
        float *y = a->y + t * a->cols, r = tv_memgram_rstd_of(z, a->cols);
        for (int64_t c = 0; c < a->cols && !a->accumulate; c++)
            y[c] = 0.0f;
        for (int j = 0; j < a->slots; j++) {
            int8_t trits[TV_VQ_COLS_MAX];
            tv_memgram_answer answer = tv_memgram_read(a->bytes, a->slot[t * a->slots + j], a->cols, a->base,
                                                       a->mantissa_bits, trits, a->fault);
            if (!answer.here)
                continue;
            float k = tv_memgram_sharpness(tv_memgram_count(trits, a->cols), a->cols);
            float weight = tv_sigmoid((tv_memgram_dot(z, trits, 1.0f, a->cols) * r) * k) * answer.strength;
            for (int64_t c = 0; c < a->cols; c++)
                y[c] = fmaf(weight, (float)trits[c] * answer.unit, y[c]);
        }
    }
}

static inline void tv_memgram_back_entry(const tv_memgram_back_args *a, int64_t entry, float r, float *row_grad,
                                         float *dz)
{
    int64_t cols = a->cols, t = entry / a->slots;
    const float *z = a->z + t * cols, *dy = a->dy + t * cols;
    int8_t trits[TV_VQ_COLS_MAX];
    tv_memgram_answer answer = tv_memgram_read(a->bytes, a->slot[entry], cols, a->base, a->mantissa_bits, trits, NULL);
    if (!answer.here) {
        for (int64_t c = 0; c < cols; c++)
            row_grad[c] = 0.0f;
        return;
    }
    float dot = tv_memgram_dot(z, trits, 1.0f, cols), all = tv_memgram_dot(dy, trits, answer.unit, cols);
    tv_memgram_slope s = tv_memgram_slope_of(answer, tv_memgram_count(trits, cols), dot, r, all, cols);
    for (int64_t c = 0; c < cols; c++) {
        float trit = trits[c];
        row_grad[c] = fmaf(s.row, fmaf(-s.mean, trit, z[c]), s.weight * dy[c]);
        dz[c] = fmaf(s.trit, trit, dz[c]);
        dz[c] = fmaf(-s.back, z[c], dz[c]);
    }
}

// Tokens [first, last) of back.
static inline void tv_memgram_back_tokens(const tv_memgram_back_args *a, int64_t first, int64_t last)
{
    for (int64_t t = first; a->cols && t < last; t++) {
        float *dz = a->dz + t * a->cols, r = tv_memgram_rstd_of(a->z + t * a->cols, a->cols);
        for (int64_t c = 0; c < a->cols && !a->accumulate; c++)
            dz[c] = 0.0f;
        for (int j = 0; j < a->slots; j++) {
            int64_t entry = t * a->slots + j;
            tv_memgram_back_entry(a, entry, r, a->row_grad + entry * a->cols, dz);
        }
    }
}

#endif
