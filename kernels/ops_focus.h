// Ops of the conversation's LSTM (docs/model.md, "Focus"). Every element of an output stands alone, but for the sums over a segment's
// positions, which run in their order.
//
// A unit has W windows of `context` tokens, each cut into segments of P tokens, the last of which may be shorter. Row j W + w of a matrix
// of segments is segment j of window w; tokens w context + j P .. are its own. n: width of a cell. Any extent may be 0.
#ifndef TV_KERNELS_OPS_FOCUS_H
#define TV_KERNELS_OPS_FOCUS_H

#include <stdint.h>

#include "base/status.h"

enum { TV_FOCUS_NONE, TV_FOCUS_DOCUMENT, TV_FOCUS_PARAGRAPH, TV_FOCUS_KINDS };
// Columns of a cell row's pre-activations, in blocks of n: each cell's four gates, then the gates on the states.
enum { TV_FOCUS_FAST, TV_FOCUS_SLOW = 4, TV_FOCUS_TOPIC = 8, TV_FOCUS_RESET, TV_FOCUS_DAMPEN, TV_FOCUS_GATES };
#define TV_FOCUS_H_SCALE 16384.0f // of carried h and c: q = clamp(rint(v scale), +-32767)
#define TV_FOCUS_C_SCALE 4096.0f
#define TV_FOCUS_SUM_SCALE 65536.0f
enum { TV_FOCUS_SUMS = 5 }; // topic, reset, dampen, the fast and the slow cell's forget gate

// kind[r] = DOCUMENT when a token of the segment is BOS (256); else PARAGRAPH when one is a newline behind a newline of the same window; else NONE.
typedef struct tv_focus_kinds_args {
    int64_t windows, context, segment, segments;
    const int32_t *ids; // [W context]
    int32_t *kind;      // [segments W]
} tv_focus_kinds_args;

// out[r, c] = (sum over the segment's tokens t, from +0, in order, of x[t, c]) / divisor, then + add[r, c] when there is an add.
typedef struct tv_focus_gather_args {
    int64_t windows, context, segment, segments, width, stride;
    float divisor;
    const float *x;   // [W context, width]
    const float *add; // [segments W, width] or NULL
    float *out;       // [segments W, stride], its first `width` columns
} tv_focus_gather_args;

// x[t, c] = x[t, c] + y[r, c] / divisor for the tokens t of each segment; copy[r, c] = y[r, c] when there is a copy.
typedef struct tv_focus_scatter_args {
    int64_t windows, context, segment, segments, width, stride;
    float divisor;
    const float *y; // [segments W, stride], its first `width` columns
    float *x;       // [W context, width]
    float *copy;    // [segments W, width] or NULL
} tv_focus_scatter_args;

// States as a window starts: h = carried / H_SCALE, c = carried / C_SCALE, zeros where carried is NULL. tail = h, slow = h of the slow cell.
typedef struct tv_focus_load_args {
    int64_t rows, width, stride; // W, n
    const int16_t *carried;      // [W, 4n]: h of both cells, c of both; or NULL
    float *h, *c;                // [W, 2n]: fast, slow
    float *tail;                 // [W, stride], its first 2n columns; or NULL
    float *slow;                 // [W, n] or NULL
} tv_focus_load_args;

// The reverse: carried = clamp(rint(h H_SCALE), +-32767), and c alike.
typedef struct tv_focus_save_args {
    int64_t rows, width;
    const float *h, *c;
    int16_t *carried; // [W, 4n]
} tv_focus_save_args;

// One segment of both cells, z the pre-activations, tanh(x) = 2 sigmoid(2 x) - 1:
//   keep = (1 - sigmoid(reset - 2)) (1 - sigmoid(dampen - 2) / 2)
//   cell(c): i = sigmoid(z0), f = sigmoid(z1 + 1), g = tanh(z2), o = sigmoid(z3);  c' = fma(f, c, i g);  h' = o tanh(c')
//   fast:  c_f, h_f = cell(keep c_f)
//   slow:  t = sigmoid(topic - 2);  c*, h* = cell(keep c_s);  c_s = fma(t, c* - keep c_s, keep c_s);  h_s = fma(t, h* - keep h_s, keep h_s)
typedef struct tv_focus_cell_args {
    int64_t rows, width, stride;
    const float *z;         // [W, 11n]
    const float *h, *c;     // [W, 2n]
    float *next_h, *next_c; // [W, 2n]
    float *tail;            // [W, stride]: next_h in its first 2n columns; or NULL
    float *slow;            // [W, n]: next_h of the slow cell; or NULL
} tv_focus_cell_args;

// Its gradient: kernels/ref/focus_common.h has the order of each expression. That of next_h is grad, plus slow_grad for
// the slow cell when there is one, plus dh + tail_grad when `chained`;
// that of next_c is dc when chained, else 0. dz gets the gradient of z, dh and dc those of h and c (h: not through z).
typedef struct tv_focus_back_args {
    int64_t rows, width, stride;
    int chained;
    const float *z, *h, *c;
    const float *grad;      // [W, 2n]
    const float *slow_grad; // [W, n] or NULL
    const float *tail_grad; // [W, stride], its first 2n columns; read when chained
    float *dh, *dc;         // [W, 2n] in place
    float *dz;              // [W, 11n]
} tv_focus_back_args;

// sums[k] += rint(gate SUM_SCALE) over all elements: integers, so that no order counts.
typedef struct tv_focus_gates_args {
    int64_t rows, width;
    const float *z; // [rows, 11n]
    int64_t *sums;  // [TV_FOCUS_SUMS]
} tv_focus_gates_args;

// Part of every backend's table, none of them NULL.
typedef struct tv_focus_ops {
    tv_status (*kinds)(const tv_focus_kinds_args *, void *stream);
    tv_status (*gather)(const tv_focus_gather_args *, void *stream);
    tv_status (*scatter)(const tv_focus_scatter_args *, void *stream);
    tv_status (*load)(const tv_focus_load_args *, void *stream);
    tv_status (*save)(const tv_focus_save_args *, void *stream);
    tv_status (*cell)(const tv_focus_cell_args *, void *stream);
    tv_status (*back)(const tv_focus_back_args *, void *stream);
    tv_status (*gates)(const tv_focus_gates_args *, void *stream);
} tv_focus_ops;

#endif
