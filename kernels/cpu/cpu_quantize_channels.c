// Quantisation of channels, transposed for the vote product.
//
// An item is a strip of 64 channels: one pass over the tokens finds the maxima, a second one quantises squares of 64
// tokens, which are transposed in L1 and leave as whole cache lines.
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"
#include "kernels/cpu/cpu_transpose.h"

#define TWO_DIGITS_MAX 16129.0f // 127^2

// One strip of either op. Values of a token are x, or the saved operand q times its scale when x is NULL.
typedef struct strip {
    int64_t tokens, channels, first;
    int width; // channels of the strip, up to 64
    const float *x;
    const int8_t *q;
    const float *scale;
    int32_t *fault;
} strip;

// v[0..width) of token t; the rest of v stays 0.
static inline void load_values(const strip *s, int64_t t, float v[TV_SQUARE])
{
    if (s->x != NULL) {
        const float *x = s->x + t * s->channels + s->first;
        if (s->width == TV_SQUARE)
            memcpy(v, x, TV_SQUARE * sizeof *v);
        else
            memcpy(v, x, (size_t)s->width * sizeof *v);
        return;
    }
    const int8_t *q = s->q + t * s->channels + s->first;
    float scale = s->scale[t];
    if (s->width == TV_SQUARE)
        for (int c = 0; c < TV_SQUARE; c++)
            v[c] = (float)q[c] * scale;
    else
        for (int c = 0; c < s->width; c++)
            v[c] = (float)q[c] * scale;
}

// inverse[c] = qmax / absmax, 0 for a channel whose q are all 0.
static void strip_inverses(const strip *s, float qmax, float inverse[TV_SQUARE])
{
    uint32_t top[TV_SQUARE] = {0};
    float v[TV_SQUARE] = {0};
    for (int64_t t = 0; t < s->tokens; t++) {
        load_values(s, t, v);
        for (int c = 0; c < TV_SQUARE; c++) {
            uint32_t bits = tv_abs_bits(v[c]);
            top[c] = bits > top[c] ? bits : top[c];
        }
    }
    for (int c = 0; c < TV_SQUARE; c++) {
        float absmax = tv_row_absmax(top[c], s->fault);
        inverse[c] = absmax == 0.0f ? 0.0f : qmax / absmax;
    }
}

// Q = rint(v inverse), and 0 where inverse is 0 (v may then be NaN).
static inline void quantize_values(const strip *s, int64_t t, const float inverse[TV_SQUARE], int32_t Q[TV_SQUARE])
{
    float v[TV_SQUARE] = {0};
    load_values(s, t, v);
    for (int c = 0; c < TV_SQUARE; c++) {
        float scaled = inverse[c] == 0.0f ? 0.0f : v[c] * inverse[c];
        Q[c] = (int32_t)rintf(scaled);
    }
}

static inline int clip(int64_t left) { return left < TV_SQUARE ? (int)left : TV_SQUARE; }

static void strips_one(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_quantize_channels_args *a = args;
    for (int64_t item = first; item < last; item++) {
        strip s = {a->tokens, a->channels, item * TV_SQUARE, clip(a->channels - item * TV_SQUARE),
                   a->x,      a->q,        a->scale,         a->fault};
        float inverse[TV_SQUARE];
        int32_t sum[TV_SQUARE] = {0}, Q[TV_SQUARE];
        int8_t rows[TV_SQUARE][TV_SQUARE] = {{0}}, square[TV_SQUARE][TV_SQUARE];
        strip_inverses(&s, 127.0f, inverse);
        for (int64_t t = 0; t < a->tokens; t += TV_SQUARE) {
            int count = clip(a->tokens - t);
            for (int i = 0; i < count; i++) {
                quantize_values(&s, t + i, inverse, Q);
                for (int c = 0; c < TV_SQUARE; c++) {
                    rows[i][c] = (int8_t)Q[c];
                    sum[c] += Q[c] * Q[c];
                }
            }
            tv_transpose_square(rows[0], TV_SQUARE, square);
            tv_square_store(square, s.width, count, a->qt + s.first * a->tokens + t, a->tokens);
        }
        memcpy(a->sumsq + s.first, sum, (size_t)s.width * sizeof *sum);
    }
}

tv_status TV_ISA_NAME(quantize_channels)(const tv_quantize_channels_args *args, void *stream)
{
    (void)stream;
    if (args->tokens > 0)
        tv_cpu_for((args->channels + TV_SQUARE - 1) / TV_SQUARE, args->tokens * 12, strips_one, args);
    return TV_OK;
}

static void strips_two(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_quantize_channels2_args *a = args;
    for (int64_t item = first; item < last; item++) {
        strip s = {a->tokens, a->channels, item * TV_SQUARE, clip(a->channels - item * TV_SQUARE), a->x,
                   NULL,      NULL,        a->fault};
        float inverse[TV_SQUARE];
        int64_t sum[TV_SQUARE] = {0};
        int32_t Q[TV_SQUARE];
        int8_t hi[TV_SQUARE][TV_SQUARE] = {{0}}, lo[TV_SQUARE][TV_SQUARE] = {{0}}, square[TV_SQUARE][TV_SQUARE];
        strip_inverses(&s, TWO_DIGITS_MAX, inverse);
        for (int64_t t = 0; t < a->tokens; t += TV_SQUARE) {
            int count = clip(a->tokens - t);
            for (int i = 0; i < count; i++) {
                quantize_values(&s, t + i, inverse, Q);
                for (int c = 0; c < TV_SQUARE; c++) {
                    int32_t high = tv_high_digit(Q[c]);
                    hi[i][c] = (int8_t)high;
                    lo[i][c] = (int8_t)(Q[c] - 127 * high);
                }
                for (int c = 0; c < TV_SQUARE; c++)
                    sum[c] += Q[c] * Q[c]; // at most 127^4 < 2^31
            }
            tv_transpose_square(hi[0], TV_SQUARE, square);
            tv_square_store(square, s.width, count, a->hi + s.first * a->tokens + t, a->tokens);
            tv_transpose_square(lo[0], TV_SQUARE, square);
            tv_square_store(square, s.width, count, a->lo + s.first * a->tokens + t, a->tokens);
        }
        memcpy(a->sumsq + s.first, sum, (size_t)s.width * sizeof *sum);
    }
}

tv_status TV_ISA_NAME(quantize_channels2)(const tv_quantize_channels2_args *args, void *stream)
{
    (void)stream;
    if (args->tokens > 0)
        tv_cpu_for((args->channels + TV_SQUARE - 1) / TV_SQUARE, args->tokens * 20, strips_two, args);
    return TV_OK;
}
