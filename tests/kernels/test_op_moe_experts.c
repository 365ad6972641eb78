// The experts' products, quantisation by segment and activation, against the ops of plain layers on each segment alone.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "moe_case.h"

// ---- products ------------------------------------------------------------------------------------------------------------

typedef struct product_case {
    moe_case rows;
    int64_t n, reduce;
    int exponent;
    int8_t *a, *b;
    float *scale;
} product_case;

static product_case random_product(op_random *random, int most, int64_t n, int64_t reduce)
{
    product_case c = {
        .rows = moe_random_case(random, most), .n = n, .reduce = reduce, .exponent = op_int(random, -9, 3)};
    c.a = op_int8s(random, c.rows.rows * reduce, -127, 127);
    c.b = op_int8s(random, c.rows.experts * n * reduce, -127, 127);
    c.scale = op_floats(random, c.rows.rows, 0.1f);
    return c;
}

static float *run_product(const op_backend *on, const product_case *c)
{
    size_t values = (size_t)(c->rows.rows * c->n) * 4;
    float *y = op_host(values);
    op_call call = op_begin(on);
    tv_moe_gemm_args a = {.segment_count = c->rows.segment_count,
                          .rows = c->rows.rows,
                          .n = c->n,
                          .reduce = c->reduce,
                          .exponent = c->exponent};
    a.segments = moe_in(&call, &c->rows);
    a.a = op_in(&call, c->a, (size_t)(c->rows.rows * c->reduce));
    a.b = op_in(&call, c->b, (size_t)(c->rows.experts * c->n * c->reduce));
    a.scale = op_in(&call, c->scale, (size_t)c->rows.rows * 4);
    a.y = op_out(&call, y, values);
    op_end(&call, on->backend->moe_gemm(&a, NULL));
    return y;
}

// ref: each segment is a gemm, and rows of no segment stay as they are.
static void check_product(const op_backend *on)
{
    op_random random = {321, 0};
    for (int i = 0; i < 60; i += op_stride()) {
        product_case c = i < 2 ? random_product(&random, OP_LARGE_ROWS, 272 + i, 496 - 3 * i)
                               : random_product(&random, 140, op_size(&random), op_size(&random));
        float *want = op_host((size_t)(c.rows.rows * c.n) * 4), *got = run_product(on, &c);
        for (int64_t s = 0; s < c.rows.segment_count; s++) {
            const tv_segment *segment = &c.rows.segments[s];
            tv_gemm_args a = {.m = segment->rows,
                              .n = c.n,
                              .reduce = c.reduce,
                              .a = c.a + segment->first * c.reduce,
                              .b = c.b + segment->expert * c.n * c.reduce,
                              .scale = c.scale + segment->first,
                              .exponent = c.exponent,
                              .y = want + segment->first * c.n};
            assert_int_equal(op_ref()->backend->gemm(&a, NULL), TV_OK);
        }
        op_same_floats("products", on, want, got, c.rows.rows * c.n);
    }
}

static void test_product(void **state)
{
    (void)state;
    op_on_each(check_product);
    op_against_ref(check_product);
}

// ---- channels and votes ----------------------------------------------------------------------------------------------------

typedef struct channels_result {
    int8_t *qt;
    int32_t *sumsq, fault;
} channels_result;

typedef struct channels_case {
    moe_case rows;
    int64_t channels;
    int8_t *q;
    float *scale;
} channels_case;

static channels_case random_channels(op_random *random, const moe_case *rows, int64_t channels)
{
    channels_case c = {.rows = *rows, .channels = channels};
    c.q = op_int8s(random, rows->rows * channels, -121, 121);
    c.scale = op_floats(random, rows->rows, 0.1f);
    for (int64_t r = 0; r < rows->rows; r++)
        c.scale[r] = op_int(random, 0, 9) == 0 ? 0.0f : fabsf(c.scale[r]);
    return c;
}

static channels_result run_channels(const op_backend *on, const channels_case *c)
{
    const moe_case *rows = &c->rows;
    size_t values = (size_t)(c->channels * rows->columns), sums = (size_t)(rows->segment_count * c->channels) * 4;
    channels_result y = {op_host(values), op_host(sums), 0};
    op_call call = op_begin(on);
    tv_moe_channels_args a = {
        .segment_count = rows->segment_count, .rows = rows->rows, .channels = c->channels, .columns = rows->columns};
    a.segments = moe_in(&call, rows);
    a.q = op_in(&call, c->q, (size_t)(rows->rows * c->channels));
    a.scale = op_in(&call, c->scale, (size_t)rows->rows * 4);
    a.item = op_in(&call, rows->item, (size_t)rows->rows * 4);
    a.qt = op_out(&call, y.qt, values);
    a.sumsq = op_out(&call, y.sumsq, sums);
    a.fault = op_out(&call, &y.fault, 4);
    op_end(&call, on->backend->moe_channels(&a, NULL));
    return y;
}

// One segment's columns of a transposed array [channels, columns] as an array of its own, [channels, rows that count].
static int8_t *segment_columns(const moe_case *rows, const tv_segment *s, const int8_t *qt, int64_t channels)
{
    int8_t *own = op_host((size_t)(channels * s->tokens) + 1);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t r = 0, at = 0; r < s->rows; r++)
            if (!rows->item || rows->item[s->first + r] >= 0)
                own[c * s->tokens + at++] = qt[c * rows->columns + s->padded + r];
    return own;
}

// Each segment as quantize_channels of the rows that count; the others and the pads are zeros.
static void check_channels_of(const op_backend *on, const channels_case *c, const channels_result *y)
{
    for (int64_t i = 0; i < c->rows.segment_count; i++) {
        const tv_segment *s = &c->rows.segments[i];
        int64_t n = s->tokens, at = 0;
        int8_t *q = op_host((size_t)(n * c->channels) + 1), *qt = op_host((size_t)(n * c->channels) + 1);
        float *scale = op_host((size_t)n * 4);
        int32_t *sumsq = op_host((size_t)c->channels * 4), fault = 0;
        for (int64_t r = s->first; r < s->first + s->rows; r++)
            if (!c->rows.item || c->rows.item[r] >= 0) {
                memcpy(q + at * c->channels, c->q + r * c->channels, (size_t)c->channels);
                scale[at++] = c->scale[r];
            }
        tv_quantize_channels_args a = {.tokens = n, .channels = c->channels, .q = q, .scale = scale};
        a.qt = qt, a.sumsq = sumsq, a.fault = &fault;
        assert_int_equal(op_ref()->backend->quantize_channels(&a, NULL), TV_OK);
        op_same("columns", on, qt, segment_columns(&c->rows, s, y->qt, c->channels), (size_t)(n * c->channels));
        op_same("squares", on, sumsq, y->sumsq + i * c->channels, (size_t)c->channels * 4);
        for (int64_t k = 0; k < c->channels; k++)
            for (int64_t r = 0; r < (s->rows + 127) / 128 * 128; r++)
                if (r >= s->rows || (c->rows.item && c->rows.item[s->first + r] < 0))
                    assert_int_equal(y->qt[k * c->rows.columns + s->padded + r], 0);
    }
}

static void check_channels(const op_backend *on)
{
    op_random random = {322, 0};
    for (int i = 0; i < 60; i += op_stride()) {
        moe_case rows = moe_random_case(&random, i < 2 ? OP_LARGE_ROWS : 150);
        channels_case c = random_channels(&random, &rows, i < 2 ? 320 + i : op_size(&random));
        if (i % 4 == 3 && rows.rows > 0)
            c.scale[op_int(&random, 0, (int)rows.rows - 1)] = INFINITY;
        channels_result y = run_channels(on, &c), want = run_channels(op_ref(), &c);
        op_same("fault", on, &want.fault, &y.fault, 4);
        op_same("columns", on, want.qt, y.qt, (size_t)(c.channels * rows.columns));
        op_same("squares", on, want.sumsq, y.sumsq, (size_t)(rows.segment_count * c.channels) * 4);
        check_channels_of(on, &c, &y);
    }
}

static void test_channels(void **state)
{
    (void)state;
    op_on_each(check_channels);
    op_against_ref(check_channels);
}

typedef struct vote_case {
    moe_case rows;
    int64_t n, k;
    int32_t first_expert;
    channels_result g, x;
    tv_vote_rule rule;
} vote_case;

static vote_case random_vote(op_random *random, int most, int64_t n, int64_t k)
{
    static const int levels[] = {1, 3, 7, 15};
    vote_case c = {.rows = moe_random_case(random, most), .n = n, .k = k, .first_expert = op_int(random, 0, 9)};
    channels_case g = random_channels(random, &c.rows, n), x = random_channels(random, &c.rows, k);
    c.g = run_channels(op_ref(), &g);
    c.x = run_channels(op_ref(), &x);
    c.rule = (tv_vote_rule){.tau = 0.5f,
                            .levels = levels[op_int(random, 0, 3)],
                            .vote_bits = op_int(random, 0, 1) ? 8 : 16,
                            .seed = op_next(random),
                            .tensor_id = op_next(random),
                            .step = op_next(random)};
    return c;
}

static void *run_vote(const op_backend *on, const vote_case *c, void *votes)
{
    int64_t columns = c->rows.columns;
    op_call call = op_begin(on);
    tv_moe_vote_args a = {.segment_count = c->rows.segment_count,
                          .columns = columns,
                          .runs = c->rows.segment_count > 0 ? c->rows.segment_count : 1,
                          .n = c->n,
                          .k = c->k,
                          .first_expert = c->first_expert,
                          .rule = c->rule};
    a.segments = moe_in(&call, &c->rows);
    a.gt = op_in(&call, c->g.qt, (size_t)(c->n * columns));
    a.xt = op_in(&call, c->x.qt, (size_t)(c->k * columns));
    a.g_sumsq = op_in(&call, c->g.sumsq, (size_t)(c->rows.segment_count * c->n) * 4);
    a.x_sumsq = op_in(&call, c->x.sumsq, (size_t)(c->rows.segment_count * c->k) * 4);
    a.votes = op_out(&call, votes, (size_t)(c->rows.experts * c->n * c->k) * (size_t)(c->rule.vote_bits / 8));
    op_end(&call, on->backend->moe_vote(&a, NULL));
    return votes;
}

// With one level: each segment's gemm_vote. Draws of more levels count elements of the whole stack, so there the backends are
// only compared with ref.
static void add_plain_votes(const vote_case *c, void *votes)
{
    for (int64_t i = 0; i < c->rows.segment_count; i++) {
        const tv_segment *s = &c->rows.segments[i];
        char *own = (char *)votes + s->expert * c->n * c->k * (c->rule.vote_bits / 8);
        tv_gemm_vote_args a = {.n = c->n,
                               .k = c->k,
                               .tokens = s->tokens,
                               .gt = segment_columns(&c->rows, s, c->g.qt, c->n),
                               .xt = segment_columns(&c->rows, s, c->x.qt, c->k),
                               .g_sumsq = c->g.sumsq + i * c->n,
                               .x_sumsq = c->x.sumsq + i * c->k,
                               .rule = c->rule,
                               .votes = own};
        assert_int_equal(op_ref()->backend->gemm_vote(&a, NULL), TV_OK);
    }
}

static void check_vote(const op_backend *on)
{
    op_random random = {323, 0};
    for (int i = 0; i < 60; i += op_stride()) {
        vote_case c = i < 2 ? random_vote(&random, 1500, 288, 160 + i)
                            : random_vote(&random, 150, op_size(&random), op_size(&random));
        size_t bytes = (size_t)(c.rows.experts * c.n * c.k) * (size_t)(c.rule.vote_bits / 8);
        void *start = op_int8s(&random, (int64_t)bytes, -9, 9), *want = op_host_copy(start, bytes);
        void *got = run_vote(on, &c, op_host_copy(start, bytes));
        op_same("votes", on, run_vote(op_ref(), &c, op_host_copy(start, bytes)), got, bytes);
        if (c.rule.levels > 1)
            continue;
        add_plain_votes(&c, want);
        op_same("plain votes", on, want, got, bytes);
    }
}

static void test_vote(void **state)
{
    (void)state;
    op_on_each(check_vote);
    op_against_ref(check_vote);
}

// ---- activation ------------------------------------------------------------------------------------------------------------

typedef struct activate_result {
    int8_t *saved_q, *q, *dq, *dt;
    float *saved_scale, *scale, *dscale;
    int32_t *sumsq, fault;
} activate_result;

typedef struct activate_case {
    moe_case rows;
    int64_t width;
    int qmax;
    float *gu;
    int8_t *gradient;
    float *gradient_scale;
} activate_case;

static activate_result run_activate(const op_backend *on, const activate_case *c, int evaluation)
{
    const moe_case *rows = &c->rows;
    size_t items = (size_t)(rows->rows * c->width), scales = (size_t)rows->rows * 4;
    activate_result y = {.saved_q = op_host(2 * items), .q = op_host(items), .saved_scale = op_host(2 * scales)};
    y.scale = op_host(scales);
    op_call call = op_begin(on);
    tv_moe_activate_args a = {
        .segment_count = rows->segment_count, .rows = rows->rows, .width = c->width, .qmax = c->qmax};
    a.segments = moe_in(&call, rows);
    a.gu = op_in(&call, c->gu, 8 * items);
    a.saved_q = op_out(&call, evaluation ? NULL : y.saved_q, 2 * items);
    a.saved_scale = op_out(&call, evaluation ? NULL : y.saved_scale, 2 * scales);
    a.q = op_out(&call, y.q, items);
    a.scale = op_out(&call, y.scale, scales);
    a.fault = op_out(&call, &y.fault, 4);
    op_end(&call, on->backend->moe_activate(&a, NULL));
    return y;
}

static void run_activate_backward(const op_backend *on, const activate_case *c, activate_result *y)
{
    const moe_case *rows = &c->rows;
    size_t items = (size_t)(rows->rows * c->width), scales = (size_t)rows->rows * 4;
    size_t turned = (size_t)(2 * c->width * rows->columns), sums = (size_t)(rows->segment_count * 2 * c->width) * 4;
    y->dq = op_host(2 * items), y->dscale = op_host(scales), y->dt = op_host(turned), y->sumsq = op_host(sums);
    op_call call = op_begin(on);
    tv_moe_activate_backward_args a = {
        .segment_count = rows->segment_count, .rows = rows->rows, .width = c->width, .columns = rows->columns};
    a.segments = moe_in(&call, rows);
    a.q = op_in(&call, c->gradient, items);
    a.scale = op_in(&call, c->gradient_scale, scales);
    a.item = op_in(&call, rows->item, scales);
    a.saved_q = op_in(&call, y->saved_q, 2 * items);
    a.saved_scale = op_in(&call, y->saved_scale, 2 * scales);
    a.dq = op_out(&call, y->dq, 2 * items);
    a.dscale = op_out(&call, y->dscale, scales);
    a.dt = op_out(&call, y->dt, turned);
    a.sumsq = op_out(&call, y->sumsq, sums);
    a.fault = op_out(&call, &y->fault, 4);
    op_end(&call, on->backend->moe_activate_backward(&a, NULL));
}

static activate_case random_activate(op_random *random, int most, int64_t width)
{
    static const int qmax[] = {1, 4, 13, 40, 121};
    activate_case c = {.rows = moe_random_case(random, most), .width = width, .qmax = qmax[op_int(random, 0, 4)]};
    c.gu = op_floats(random, c.rows.rows * 2 * width, 5.0f);
    c.gradient = op_int8s(random, c.rows.rows * width, -40, 40);
    c.gradient_scale = op_floats(random, c.rows.rows, 0.1f);
    for (int64_t r = 0; r < c.rows.rows; r++)
        c.gradient_scale[r] = op_int(random, 0, 9) == 0 ? 0.0f : fabsf(c.gradient_scale[r]);
    return c;
}

// Row r by the ops that the activation is made of.
static void check_activated_row(const op_backend *on, const activate_case *c, const activate_result *y, int64_t r)
{
    const tv_backend *ref = op_ref()->backend;
    int64_t width = c->width;
    float *h = op_host((size_t)width * 4), *dh = op_host((size_t)width * 4), *dgu = op_host((size_t)width * 8),
          scale[3];
    int8_t *halves = op_host((size_t)(2 * width)), *q = op_host((size_t)width), *dq = op_host((size_t)(2 * width));
    int32_t fault = 0;
    tv_quantize_rows_args save = {2, width, 127, c->gu + r * 2 * width, halves, scale, &fault};
    tv_gate_args gate = {1, width, c->gu + r * 2 * width, h};
    tv_quantize_rows_args made = {1, width, c->qmax, h, q, scale + 2, &fault};
    assert_int_equal(ref->quantize_rows(&save, NULL) | ref->gate(&gate, NULL) | ref->quantize_rows(&made, NULL), TV_OK);
    op_same("halves", on, halves, y->saved_q + 2 * r * width, (size_t)(2 * width));
    op_same("their scales", on, scale, y->saved_scale + 2 * r, 8);
    op_same("h", on, q, y->q + r * width, (size_t)width);
    op_same("its scale", on, scale + 2, y->scale + r, 4);
    for (int64_t f = 0; f < width; f++)
        dh[f] = (float)c->gradient[r * width + f] * c->gradient_scale[r];
    tv_gate_backward_args back = {1, width, halves, scale, dh, dgu};
    tv_quantize_rows_args row = {1, 2 * width, 127, dgu, dq, scale + 2, &fault};
    assert_int_equal(ref->gate_backward(&back, NULL) | ref->quantize_rows(&row, NULL), TV_OK);
    op_same("gradient", on, dq, y->dq + 2 * r * width, (size_t)(2 * width));
    op_same("gradient's scale", on, scale + 2, y->dscale + r, 4);
}

// The transposed gradient of a segment, from dgu in float.
static void check_activated_channels(const op_backend *on, const activate_case *c, const activate_result *y, int64_t i)
{
    const tv_segment *s = &c->rows.segments[i];
    int64_t width = c->width, n = s->tokens, at = 0;
    float *dh = op_host((size_t)(n * width) * 4), *dgu = op_host((size_t)(n * width) * 8),
          *scale = op_host((size_t)n * 8);
    int8_t *halves = op_host((size_t)(2 * n * width) + 1), *qt = op_host((size_t)(2 * n * width) + 1);
    int32_t *sumsq = op_host((size_t)width * 8), fault = 0;
    for (int64_t r = s->first; r < s->first + s->rows; r++) {
        if (c->rows.item && c->rows.item[r] < 0)
            continue;
        memcpy(halves + 2 * at * width, y->saved_q + 2 * r * width, (size_t)(2 * width));
        memcpy(scale + 2 * at, y->saved_scale + 2 * r, 8);
        for (int64_t f = 0; f < width; f++)
            dh[at * width + f] = (float)c->gradient[r * width + f] * c->gradient_scale[r];
        at++;
    }
    tv_gate_backward_args back = {n, width, halves, scale, dh, dgu};
    tv_quantize_channels_args turn = {.tokens = n, .channels = 2 * width, .x = dgu, .qt = qt, .sumsq = sumsq};
    turn.fault = &fault;
    assert_int_equal(op_ref()->backend->gate_backward(&back, NULL), TV_OK);
    assert_int_equal(op_ref()->backend->quantize_channels(&turn, NULL), TV_OK);
    op_same("turned", on, qt, segment_columns(&c->rows, s, y->dt, 2 * width), (size_t)(2 * n * width));
    op_same("squares", on, sumsq, y->sumsq + i * 2 * width, (size_t)width * 8);
}

static void check_activate(const op_backend *on)
{
    op_random random = {324, 0};
    for (int i = 0; i < 50; i += op_stride()) {
        activate_case c = i < 2 ? random_activate(&random, OP_LARGE_ROWS, 256 + 3 * i)
                                : random_activate(&random, 140, op_size(&random));
        activate_result y = run_activate(on, &c, 0), evaluated = run_activate(on, &c, 1);
        size_t items = (size_t)(c.rows.rows * c.width);
        op_same("evaluation", on, y.q, evaluated.q, items);
        run_activate_backward(on, &c, &y);
        assert_int_equal(y.fault, 0);
        for (int64_t s = 0; c.width > 0 && s < c.rows.segment_count; s++) {
            const tv_segment *segment = &c.rows.segments[s];
            for (int64_t r = segment->first; r < segment->first + segment->rows; r++)
                check_activated_row(on, &c, &y, r);
            check_activated_channels(on, &c, &y, s);
        }
    }
}

static void test_activate(void **state)
{
    (void)state;
    op_on_each(check_activate);
}

static void check_activate_bits(const op_backend *on)
{
    op_random random = {325, 0};
    static const float special[] = {INFINITY, -INFINITY, NAN};
    for (int i = 0; i < 50; i += op_stride()) {
        activate_case c = i < 2 ? random_activate(&random, OP_LARGE_ROWS, 256 + 3 * i)
                                : random_activate(&random, 140, op_size(&random));
        size_t items = (size_t)(c.rows.rows * c.width), scales = (size_t)c.rows.rows * 4;
        if (i % 4 == 3 && items > 0)
            c.gu[op_int(&random, 0, (int)items * 2 - 1)] = special[i / 4 % 3];
        if (i % 8 == 7 && items > 0)
            c.gradient_scale[op_int(&random, 0, (int)c.rows.rows - 1)] = INFINITY;
        activate_result want = run_activate(op_ref(), &c, 0), got = run_activate(on, &c, 0);
        run_activate_backward(op_ref(), &c, &want);
        run_activate_backward(on, &c, &got);
        op_same("fault", on, &want.fault, &got.fault, 4);
        op_same("halves", on, want.saved_q, got.saved_q, 2 * items);
        op_same("their scales", on, want.saved_scale, got.saved_scale, 2 * scales);
        op_same("h", on, want.q, got.q, items);
        op_same("its scales", on, want.scale, got.scale, scales);
        op_same("gradient", on, want.dq, got.dq, 2 * items);
        op_same("gradient's scales", on, want.dscale, got.dscale, scales);
        op_same("turned", on, want.dt, got.dt, (size_t)(2 * c.width * c.rows.columns));
        op_same("squares", on, want.sumsq, got.sumsq, (size_t)(c.rows.segment_count * 2 * c.width) * 4);
    }
}

static void test_activate_bits(void **state)
{
    (void)state;
    op_against_ref(check_activate_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_product), cmocka_unit_test(test_channels),
                                       cmocka_unit_test(test_vote), cmocka_unit_test(test_activate),
                                       cmocka_unit_test(test_activate_bits)};
    return op_run("op_moe_experts", tests);
}
