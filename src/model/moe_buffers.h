// Buffers of the rows of one mixture-of-experts part.
#ifndef TV_MODEL_MOE_BUFFERS_H
#define TV_MODEL_MOE_BUFFERS_H

#include "model/moe_rows.h"

typedef struct tv_moe_buffers {
    int64_t width, inner; // D, F
    // From forward to backward.
    tv_rows8 x;      // owner [rows, D] digits of xn
    tv_rows8 halves; // owner [2 rows, F] gate and transform of a row; q NULL in evaluation
    tv_rows8 h;      // home [rows, F] digits of h
    // One direction only.
    float *gu;                    // owner [rows, 2F]
    tv_rows8 made;                // owner [rows, F] h before it travels; `h` when P = 1
    tv_rows8 gh;                  // owner [rows, F] gradient of h
    tv_rows8 dgu;                 // owner [rows, 2F]
    int8_t *dgu_t, *x_t;          // owner [2F, columns], [D, columns]
    int32_t *dgu_sumsq, *x_sumsq; // [segments, 2F], [segments, D]
    float *dx;                    // owner [rows, D]
    tv_rows8 dx8, home_dx8;       // owner, home [rows, D]
    tv_pool saved;                // P > 1
} tv_moe_buffers;

// P = 1: all sizes are known when planning. Takes what is kept from `keep`, the rest from plan->scratch.
void tv_moe_buffers_plan(tv_moe_buffers *buffers, tv_moe_rows *rows, tv_plan *plan);
// P > 1: fit to the rows that the unit brought, before its rows move. `pool` is shared by all parts.
tv_status tv_moe_buffers_forward(tv_moe_buffers *buffers, tv_moe_rows *rows, tv_pool *pool, int training);
tv_status tv_moe_buffers_backward(tv_moe_buffers *buffers, tv_moe_rows *rows, tv_pool *pool);

#endif
