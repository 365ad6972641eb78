// Every expert on every token (a dense plan) gives what the selected pairs alone give: a layer of experts both ways, forward and backward.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "op_test.h"

#define QMAX 13

typedef struct layer {
    int64_t tokens, experts, width, inner; // M, n_e, D, F
    int slots;
    int32_t *expert;
    float *gate, *x_scale, *dy_scale;
    int8_t *x, *w, *dy; // [M, D], [n_e, 2F, D], [M, F]
    tv_vote_rule rule;
} layer;

// A layer's rows under one plan, and what comes out.
typedef struct outcome {
    int64_t rows, columns;
    int32_t *place, *item, fault;
    tv_segment *segments;
    int8_t *x, *dy, *saved_q, *h, *dq, *dt, *xt;
    float *x_scale, *dy_scale, *gu, *saved_scale, *h_scale, *dscale, *sum;
    int32_t *x_sumsq, *d_sumsq;
    void *votes;
} outcome;

static layer random_layer(op_random *random, int64_t tokens)
{
    static const int levels[] = {1, 3, 7, 15};
    layer l = {.tokens = tokens, .experts = op_int(random, 1, 8), .width = op_int(random, 1, 70)};
    int lonely = op_int(random, 0, 3) == 0; // all tokens take the same experts
    l.inner = op_int(random, 1, 70);
    l.slots = op_int(random, 1, l.experts < 4 ? (int)l.experts : 4);
    l.expert = op_host((size_t)(tokens * l.slots) * 4);
    for (int64_t i = 0; i < tokens * l.slots; i++) {
        int64_t first = lonely ? 0 : i / l.slots * 5;
        l.expert[i] = (int32_t)((first + i % l.slots) % l.experts);
    }
    l.gate = op_floats(random, tokens * l.slots, 1.0f);
    l.x_scale = op_floats(random, tokens, 0.02f);
    l.dy_scale = op_floats(random, tokens, 0.02f);
    for (int64_t t = 0; t < tokens; t++) {
        l.x_scale[t] = fabsf(l.x_scale[t]);
        l.dy_scale[t] = fabsf(l.dy_scale[t]);
    }
    l.x = op_int8s(random, tokens * l.width, -QMAX, QMAX);
    l.w = op_int8s(random, l.experts * 2 * l.inner * l.width, -8, 8);
    l.dy = op_int8s(random, tokens * l.inner, -QMAX, QMAX);
    l.rule = (tv_vote_rule){.tau = 0.5f, .levels = levels[op_int(random, 0, 3)], .vote_bits = 8, .seed = 3};
    return l;
}

static void make_plan(const op_backend *on, const layer *l, int dense, outcome *y)
{
    size_t pairs = (size_t)(l->tokens * l->slots) * 4, segments = (size_t)l->experts * sizeof *y->segments;
    y->rows = l->tokens * (dense ? l->experts : l->slots);
    y->place = op_host(pairs), y->item = op_host((size_t)y->rows * 4), y->segments = op_host(segments);
    op_call call = op_begin(on);
    tv_moe_plan_args a = {.tokens = l->tokens, .experts = l->experts, .slots = l->slots, .dense = dense, .unit = 2};
    a.expert = op_in(&call, l->expert, pairs);
    a.place = op_out(&call, y->place, pairs);
    a.item = op_out(&call, y->item, (size_t)y->rows * 4);
    a.segments = op_out(&call, y->segments, segments);
    a.fault = op_out(&call, &y->fault, 4);
    op_end(&call, on->backend->moe_plan(&a, NULL));
    const tv_segment *last = &y->segments[l->experts - 1];
    y->columns = last->padded + (last->rows + TV_SEGMENT_PAD - 1) / TV_SEGMENT_PAD * TV_SEGMENT_PAD;
}

// Rows of x, or with the gates those of dy.
static void gather(const op_backend *on, const layer *l, int backward, outcome *y)
{
    int64_t cols = backward ? l->inner : l->width;
    int8_t *q = op_host((size_t)(y->rows * cols));
    float *scale = op_host((size_t)y->rows * 4);
    op_call call = op_begin(on);
    tv_rows_gather_args a = {.rows = y->rows, .cols = cols, .slots = l->slots};
    a.item = op_in(&call, y->item, (size_t)y->rows * 4);
    a.q = op_in(&call, backward ? l->dy : l->x, (size_t)(l->tokens * cols));
    a.scale = op_in(&call, backward ? l->dy_scale : l->x_scale, (size_t)l->tokens * 4);
    a.factor = op_in(&call, backward ? l->gate : NULL, (size_t)(l->tokens * l->slots) * 4);
    a.out_q = op_out(&call, q, (size_t)(y->rows * cols));
    a.out_scale = op_out(&call, scale, (size_t)y->rows * 4);
    op_end(&call, on->backend->rows_gather(&a, NULL));
    *(backward ? &y->dy : &y->x) = q;
    *(backward ? &y->dy_scale : &y->x_scale) = scale;
}

static const tv_segment *segments_in(op_call *call, const layer *l, const outcome *y)
{
    return op_in(call, y->segments, (size_t)l->experts * sizeof *y->segments);
}

static void products(const op_backend *on, const layer *l, outcome *y)
{
    size_t values = (size_t)(y->rows * 2 * l->inner) * 4;
    y->gu = op_host(values);
    op_call call = op_begin(on);
    tv_moe_gemm_args a = {.segment_count = l->experts, .rows = y->rows, .n = 2 * l->inner, .reduce = l->width};
    a.segments = segments_in(&call, l, y);
    a.a = op_in(&call, y->x, (size_t)(y->rows * l->width));
    a.b = op_in(&call, l->w, (size_t)(l->experts * 2 * l->inner * l->width));
    a.scale = op_in(&call, y->x_scale, (size_t)y->rows * 4);
    a.y = op_out(&call, y->gu, values);
    op_end(&call, on->backend->moe_gemm(&a, NULL));
}

static void activate(const op_backend *on, const layer *l, outcome *y)
{
    size_t items = (size_t)(y->rows * l->inner), scales = (size_t)y->rows * 4;
    y->saved_q = op_host(2 * items), y->saved_scale = op_host(2 * scales);
    y->h = op_host(items), y->h_scale = op_host(scales);
    op_call call = op_begin(on);
    tv_moe_activate_args a = {.segment_count = l->experts, .rows = y->rows, .width = l->inner, .qmax = QMAX};
    a.segments = segments_in(&call, l, y);
    a.gu = op_in(&call, y->gu, 8 * items);
    a.saved_q = op_out(&call, y->saved_q, 2 * items);
    a.saved_scale = op_out(&call, y->saved_scale, 2 * scales);
    a.q = op_out(&call, y->h, items);
    a.scale = op_out(&call, y->h_scale, scales);
    a.fault = op_out(&call, &y->fault, 4);
    op_end(&call, on->backend->moe_activate(&a, NULL));
}

static void combine(const op_backend *on, const layer *l, outcome *y)
{
    size_t pairs = (size_t)(l->tokens * l->slots) * 4, values = (size_t)(l->tokens * l->inner) * 4;
    y->sum = op_host(values);
    op_call call = op_begin(on);
    tv_moe_combine_args a = {.tokens = l->tokens, .cols = l->inner, .slots = l->slots};
    a.place = op_in(&call, y->place, pairs);
    a.gate = op_in(&call, l->gate, pairs);
    a.q = op_in(&call, y->h, (size_t)(y->rows * l->inner));
    a.scale = op_in(&call, y->h_scale, (size_t)y->rows * 4);
    a.y = op_out(&call, y->sum, values);
    op_end(&call, on->backend->moe_combine(&a, NULL));
}

static void activate_backward(const op_backend *on, const layer *l, outcome *y)
{
    size_t items = (size_t)(y->rows * l->inner), scales = (size_t)y->rows * 4;
    size_t turned = (size_t)(2 * l->inner * y->columns), sums = (size_t)(l->experts * 2 * l->inner) * 4;
    y->dq = op_host(2 * items), y->dscale = op_host(scales), y->dt = op_host(turned), y->d_sumsq = op_host(sums);
    op_call call = op_begin(on);
    tv_moe_activate_backward_args a = {
        .segment_count = l->experts, .rows = y->rows, .width = l->inner, .columns = y->columns};
    a.segments = segments_in(&call, l, y);
    a.q = op_in(&call, y->dy, items);
    a.scale = op_in(&call, y->dy_scale, scales);
    a.item = op_in(&call, y->item, scales);
    a.saved_q = op_in(&call, y->saved_q, 2 * items);
    a.saved_scale = op_in(&call, y->saved_scale, 2 * scales);
    a.dq = op_out(&call, y->dq, 2 * items);
    a.dscale = op_out(&call, y->dscale, scales);
    a.dt = op_out(&call, y->dt, turned);
    a.sumsq = op_out(&call, y->d_sumsq, sums);
    a.fault = op_out(&call, &y->fault, 4);
    op_end(&call, on->backend->moe_activate_backward(&a, NULL));
}

static void channels(const op_backend *on, const layer *l, outcome *y)
{
    size_t turned = (size_t)(l->width * y->columns), sums = (size_t)(l->experts * l->width) * 4;
    y->xt = op_host(turned), y->x_sumsq = op_host(sums);
    op_call call = op_begin(on);
    tv_moe_channels_args a = {
        .segment_count = l->experts, .rows = y->rows, .channels = l->width, .columns = y->columns};
    a.segments = segments_in(&call, l, y);
    a.q = op_in(&call, y->x, (size_t)(y->rows * l->width));
    a.scale = op_in(&call, y->x_scale, (size_t)y->rows * 4);
    a.item = op_in(&call, y->item, (size_t)y->rows * 4);
    a.qt = op_out(&call, y->xt, turned);
    a.sumsq = op_out(&call, y->x_sumsq, sums);
    a.fault = op_out(&call, &y->fault, 4);
    op_end(&call, on->backend->moe_channels(&a, NULL));
}

static void vote(const op_backend *on, const layer *l, outcome *y)
{
    size_t votes = (size_t)(l->experts * 2 * l->inner * l->width);
    y->votes = op_host(votes);
    op_call call = op_begin(on);
    tv_moe_vote_args a = {.segment_count = l->experts,
                          .columns = y->columns,
                          .runs = 1,
                          .n = 2 * l->inner,
                          .k = l->width,
                          .rule = l->rule};
    a.segments = segments_in(&call, l, y);
    a.gt = op_in(&call, y->dt, (size_t)(2 * l->inner * y->columns));
    a.xt = op_in(&call, y->xt, (size_t)(l->width * y->columns));
    a.g_sumsq = op_in(&call, y->d_sumsq, (size_t)(l->experts * 2 * l->inner) * 4);
    a.x_sumsq = op_in(&call, y->x_sumsq, (size_t)(l->experts * l->width) * 4);
    a.votes = op_out(&call, y->votes, votes);
    op_end(&call, on->backend->moe_vote(&a, NULL));
}

static outcome run_layer(const op_backend *on, const layer *l, int dense)
{
    outcome y = {0};
    make_plan(on, l, dense, &y);
    gather(on, l, 0, &y);
    products(on, l, &y);
    activate(on, l, &y);
    combine(on, l, &y);
    gather(on, l, 1, &y);
    activate_backward(on, l, &y);
    channels(on, l, &y);
    vote(on, l, &y);
    assert_int_equal(y.fault, 0);
    return y;
}

static void check_dense(const op_backend *on)
{
    op_random random = {331, 0};
    for (int i = 0; i < 24; i += op_stride()) {
        layer l = random_layer(&random, i < 2 ? 1 + i : op_int(&random, 1, 150));
        outcome sparse = run_layer(on, &l, 0), dense = run_layer(on, &l, 1);
        size_t inner = (size_t)l.inner, votes = (size_t)(l.experts * 2 * l.inner * l.width);
        for (int64_t p = 0; p < l.tokens * l.slots; p++) {
            int64_t a = sparse.place[p], b = dense.place[p];
            op_same("h", on, sparse.h + a * l.inner, dense.h + b * l.inner, inner);
            op_same("scale of h", on, sparse.h_scale + a, dense.h_scale + b, 4);
            op_same("gradient", on, sparse.dq + 2 * a * l.inner, dense.dq + 2 * b * l.inner, 2 * inner);
            op_same("gradient's scale", on, sparse.dscale + a, dense.dscale + b, 4);
        }
        op_same("sums", on, sparse.sum, dense.sum, (size_t)(l.tokens * l.inner) * 4);
        op_same("squares of x", on, sparse.x_sumsq, dense.x_sumsq, (size_t)(l.experts * l.width) * 4);
        op_same("squares of the gradient", on, sparse.d_sumsq, dense.d_sumsq, (size_t)(l.experts * 2 * l.inner) * 4);
        op_same("votes", on, sparse.votes, dense.votes, votes);
        int8_t *none = op_host(votes);
        assert_true(l.tokens < 20 || memcmp(none, sparse.votes, votes) != 0);
    }
}

static void test_dense(void **state)
{
    (void)state;
    op_on_each(check_dense);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_dense)};
    return op_run("op_moe_dense", tests);
}
