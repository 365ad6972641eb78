// Attention for heads of width 64 as tiles on tensor cores and in registers: same results as attention_cuda.cu, faster.
#ifndef TV_KERNELS_ATTENTION_TILES_H
#define TV_KERNELS_ATTENTION_TILES_H

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/kernels.h"

// Whether the call can go this way: width 64, and arrays of rows on 16-byte borders. Any context.
int attention_tiles_fits(const tv_attention_args *args);
int attention_backward_tiles_fits(const tv_attention_backward_args *args);

// As attention and attention_backward of kernels.h, for calls that fit. Extents are not 0.
tv_status attention_tiles(const tv_attention_args *args, void *stream);
tv_status attention_backward_tiles(const tv_attention_backward_args *args, void *stream);

#ifdef __cplusplus
}
#endif

#endif
