// Pieces of row loops that several ops share. Plain C that gcc turns into vectors of the file's instruction set: 32
// lanes are two AVX-512 or four AVX2 registers. All of it is always inlined, so that no copy for one instruction set
// serves another.
#ifndef TV_KERNELS_CPU_ROWS_H
#define TV_KERNELS_CPU_ROWS_H

#include <stdint.h>

#include "base/fmath.h"
#include "kernels/ref/ref_common.h"

#define TV_ROWS static inline __attribute__((always_inline))

enum { TV_LANES = 32 };

// sum32 of x x
TV_ROWS float tv_row_sum_squares(const float *x, int64_t count)
{
    float lane[TV_LANES] = {0};
    int64_t c = 0;
    for (; c + TV_LANES <= count; c += TV_LANES)
        for (int l = 0; l < TV_LANES; l++)
            lane[l] = fmaf(x[c + l], x[c + l], lane[l]);
    for (int l = 0; c + l < count; l++)
        lane[l] = fmaf(x[c + l], x[c + l], lane[l]);
    return tv_lanes_combine(lane);
}

// lane[l] += x[l], x[l + 32], ...; x starts at a multiple of 32 of the row.
TV_ROWS void tv_lanes_add(float lane[TV_LANES], const float *x, int64_t count)
{
    int64_t c = 0;
    for (; c + TV_LANES <= count; c += TV_LANES)
        for (int l = 0; l < TV_LANES; l++)
            lane[l] += x[c + l];
    for (int l = 0; c + l < count; l++)
        lane[l] += x[c + l];
}

// sum32 of a b
TV_ROWS float tv_row_dot(const float *a, const float *b, int64_t count)
{
    float lane[TV_LANES] = {0};
    int64_t c = 0;
    for (; c + TV_LANES <= count; c += TV_LANES)
        for (int l = 0; l < TV_LANES; l++)
            lane[l] = fmaf(a[c + l], b[c + l], lane[l]);
    for (int l = 0; c + l < count; l++)
        lane[l] = fmaf(a[c + l], b[c + l], lane[l]);
    return tv_lanes_combine(lane);
}

// Largest of count >= 1 numbers. The sign of a zero and the answer for a NaN are left open.
TV_ROWS float tv_row_max(const float *x, int64_t count)
{
    float lane[TV_LANES], top = x[0];
    int64_t c = 0;
    for (int l = 0; l < TV_LANES; l++)
        lane[l] = top;
    for (; c + TV_LANES <= count; c += TV_LANES)
        for (int l = 0; l < TV_LANES; l++)
            lane[l] = x[c + l] > lane[l] ? x[c + l] : lane[l];
    for (int l = 0; l < 16; l++)
        lane[l] = lane[l + 16] > lane[l] ? lane[l + 16] : lane[l];
    for (int l = 0; l < 8; l++)
        lane[l] = lane[l + 8] > lane[l] ? lane[l + 8] : lane[l];
    for (int l = 0; l < 8; l++)
        top = lane[l] > top ? lane[l] : top;
    for (; c < count; c++)
        top = x[c] > top ? x[c] : top;
    return top;
}

// Largest |x| as bits.
TV_ROWS uint32_t tv_row_absmax_bits(const float *x, int64_t count)
{
    uint32_t top = 0;
    for (int64_t c = 0; c < count; c++) {
        uint32_t bits = tv_abs_bits(x[c]);
        top = bits > top ? bits : top;
    }
    return top;
}

// Threads may raise the same fault at once.
TV_ROWS void tv_fault_raise(int32_t *fault) { __atomic_store_n(fault, 1, __ATOMIC_RELAXED); }

// tv_absmax_from_bits with a fault that threads share.
TV_ROWS float tv_row_absmax(uint32_t bits, int32_t *fault)
{
    int32_t raised = 0;
    float absmax = tv_absmax_from_bits(bits, &raised);
    if (raised)
        tv_fault_raise(fault);
    return absmax;
}

// q = rint(x inverse); inverse 0 stands for a row whose q are all 0, whatever x holds.
TV_ROWS void tv_row_quantize(const float *restrict x, float inverse, int64_t count, int8_t *restrict q)
{
    if (inverse == 0.0f) {
        memset(q, 0, (size_t)count);
        return;
    }
    for (int64_t c = 0; c < count; c++)
        q[c] = (int8_t)(int32_t)rintf(x[c] * inverse);
}

// floor((Q + 63) / 127) for |Q| <= 127^2; the shift by 127 127 keeps the division's operand positive.
TV_ROWS int32_t tv_high_digit(int32_t Q) { return (int32_t)((uint32_t)(Q + 63 + 127 * 127) / 127u) - 127; }

// 16-bit draws of the elements [element, element + count), from whole blocks of eight: element e lies at draws[e -
// (element & ~7)]. draws holds count + 14 items.
TV_ROWS void tv_row_draws(tv_rng_key key, uint64_t element, int64_t count, uint16_t *restrict draws)
{
    uint64_t index = element >> 3;
    int64_t blocks = (int64_t)((element + (uint64_t)count + 7) >> 3) - (int64_t)index;
    for (int64_t b = 0; b < blocks; b++) {
        tv_rng_block block = tv_rng_at(key, index + (uint64_t)b);
        for (int w = 0; w < 4; w++) {
            draws[8 * b + 2 * w] = (uint16_t)block.word[w];
            draws[8 * b + 2 * w + 1] = (uint16_t)(block.word[w] >> 16);
        }
    }
}

#endif
