// Gated activation, forward and backward, and the small elementwise ops.
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

tv_status gate_ref(const tv_gate_args *a, void *stream)
{
    (void)stream;
    for (int64_t t = 0; t < a->tokens; t++) {
        const float *gate = a->gu + t * 2 * a->width, *up = gate + a->width;
        for (int64_t f = 0; f < a->width; f++)
            a->h[t * a->width + f] = tv_silu(gate[f]) * up[f];
    }
    return TV_OK;
}

tv_status gate_backward_ref(const tv_gate_backward_args *args, void *stream)
{
    (void)stream;
    int64_t width = args->width;
    for (int64_t t = 0; t < args->tokens; t++) {
        const int8_t *gate = args->saved_q + 2 * t * width, *up = gate + width;
        const float *dh = args->dh + t * width;
        float *dgate = args->dgu + 2 * t * width, *dup = dgate + width;
        float s_gate = args->saved_scale[2 * t], s_up = args->saved_scale[2 * t + 1];
        for (int64_t f = 0; f < width; f++) {
            float a = (float)gate[f] * s_gate, u = (float)up[f] * s_up;
            float g = tv_sigmoid(a), act = a * g;
            dup[f] = dh[f] * act;
            dgate[f] = (dh[f] * u) * (g * fmaf(a, 1.0f - g, 1.0f));
        }
    }
    return TV_OK;
}

tv_status row_sum_ref(const tv_row_sum_args *a, void *stream)
{
    (void)stream;
    for (int64_t r = 0; a->cols && r < a->rows; r++) {
        float lane[32] = {0};
        for (int64_t c = 0; c < a->cols; c++)
            lane[c % 32] += a->x[r * a->cols + c];
        a->out[r] = tv_lanes_combine(lane);
    }
    return TV_OK;
}

tv_status add_ref(const tv_add_args *a, void *stream)
{
    (void)stream;
    for (int64_t i = 0; i < a->count; i++)
        a->y[i] = a->y[i] + a->x[i];
    return TV_OK;
}

tv_status fill_ref(const tv_fill_args *a, void *stream)
{
    (void)stream;
    for (int64_t i = 0; i < a->count; i++)
        a->y[i] = a->value;
    return TV_OK;
}
