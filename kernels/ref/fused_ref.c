// The fused ops: the ops that they are made of, a row or a token at a time, with what lies between them in scratch memory.
#include "kernels/op_parts.h"
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

static tv_status quantize_row(const float *x, int64_t cols, int8_t *q, float *scale, int32_t *fault)
{
    tv_quantize_rows_args a = {1, cols, 127, x, q, scale, fault};
    return quantize_rows_ref(&a, NULL);
}

tv_status norm_quantize_ref(const tv_norm_quantize_args *a, void *stream)
{
    void *y;
    TV_TRY(tv_ref_scratch((size_t)a->cols * sizeof(float), &y));
    for (int64_t t = 0; a->cols && t < a->rows; t++) {
        tv_norm_args norm = tv_norm_quantize_row(a, t, y);
        TV_TRY(norm_ref(&norm, stream));
        TV_TRY(quantize_row(y, a->cols, a->q + t * a->cols, a->scale + t, a->fault));
    }
    return TV_OK;
}

tv_status heads_ref(const tv_heads_args *a, void *stream)
{
    void *y;
    TV_TRY(tv_ref_scratch((size_t)a->width * sizeof(float), &y));
    for (int64_t row = 0; a->width && a->context && row < a->tokens * a->heads; row++) {
        int64_t position = row / a->heads % a->context * (a->width / 2);
        tv_norm_args norm = tv_heads_norm(a, row, 1, y);
        TV_TRY(norm_ref(&norm, stream));
        // One token at its position: the tables start there.
        tv_rotary_args turn = {1, 1, a->width, 1, a->cos_table + position, a->sin_table + position, 0, y};
        TV_TRY(rotary_ref(&turn, stream));
        TV_TRY(quantize_row(y, a->width, a->q + row * a->width, a->scale + row, a->fault));
    }
    return TV_OK;
}

tv_status heads_backward_ref(const tv_heads_backward_args *a, void *stream)
{
    if (!a->context)
        return TV_OK;
    tv_rotary_args turn = tv_heads_backward_turn(a);
    TV_TRY(rotary_ref(&turn, stream));
    tv_norm_backward_args norm = tv_heads_backward_norm(a);
    return norm_backward_ref(&norm, stream);
}

tv_status gate_quantize_ref(const tv_gate_quantize_args *a, void *stream)
{
    void *h;
    TV_TRY(tv_ref_scratch((size_t)a->width * sizeof(float), &h));
    if (a->saved_q) {
        tv_quantize_rows_args save = {2 * a->tokens, a->width, 127, a->gu, a->saved_q, a->saved_scale, a->fault};
        TV_TRY(quantize_rows_ref(&save, stream));
    }
    for (int64_t t = 0; t < a->tokens; t++) {
        tv_gate_args gate = {1, a->width, a->gu + t * 2 * a->width, h};
        TV_TRY(gate_ref(&gate, stream));
        TV_TRY(quantize_row(h, a->width, a->q + t * a->width, a->scale + t, a->fault));
    }
    return TV_OK;
}

tv_status quantize_both_ref(const tv_quantize_both_args *a, void *stream)
{
    tv_quantize_rows_args rows = {a->tokens, a->channels, 127, a->x, a->q, a->scale, a->fault};
    TV_TRY(quantize_rows_ref(&rows, stream));
    tv_quantize_channels_args channels = {
        .tokens = a->tokens, .channels = a->channels, .x = a->x, .qt = a->qt, .sumsq = a->sumsq, .fault = a->fault};
    return quantize_channels_ref(&channels, stream);
}

tv_status gate_backward_both_ref(const tv_gate_backward_both_args *a, void *stream)
{
    tv_gate_backward_args gate = {a->tokens, a->width, a->saved_q, a->saved_scale, a->dh, a->dgu};
    TV_TRY(gate_backward_ref(&gate, stream));
    tv_quantize_both_args both = {a->tokens, 2 * a->width, a->dgu, a->q, a->scale, a->qt, a->sumsq, a->fault};
    return quantize_both_ref(&both, stream);
}

tv_status trigram_quantize_ref(const tv_trigram_quantize_args *a, void *stream)
{
    void *memory;
    TV_TRY(tv_ref_scratch((size_t)a->channels * 9 * sizeof(float), &memory));
    for (int64_t t = 0; a->channels && a->context && t < a->tokens; t++) {
        // The token and those that it sees, as a window of their own; its row is the last.
        int64_t position = t % a->context, seen = position < 2 ? position : 2, wide = 3 * a->channels;
        float *y = memory;
        tv_trigram_args window = {seen + 1, a->channels, seen + 1, a->x + (t - seen) * a->channels, y};
        TV_TRY(trigram_ref(&window, stream));
        TV_TRY(quantize_row(y + seen * wide, wide, a->q + t * wide, a->scale + t, a->fault));
    }
    return TV_OK;
}
