// norm_quantize, heads, heads_backward: the bits of the ops that they are made of, on sizes around those that kernels treat apart.
#include <math.h>
#include <string.h>

#include "op_test.h"

// Rows of norms, or tokens and heads.
typedef struct head_case {
    int64_t tokens, heads, width, context;
    int exponent, evaluation;
    float *x, *cosine, *sine;
    int8_t *w8;
} head_case;

typedef struct head_result {
    int8_t *q, *saved_q;
    float *scale, *saved_scale, *saved_rstd;
    int32_t fault;
} head_result;

static void spoil(op_random *random, float *x, int64_t count)
{
    static const float values[] = {NAN, INFINITY, -INFINITY, 0x1p-120f, 0x1p-149f, -0.0f, 0x1p+100f};
    if (count)
        x[op_int(random, 0, (int)count - 1)] = values[op_int(random, 0, 6)];
}

static head_case random_case(op_random *random, int64_t tokens, int64_t heads, int64_t width)
{
    static const int64_t contexts[] = {1, 3, 16, 64};
    head_case c = {tokens,
                   heads,
                   width,
                   contexts[op_int(random, 0, 3)],
                   op_int(random, -8, 2),
                   op_int(random, 0, 3) == 0,
                   op_floats(random, tokens * heads * width, 2.0f),
                   NULL,
                   NULL,
                   op_int8s(random, width, -127, 127)};
    c.cosine = op_floats(random, c.context * (width / 2), 1.0f);
    c.sine = op_floats(random, c.context * (width / 2), 1.0f);
    int64_t count = tokens * heads * width;
    for (int64_t i = 0; i < width && i < count; i++) // one row that counts as zero, one far above
        c.x[i] *= op_int(random, 0, 1) ? 0x1p-110f : 1.0f;
    for (int i = op_int(random, 0, 2); i > 0; i--)
        spoil(random, c.x, count);
    return c;
}

static head_result new_result(const head_case *c)
{
    size_t rows = (size_t)(c->tokens * c->heads), items = rows * (size_t)c->width;
    return (head_result){op_host(items), op_host(items), op_host(rows * 4), op_host(rows * 4), op_host(rows * 4), 0};
}

// heads, or with turn 0 norm_quantize; fused, or op by op.
static head_result run(const op_backend *on, const head_case *c, int turn, int fused)
{
    const tv_backend *b = on->backend;
    int64_t rows = c->tokens * c->heads;
    size_t items = (size_t)(rows * c->width), table = (size_t)(c->context * (c->width / 2)) * 4;
    head_result r = new_result(c);
    op_call call = op_begin(on);
    const float *x = op_in(&call, c->x, items * 4), *cosine = op_in(&call, c->cosine, table),
                *sine = op_in(&call, c->sine, table);
    const int8_t *w8 = op_in(&call, c->w8, (size_t)c->width);
    float *y = op_out(&call, op_host(items * 4), items * 4), *scale = op_out(&call, r.scale, (size_t)rows * 4);
    int8_t *q = op_out(&call, r.q, items), *saved_q = op_out(&call, r.saved_q, items);
    float *saved_scale = op_out(&call, r.saved_scale, (size_t)rows * 4),
          *rstd = op_out(&call, r.saved_rstd, (size_t)rows * 4);
    int32_t *fault = op_out(&call, &r.fault, sizeof r.fault);
    saved_q = c->evaluation ? NULL : saved_q;
    tv_status st = TV_OK;
    if (fused && turn) {
        tv_heads_args a = {c->tokens, c->heads, c->width,    c->context, x, w8,    c->exponent, cosine,
                           sine,      saved_q,  saved_scale, rstd,       q, scale, fault};
        st = b->heads(&a, NULL);
    } else if (fused) {
        tv_norm_quantize_args a = {rows, c->width, x, w8, c->exponent, saved_q, saved_scale, rstd, q, scale, fault};
        st = b->norm_quantize(&a, NULL);
    } else {
        tv_norm_args norm = {rows, c->width, x, w8, c->exponent, y, saved_q, saved_scale, rstd, fault};
        tv_rotary_args rotary = {c->tokens, c->heads, c->width, c->context, cosine, sine, 0, y};
        tv_quantize_rows_args quantize = {rows, c->width, 127, y, q, scale, fault};
        st = b->norm(&norm, NULL);
        if (st == TV_OK && turn)
            st = b->rotary(&rotary, NULL);
        if (st == TV_OK)
            st = b->quantize_rows(&quantize, NULL);
    }
    op_end(&call, st);
    return r;
}

static void same_result(const op_backend *on, const head_case *c, const head_result *want, const head_result *got)
{
    int64_t rows = c->tokens * c->heads;
    op_same("q", on, want->q, got->q, (size_t)(rows * c->width));
    op_same("scale", on, want->scale, got->scale, (size_t)rows * 4);
    op_same("saved q", on, want->saved_q, got->saved_q, (size_t)(rows * c->width));
    op_same("saved scale", on, want->saved_scale, got->saved_scale, (size_t)rows * 4);
    op_same_floats("rstd", on, want->saved_rstd, got->saved_rstd, rows);
    assert_int_equal(want->fault, got->fault);
}

// The op, and the ops that it is made of, on this backend: the bits of the latter on ref.
static void check_forward(const op_backend *on, const head_case *c, int turn)
{
    head_result want = run(op_ref(), c, turn, 0), got = run(on, c, turn, 1), parts = run(on, c, turn, 0);
    same_result(on, c, &want, &got);
    same_result(on, c, &want, &parts);
}

static const int64_t widths[] = {0,   1,   2,   5,   31,  32,  33,  63,   64,   65,   96,  128,
                                 160, 192, 256, 288, 512, 513, 544, 1024, 1440, 2880, 3072};
#define WIDTHS (int)(sizeof widths / sizeof *widths)

static void check_norm(const op_backend *on)
{
    op_random random = {101, 0};
    for (int i = 0; i < 2 * WIDTHS; i += op_stride()) {
        int64_t width = widths[i % WIDTHS];
        head_case c = random_case(&random, i == WIDTHS / 2 ? 0 : op_int(&random, 1, 40), 1, width);
        check_forward(on, &c, 0);
    }
    head_case large = random_case(&random, OP_LARGE_ROWS, 1, 512);
    check_forward(on, &large, 0);
}

static void test_norm_quantize(void **state)
{
    (void)state;
    op_on_each(check_norm);
    op_against_ref(check_norm);
}

// Heads of each width; a case of many tokens last.
static void check_heads(const op_backend *on)
{
    op_random random = {102, 0};
    for (int i = 0; i < 2 * WIDTHS; i += op_stride()) {
        int64_t width = widths[i % WIDTHS] % 300;
        head_case c = random_case(&random, op_int(&random, 0, 20), op_int(&random, 1, 9), width);
        check_forward(on, &c, 1);
    }
    head_case large = random_case(&random, OP_LARGE_ROWS, 8, 64);
    check_forward(on, &large, 1);
}

static void test_heads(void **state)
{
    (void)state;
    op_on_each(check_heads);
    op_against_ref(check_heads);
}

static float *run_back(const op_backend *on, const head_case *c, const head_result *saved, int fused)
{
    const tv_backend *b = on->backend;
    int64_t rows = c->tokens * c->heads;
    size_t items = (size_t)(rows * c->width), table = (size_t)(c->context * (c->width / 2)) * 4;
    float *dx = op_host_copy(c->x, items * 4);
    op_call call = op_begin(on);
    const float *cosine = op_in(&call, c->cosine, table), *sine = op_in(&call, c->sine, table);
    const int8_t *w8 = op_in(&call, c->w8, (size_t)c->width), *q = op_in(&call, saved->saved_q, items);
    const float *scale = op_in(&call, saved->saved_scale, (size_t)rows * 4),
                *rstd = op_in(&call, saved->saved_rstd, (size_t)rows * 4);
    float *out = op_out(&call, dx, items * 4);
    tv_heads_backward_args a = {c->tokens, c->heads, c->width, c->context, w8,   c->exponent,
                                cosine,    sine,     q,        scale,      rstd, out};
    tv_rotary_args turn = {c->tokens, c->heads, c->width, c->context, cosine, sine, 1, out};
    tv_norm_backward_args norm = {rows, c->width, out, w8, c->exponent, 0, q, scale, rstd, out};
    tv_status st = fused ? b->heads_backward(&a, NULL) : b->rotary(&turn, NULL);
    if (!fused && st == TV_OK)
        st = b->norm_backward(&norm, NULL);
    op_end(&call, st);
    return dx;
}

static void check_backward(const op_backend *on)
{
    op_random random = {103, 0};
    for (int i = 0; i < 2 * WIDTHS + 1; i += op_stride()) {
        int64_t tokens = i == 2 * WIDTHS ? OP_LARGE_ROWS : op_int(&random, 0, 20), heads = op_int(&random, 1, 9);
        head_case c = random_case(&random, tokens, heads, i == 2 * WIDTHS ? 64 : widths[i % WIDTHS] % 300);
        c.evaluation = 0;
        head_result saved = run(op_ref(), &c, 1, 1);
        float *want = run_back(op_ref(), &c, &saved, 0);
        op_same_floats("dx", on, want, run_back(on, &c, &saved, 1), tokens * heads * c.width);
        op_same_floats("dx op by op", on, want, run_back(on, &c, &saved, 0), tokens * heads * c.width);
    }
}

static void test_backward(void **state)
{
    (void)state;
    op_on_each(check_backward);
    op_against_ref(check_backward);
}

// norm_backward over rows of whole 32 elements, with and without accumulation: the widths that kernels keep in registers and beyond.
static void check_norm_backward(const op_backend *on)
{
    op_random random = {104, 0};
    for (int i = 0; i < 2 * WIDTHS; i += op_stride()) {
        head_case c = random_case(&random, op_int(&random, 1, 20), 1, widths[i % WIDTHS]);
        int64_t items = c.tokens * c.width;
        c.evaluation = 0;
        head_result saved = run(op_ref(), &c, 0, 1);
        float *start = op_floats(&random, items, 1.0f), *out[2];
        for (int ours = 0; ours < 2; ours++) {
            const op_backend *where = ours ? on : op_ref();
            out[ours] = op_host_copy(start, (size_t)items * 4);
            op_call call = op_begin(where);
            tv_norm_backward_args a = {.rows = c.tokens, .cols = c.width, .exponent = c.exponent, .accumulate = i % 2};
            a.dy = op_in(&call, c.x, (size_t)items * 4);
            a.w8 = op_in(&call, c.w8, (size_t)c.width);
            a.saved_q = op_in(&call, saved.saved_q, (size_t)items);
            a.saved_scale = op_in(&call, saved.saved_scale, (size_t)c.tokens * 4);
            a.saved_rstd = op_in(&call, saved.saved_rstd, (size_t)c.tokens * 4);
            a.dx = op_out(&call, out[ours], (size_t)items * 4);
            op_end(&call, where->backend->norm_backward(&a, NULL));
        }
        op_same_floats("dx", on, out[0], out[1], items);
    }
}

static void test_norm_backward(void **state)
{
    (void)state;
    op_against_ref(check_norm_backward);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_norm_quantize), cmocka_unit_test(test_heads),
                                       cmocka_unit_test(test_backward), cmocka_unit_test(test_norm_backward)};
    return op_run("op_heads", tests);
}
