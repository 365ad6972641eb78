// What attention's two directions share: one window and head in scratch, products of its rows, and chains of fma.
//
// The products q k and g v are exact integers, so they use the panels and the micro-kernel of the int8 product. The
// float sums over keys and queries have a fixed order; they are vectors over channels, several rows at once
// (tv_chain).
#ifndef TV_KERNELS_CPU_ATTENTION_H
#define TV_KERNELS_CPU_ATTENTION_H

#include "kernels/cpu/cpu_gemm.h"

enum {
    TV_CHAIN_ROWS = 6,
    TV_QUERY_BLOCK = 42, // queries whose weights are held at once: a multiple of both TV_GEMM_MR and TV_CHAIN_ROWS
#if defined(TV_ISA_AVX512)
    TV_CHAIN_CHANNELS = 64
#else
    TV_CHAIN_CHANNELS = 16
#endif
};

// Sizes of one window and head. Channels of float rows are padded to a whole number of chains with zeros.
typedef struct tv_head_shape {
    int64_t heads, context, width;
    int64_t keys;     // context, padded: items of a row of weights
    int64_t channels; // width, padded
    float inv_sqrt;
} tv_head_shape;

tv_head_shape TV_ISA_NAME(tv_head_shape_of)(int64_t heads, int64_t context, int64_t width);
// 1 when the head fits this code: its width in one stretch of a panel.
int TV_ISA_NAME(tv_head_fits)(int64_t width);

// `count` keys rounded up to whole panels, so that a loop over them is whole vectors. Products are there for all of
// them.
static inline int64_t tv_head_whole(int64_t count) { return (count + TV_GEMM_NR - 1) / TV_GEMM_NR * TV_GEMM_NR; }

// Bump allocation from a thread's scratch, each piece on a 64-byte border. With base NULL it only counts.
typedef struct tv_carve {
    char *base;
    size_t used;
} tv_carve;

void *TV_ISA_NAME(tv_carve_take)(tv_carve *carve, int64_t items, size_t item_bytes);
// Panels of all rows of a head.
void *TV_ISA_NAME(tv_carve_panels)(tv_carve *carve, const tv_head_shape *shape);

// In these, `item` is the [M, H] index of the window's first token and of the head: token i is item + i * heads.
// Pack the rows x8 of a head as panels of the product's second operand.
void TV_ISA_NAME(tv_head_pack)(const tv_head_shape *shape, const int8_t *x8, int64_t item, void *panels);
// floats[i, channels] = (float)x8 of token i
void TV_ISA_NAME(tv_head_floats)(const tv_head_shape *shape, const int8_t *x8, int64_t item, float *floats);
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

// out[r, c] = chain over s = 0..steps-1, in order, of fma(w[r row_stride + s step_stride], x[s channels + c], acc),
// for TV_CHAIN_ROWS rows r and all (padded) channels c. The chain starts at out. Weights of rows that do not count
// are 0: since a chain that starts at +0 never becomes -0, fma(0, x, acc) leaves it as it is.
typedef struct tv_chain {
    const float *w;
    int64_t row_stride, step_stride, steps;
    const float *x;
    float *out;
    int64_t channels;
} tv_chain;

void TV_ISA_NAME(tv_chain_run)(const tv_chain *chain);

#endif
