// The experts' products, quantisation by segment and votes, against the ops of plain layers on each segment alone.
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
        op_same("columns", on, qt, moe_columns(&c->rows, s, y->qt, c->channels), (size_t)(n * c->channels));
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

// The fewest runs that moe_vote may be told: in each one every expert comes once at most.
static int64_t fewest_runs(const moe_case *rows)
{
    for (int64_t runs = 1; runs < rows->segment_count; runs++) {
        int64_t each = rows->segment_count / runs, twice = rows->segment_count % runs;
        for (int64_t i = 0; i < rows->segment_count; i++)
            for (int64_t j = i - i % each; j < i; j++)
                twice += rows->segments[i].expert == rows->segments[j].expert;
        if (!twice)
            return runs;
    }
    return rows->segment_count > 0 ? rows->segment_count : 1;
}

static void *run_vote(const op_backend *on, const vote_case *c, void *votes)
{
    int64_t columns = c->rows.columns;
    op_call call = op_begin(on);
    tv_moe_vote_args a = {.segment_count = c->rows.segment_count,
                          .columns = columns,
                          .runs = fewest_runs(&c->rows),
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

// With one level: each segment's gemm_vote. Draws of more levels count elements of the whole stack: add_stack_votes.
static void add_plain_votes(const vote_case *c, void *votes)
{
    for (int64_t i = 0; i < c->rows.segment_count; i++) {
        const tv_segment *s = &c->rows.segments[i];
        char *own = (char *)votes + s->expert * c->n * c->k * (c->rule.vote_bits / 8);
        tv_gemm_vote_args a = {.n = c->n,
                               .k = c->k,
                               .tokens = s->tokens,
                               .gt = moe_columns(&c->rows, s, c->g.qt, c->n),
                               .xt = moe_columns(&c->rows, s, c->x.qt, c->k),
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

// Any level: a gemm_vote of the whole stack, whose rows of other experts are zeros and vote nothing.
static void add_stack_votes(const vote_case *c, void *votes)
{
    int64_t bytes = c->rule.vote_bits / 8, before = c->first_expert * c->n, n = before + c->rows.experts * c->n;
    char *all = op_host((size_t)(n * c->k * bytes));
    memcpy(all + before * c->k * bytes, votes, (size_t)((n - before) * c->k * bytes));
    for (int64_t i = 0; i < c->rows.segment_count; i++) {
        const tv_segment *s = &c->rows.segments[i];
        int64_t own = before + s->expert * c->n;
        int8_t *gt = op_host((size_t)(n * s->tokens) + 1);
        int32_t *g_sumsq = op_host((size_t)n * 4);
        memcpy(gt + own * s->tokens, moe_columns(&c->rows, s, c->g.qt, c->n), (size_t)(c->n * s->tokens));
        memcpy(g_sumsq + own, c->g.sumsq + i * c->n, (size_t)c->n * 4);
        tv_gemm_vote_args a = {.n = n,
                               .k = c->k,
                               .tokens = s->tokens,
                               .gt = gt,
                               .xt = moe_columns(&c->rows, s, c->x.qt, c->k),
                               .g_sumsq = g_sumsq,
                               .x_sumsq = c->x.sumsq + i * c->k,
                               .rule = c->rule,
                               .votes = all};
        a.rule.unit = (uint32_t)s->unit;
        assert_int_equal(op_ref()->backend->gemm_vote(&a, NULL), TV_OK);
    }
    memcpy(votes, all + before * c->k * bytes, (size_t)((n - before) * c->k * bytes));
}

static void check_vote_draws(const op_backend *on)
{
    op_random random = {326, 0};
    for (int i = 0; i < 60; i += op_stride()) {
        vote_case c = random_vote(&random, 60, op_int(&random, 1, 9), op_int(&random, 1, 21));
        size_t bytes = (size_t)(c.rows.experts * c.n * c.k) * (size_t)(c.rule.vote_bits / 8);
        void *start = op_int8s(&random, (int64_t)bytes, -9, 9), *want = op_host_copy(start, bytes);
        add_stack_votes(&c, want);
        op_same("votes of the stack", on, want, run_vote(on, &c, op_host_copy(start, bytes)), bytes);
    }
}

static void test_vote_draws(void **state)
{
    (void)state;
    op_on_each(check_vote_draws);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_product), cmocka_unit_test(test_channels),
                                       cmocka_unit_test(test_vote), cmocka_unit_test(test_vote_draws)};
    return op_run("op_moe_experts", tests);
}
