// Arguments of the ops that a larger op is made of, for backends that run it so.
#ifndef TV_KERNELS_OP_PARTS_H
#define TV_KERNELS_OP_PARTS_H

#include "kernels/kernels.h"

// The norm of row t of norm_quantize; y [cols].
static inline tv_norm_args tv_norm_quantize_row(const tv_norm_quantize_args *a, int64_t t, float *y)
{
    int64_t from = t * a->cols;
    return (tv_norm_args){.rows = 1,
                          .cols = a->cols,
                          .x = a->x + from,
                          .w8 = a->w8,
                          .exponent = a->exponent,
                          .y = y,
                          .saved_q = a->saved_q ? a->saved_q + from : NULL,
                          .saved_scale = a->saved_q ? a->saved_scale + t : NULL,
                          .saved_rstd = a->saved_q ? a->saved_rstd + t : NULL,
                          .fault = a->fault};
}

// The norms of `rows` heads from head `row` on, counted over all tokens; y [rows, width].
static inline tv_norm_args tv_heads_norm(const tv_heads_args *a, int64_t row, int64_t rows, float *y)
{
    int64_t from = row * a->width;
    return (tv_norm_args){.rows = rows,
                          .cols = a->width,
                          .x = a->x + from,
                          .w8 = a->w8,
                          .exponent = a->exponent,
                          .y = y,
                          .saved_q = a->saved_q ? a->saved_q + from : NULL,
                          .saved_scale = a->saved_q ? a->saved_scale + row : NULL,
                          .saved_rstd = a->saved_q ? a->saved_rstd + row : NULL,
                          .fault = a->fault};
}

// The turn back and the norm's backward of heads_backward, over all tokens.
static inline tv_rotary_args tv_heads_backward_turn(const tv_heads_backward_args *a)
{
    return (tv_rotary_args){a->tokens, a->heads, a->width, a->context, a->cos_table, a->sin_table, 1, a->dx};
}
static inline tv_norm_backward_args tv_heads_backward_norm(const tv_heads_backward_args *a)
{
    return (tv_norm_backward_args){.rows = a->tokens * a->heads,
                                   .cols = a->width,
                                   .dy = a->dx,
                                   .w8 = a->w8,
                                   .exponent = a->exponent,
                                   .saved_q = a->saved_q,
                                   .saved_scale = a->saved_scale,
                                   .saved_rstd = a->saved_rstd,
                                   .dx = a->dx};
}

// The product of segment i of moe_gemm.
static inline tv_gemm_args tv_moe_gemm_segment(const tv_moe_gemm_args *a, int64_t i)
{
    const tv_segment *s = &a->segments[i];
    return (tv_gemm_args){.m = s->rows,
                          .n = a->n,
                          .reduce = a->reduce,
                          .a = a->a + s->first * a->reduce,
                          .b = a->b + s->expert * a->n * a->reduce,
                          .scale = a->scale + s->first,
                          .exponent = a->exponent,
                          .y = a->y + s->first * a->n};
}

#endif
