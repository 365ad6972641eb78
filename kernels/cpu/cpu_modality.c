// Features at some of a unit's tokens: rows are independent, so threads share them; the sums over rows are one thread's.
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"
#include "kernels/ref/modality_common.h"

static void add_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_modality_add_args *a = args;
    float g = tv_modality_gate(*a->gate);
    for (int64_t r = first; r < last; r++) {
        const float *restrict y = a->y + r * a->width;
        float *restrict x = a->x + a->at[r] * a->width;
        for (int64_t c = 0; c < a->width; c++)
            x[c] = fmaf(g, y[c], x[c]);
    }
}

tv_status TV_ISA_NAME(modality_add)(const tv_modality_add_args *a, void *stream)
{
    (void)stream;
    tv_cpu_for(a->rows, a->width / 4, add_rows, a);
    return TV_OK;
}

static void back_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_modality_back_args *a = args;
    float g = tv_modality_gate(*a->gate);
    for (int64_t r = first; r < last; r++) {
        const float *restrict dx = a->dx + a->at[r] * a->width;
        float *restrict dy = a->dy + r * a->width;
        for (int64_t c = 0; c < a->width; c++)
            dy[c] = g * dx[c];
        a->dot[r] = tv_row_dot(dx, a->y + r * a->width, a->width);
    }
}

tv_status TV_ISA_NAME(modality_back)(const tv_modality_back_args *a, void *stream)
{
    (void)stream;
    if (!a->rows || !a->width)
        return TV_OK;
    tv_cpu_for(a->rows, a->width / 2, back_rows, a);
    float lane[TV_LANES] = {0};
    tv_lanes_add(lane, a->dot, a->rows);
    *a->vote += tv_modality_vote(tv_lanes_combine(lane), tv_row_sum_squares(a->dot, a->rows), a->tau);
    return TV_OK;
}
