// RMS norm with ternary weights, frozen at 1, as the other parts use it.
#ifndef TV_MODEL_NORM_H
#define TV_MODEL_NORM_H

#include <stdint.h>

#include "model/linear.h"
#include "model/part.h"

typedef struct tv_norm {
    int64_t param;
    int64_t cols;       // C
    int8_t *saved_q;    // [rows, C]; NULL when planned for evaluation
    float *saved_scale; // [rows]
    float *saved_rstd;  // [rows]
} tv_norm;

// Declare "<part's name>.<leaf>" [1, like->cols] with like's scale type.
tv_status tv_norm_declare(tv_norm *norm, const tv_part *part, tv_params *params, const char *leaf,
                          const tv_tensor_spec *like);
// rows_per_token rows of cols values a token.
void tv_norm_plan(tv_norm *norm, tv_plan *plan, int64_t rows_per_token);
// operand = norm(x [M, C]) quantised a token. In training saves what the backward needs.
tv_status tv_norm_quantize(tv_unit *unit, const tv_norm *norm, const float *x, tv_operand *operand);

// y [rows, C] = norm(x); not in place. In training saves what the backward needs.
tv_status tv_norm_forward(tv_unit *unit, const tv_norm *norm, int64_t rows, const float *x, float *y);

typedef struct tv_norm_gradient {
    int64_t rows;
    const float *dy; // [rows, C]
    float *dx;       // [rows, C]; may be dy when not accumulate
    int accumulate;  // dx += instead of dx =
} tv_norm_gradient;
// dx = the gradient of x, after a training forward.
tv_status tv_norm_backward(tv_unit *unit, const tv_norm *norm, const tv_norm_gradient *gradient);

// The ops behind tv_norm_forward and tv_norm_backward, for steps that join them with others (kernels/ops_joint.h).
tv_norm_args tv_norm_forward_op(const tv_unit *unit, const tv_norm *norm, int64_t rows, const float *x, float *y);
tv_norm_backward_args tv_norm_backward_op(const tv_unit *unit, const tv_norm *norm, const tv_norm_gradient *gradient);

#endif
