// Rows of the focus ops as loops: ref and cpu compile them, each for its own machine.
#ifndef TV_KERNELS_FOCUS_LOOPS_H
#define TV_KERNELS_FOCUS_LOOPS_H

#include "kernels/ref/focus_common.h"

static inline void tv_focus_gather_rows(const tv_focus_gather_args *a, int64_t first_row, int64_t last_row)
{
    for (int64_t r = first_row; a->width && r < last_row; r++) {
        int64_t first = tv_focus_first(r, a->windows, a->context, a->segment);
        int64_t length = tv_focus_length(r, a->windows, a->context, a->segment);
        float *out = a->out + r * a->stride;
        for (int64_t c = 0; c < a->width; c++)
            out[c] = 0.0f;
        for (int64_t t = first; t < first + length; t++)
            for (int64_t c = 0; c < a->width; c++)
                out[c] = out[c] + a->x[t * a->width + c];
        for (int64_t c = 0; c < a->width; c++)
            out[c] = out[c] / a->divisor;
        for (int64_t c = 0; a->add && c < a->width; c++)
            out[c] = out[c] + a->add[r * a->width + c];
    }
}

static inline void tv_focus_scatter_rows(const tv_focus_scatter_args *a, int64_t first_row, int64_t last_row)
{
    for (int64_t r = first_row; a->width && r < last_row; r++) {
        int64_t first = tv_focus_first(r, a->windows, a->context, a->segment);
        int64_t length = tv_focus_length(r, a->windows, a->context, a->segment);
        const float *y = a->y + r * a->stride;
        for (int64_t t = first; t < first + length; t++)
            for (int64_t c = 0; c < a->width; c++)
                a->x[t * a->width + c] = a->x[t * a->width + c] + y[c] / a->divisor;
        if (a->copy)
            memcpy(a->copy + r * a->width, y, (size_t)a->width * sizeof(float));
    }
}

static inline void tv_focus_cell_rows(const tv_focus_cell_args *a, int64_t first, int64_t last)
{
    for (int64_t w = first; w < last; w++)
        for (int64_t i = 0; i < a->width; i++)
            tv_focus_cell_at(a, w, i);
}

static inline void tv_focus_back_rows(const tv_focus_back_args *a, int64_t first, int64_t last)
{
    for (int64_t w = first; w < last; w++)
        for (int64_t i = 0; i < a->width; i++)
            tv_focus_back_at(a, w, i);
}

#endif
