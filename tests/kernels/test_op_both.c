// quantize_both, gate_quantize, gate_backward_both, trigram_quantize: the bits of the ops that they are made of, on sizes that fit
// 16-byte accesses and on sizes that do not.
#include <math.h>
#include <string.h>

#include "op_test.h"

// What any of the four writes; arrays that an op has no use for stay zero.
typedef struct both_result {
    int64_t rows, cols;
    int8_t *q, *qt, *saved_q; // [rows, cols], [cols, rows], [2 rows, cols]
    float *scale, *saved_scale;
    int32_t *sumsq;
    int32_t fault;
} both_result;

// The result's arrays in a call.
typedef struct both_out {
    int8_t *q, *qt, *saved_q;
    float *scale, *saved_scale;
    int32_t *sumsq, *fault;
} both_out;

static both_result new_result(int64_t rows, int64_t cols)
{
    size_t items = (size_t)(rows * cols);
    return (both_result){rows,
                         cols,
                         op_host(items),
                         op_host(items),
                         op_host(2 * items),
                         op_host((size_t)rows * 4),
                         op_host((size_t)rows * 8),
                         op_host((size_t)cols * 4),
                         0};
}

static both_out outputs(op_call *call, both_result *r)
{
    size_t items = (size_t)(r->rows * r->cols);
    return (both_out){op_out(call, r->q, items),
                      op_out(call, r->qt, items),
                      op_out(call, r->saved_q, 2 * items),
                      op_out(call, r->scale, (size_t)r->rows * 4),
                      op_out(call, r->saved_scale, (size_t)r->rows * 8),
                      op_out(call, r->sumsq, (size_t)r->cols * 4),
                      op_out(call, &r->fault, sizeof r->fault)};
}

static void same_result(const op_backend *on, const both_result *want, const both_result *got)
{
    size_t items = (size_t)(want->rows * want->cols);
    op_same("q", on, want->q, got->q, items);
    op_same("qt", on, want->qt, got->qt, items);
    op_same("saved q", on, want->saved_q, got->saved_q, 2 * items);
    op_same("scale", on, want->scale, got->scale, (size_t)want->rows * 4);
    op_same("saved scale", on, want->saved_scale, got->saved_scale, (size_t)want->rows * 8);
    op_same("sumsq", on, want->sumsq, got->sumsq, (size_t)want->cols * 4);
    assert_int_equal(want->fault, got->fault);
}

static void spoil(op_random *random, float *x, int64_t count)
{
    static const float values[] = {NAN, INFINITY, -INFINITY, 0x1p-120f, 0x1p-149f, -0.0f, 0x1p+120f};
    for (int i = op_int(random, -2, 3); count && i > 0; i--)
        x[op_int(random, 0, (int)count - 1)] = values[op_int(random, 0, 6)];
}

static const int64_t token_counts[] = {0, 1, 16, 31, 32, 33, 48, 64, 128, 129, 144, 272};
static const int64_t channel_counts[] = {0,  1,  4,   5,   16,  20,  31,  32,  33,   36,   48,   60,
                                         64, 96, 128, 132, 144, 256, 264, 512, 1440, 2880, 3072, 3088};
#define TOKEN_COUNTS (int)(sizeof token_counts / sizeof *token_counts)
#define CHANNEL_COUNTS (int)(sizeof channel_counts / sizeof *channel_counts)

// Every channel count, with token counts that move against them, fewer for many channels; every third case fits tiles.
static int64_t tokens_of(int i)
{
    int64_t tokens = i % 3 == 0 ? 16 * (i % 19) : token_counts[i % TOKEN_COUNTS];
    return channel_counts[i % CHANNEL_COUNTS] > 300 ? tokens % 64 : tokens;
}

static tv_status both_parts(const tv_backend *b, const tv_quantize_both_args *a)
{
    tv_quantize_rows_args rows = {a->tokens, a->channels, 127, a->x, a->q, a->scale, a->fault};
    tv_quantize_channels_args channels = {a->tokens, a->channels, a->x, NULL, NULL, a->qt, a->sumsq, a->fault};
    tv_status st = b->quantize_rows(&rows, NULL);
    return st == TV_OK ? b->quantize_channels(&channels, NULL) : st;
}

static both_result run_both(const op_backend *on, int64_t tokens, int64_t channels, const float *x, int fused)
{
    both_result r = new_result(tokens, channels);
    op_call call = op_begin(on);
    const float *in = op_in(&call, x, (size_t)(tokens * channels) * 4);
    both_out o = outputs(&call, &r);
    tv_quantize_both_args a = {tokens, channels, in, o.q, o.scale, o.qt, o.sumsq, o.fault};
    op_end(&call, fused ? on->backend->quantize_both(&a, NULL) : both_parts(on->backend, &a));
    return r;
}

static void compare_both(const op_backend *on, int64_t tokens, int64_t channels, const float *x)
{
    both_result want = run_both(op_ref(), tokens, channels, x, 0), got = run_both(on, tokens, channels, x, 1),
                parts = run_both(on, tokens, channels, x, 0);
    same_result(on, &want, &got);
    same_result(on, &want, &parts);
}

static void check_both(const op_backend *on)
{
    op_random random = {111, 0};
    for (int i = 0; i < 3 * CHANNEL_COUNTS; i += op_stride()) {
        int64_t tokens = tokens_of(i), channels = channel_counts[i % CHANNEL_COUNTS];
        float *x = op_floats(&random, tokens * channels, 1.0f);
        for (int64_t j = 0; j < tokens * channels; j += channels) // a channel that counts as zero
            x[j] *= i % 2 ? 0x1p-110f : 1.0f;
        spoil(&random, x, tokens * channels);
        compare_both(on, tokens, channels, x);
    }
    compare_both(on, 640, 192, op_floats(&random, (int64_t)640 * 192, 3.0f));
}

static void test_both(void **state)
{
    (void)state;
    op_on_each(check_both);
    op_against_ref(check_both);
}

// The channels of a saved operand, where they are turned 16 at a time.
static void check_saved(const op_backend *on)
{
    op_random random = {112, 0};
    for (int i = 0; i < 3 * CHANNEL_COUNTS; i += op_stride()) {
        int64_t tokens = tokens_of(i), channels = channel_counts[i % CHANNEL_COUNTS];
        int8_t *q = op_int8s(&random, tokens * channels, -127, 127);
        float *scale = op_floats(&random, tokens, 1.0f);
        both_result result[2] = {new_result(tokens, channels), new_result(tokens, channels)};
        spoil(&random, scale, tokens);
        for (int ours = 0; ours < 2; ours++) {
            const op_backend *where = ours ? on : op_ref();
            op_call call = op_begin(where);
            tv_quantize_channels_args a = {.tokens = tokens, .channels = channels};
            a.q = op_in(&call, q, (size_t)(tokens * channels));
            a.scale = op_in(&call, scale, (size_t)tokens * 4);
            both_out o = outputs(&call, &result[ours]);
            a.qt = o.qt, a.sumsq = o.sumsq, a.fault = o.fault;
            op_end(&call, where->backend->quantize_channels(&a, NULL));
        }
        same_result(on, &result[0], &result[1]);
    }
}

static void test_saved(void **state)
{
    (void)state;
    op_against_ref(check_saved);
}

static tv_status gate_parts(const tv_backend *b, const tv_gate_quantize_args *a, float *h)
{
    tv_quantize_rows_args save = {2 * a->tokens, a->width, 127, a->gu, a->saved_q, a->saved_scale, a->fault};
    tv_gate_args gate = {a->tokens, a->width, a->gu, h};
    tv_quantize_rows_args rows = {a->tokens, a->width, 127, h, a->q, a->scale, a->fault};
    tv_status st = a->saved_q ? b->quantize_rows(&save, NULL) : TV_OK;
    if (st == TV_OK)
        st = b->gate(&gate, NULL);
    return st == TV_OK ? b->quantize_rows(&rows, NULL) : st;
}

typedef struct gate_case {
    int64_t tokens, width;
    const float *gu;
    int evaluation;
} gate_case;

static both_result run_gate(const op_backend *on, const gate_case *c, int fused)
{
    size_t items = (size_t)(c->tokens * c->width);
    both_result r = new_result(c->tokens, c->width);
    op_call call = op_begin(on);
    const float *gu = op_in(&call, c->gu, items * 8);
    float *h = op_out(&call, op_host(items * 4), items * 4);
    both_out o = outputs(&call, &r);
    tv_gate_quantize_args a = {c->tokens,     c->width, gu,      c->evaluation ? NULL : o.saved_q,
                               o.saved_scale, o.q,      o.scale, o.fault};
    op_end(&call, fused ? on->backend->gate_quantize(&a, NULL) : gate_parts(on->backend, &a, h));
    return r;
}

static void check_gate(const op_backend *on)
{
    op_random random = {113, 0};
    for (int i = 0; i < 2 * CHANNEL_COUNTS + 1; i += op_stride()) {
        gate_case c = {tokens_of(i) % 70, i == 2 * CHANNEL_COUNTS ? 8200 : channel_counts[i % CHANNEL_COUNTS], NULL,
                       i % 4 == 1};
        float *gu = op_floats(&random, 2 * c.tokens * c.width, i % 2 ? 4.0f : 200.0f);
        spoil(&random, gu, 2 * c.tokens * c.width);
        c.gu = gu;
        both_result want = run_gate(op_ref(), &c, 0), got = run_gate(on, &c, 1);
        same_result(on, &want, &got);
    }
}

static void test_gate(void **state)
{
    (void)state;
    op_on_each(check_gate);
    op_against_ref(check_gate);
}

typedef struct back_case {
    int64_t tokens, width;
    int8_t *q;
    float *scale, *dh;
} back_case;

static both_result run_back(const op_backend *on, const back_case *c, int fused)
{
    size_t items = (size_t)(c->tokens * c->width);
    both_result r = new_result(c->tokens, 2 * c->width);
    op_call call = op_begin(on);
    const int8_t *q = op_in(&call, c->q, items * 2);
    const float *scale = op_in(&call, c->scale, (size_t)c->tokens * 8), *dh = op_in(&call, c->dh, items * 4);
    float *dgu = op_out(&call, op_host(items * 8), items * 8);
    both_out o = outputs(&call, &r);
    tv_gate_backward_both_args a = {c->tokens, c->width, q, scale, dh, dgu, o.q, o.scale, o.qt, o.sumsq, o.fault};
    tv_gate_backward_args gate = {c->tokens, c->width, q, scale, dh, dgu};
    tv_quantize_both_args both = {c->tokens, 2 * c->width, dgu, o.q, o.scale, o.qt, o.sumsq, o.fault};
    tv_status st = fused ? on->backend->gate_backward_both(&a, NULL) : on->backend->gate_backward(&gate, NULL);
    if (!fused && st == TV_OK)
        st = both_parts(on->backend, &both);
    op_end(&call, st);
    return r;
}

static void check_back(const op_backend *on)
{
    op_random random = {114, 0};
    for (int i = 0; i < 2 * CHANNEL_COUNTS + 2; i += op_stride()) {
        int64_t tokens = tokens_of(i), width = channel_counts[i % CHANNEL_COUNTS];
        if (i >= 2 * CHANNEL_COUNTS)
            tokens = i % 2 ? 640 : 16, width = i % 2 ? 96 : 8208;
        back_case c = {tokens, width, op_int8s(&random, 2 * tokens * width, -127, 127),
                       op_floats(&random, 2 * tokens, 0.05f), op_floats(&random, tokens * width, 1.0f)};
        for (int64_t t = 0; t < 2 * tokens; t++)
            c.scale[t] = fabsf(c.scale[t]);
        spoil(&random, c.dh, tokens * width);
        if (i % 4 == 0)
            spoil(&random, c.scale, 2 * tokens);
        both_result want = run_back(op_ref(), &c, 0), got = run_back(on, &c, 1);
        same_result(on, &want, &got);
    }
}

static void test_back(void **state)
{
    (void)state;
    op_on_each(check_back);
    op_against_ref(check_back);
}

static both_result run_trigram(const op_backend *on, const tv_trigram_quantize_args *in, int fused)
{
    const tv_backend *b = on->backend;
    size_t items = (size_t)(in->tokens * in->channels);
    both_result r = new_result(in->tokens, 3 * in->channels);
    op_call call = op_begin(on);
    tv_trigram_quantize_args a = *in;
    a.x = op_in(&call, in->x, items * 4);
    float *y = op_out(&call, op_host(items * 12), items * 12);
    both_out o = outputs(&call, &r);
    a.q = o.q, a.scale = o.scale, a.fault = o.fault;
    tv_trigram_args trigram = {a.tokens, a.channels, a.context, a.x, y};
    tv_quantize_rows_args rows = {a.tokens, 3 * a.channels, 127, y, a.q, a.scale, a.fault};
    tv_status st = fused ? b->trigram_quantize(&a, NULL) : b->trigram(&trigram, NULL);
    if (!fused && st == TV_OK)
        st = b->quantize_rows(&rows, NULL);
    op_end(&call, st);
    return r;
}

static void check_trigram(const op_backend *on)
{
    static const int64_t contexts[] = {1, 2, 3, 16, 64};
    op_random random = {115, 0};
    for (int i = 0; i < 2 * CHANNEL_COUNTS; i += op_stride()) {
        int64_t context = contexts[i % 5], tokens = context * op_int(&random, 0, (int)(70 / context));
        int64_t channels = channel_counts[i % CHANNEL_COUNTS] % 1500;
        float *x = op_floats(&random, tokens * channels, 1.0f);
        spoil(&random, x, tokens * channels);
        tv_trigram_quantize_args a = {.tokens = tokens, .channels = channels, .context = context, .x = x};
        both_result want = run_trigram(op_ref(), &a, 0), got = run_trigram(on, &a, 1);
        same_result(on, &want, &got);
    }
}

static void test_trigram(void **state)
{
    (void)state;
    op_on_each(check_trigram);
    op_against_ref(check_trigram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_both), cmocka_unit_test(test_saved),
                                       cmocka_unit_test(test_gate), cmocka_unit_test(test_back),
                                       cmocka_unit_test(test_trigram)};
    return op_run("op_both", tests);
}
