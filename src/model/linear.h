// The ternary linear layer y = x W^T and its three int8 products (docs/numerics.md, section 3).
//
// An input is quantised once and shared by all layers that read it (q, k, v); so is its transposed copy for the votes.
#ifndef TV_MODEL_LINEAR_H
#define TV_MODEL_LINEAR_H

#include <stdint.h>

#include "model/part.h"

// Scratch of a part's backward products, sized for its widest layer.
typedef struct tv_linear_work {
    int8_t *g, *gt;    // gradient: [M, N] for grad-x and [N, M] for the vote; the same memory when it takes two digits
    int8_t *g_lo;      // second digit of both, else NULL
    float *g_scale;    // [M]
    int32_t *g_sumsq;  // [N], one digit
    int64_t *g_sumsq2; // [N], two digits
    int8_t *xt;        // [K, M] transposed input of the current operand
    int32_t *x_sumsq;  // [K]
} tv_linear_work;

// A layer's input in int8: saved from forward to backward (1 byte a value and a float a token).
typedef struct tv_operand {
    int64_t cols;   // K
    int8_t *q;      // [M, K]
    float *scale;   // [M]
    int8_t *qt;     // [K, M] after tv_operand_transpose, until the next operand of the part is transposed
    int32_t *sumsq; // [K]
} tv_operand;

// A layer: its tensor, and a power of two on its outputs.
typedef struct tv_linear {
    int64_t param;
    int exponent;
} tv_linear;

// Take the work buffers from plan->scratch (nothing when not training). Largest K and N of the part's layers;
// two_digits: their gradients are quantised in two int8 digits (the output head).
void tv_linear_work_plan(tv_linear_work *work, tv_plan *plan, int64_t inputs, int64_t outputs, int two_digits);
// Take q and scale where tv_plan_keep says; the transposed copy lives in work.
void tv_operand_plan(tv_operand *operand, tv_plan *plan, int64_t cols, const tv_linear_work *work);

// operand = x [M, K] quantised a token (qmax 127).
tv_status tv_operand_quantize(tv_unit *unit, tv_operand *operand, const float *x);
// qt, sumsq from q and scale. Once an operand and backward, before the tv_linear_backward calls that share it.
tv_status tv_operand_transpose(tv_unit *unit, const tv_operand *operand);

// y [M, N] = (or += when accumulate) lin(W, operand) 2^exponent.
tv_status tv_linear_forward(tv_unit *unit, const tv_linear *linear, const tv_operand *operand, float *y,
                            int accumulate);

// The ops behind tv_operand_quantize and tv_linear_forward (not accumulating), for steps that join them with others (kernels/ops_joint.h).
tv_quantize_rows_args tv_operand_rows(const tv_unit *unit, const tv_operand *operand, const float *x);
tv_gemm_args tv_linear_product(const tv_unit *unit, const tv_linear *linear, const tv_operand *operand, float *y);

typedef struct tv_linear_backward_args {
    const tv_operand *operand; // transposed, or to be transposed with `turn`
    const tv_linear_work *work;
    const float *g; // [M, N] gradient of the layer's output; NULL: `work` already holds both forms of it (one digit)
    float *dx;      // [M, K] gradient of its input, or NULL; not g
    int turn;       // transpose the operand first
    int accumulate; // dx += instead of dx =
    int silent;     // no votes
} tv_linear_backward_args;
// dx from g, and the unit's votes into the tensor's votes (none for a frozen tensor, or one of another pass).
tv_status tv_linear_backward(tv_unit *unit, const tv_linear *linear, const tv_linear_backward_args *args);

// The unit's vote rule for one tensor.
tv_vote_rule tv_unit_vote_rule(const tv_unit *unit, const tv_param *param);

#endif
