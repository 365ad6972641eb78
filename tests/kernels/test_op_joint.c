// Steps that a backend may do at once (ops_joint.h): the bits of ref's ops one after the other, for sizes that fit the backend's own ways and
// for sizes that do not.
#include <math.h>
#include <string.h>

#include "op_test.h"

#define OUTPUTS_MAX 16

// What a step writes and does not leave open.
typedef struct outputs {
    const char *name[OUTPUTS_MAX];
    void *data[OUTPUTS_MAX];
    size_t bytes[OUTPUTS_MAX];
    int count;
} outputs;

// A step of a case, on a backend.
typedef outputs step(const op_backend *on, const void *c);

static void *out_from(op_call *call, outputs *o, const char *name, const void *from, size_t bytes)
{
    assert_true(o->count < OUTPUTS_MAX);
    o->name[o->count] = name, o->bytes[o->count] = bytes;
    o->data[o->count] = op_host_copy(from, bytes);
    return op_out(call, o->data[o->count++], bytes);
}

static void *out(op_call *call, outputs *o, const char *name, size_t bytes)
{
    return out_from(call, o, name, op_host(bytes), bytes);
}

// Memory that a step leaves open.
static void *open_room(op_call *call, size_t bytes) { return op_out(call, op_host(bytes), bytes); }

static void same_step(const op_backend *on, step *run, const void *c)
{
    outputs want = run(op_ref(), c), got = run(on, c);
    for (int i = 0; i < want.count; i++)
        op_same(want.name[i], on, want.data[i], got.data[i], want.bytes[i]);
}

static float *sizes(op_random *random, int64_t count, float size)
{
    float *x = op_floats(random, count, size);
    for (int64_t i = 0; i < count; i++)
        x[i] = fabsf(x[i]);
    return x;
}

// ---- layers ------------------------------------------------------------------------------------------------------------------

typedef struct layer_case {
    int64_t tokens, inputs, outputs; // M, K, N
    int qmax, vote_bits, levels, accumulate;
    const float *g, *x, *scale; // [M, N], [M, K], [M]
    const int8_t *q, *w8t, *w8; // [M, K], [K, N], [K]
} layer_case;

static outputs run_linear_turn(const op_backend *on, const void *data)
{
    const layer_case *c = data;
    size_t m = (size_t)c->tokens, n = (size_t)c->outputs, k = (size_t)c->inputs;
    outputs o = {.count = 0};
    op_call call = op_begin(on);
    tv_linear_turn_args a = {{.tokens = c->tokens, .channels = c->outputs},
                             {.tokens = c->tokens, .channels = c->inputs}};
    a.gradient.x = op_in(&call, c->g, m * n * 4);
    a.input.q = op_in(&call, c->q, m * k);
    a.input.scale = op_in(&call, c->scale, m * 4);
    a.gradient.q = out(&call, &o, "q", m * n);
    a.gradient.scale = out(&call, &o, "scale", m * 4);
    a.gradient.qt = out(&call, &o, "gradient turned", m * n);
    a.gradient.sumsq = out(&call, &o, "squares of the gradient", n * 4);
    a.input.qt = out(&call, &o, "input turned", m * k);
    a.input.sumsq = out(&call, &o, "squares of the input", k * 4);
    a.gradient.fault = a.input.fault = out(&call, &o, "fault", 4);
    op_end(&call, tv_linear_turn(on->backend, &a, NULL));
    return o;
}

static outputs run_norm_digits(const op_backend *on, const void *data)
{
    const layer_case *c = data;
    size_t m = (size_t)c->tokens, k = (size_t)c->inputs;
    outputs o = {.count = 0};
    op_call call = op_begin(on);
    tv_norm_digits_args a = {{.rows = c->tokens, .cols = c->inputs, .exponent = -2},
                             {.rows = c->tokens, .cols = c->inputs, .qmax = 127},
                             {.rows = c->tokens, .cols = c->inputs, .qmax = c->qmax}};
    a.norm.x = op_in(&call, c->x, m * k * 4);
    a.norm.w8 = op_in(&call, c->w8, k);
    a.input.x = a.digits.x = a.norm.y = open_room(&call, m * k * 4);
    a.norm.saved_q = out(&call, &o, "saved q", m * k);
    a.norm.saved_scale = out(&call, &o, "saved scale", m * 4);
    a.norm.saved_rstd = out(&call, &o, "saved rstd", m * 4);
    a.input.q = out(&call, &o, "q", m * k);
    a.input.scale = out(&call, &o, "scale", m * 4);
    a.digits.q = out(&call, &o, "digits", m * k);
    a.digits.scale = out(&call, &o, "digits' scale", m * 4);
    a.norm.fault = a.input.fault = a.digits.fault = out(&call, &o, "fault", 4);
    op_end(&call, tv_norm_digits(on->backend, &a, NULL));
    return o;
}

static void check_layers(const op_backend *on)
{
    static const int64_t tokens[] = {16, 1, 128, 33, 48, 129, 144}, widths[] = {512, 64, 8, 70, 96, 16, 132, 1056};
    static const int levels[] = {1, 3, 15, 1}, qmaxes[] = {13, 1, 121};
    op_random random = {811, 0};
    for (int i = 0; i < 28; i += op_stride()) {
        layer_case c = {.tokens = tokens[i % 7], .inputs = widths[i % 8], .outputs = widths[i / 3 % 8]};
        c.qmax = qmaxes[i % 3], c.levels = levels[i % 4], c.vote_bits = i % 2 ? 16 : 8, c.accumulate = i % 5 == 0;
        float *g = op_floats(&random, c.tokens * c.outputs, 1.0f);
        if (i % 6 == 1)
            g[op_int(&random, 0, (int)(c.tokens * c.outputs) - 1)] = i % 12 == 1 ? NAN : INFINITY;
        c.g = g;
        c.x = op_floats(&random, c.tokens * c.inputs, 2.0f);
        c.scale = sizes(&random, c.tokens, 0.1f);
        c.q = op_int8s(&random, c.tokens * c.inputs, -127, 127);
        c.w8t = op_int8s(&random, c.inputs * c.outputs, -8, 8);
        c.w8 = op_int8s(&random, c.inputs, -8, 8);
        same_step(on, run_linear_turn, &c);
        same_step(on, run_norm_digits, &c);
    }
}

// ---- mixture of experts --------------------------------------------------------------------------------------------------------

typedef struct moe_layer {
    int64_t tokens, experts, width, inner, rows, columns; // M, n_e, D, F
    int slots, dense, qmax, levels;
    int32_t *expert, *place, *item; // [M, k], [M, k], [rows]
    float *gate;                    // [M, k]
    tv_segment *segments;           // [n_e]
    uint32_t seed;                  // of what a step needs beyond these
} moe_layer;

static size_t pairs(const moe_layer *l) { return (size_t)(l->tokens * l->slots); }

static tv_moe_plan_args plan_of(const moe_layer *l)
{
    return (tv_moe_plan_args){
        .tokens = l->tokens, .experts = l->experts, .slots = l->slots, .dense = l->dense, .unit = 3};
}

static moe_layer new_layer(op_random *random, moe_layer l)
{
    int32_t fault = 0;
    l.expert = op_host(pairs(&l) * 4), l.place = op_host(pairs(&l) * 4);
    for (int64_t i = 0; i < (int64_t)pairs(&l); i++)
        l.expert[i] = (int32_t)(((i / l.slots) * (i / l.slots) % 5 + i % l.slots) % l.experts);
    l.gate = sizes(random, (int64_t)pairs(&l), 1.0f);
    l.rows = l.tokens * (l.dense ? l.experts : l.slots);
    l.item = op_host((size_t)l.rows * 4);
    l.segments = op_host((size_t)l.experts * sizeof *l.segments);
    tv_moe_plan_args plan = plan_of(&l);
    plan.expert = l.expert, plan.place = l.place, plan.item = l.item, plan.segments = l.segments, plan.fault = &fault;
    assert_int_equal(op_ref()->backend->moe_plan(&plan, NULL), TV_OK); // ref's memory is the host's
    const tv_segment *last = &l.segments[l.experts - 1];
    l.columns = last->padded + (last->rows + TV_SEGMENT_PAD - 1) / TV_SEGMENT_PAD * TV_SEGMENT_PAD + TV_SEGMENT_PAD;
    l.seed = op_next(random);
    return l;
}

static const tv_segment *segments_in(op_call *call, const moe_layer *l)
{
    return op_in(call, l->segments, (size_t)l->experts * sizeof *l->segments);
}

static outputs run_query(const op_backend *on, const void *data)
{
    const moe_layer *l = data;
    op_random random = {l->seed, 0};
    int64_t width = l->inner % 2 ? 30 : 64;
    size_t m = (size_t)l->tokens, d = (size_t)l->width, n = (size_t)width, e = (size_t)l->experts;
    int16_t *bias = op_host(e * 2);
    for (size_t i = 0; i < e; i++)
        bias[i] = (int16_t)op_int(&random, -300, 300);
    outputs o = {.count = 0};
    op_call call = op_begin(on);
    tv_moe_query_args a = {{.m = l->tokens, .n = width, .reduce = l->width, .exponent = -4},
                           {.rows = l->tokens, .cols = width, .qmax = 127},
                           {.m = l->tokens, .n = l->experts, .reduce = width, .exponent = -3},
                           {.tokens = l->tokens, .experts = l->experts, .slots = l->slots}};
    a.query.a = op_in(&call, op_int8s(&random, l->tokens * l->width, -127, 127), m * d);
    a.query.b = op_in(&call, op_int8s(&random, width * l->width, -8, 8), n * d);
    a.query.scale = op_in(&call, sizes(&random, l->tokens, 0.02f), m * 4);
    a.z.x = a.query.y = open_room(&call, m * n * 4);
    a.centroid.a = a.z.q = out(&call, &o, "z", m * n);
    a.centroid.scale = a.z.scale = out(&call, &o, "z's scale", m * 4);
    a.centroid.b = op_in(&call, op_int8s(&random, l->experts * width, -8, 8), e * n);
    a.route.logits = a.centroid.y = out(&call, &o, "logits", m * e * 4);
    a.route.bias = op_in(&call, bias, e * 2);
    a.route.expert = out(&call, &o, "experts", pairs(l) * 4);
    a.route.gate = out(&call, &o, "gates", pairs(l) * 4);
    a.route.counts = l->seed % 3 ? out(&call, &o, "counts", e * 8) : NULL;
    a.z.fault = a.route.fault = out(&call, &o, "fault", 4);
    op_end(&call, tv_moe_query(on->backend, &a, NULL));
    return o;
}

static outputs run_place(const op_backend *on, const void *data)
{
    const moe_layer *l = data;
    op_random random = {l->seed, 0};
    size_t m = (size_t)l->tokens, d = (size_t)l->width, rows = (size_t)l->rows;
    outputs o = {.count = 0};
    op_call call = op_begin(on);
    tv_moe_place_args a = {plan_of(l), {.rows = l->rows, .cols = l->width, .slots = l->slots}};
    a.plan.expert = op_in(&call, l->expert, pairs(l) * 4);
    a.plan.place = out(&call, &o, "places", pairs(l) * 4);
    a.gather.item = a.plan.item = out(&call, &o, "items", rows * 4);
    a.plan.segments = out(&call, &o, "segments", (size_t)l->experts * sizeof(tv_segment));
    a.gather.q = op_in(&call, op_int8s(&random, l->tokens * l->width, -13, 13), m * d);
    a.gather.scale = op_in(&call, sizes(&random, l->tokens, 1.0f), m * 4);
    a.gather.out_q = out(&call, &o, "rows", rows * d);
    a.gather.out_scale = out(&call, &o, "rows' scale", rows * 4);
    a.plan.fault = out(&call, &o, "fault", 4);
    op_end(&call, tv_moe_place(on->backend, &a, NULL));
    return o;
}

static outputs run_sum(const op_backend *on, const void *data)
{
    const moe_layer *l = data;
    op_random random = {l->seed, 0};
    size_t m = (size_t)l->tokens, f = (size_t)l->inner, rows = (size_t)l->rows;
    outputs o = {.count = 0};
    op_call call = op_begin(on);
    tv_moe_sum_args a = {{.tokens = l->tokens, .cols = l->inner, .slots = l->slots},
                         {.rows = l->tokens, .cols = l->inner, .qmax = 127}};
    a.combine.place = op_in(&call, l->place, pairs(l) * 4);
    a.combine.gate = op_in(&call, l->gate, pairs(l) * 4);
    a.combine.q = op_in(&call, op_int8s(&random, l->rows * l->inner, -13, 13), rows * f);
    a.combine.scale = op_in(&call, sizes(&random, l->rows, 1.0f), rows * 4);
    a.rows.x = a.combine.y = open_room(&call, m * f * 4);
    a.rows.q = out(&call, &o, "q", m * f);
    a.rows.scale = out(&call, &o, "scale", m * 4);
    a.rows.fault = out(&call, &o, "fault", 4);
    op_end(&call, tv_moe_sum(on->backend, &a, NULL));
    return o;
}

static outputs run_split(const op_backend *on, const void *data)
{
    const moe_layer *l = data;
    op_random random = {l->seed, 0};
    size_t m = (size_t)l->tokens, f = (size_t)l->inner, rows = (size_t)l->rows, k = pairs(l) * 4;
    outputs o = {.count = 0};
    op_call call = op_begin(on);
    tv_moe_split_args a = {{.tokens = l->tokens, .cols = l->inner, .slots = l->slots},
                           {.tokens = l->tokens, .experts = l->experts, .slots = l->slots},
                           {.rows = l->tokens, .cols = l->inner, .qmax = l->qmax},
                           {.rows = l->rows, .cols = l->inner, .slots = l->slots}};
    a.combine.place = op_in(&call, l->place, k);
    a.combine.q = op_in(&call, op_int8s(&random, l->rows * l->inner, -13, 13), rows * f);
    a.combine.scale = op_in(&call, sizes(&random, l->rows, 1.0f), rows * 4);
    a.digits.x = a.combine.dy = op_in(&call, op_floats(&random, l->tokens * l->inner, 2.0f), m * f * 4);
    a.route.grad = a.combine.grad = out(&call, &o, "gates' gradient", k);
    a.route.expert = op_in(&call, l->expert, k);
    a.gather.factor = a.route.gate = op_in(&call, l->gate, k);
    a.route.logits = out(&call, &o, "logits' gradient", m * (size_t)l->experts * 4);
    a.gather.q = a.digits.q = open_room(&call, m * f);
    a.gather.scale = a.digits.scale = open_room(&call, m * 4);
    a.gather.item = op_in(&call, l->item, rows * 4);
    a.gather.out_q = out(&call, &o, "rows", rows * f);
    a.gather.out_scale = out(&call, &o, "rows' scale", rows * 4);
    a.digits.fault = out(&call, &o, "fault", 4);
    op_end(&call, tv_moe_split(on->backend, &a, NULL));
    return o;
}

static outputs run_turn(const op_backend *on, const void *data)
{
    const moe_layer *l = data;
    op_random random = {l->seed, 0};
    size_t rows = (size_t)l->rows, f = (size_t)l->inner, d = (size_t)l->width, e = (size_t)l->experts;
    outputs o = {.count = 0};
    op_call call = op_begin(on);
    tv_moe_turn_args a = {{.segment_count = l->experts, .rows = l->rows, .width = l->inner, .columns = l->columns},
                          {.segment_count = l->experts, .rows = l->rows, .channels = l->width, .columns = l->columns}};
    a.gradient.segments = a.input.segments = segments_in(&call, l);
    a.gradient.item = a.input.item = op_in(&call, l->item, rows * 4);
    a.gradient.q = op_in(&call, op_int8s(&random, l->rows * l->inner, -13, 13), rows * f);
    a.gradient.scale = op_in(&call, sizes(&random, l->rows, 0.1f), rows * 4);
    a.gradient.saved_q = op_in(&call, op_int8s(&random, 2 * l->rows * l->inner, -127, 127), 2 * rows * f);
    a.gradient.saved_scale = op_in(&call, sizes(&random, 2 * l->rows, 0.05f), rows * 8);
    a.gradient.dq = out(&call, &o, "gradient", 2 * rows * f);
    a.gradient.dscale = out(&call, &o, "gradient's scale", rows * 4);
    a.gradient.dt = out(&call, &o, "gradient turned", 2 * f * (size_t)l->columns);
    a.gradient.sumsq = out(&call, &o, "squares of the gradient", e * 2 * f * 4);
    a.input.q = op_in(&call, op_int8s(&random, l->rows * l->width, -13, 13), rows * d);
    a.input.scale = op_in(&call, sizes(&random, l->rows, 0.1f), rows * 4);
    a.input.qt = out(&call, &o, "input turned", d * (size_t)l->columns);
    a.input.sumsq = out(&call, &o, "squares of the input", e * d * 4);
    a.gradient.fault = a.input.fault = out(&call, &o, "fault", 4);
    op_end(&call, tv_moe_turn(on->backend, &a, NULL));
    return o;
}

// Rows without a place are zeros.
static float *gradient_rows(op_random *random, const moe_layer *l)
{
    float *x = op_floats(random, l->rows * l->width, 1.0f);
    for (int64_t r = 0; r < l->rows; r++)
        if (l->item[r] < 0)
            memset(x + r * l->width, 0, (size_t)l->width * 4);
    return x;
}

static outputs run_join(const op_backend *on, const void *data)
{
    const moe_layer *l = data;
    op_random random = {l->seed, 0};
    size_t m = (size_t)l->tokens, d = (size_t)l->width, rows = (size_t)l->rows;
    outputs o = {.count = 0};
    op_call call = op_begin(on);
    tv_moe_join_args a = {{.rows = l->rows, .cols = l->width, .qmax = l->qmax},
                          {.tokens = l->tokens, .cols = l->width, .slots = l->slots, .accumulate = 1},
                          {.rows = l->tokens, .cols = l->width, .exponent = -2, .accumulate = l->seed % 4 != 0}};
    a.digits.x = op_in(&call, gradient_rows(&random, l), rows * d * 4);
    a.combine.q = a.digits.q = open_room(&call, rows * d);
    a.combine.scale = a.digits.scale = open_room(&call, rows * 4);
    a.combine.place = op_in(&call, l->place, pairs(l) * 4);
    a.norm.dy = a.combine.y = out_from(&call, &o, "y", op_floats(&random, l->tokens * l->width, 1.0f), m * d * 4);
    a.norm.w8 = op_in(&call, op_int8s(&random, l->width, -8, 8), d);
    a.norm.saved_q = op_in(&call, op_int8s(&random, l->tokens * l->width, -127, 127), m * d);
    a.norm.saved_scale = op_in(&call, sizes(&random, l->tokens, 0.02f), m * 4);
    a.norm.saved_rstd = op_in(&call, sizes(&random, l->tokens, 2.0f), m * 4);
    a.norm.dx = out_from(&call, &o, "dx", op_floats(&random, l->tokens * l->width, 1.0f), m * d * 4);
    a.digits.fault = out(&call, &o, "fault", 4);
    op_end(&call, tv_moe_join(on->backend, &a, NULL));
    return o;
}

static void check_moe(const op_backend *on)
{
    static const moe_layer shapes[] = {
        {.tokens = 16, .experts = 8, .width = 512, .inner = 512, .slots = 2, .dense = 1, .levels = 1},
        {.tokens = 16, .experts = 8, .width = 128, .inner = 64, .slots = 2, .dense = 1, .levels = 3},
        {.tokens = 16, .experts = 4, .width = 64, .inner = 96, .slots = 4, .dense = 1, .levels = 1},
        {.tokens = 1, .experts = 5, .width = 64, .inner = 32, .slots = 1, .dense = 1, .levels = 15},
        {.tokens = 33, .experts = 3, .width = 96, .inner = 36, .slots = 3, .levels = 1},
        {.tokens = 50, .experts = 40, .width = 32, .inner = 70, .slots = 9, .levels = 1},
        {.tokens = 21, .experts = 6, .width = 50, .inner = 33, .slots = 2, .dense = 1, .levels = 7},
        {.tokens = 150, .experts = 6, .width = 160, .inner = 44, .slots = 5, .levels = 1}, // segments of several tiles
        {.tokens = 700, .experts = 7, .width = 64, .inner = 96, .slots = 2, .levels = 1},  // not few rows
        {.tokens = 1100, .experts = 300, .width = 32, .inner = 32, .slots = 2, .levels = 1},
        {.tokens = 24, .experts = 2, .width = 1056, .inner = 1040, .slots = 1, .levels = 1},
    };
    static step *const steps[] = {run_query, run_place, run_sum, run_split, run_turn, run_join};
    op_random random = {823, 0};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i += (size_t)op_stride()) {
        moe_layer l = new_layer(&random, shapes[i]);
        l.qmax = i % 2 ? 13 : 40;
        for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
            same_step(on, steps[s], &l);
            if (steps[s] == run_turn) // maxima of the call before are gone
                same_step(on, steps[s], &l);
        }
    }
}

static void test_layers(void **state)
{
    (void)state;
    op_on_each(check_layers);
}

static void test_moe(void **state)
{
    (void)state;
    op_on_each(check_moe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layers), cmocka_unit_test(test_moe)};
    return op_run("op_joint", tests);
}
