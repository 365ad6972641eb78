// The conversation's codebook: the slow cell's state before each segment as the nearest row of a table, added to the segment.
#ifndef TV_MODEL_FOCUS_CODE_H
#define TV_MODEL_FOCUS_CODE_H

#include "model/linear.h"
#include "model/norm.h"
#include "model/vq.h"

// Rows are segments, as in focus.c; d = codebook.width.
typedef struct tv_focus_code {
    int64_t rows; // of the table; 0: none, and nothing below counts
    int64_t cell; // n
    tv_norm norm;
    tv_linear query, up;
    tv_vq vq;
    tv_operand state, row;        // [rows, n], [rows, d]
    const tv_linear_work *work;   // the part's
    float *slow, *slow_grad;      // [rows, n] the state, and what its row's gradient says of it
    float *normed;                // [rows, n] gradient of norm(slow)
    float *z, *row_grad, *z_grad; // [rows, d]
} tv_focus_code;

tv_status tv_focus_code_declare(tv_focus_code *code, const tv_part *part, tv_params *params, const tv_config *config);
// plan->tokens are the rows; work is wide enough for n, d and D.
tv_status tv_focus_code_plan(tv_focus_code *code, tv_plan *plan, const tv_linear_work *work);
// y [rows, D] += lin(Up, row nearest to lin(Query, norm(slow))). Collective over unit->comm. unit: of rows, a segment's after the other's.
tv_status tv_focus_code_forward(tv_focus_code *code, tv_unit *unit, float *y);
// dy [rows, D]; slow_grad gets the gradient of slow. Collective over unit->comm.
tv_status tv_focus_code_backward(tv_focus_code *code, tv_unit *unit, const float *dy);

#endif
