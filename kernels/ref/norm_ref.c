// RMS norm, forward and backward.
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

static float sum_of_squares(const float *x, int64_t count)
{
    float lane[32] = {0};
    for (int64_t c = 0; c < count; c++)
        lane[c % 32] = fmaf(x[c], x[c], lane[c % 32]);
    return tv_lanes_combine(lane);
}

tv_status norm_ref(const tv_norm_args *a, void *stream)
{
    if (a->saved_q) {
        tv_quantize_rows_args save = {a->rows, a->cols, 127, a->x, a->saved_q, a->saved_scale, a->fault};
        TV_TRY(quantize_rows_ref(&save, stream));
    }
    float unit = tv_exp2i(a->exponent);
    for (int64_t t = 0; a->cols && t < a->rows; t++) {
        const float *x = a->x + t * a->cols;
        float r = 1.0f / sqrtf(sum_of_squares(x, a->cols) / (float)a->cols + 1e-5f);
        tv_absmax_from_bits(tv_absmax_bits(x, a->cols, 1), a->fault);
        for (int64_t c = 0; c < a->cols; c++)
            a->y[t * a->cols + c] = (x[c] * r) * ((float)a->w8[c] * unit);
        if (a->saved_q)
            a->saved_rstd[t] = r;
    }
    return TV_OK;
}

tv_status norm_backward_ref(const tv_norm_backward_args *a, void *stream)
{
    (void)stream;
    float unit = tv_exp2i(a->exponent);
    for (int64_t t = 0; t < a->rows; t++) {
        const float *dy = a->dy + t * a->cols;
        const int8_t *q = a->saved_q + t * a->cols;
        float r = a->saved_rstd[t], scale = a->saved_scale[t] * r;
        float lane[32] = {0};
        for (int64_t c = 0; c < a->cols; c++) {
            float h = (float)q[c] * scale, u = dy[c] * ((float)a->w8[c] * unit);
            lane[c % 32] = fmaf(u, h, lane[c % 32]);
        }
        float mean = tv_lanes_combine(lane) / (float)a->cols;
        for (int64_t c = 0; c < a->cols; c++) {
            float h = (float)q[c] * scale, u = dy[c] * ((float)a->w8[c] * unit);
            float v = r * fmaf(-mean, h, u);
            float *dx = a->dx + t * a->cols + c;
            *dx = a->accumulate ? v + *dx : v;
        }
    }
    return TV_OK;
}
