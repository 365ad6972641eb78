// Fused ops: each is defined as ops of kernels.h one after the other, so it has their bits; what lies between them never goes through
// memory. A backend may do the steps in any way that gives these bits. Any extent may be 0; then nothing is written.
#ifndef TV_KERNELS_OPS_FUSED_H
#define TV_KERNELS_OPS_FUSED_H

#include <stdint.h>

// y = norm(x), with norm's saved_q, saved_scale, saved_rstd; then q, scale = quantize_rows(y), qmax 127.
typedef struct tv_norm_quantize_args {
    int64_t rows, cols;
    const float *x;
    const int8_t *w8; // [C]
    int exponent;
    int8_t *saved_q;    // [M, C] or NULL (evaluation): then saved_scale and saved_rstd are not written either
    float *saved_scale; // [M]
    float *saved_rstd;  // [M]
    int8_t *q;          // [M, C]
    float *scale;       // [M]
    int32_t *fault;
} tv_norm_quantize_args;

// Queries or keys, a (token, head) one row of d values: y = norm(x) with what it saves; y = rotary(y), not inverse;
// q, scale = quantize_rows(y), qmax 127.
typedef struct tv_heads_args {
    int64_t tokens, heads, width, context; // M, H, d
    const float *x;                        // [M, H, d]
    const int8_t *w8;                      // [d]
    int exponent;
    const float *cos_table, *sin_table; // [context, d/2]
    int8_t *saved_q;                    // [M, H, d] or NULL (evaluation)
    float *saved_scale, *saved_rstd;    // [M, H]
    int8_t *q;                          // [M, H, d]
    float *scale;                       // [M, H]
    int32_t *fault;
} tv_heads_args;

// Its backward, in place: dx = inverse rotary(dx); dx = norm_backward(dx), not accumulate.
typedef struct tv_heads_backward_args {
    int64_t tokens, heads, width, context;
    const int8_t *w8;
    int exponent;
    const float *cos_table, *sin_table;
    const int8_t *saved_q;
    const float *saved_scale, *saved_rstd;
    float *dx; // [M, H, d]
} tv_heads_backward_args;

// gu [M, 2F] read as rows [2M, F]: saved_q, saved_scale = quantize_rows(gu), as gate_backward wants them; h = gate(gu);
// q, scale = quantize_rows(h). qmax 127.
typedef struct tv_gate_quantize_args {
    int64_t tokens, width; // M, F
    const float *gu;
    int8_t *saved_q;    // [2M, F] or NULL (evaluation)
    float *saved_scale; // [2M]
    int8_t *q;          // [M, F]
    float *scale;       // [M]
    int32_t *fault;
} tv_gate_quantize_args;

// Both forms of a gradient: q, scale = quantize_rows(x), qmax 127; qt, sumsq = quantize_channels(x).
typedef struct tv_quantize_both_args {
    int64_t tokens, channels; // M, C
    const float *x;           // [M, C]
    int8_t *q;                // [M, C]
    float *scale;             // [M]
    int8_t *qt;               // [C, M]
    int32_t *sumsq;           // [C]
    int32_t *fault;
} tv_quantize_both_args;

// dgu = gate_backward(saved_q, saved_scale, dh); then quantize_both(dgu), C = 2F.
typedef struct tv_gate_backward_both_args {
    int64_t tokens, width;    // M, F
    const int8_t *saved_q;    // [2M, F]
    const float *saved_scale; // [2M]
    const float *dh;          // [M, F]
    float *dgu;               // [M, 2F] workspace: what it holds afterwards is left open
    int8_t *q;                // [M, 2F]
    float *scale;             // [M]
    int8_t *qt;               // [2F, M]
    int32_t *sumsq;           // [2F]
    int32_t *fault;
} tv_gate_backward_both_args;

// y = trigram(x) [M, 3C]; q, scale = quantize_rows(y), qmax 127.
typedef struct tv_trigram_quantize_args {
    int64_t tokens, channels, context; // M (a multiple of context), C
    const float *x;                    // [M, C]
    int8_t *q;                         // [M, 3C]
    float *scale;                      // [M]
    int32_t *fault;
} tv_trigram_quantize_args;

#endif
