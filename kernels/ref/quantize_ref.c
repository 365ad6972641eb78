// Quantisation of rows (one scale a token) and of channels (transposed, for the vote product).
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

#define TWO_DIGITS_MAX 16129.0f // 127^2

tv_status quantize_rows_ref(const tv_quantize_rows_args *a, void *stream)
{
    (void)stream;
    float qmax = (float)a->qmax;
    for (int64_t t = 0; a->cols && t < a->rows; t++) {
        const float *x = a->x + t * a->cols;
        int8_t *q = a->q + t * a->cols;
        float absmax = tv_absmax_from_bits(tv_absmax_bits(x, a->cols, 1), a->fault);
        a->scale[t] = absmax / qmax;
        if (absmax == 0.0f) {
            memset(q, 0, (size_t)a->cols);
            continue;
        }
        float inverse = qmax / absmax;
        for (int64_t c = 0; c < a->cols; c++)
            q[c] = (int8_t)rintf(x[c] * inverse);
    }
    return TV_OK;
}

// floor((Q + 63) / 127) for |Q| <= 127^2; the shift by 127 127 keeps the division's operand positive.
static inline int high_digit(int32_t Q) { return (Q + 63 + 127 * 127) / 127 - 127; }

tv_status quantize_rows2_ref(const tv_quantize_rows2_args *a, void *stream)
{
    (void)stream;
    for (int64_t t = 0; a->cols && t < a->rows; t++) {
        const float *x = a->x + t * a->cols;
        float absmax = tv_absmax_from_bits(tv_absmax_bits(x, a->cols, 1), a->fault);
        a->scale[t] = absmax / TWO_DIGITS_MAX;
        float inverse = absmax == 0.0f ? 0.0f : TWO_DIGITS_MAX / absmax;
        for (int64_t c = 0; c < a->cols; c++) {
            int32_t Q = absmax == 0.0f ? 0 : (int32_t)rintf(x[c] * inverse);
            int hi = high_digit(Q);
            a->hi[t * a->cols + c] = (int8_t)hi;
            a->lo[t * a->cols + c] = (int8_t)(Q - 127 * hi);
        }
    }
    return TV_OK;
}

// Value v[t, c] of the unit: the float input, or the saved operand.
static inline float channel_value(const tv_quantize_channels_args *a, int64_t t, int64_t c)
{
    int64_t i = t * a->channels + c;
    return a->x ? a->x[i] : (float)a->q[i] * a->scale[t];
}

tv_status quantize_channels_ref(const tv_quantize_channels_args *a, void *stream)
{
    (void)stream;
    for (int64_t c = 0; a->tokens && c < a->channels; c++) {
        int8_t *qt = a->qt + c * a->tokens;
        uint32_t top = 0;
        for (int64_t t = 0; t < a->tokens; t++) {
            uint32_t bits = tv_abs_bits(channel_value(a, t, c));
            top = bits > top ? bits : top;
        }
        float absmax = tv_absmax_from_bits(top, a->fault);
        a->sumsq[c] = 0;
        if (absmax == 0.0f) {
            memset(qt, 0, (size_t)a->tokens);
            continue;
        }
        float inverse = 127.0f / absmax;
        int32_t sum = 0;
        for (int64_t t = 0; t < a->tokens; t++) {
            int q = (int)rintf(channel_value(a, t, c) * inverse);
            qt[t] = (int8_t)q;
            sum += q * q;
        }
        a->sumsq[c] = sum;
    }
    return TV_OK;
}

tv_status quantize_channels2_ref(const tv_quantize_channels2_args *a, void *stream)
{
    (void)stream;
    for (int64_t c = 0; a->tokens && c < a->channels; c++) {
        const float *x = a->x + c;
        float absmax = tv_absmax_from_bits(tv_absmax_bits(x, a->tokens, a->channels), a->fault);
        float inverse = absmax == 0.0f ? 0.0f : TWO_DIGITS_MAX / absmax;
        int64_t sum = 0;
        for (int64_t t = 0; t < a->tokens; t++) {
            int32_t Q = absmax == 0.0f ? 0 : (int32_t)rintf(x[t * a->channels] * inverse);
            int hi = high_digit(Q);
            a->hi[c * a->tokens + t] = (int8_t)hi;
            a->lo[c * a->tokens + t] = (int8_t)(Q - 127 * hi);
            sum += (int64_t)Q * Q;
        }
        a->sumsq[c] = sum;
    }
    return TV_OK;
}
