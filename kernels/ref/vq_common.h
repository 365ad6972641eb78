// Small pieces that the codebook ops of all backends share.
#ifndef TV_KERNELS_VQ_COMMON_H
#define TV_KERNELS_VQ_COMMON_H

#include "base/pack.h"
#include "kernels/ref/ref_common.h"
#include "kernels/vq_scale.h"

// Decoded row `row` of the whole table, which the block must hold.
static inline void tv_vq_decode_row(const tv_vq_table *table, int64_t row, int8_t *w8)
{
    int64_t at = row - table->first_row;
    const uint8_t *T = table->T + at * tv_row_bytes(table->cols);
    int value = tv_lattice_value(table->mantissa_bits, table->E[at] - table->base);
    tv_unpack_row(T, table->cols, w8);
    for (int64_t c = 0; c < table->cols; c++)
        w8[c] = (int8_t)(w8[c] * value);
}

static inline TV_HOST_DEVICE int32_t tv_vq_dot(const int8_t *a, const int8_t *b, int64_t cols)
{
    int32_t sum = 0;
    for (int64_t c = 0; c < cols; c++)
        sum += a[c] * b[c];
    return sum;
}

// Rows of a bucket that the block holds.
typedef struct tv_vq_range {
    int64_t first, last;
} tv_vq_range;

static inline TV_HOST_DEVICE tv_vq_range tv_vq_bucket_rows(const tv_vq_table *table, int64_t bucket)
{
    tv_vq_range range = {tv_vq_bucket_first(table->rows, table->bits, bucket),
                         tv_vq_bucket_first(table->rows, table->bits, bucket + 1)};
    int64_t end = table->first_row + table->held_rows;
    range.first = range.first > table->first_row ? range.first : table->first_row;
    range.last = range.last < end ? range.last : end;
    return range;
}

#endif
