// What attention's two directions share: one window and head in scratch, products of its rows, and sums in blocks.
//
// The products q k and g v are exact integers, so they use the panels and the micro-kernel of the int8 product. A
// block of the weighted sums (kernels/block_sum.h) is products of int16 in pairs of rows, vectors over channels, for
// several rows at once (tv_block_sum); its end is one fma.
#ifndef TV_KERNELS_CPU_ATTENTION_H
#define TV_KERNELS_CPU_ATTENTION_H

#include <string.h>

#include "kernels/block_sum.h"
#include "kernels/cpu/cpu_gemm.h"

enum {
    TV_BLOCK_PAIRS = TV_BLOCK_ROWS / 2,
    TV_SUM_ROWS = 6,
    TV_QUERY_BLOCK = 96, // queries whose weights are held at once: a multiple of both TV_BLOCK_ROWS and TV_SUM_ROWS
#if defined(TV_ISA_AVX512)
    TV_SUM_CHANNELS = 64
#else
    TV_SUM_CHANNELS = 16
#endif
};

// Sizes of one window and head. Channels are padded to a whole number of TV_SUM_CHANNELS with zeros.
typedef struct tv_head_shape {
    int64_t heads, context, width;
    int64_t keys;     // context, padded to whole blocks: items of a row of weights
    int64_t blocks;   // of keys
    int64_t channels; // width, padded
    float inv_sqrt;
} tv_head_shape;

tv_head_shape TV_ISA_NAME(tv_head_shape_of)(int64_t heads, int64_t context, int64_t width);
// 1 when the head fits this code: its width in one stretch of a panel.
int TV_ISA_NAME(tv_head_fits)(int64_t width);

// `count` keys rounded up to whole panels, so that a loop over them is whole vectors. Products are there for all of
// them.
static inline int64_t tv_head_whole(int64_t count) { return (count + TV_GEMM_NR - 1) / TV_GEMM_NR * TV_GEMM_NR; }

// The same to whole blocks.
static inline int64_t tv_block_whole(int64_t count)
{
    return (count + TV_BLOCK_ROWS - 1) / TV_BLOCK_ROWS * TV_BLOCK_ROWS;
}

// Bump allocation from a thread's scratch, each piece on a 64-byte border. With base NULL it only counts.
typedef struct tv_carve {
    char *base;
    size_t used;
} tv_carve;

void *TV_ISA_NAME(tv_carve_take)(tv_carve *carve, int64_t items, size_t item_bytes);
// Panels of all rows of a head.
void *TV_ISA_NAME(tv_carve_panels)(tv_carve *carve, const tv_head_shape *shape);

// In these, `item` is the [M, H] index of the window's first token and of the head: token i is item + i * heads.
static inline int64_t tv_head_item(const tv_head_shape *shape, int64_t index) // of head `index` of all windows
{
    return index / shape->heads * shape->context * shape->heads + index % shape->heads;
}
// Pack the rows x8 of a head as panels of the product's second operand.
void TV_ISA_NAME(tv_head_pack)(const tv_head_shape *shape, const int8_t *x8, int64_t item, void *panels);
// pairs[s, channels]: x8 of the tokens 2 s (low half) and 2 s + 1 (high half) as int16; 0 beyond the window
void TV_ISA_NAME(tv_head_pairs)(const tv_head_shape *shape, const int8_t *x8, int64_t item, uint32_t *pairs);
// to[i] = values of token i; 0 from the window's end up to `keys`
void TV_ISA_NAME(tv_head_gather)(const tv_head_shape *shape, const float *values, int64_t item, float *to);

// sums[r, keys] = x8[first + r] . panel rows [0, last), for the TV_GEMM_MR tokens from `first` on (those beyond the
// window give 0)
typedef struct tv_head_product {
    const tv_head_shape *shape;
    const int8_t *x8;
    int64_t item, first, last;
    const void *panels;
    void *a_panel; // scratch of one panel of TV_GEMM_PACK_ROWS rows
    int32_t *sums;
} tv_head_product;

void TV_ISA_NAME(tv_head_product_run)(const tv_head_product *product);

// Q = rint(w to_integer), half to even, in the low 16 bits: adding 1.5 2^23 rounds. Anything for a NaN.
static inline uint32_t tv_block_integer(float w, float to_integer)
{
    return tv_float_bits(fmaf(w, to_integer, 12582912.0f));
}

// A row's weights, `count` (a multiple of 32) of them, as Q[count] and one from_integer a block.
void TV_ISA_NAME(tv_block_row)(const float *w, int64_t count, int16_t *Q, float *from);

// Weights of one block as columns: w[rows, stride], rows <= 32, become pairs[16, stride] (rows 2 s low, 2 s + 1 high) and from[keys].
// keys is a multiple of 32.
typedef struct tv_block_columns {
    const float *w;
    int64_t rows, stride, keys;
    uint32_t *pairs;
    float *from;
} tv_block_columns;

void TV_ISA_NAME(tv_block_columns_pack)(const tv_block_columns *columns);

// For the blocks that the pairs [0, pairs) lie in, the first one from its pair `skip` on, in order:
//   out[r, c] = fma((float)(sum of the block's w x), from[r, block], out[r, c])
// for TV_SUM_ROWS rows r and all (padded) channels c. A pair of weights is a word; that of row r and pair s is
// w[r row_stride + s pair_stride], and its factor from[r from_stride + s / 16].
typedef struct tv_block_sum {
    const uint32_t *w;
    int64_t row_stride, pair_stride, skip, pairs;
    const float *from;
    int64_t from_stride;
    const uint32_t *x; // [pairs, channels]
    float *out;        // [TV_SUM_ROWS, channels]
    int64_t channels;
} tv_block_sum;

// A pair that may have been written as two int16.
static inline int32_t tv_pair_load(const uint32_t *pair)
{
    int32_t value;
    memcpy(&value, pair, sizeof value);
    return value;
}

void TV_ISA_NAME(tv_block_sum_run)(const tv_block_sum *sum);

// out = factor times the sums of keys' rows x, a block of queries at a time: Q and from as tv_block_row makes them of the weights of each query of
// the block, rows of `keys` and `blocks`, with room for TV_SUM_ROWS - 1 rows more, which are set to 0.
typedef struct tv_head_sums {
    const tv_head_shape *shape;
    int16_t *integers;
    float *from;
    const uint32_t *x;   // [context / 2, channels]
    const float *factor; // of the block's query i: factor[i factor_stride]
    int64_t factor_stride;
    float *room; // [TV_SUM_ROWS, channels]
    float *out;  // [M, H, width]
} tv_head_sums;

// The queries [first, last).
void TV_ISA_NAME(tv_head_sums_run)(const tv_head_sums *sums, int64_t item, int64_t first, int64_t last);

#endif
