// The gated feed-forward that the dense part and the shared expert are made of:
//
//   y += lin(Down, silu(g) * u),  [g, u] = lin(GateUp, input)
//
// GateUp [2F, D] has the gate in rows 0..F-1: one product, and one gradient scale a token.
#ifndef TV_MODEL_GATED_H
#define TV_MODEL_GATED_H

#include "model/linear.h"

typedef struct tv_gated {
    int64_t hidden; // F
    tv_linear gate_up, down;
    tv_operand inner; // h [M, F]
    int8_t *gu_q;     // [2M, F] gate and up of a token, one scale each; NULL when planned for evaluation
    float *gu_scale;  // [2M]
    float *gu;        // [M, 2F] gate and up; backward: their gradient, where the backend wants room for it
    float *dh;        // [M, F] gradient of h
} tv_gated;

// Declares "<part's name>.<prefix>gate_up" [2F, D] and ".<prefix>down" [D, F].
tv_status tv_gated_declare(tv_gated *gated, const tv_part *part, tv_params *params, const char *prefix,
                           const tv_config *config);
// Widest input and output of its layers, for tv_linear_work_plan.
void tv_gated_widths(const tv_gated *gated, int64_t width, int64_t *inputs, int64_t *outputs);
void tv_gated_plan(tv_gated *gated, tv_plan *plan, const tv_linear_work *work);

// y [M, D] += the formula above.
tv_status tv_gated_forward(tv_unit *unit, const tv_gated *gated, const tv_operand *input, float *y);

typedef struct tv_gated_gradient {
    tv_operand *input; // afterwards it is the transposed one
    const tv_linear_work *work;
    const float *dy; // [M, D]
    float *dx;       // [M, D] gradient of the input, written; not dy
} tv_gated_gradient;
tv_status tv_gated_backward(tv_unit *unit, tv_gated *gated, const tv_gated_gradient *gradient);

#endif
