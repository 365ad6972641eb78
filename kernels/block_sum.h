// Weighted sums of int8 rows in blocks: what attention adds its values, keys and queries with (kernels.h). Both factors are integers, so a
// block's sums are exact, of any order, and products for dot-product instructions and tensor cores; a block's weights share a power of two.
//
// blocksum_t(w_t, x8[t, c]) adds the rows t = 0..T-1 with float weights. For the blocks of 32 rows each (the last may be shorter), in order,
// from acc = +0:
//   top = max |w_t|;  e = least integer with top < 2^e;  Q_t = rint(w_t * 2^(14 - e)), half to even
//   acc = fma((float)(sum_t Q_t x8[t, c]), 2^(e - 14), acc)         top below 2^-100: nothing is added; Inf or NaN: acc is NaN
#ifndef TV_KERNELS_BLOCK_SUM_H
#define TV_KERNELS_BLOCK_SUM_H

#include "base/fmath.h"
#include "base/host_device.h"

#define TV_BLOCK_ROWS 32 // rows a block, counted from the window's start
#define TV_BLOCK_BITS 14 // a weight's integer lies in [-2^14, 2^14]

// How a block's weights become integers, Q = rint(w to_integer), and what their sums are multiplied by.
typedef struct tv_block_scale {
    float to_integer, from_integer;
} tv_block_scale;

// top: the largest of the block's weights by the bits of their magnitude, |w|. With e the least integer that top < 2^e holds for:
// 2^(14 - e) and 2^(e - 14). Below 2^-100 both are 0, so that the block adds nothing; from Inf on they are 0 and NaN.
static inline TV_HOST_DEVICE tv_block_scale tv_block_scale_of(uint32_t top)
{
    uint32_t exponent = top >> 23;
    tv_block_scale scale = {0.0f, 0.0f};
    if (exponent == 255)
        scale.from_integer = tv_float_nan();
    else if (exponent >= 27) {
        scale.to_integer = tv_bits_float((253 + TV_BLOCK_BITS - exponent) << 23);
        scale.from_integer = tv_bits_float((exponent + 1 - TV_BLOCK_BITS) << 23);
    }
    return scale;
}

#endif
