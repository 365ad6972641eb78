// The loops of a block's sums, for the file of an instruction set that includes this: it has LANES, ints, pairs_of_16, load_pairs, spread_pair,
// add_products and add_scaled.
#ifndef TV_KERNELS_CPU_BLOCK_SUM_H
#define TV_KERNELS_CPU_BLOCK_SUM_H

#include "kernels/cpu/cpu_attention.h"

enum { VECTORS = TV_SUM_CHANNELS / LANES };

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
        pairs_of_16 value[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            value[v] = load_pairs(x + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < TV_SUM_ROWS; r++) {
            pairs_of_16 weight = spread_pair(tv_pair_load(w + r * row_stride));
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                sum[r][v] = add_products(sum[r][v], weight, value[v]);
        }
        w += pair_stride;
        x += channels;
    } while (++begin < end);
#pragma GCC unroll 8
    for (int r = 0; r < TV_SUM_ROWS; r++) {
        float *out = at->out + r * channels + channel;
        float factor = from[r * at->from_stride];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            add_scaled(out + v * LANES, sum[r][v], factor);
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

#endif
