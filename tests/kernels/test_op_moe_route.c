// Which experts a token goes to, and where its rows lie.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "op_test.h"

// ---- routing -------------------------------------------------------------------------------------------------------------

typedef struct route_case {
    int64_t tokens, experts;
    int slots;
    float *logits, *grad;
    int16_t *bias;
    // results
    int32_t *expert, fault;
    float *gate, *back;
    int64_t *counts;
} route_case;

static route_case random_route(op_random *random, int64_t tokens)
{
    route_case c = {.tokens = tokens, .experts = op_int(random, 1, 5) == 1 ? 130 : op_int(random, 1, 12)};
    c.slots = op_int(random, 1, c.experts < 5 ? (int)c.experts : 5);
    c.logits = op_floats(random, tokens * c.experts, 3.0f);
    c.grad = op_floats(random, tokens * c.slots, 2.0f);
    c.bias = op_host((size_t)c.experts * 2);
    int coarse = op_int(random, 0, 1); // many ties
    for (int64_t i = 0; coarse && i < tokens * c.experts; i++)
        c.logits[i] = rintf(c.logits[i]) * 0.5f;
    for (int64_t e = 0; e < c.experts; e++)
        c.bias[e] = (int16_t)(coarse ? 512 * op_int(random, -2, 2) : op_int(random, -900, 900));
    c.expert = op_host((size_t)(tokens * c.slots) * 4);
    c.gate = op_host((size_t)(tokens * c.slots) * 4);
    c.back = op_host((size_t)(tokens * c.experts) * 4);
    c.counts = op_host((size_t)c.experts * 8);
    return c;
}

static route_case run_route(const op_backend *on, const route_case *from)
{
    route_case c = *from;
    size_t pairs = (size_t)(c.tokens * c.slots) * 4, all = (size_t)(c.tokens * c.experts) * 4;
    c.expert = op_host_copy(from->expert, pairs);
    c.gate = op_host_copy(from->gate, pairs);
    c.back = op_host_copy(from->back, all);
    c.counts = op_host_copy(from->counts, (size_t)c.experts * 8);
    op_call call = op_begin(on);
    tv_moe_route_args a = {.tokens = c.tokens, .experts = c.experts, .slots = c.slots};
    a.logits = op_in(&call, c.logits, all);
    a.bias = op_in(&call, c.bias, (size_t)c.experts * 2);
    a.expert = op_out(&call, c.expert, pairs);
    a.gate = op_out(&call, c.gate, pairs);
    a.counts = op_out(&call, c.counts, (size_t)c.experts * 8);
    a.fault = op_out(&call, &c.fault, 4);
    op_end(&call, on->backend->moe_route(&a, NULL));
    op_call back = op_begin(on);
    tv_moe_route_backward_args b = {.tokens = c.tokens, .experts = c.experts, .slots = c.slots};
    b.expert = op_in(&back, c.expert, pairs);
    b.gate = op_in(&back, c.gate, pairs);
    b.grad = op_in(&back, c.grad, pairs);
    b.logits = op_out(&back, c.back, all);
    op_end(&back, on->backend->moe_route_backward(&b, NULL));
    return c;
}

// No expert outside the choice comes before one inside it; gates are the softmax, gradients its derivative.
static void check_route_token(const route_case *c, int64_t t)
{
    const float *logits = c->logits + t * c->experts, *gate = c->gate + t * c->slots;
    const int32_t *expert = c->expert + t * c->slots;
    double sum = 0, mean = 0;
    int chosen[130] = {0};
    for (int j = 0; j < c->slots; j++) {
        sum += exp((double)logits[expert[j]]);
        assert_false(chosen[expert[j]]);
        float s = logits[expert[j]] + (float)c->bias[expert[j]] / 1024.0f;
        chosen[expert[j]] = 1;
        for (int32_t e = 0; e < c->experts; e++) {
            float other = logits[e] + (float)c->bias[e] / 1024.0f;
            assert_true(chosen[e] || other < s || (other == s && e > expert[j]));
        }
    }
    for (int j = 0; j < c->slots; j++) {
        op_near("gate", exp((double)logits[expert[j]]) / sum, (double)gate[j], 1e-6);
        mean += (double)gate[j] * (double)c->grad[t * c->slots + j];
    }
    for (int32_t e = 0; e < c->experts; e++) {
        double want = 0;
        for (int j = 0; j < c->slots; j++)
            want += expert[j] == e ? (double)gate[j] * ((double)c->grad[t * c->slots + j] - mean) : 0;
        op_near("logit gradient", want, (double)c->back[t * c->experts + e], 1e-6);
    }
}

static void check_route(const op_backend *on)
{
    op_random random = {301, 0};
    for (int i = 0; i < 60; i++) {
        route_case from = random_route(&random, op_int(&random, 0, 40)), c = run_route(on, &from);
        int64_t counted = 0;
        for (int64_t e = 0; e < c.experts; e++)
            counted += c.counts[e];
        assert_int_equal(counted, c.tokens * c.slots);
        assert_int_equal(c.fault, 0);
        for (int64_t t = 0; t < c.tokens; t++)
            check_route_token(&c, t);
    }
}

static void test_route(void **state)
{
    (void)state;
    op_on_each(check_route);
}

static void check_route_bits(const op_backend *on)
{
    op_random random = {302, 0};
    static const float special[] = {INFINITY, -INFINITY, NAN};
    for (int i = 0; i < 80; i++) {
        route_case from = random_route(&random, i == 0 ? 3000 : op_size(&random));
        int bad = i % 3 == 0 && from.tokens > 0;
        int64_t at = bad ? op_int(&random, 0, (int)(from.tokens * from.experts) - 1) : 0;
        if (bad)
            from.logits[at] = special[i / 3 % 3];
        route_case want = run_route(op_ref(), &from), got = run_route(on, &from);
        size_t pairs = (size_t)(from.tokens * from.slots) * 4;
        assert_int_equal(want.fault, bad);
        for (int64_t j = 0, t = at / from.experts; bad && j < from.slots; j++) {
            assert_int_equal(want.expert[t * from.slots + j], j);
            assert_true(want.gate[t * from.slots + j] == 0.0f);
        }
        op_same("fault", on, &want.fault, &got.fault, 4);
        op_same("experts", on, want.expert, got.expert, pairs);
        op_same("gates", on, want.gate, got.gate, pairs);
        op_same("counts", on, want.counts, got.counts, (size_t)from.experts * 8);
        op_same("logit gradients", on, want.back, got.back, (size_t)(from.tokens * from.experts) * 4);
    }
}

static void test_route_bits(void **state)
{
    (void)state;
    op_against_ref(check_route_bits);
}

// ---- plan ----------------------------------------------------------------------------------------------------------------

typedef struct plan_case {
    int64_t tokens, experts, rows;
    int slots, dense;
    int32_t *expert, *place, *item, fault;
    tv_segment *segments;
} plan_case;

static plan_case random_plan(op_random *random, int64_t tokens)
{
    plan_case c = {.tokens = tokens, .experts = op_int(random, 1, 4) == 1 ? 200 : op_int(random, 1, 9)};
    int lonely = op_int(random, 0, 3) == 0; // all tokens take the last experts
    c.slots = op_int(random, 1, c.experts < 4 ? (int)c.experts : 4);
    c.dense = op_int(random, 0, 1);
    c.rows = tokens * (c.dense ? c.experts : c.slots);
    c.expert = op_host((size_t)(tokens * c.slots) * 4);
    for (int64_t t = 0; t < tokens; t++) {
        int first = lonely ? (int)c.experts - c.slots : op_int(random, 0, (int)c.experts - 1);
        for (int j = 0; j < c.slots; j++)
            c.expert[t * c.slots + j] = (int32_t)((first + j) % c.experts);
    }
    c.place = op_host((size_t)(tokens * c.slots) * 4);
    c.item = op_host((size_t)c.rows * 4);
    c.segments = op_host((size_t)c.experts * sizeof *c.segments);
    return c;
}

static plan_case run_plan(const op_backend *on, const plan_case *from)
{
    plan_case c = *from;
    size_t pairs = (size_t)(c.tokens * c.slots) * 4, segments = (size_t)c.experts * sizeof *c.segments;
    c.place = op_host_copy(from->place, pairs);
    c.item = op_host_copy(from->item, (size_t)c.rows * 4);
    c.segments = op_host_copy(from->segments, segments);
    op_call call = op_begin(on);
    tv_moe_plan_args a = {.tokens = c.tokens, .experts = c.experts, .slots = c.slots, .dense = c.dense, .unit = 7};
    a.expert = op_in(&call, c.expert, pairs);
    a.place = op_out(&call, c.place, pairs);
    a.item = op_out(&call, c.item, (size_t)c.rows * 4);
    a.segments = op_out(&call, c.segments, segments);
    a.fault = op_out(&call, &c.fault, 4);
    op_end(&call, on->backend->moe_plan(&a, NULL));
    return c;
}

// Each pair has a row of its own inside its expert's segment, in the order of the pairs.
static void check_plan(const op_backend *on)
{
    op_random random = {303, 0};
    for (int i = 0; i < 60; i++) {
        plan_case from = random_plan(&random, op_int(&random, 1, 60)), c = run_plan(on, &from);
        int64_t first = 0, padded = 0, tokens = 0;
        assert_int_equal(c.fault, 0);
        for (int64_t e = 0; e < c.experts; e++) {
            const tv_segment *s = &c.segments[e];
            assert_int_equal(s->first, first);
            assert_int_equal(s->padded, padded);
            assert_int_equal(s->expert, e);
            assert_int_equal(s->unit, 7);
            assert_true(c.dense ? s->rows == c.tokens : s->rows == s->tokens);
            first += s->rows;
            padded += (s->rows + 127) / 128 * 128;
            tokens += s->tokens;
        }
        assert_int_equal(first, c.rows);
        assert_int_equal(tokens, c.tokens * c.slots);
        for (int64_t p = 0; p < c.tokens * c.slots; p++) {
            const tv_segment *s = &c.segments[c.expert[p]];
            assert_in_range(c.place[p], s->first, s->first + s->rows - 1);
            assert_int_equal(c.item[c.place[p]], p);
        }
        for (int64_t r = 0; r + 1 < c.rows; r++)
            for (int64_t e = 0; !c.dense && e < c.experts; e++)
                if (r >= c.segments[e].first && r + 1 < c.segments[e].first + c.segments[e].rows)
                    assert_true(c.item[r] < c.item[r + 1]);
        for (int64_t r = 0; c.dense && r < c.rows; r++)
            assert_true(c.item[r] < 0 ? -c.item[r] - 1 == r % c.tokens : c.item[r] / c.slots == r % c.tokens);
    }
}

static void test_plan(void **state)
{
    (void)state;
    op_on_each(check_plan);
}

static void check_plan_bits(const op_backend *on)
{
    op_random random = {304, 0};
    for (int i = 0; i < 60; i++) {
        plan_case from = random_plan(&random, i == 0 ? 20000 : i == 1 ? 3001 : op_size(&random));
        if (i % 5 == 4 && from.tokens > 0)
            from.expert[op_int(&random, 0, (int)(from.tokens * from.slots) - 1)] = i % 2 ? -1 : (int32_t)from.experts;
        plan_case want = run_plan(op_ref(), &from), got = run_plan(on, &from);
        op_same("fault", on, &want.fault, &got.fault, 4);
        if (want.fault)
            continue; // two pairs of a token may then share an expert, and a dense row
        op_same("places", on, want.place, got.place, (size_t)(from.tokens * from.slots) * 4);
        op_same("items", on, want.item, got.item, (size_t)from.rows * 4);
        op_same("segments", on, want.segments, got.segments, (size_t)from.experts * sizeof *from.segments);
    }
}

static void test_plan_bits(void **state)
{
    (void)state;
    op_against_ref(check_plan_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_route), cmocka_unit_test(test_route_bits),
                                       cmocka_unit_test(test_plan), cmocka_unit_test(test_plan_bits)};
    return op_run("op_moe_route", tests);
}
