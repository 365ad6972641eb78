// Features at some of a unit's tokens: formulas in kernels/ops_modality.h.
#include "kernels/ref/modality_common.h"
#include "kernels/ref/ref_ops.h"

tv_status modality_add_ref(const tv_modality_add_args *a, void *stream)
{
    (void)stream;
    float g = a->rows ? tv_modality_gate(*a->gate) : 0.0f;
    for (int64_t r = 0; r < a->rows; r++)
        for (int64_t c = 0; c < a->width; c++) {
            float *x = a->x + a->at[r] * a->width + c;
            *x = fmaf(g, a->y[r * a->width + c], *x);
        }
    return TV_OK;
}

tv_status modality_back_ref(const tv_modality_back_args *a, void *stream)
{
    (void)stream;
    if (!a->rows || !a->width)
        return TV_OK;
    float g = tv_modality_gate(*a->gate), sums[32] = {0}, squares[32] = {0};
    for (int64_t r = 0; r < a->rows; r++) {
        const float *dx = a->dx + a->at[r] * a->width, *y = a->y + r * a->width;
        float lane[32] = {0};
        for (int64_t c = 0; c < a->width; c++) {
            a->dy[r * a->width + c] = g * dx[c];
            lane[c % 32] = fmaf(dx[c], y[c], lane[c % 32]);
        }
        float dot = a->dot[r] = tv_lanes_combine(lane);
        sums[r % 32] = sums[r % 32] + dot;
        squares[r % 32] = fmaf(dot, dot, squares[r % 32]);
    }
    *a->vote += tv_modality_vote(tv_lanes_combine(sums), tv_lanes_combine(squares), a->tau);
    return TV_OK;
}
