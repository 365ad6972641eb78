// The experts' gated activation, between integer rows on both sides.
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

static tv_status activate_row(const tv_moe_activate_args *a, int64_t r, float *h)
{
    const float *gu = a->gu + r * 2 * a->width;
    tv_gate_args gate = {1, a->width, gu, h};
    tv_quantize_rows_args made = {1, a->width, a->qmax, h, a->q + r * a->width, a->scale + r, a->fault};
    if (a->saved_q) {
        tv_quantize_rows_args halves = {
            2, a->width, 127, gu, a->saved_q + 2 * r * a->width, a->saved_scale + 2 * r, a->fault};
        TV_TRY(quantize_rows_ref(&halves, NULL));
    }
    TV_TRY(gate_ref(&gate, NULL));
    return quantize_rows_ref(&made, NULL);
}

tv_status moe_activate_ref(const tv_moe_activate_args *a, void *stream)
{
    void *h;
    (void)stream;
    TV_TRY(tv_ref_scratch((size_t)a->width * sizeof(float), &h));
    for (int64_t i = 0; a->width && i < a->segment_count; i++) {
        const tv_segment *s = &a->segments[i];
        for (int64_t r = s->first; r < s->first + s->rows; r++)
            TV_TRY(activate_row(a, r, h));
    }
    return TV_OK;
}

// Places for one row's numbers, and for one number a channel.
typedef struct row_work {
    float *dh, *dgu; // [F], [2F]
    uint32_t *top;   // [2F] absmax of a channel, as bits
    float *inverse;  // [2F]
} row_work;

static tv_status row_gradient(const tv_moe_activate_backward_args *a, int64_t r, const row_work *w)
{
    int64_t width = a->width;
    for (int64_t f = 0; f < width; f++)
        w->dh[f] = (float)a->q[r * width + f] * a->scale[r];
    tv_gate_backward_args gate = {1, width, a->saved_q + 2 * r * width, a->saved_scale + 2 * r, w->dh, w->dgu};
    return gate_backward_ref(&gate, NULL);
}

static int counts(const tv_moe_activate_backward_args *a, int64_t r) { return !a->item || a->item[r] >= 0; }

// Rows to int8, and the largest value of each channel.
static tv_status first_pass(const tv_moe_activate_backward_args *a, const tv_segment *s, const row_work *w)
{
    int64_t channels = 2 * a->width;
    memset(w->top, 0, (size_t)channels * sizeof *w->top);
    for (int64_t r = s->first; r < s->first + s->rows; r++) {
        TV_TRY(row_gradient(a, r, w));
        tv_quantize_rows_args row = {1, channels, 127, w->dgu, a->dq + r * channels, a->dscale + r, a->fault};
        TV_TRY(quantize_rows_ref(&row, NULL));
        for (int64_t c = 0; counts(a, r) && c < channels; c++) {
            uint32_t bits = tv_abs_bits(w->dgu[c]);
            w->top[c] = bits > w->top[c] ? bits : w->top[c];
        }
    }
    return TV_OK;
}

static tv_status second_pass(const tv_moe_activate_backward_args *a, const tv_segment *s, int32_t *sumsq,
                             const row_work *w)
{
    int64_t channels = 2 * a->width, padded = tv_ceil_div(s->rows, TV_SEGMENT_PAD) * TV_SEGMENT_PAD;
    for (int64_t c = 0; c < channels; c++) {
        float absmax = tv_absmax_from_bits(w->top[c], a->fault);
        w->inverse[c] = absmax == 0.0f ? 0.0f : 127.0f / absmax;
        memset(a->dt + c * a->columns + s->padded, 0, (size_t)padded);
        sumsq[c] = 0;
    }
    for (int64_t r = 0; r < s->rows; r++) {
        if (!counts(a, s->first + r))
            continue;
        TV_TRY(row_gradient(a, s->first + r, w));
        for (int64_t c = 0; c < channels; c++) {
            int q = w->inverse[c] == 0.0f ? 0 : (int)rintf(w->dgu[c] * w->inverse[c]);
            a->dt[c * a->columns + s->padded + r] = (int8_t)q;
            sumsq[c] += q * q;
        }
    }
    return TV_OK;
}

tv_status moe_activate_backward_ref(const tv_moe_activate_backward_args *a, void *stream)
{
    void *memory;
    (void)stream;
    TV_TRY(tv_ref_scratch((size_t)a->width * 7 * sizeof(float), &memory));
    float *floats = memory;
    row_work w = {floats, floats + a->width, (uint32_t *)(floats + 3 * a->width), floats + 5 * a->width};
    for (int64_t i = 0; a->width && i < a->segment_count; i++) {
        TV_TRY(first_pass(a, &a->segments[i], &w));
        TV_TRY(second_pass(a, &a->segments[i], a->sumsq + i * 2 * a->width, &w));
    }
    return TV_OK;
}
