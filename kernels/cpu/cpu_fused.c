// The fused ops: the bodies of their ops run a token at a time, so that what lies between two of them stays in L1.
#include "kernels/cpu/cpu_bodies.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"
#include "kernels/op_parts.h"

// The row x to int8, with one scale.
static inline void quantize_row(const float *x, int64_t cols, int8_t *q, float *scale, int32_t *fault)
{
    float absmax = tv_row_absmax(tv_row_absmax_bits(x, cols), fault);
    *scale = absmax / 127.0f;
    tv_row_quantize(x, absmax == 0.0f ? 0.0f : 127.0f / absmax, cols, q);
}

static void norm_quantize_rows(const void *args, int64_t first, int64_t last, int thread)
{
    const tv_norm_quantize_args *a = args;
    float *y = tv_cpu_scratch(thread);
    for (int64_t t = first; t < last; t++) {
        const tv_norm_args norm = tv_norm_quantize_row(a, t, y);
        TV_ISA_NAME(norm_body)(&norm, 0, 1, thread);
        quantize_row(y, a->cols, a->q + t * a->cols, a->scale + t, a->fault);
    }
}

tv_status TV_ISA_NAME(norm_quantize)(const tv_norm_quantize_args *args, void *stream)
{
    (void)stream;
    TV_TRY(tv_cpu_scratch_reserve((size_t)args->cols * sizeof(float)));
    if (args->cols > 0)
        tv_cpu_for(args->rows, args->cols / 3, norm_quantize_rows, args);
    return TV_OK;
}

// Items are tokens: all heads of one.
static void heads_tokens(const void *args, int64_t first, int64_t last, int thread)
{
    const tv_heads_args *a = args;
    float *y = tv_cpu_scratch(thread);
    for (int64_t t = first; t < last; t++) {
        int64_t row = t * a->heads, table = t % a->context * (a->width / 2);
        const tv_norm_args norm = tv_heads_norm(a, row, a->heads, y);
        // One token at its position: the tables start there.
        const tv_rotary_args turn = {1, a->heads, a->width, 1, a->cos_table + table, a->sin_table + table, 0, y};
        const tv_quantize_rows_args quantize = {a->heads,       a->width, 127, y, a->q + row * a->width,
                                                a->scale + row, a->fault};
        TV_ISA_NAME(norm_body)(&norm, 0, a->heads, thread);
        TV_ISA_NAME(rotary_body)(&turn, 0, 1, thread);
        TV_ISA_NAME(quantize_rows_body)(&quantize, 0, a->heads, thread);
    }
}

tv_status TV_ISA_NAME(heads)(const tv_heads_args *args, void *stream)
{
    (void)stream;
    int64_t values = args->heads * args->width;
    TV_TRY(tv_cpu_scratch_reserve((size_t)values * sizeof(float)));
    if (values > 0 && args->context > 0)
        tv_cpu_for(args->tokens, values / 2, heads_tokens, args);
    return TV_OK;
}

static void heads_backward_tokens(const void *args, int64_t first, int64_t last, int thread)
{
    const tv_heads_backward_args *a = args;
    const tv_rotary_args turn = tv_heads_backward_turn(a);
    const tv_norm_backward_args norm = tv_heads_backward_norm(a);
    for (int64_t t = first; t < last; t++) {
        TV_ISA_NAME(rotary_body)(&turn, t, t + 1, thread);
        TV_ISA_NAME(norm_backward_body)(&norm, t * a->heads, (t + 1) * a->heads, thread);
    }
}

tv_status TV_ISA_NAME(heads_backward)(const tv_heads_backward_args *args, void *stream)
{
    (void)stream;
    int64_t values = args->heads * args->width;
    if (values > 0 && args->context > 0)
        tv_cpu_for(args->tokens, values / 3, heads_backward_tokens, args);
    return TV_OK;
}

static void gate_quantize_tokens(const void *args, int64_t first, int64_t last, int thread)
{
    const tv_gate_quantize_args *a = args;
    float *h = tv_cpu_scratch(thread);
    const tv_quantize_rows_args save = {2 * a->tokens, a->width, 127, a->gu, a->saved_q, a->saved_scale, a->fault};
    for (int64_t t = first; t < last; t++) {
        const tv_gate_args gate = {1, a->width, a->gu + t * 2 * a->width, h};
        if (a->saved_q)
            TV_ISA_NAME(quantize_rows_body)(&save, 2 * t, 2 * t + 2, thread);
        TV_ISA_NAME(gate_body)(&gate, 0, 1, thread);
        quantize_row(h, a->width, a->q + t * a->width, a->scale + t, a->fault);
    }
}

tv_status TV_ISA_NAME(gate_quantize)(const tv_gate_quantize_args *args, void *stream)
{
    (void)stream;
    TV_TRY(tv_cpu_scratch_reserve((size_t)args->width * sizeof(float)));
    if (args->width > 0)
        tv_cpu_for(args->tokens, args->width, gate_quantize_tokens, args);
    return TV_OK;
}

static tv_status channels_of(const tv_quantize_both_args *a, void *stream)
{
    const tv_quantize_channels_args channels = {
        .tokens = a->tokens, .channels = a->channels, .x = a->x, .qt = a->qt, .sumsq = a->sumsq, .fault = a->fault};
    return TV_ISA_NAME(quantize_channels)(&channels, stream);
}

tv_status TV_ISA_NAME(quantize_both)(const tv_quantize_both_args *a, void *stream)
{
    const tv_quantize_rows_args rows = {a->tokens, a->channels, 127, a->x, a->q, a->scale, a->fault};
    TV_TRY(TV_ISA_NAME(quantize_rows)(&rows, stream));
    return channels_of(a, stream);
}

static void gate_backward_tokens(const void *args, int64_t first, int64_t last, int thread)
{
    const tv_gate_backward_both_args *a = args;
    const tv_gate_backward_args gate = {a->tokens, a->width, a->saved_q, a->saved_scale, a->dh, a->dgu};
    const tv_quantize_rows_args rows = {a->tokens, 2 * a->width, 127, a->dgu, a->q, a->scale, a->fault};
    for (int64_t t = first; t < last; t++) {
        TV_ISA_NAME(gate_backward_body)(&gate, t, t + 1, thread);
        TV_ISA_NAME(quantize_rows_body)(&rows, t, t + 1, thread);
    }
}

tv_status TV_ISA_NAME(gate_backward_both)(const tv_gate_backward_both_args *a, void *stream)
{
    if (a->width <= 0)
        return TV_OK;
    tv_cpu_for(a->tokens, a->width, gate_backward_tokens, a);
    const tv_quantize_both_args both = {a->tokens, 2 * a->width, a->dgu, a->q, a->scale, a->qt, a->sumsq, a->fault};
    return channels_of(&both, stream);
}

static void trigram_quantize_tokens(const void *args, int64_t first, int64_t last, int thread)
{
    const tv_trigram_quantize_args *a = args;
    int64_t wide = 3 * a->channels;
    float *y = tv_cpu_scratch(thread);
    for (int64_t t = first; t < last; t++) {
        // The token and those that it sees, as a window of their own; its row is the last.
        int64_t position = t % a->context, seen = position < 2 ? position : 2;
        const tv_trigram_args window = {seen + 1, a->channels, seen + 1, a->x + (t - seen) * a->channels, y};
        TV_ISA_NAME(trigram_body)(&window, seen, seen + 1, thread);
        quantize_row(y + seen * wide, wide, a->q + t * wide, a->scale + t, a->fault);
    }
}

tv_status TV_ISA_NAME(trigram_quantize)(const tv_trigram_quantize_args *args, void *stream)
{
    (void)stream;
    TV_TRY(tv_cpu_scratch_reserve((size_t)args->channels * 9 * sizeof(float)));
    if (args->channels > 0 && args->context > 0)
        tv_cpu_for(args->tokens, args->channels, trigram_quantize_tokens, args);
    return TV_OK;
}
