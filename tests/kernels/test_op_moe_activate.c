// The experts' activation, against the ops of plain layers on each row and each segment alone.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "moe_case.h"

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

// Row r by the ops that the activation is made of; returns their fault.
static int32_t check_activated_row(const op_backend *on, const activate_case *c, const activate_result *y, int64_t r)
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
    return fault;
}

// The transposed gradient of a segment, from dgu in float; returns its fault.
static int32_t check_activated_channels(const op_backend *on, const activate_case *c, const activate_result *y,
                                        int64_t i)
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
    op_same("turned", on, qt, moe_columns(&c->rows, s, y->dt, 2 * width), (size_t)(2 * n * width));
    op_same("squares", on, sumsq, y->sumsq + i * 2 * width, (size_t)width * 8);
    return fault;
}

// Some cases get a number that is none, in a row or in a gradient's scale.
static void spoil_activate(op_random *random, activate_case *c, int i)
{
    static const float special[] = {INFINITY, -INFINITY, NAN};
    int64_t items = c->rows.rows * c->width;
    if (i % 4 == 3 && items > 0)
        c->gu[op_int(random, 0, (int)items * 2 - 1)] = special[i / 4 % 3];
    if (i % 8 == 7 && items > 0)
        c->gradient_scale[op_int(random, 0, (int)c->rows.rows - 1)] = INFINITY;
    if (i % 8 == 5 && items > 0) { // numbers whose product is none
        int64_t at = op_int(random, 0, (int)c->rows.rows - 1) * 2 * c->width;
        c->gu[at] = c->gu[at + c->width] = 1e30f;
    }
}

static void check_activate(const op_backend *on)
{
    op_random random = {324, 0};
    for (int i = 0; i < 50; i += op_stride()) {
        activate_case c = i < 2 ? random_activate(&random, OP_LARGE_ROWS, 256 + 3 * i)
                                : random_activate(&random, 140, op_size(&random));
        spoil_activate(&random, &c, i);
        activate_result y = run_activate(on, &c, 0), evaluated = run_activate(on, &c, 1);
        int32_t fault = 0;
        op_same("evaluation", on, y.q, evaluated.q, (size_t)(c.rows.rows * c.width));
        run_activate_backward(on, &c, &y);
        for (int64_t s = 0; c.width > 0 && s < c.rows.segment_count; s++) {
            const tv_segment *segment = &c.rows.segments[s];
            for (int64_t r = segment->first; r < segment->first + segment->rows; r++)
                fault |= check_activated_row(on, &c, &y, r);
            fault |= check_activated_channels(on, &c, &y, s);
        }
        assert_int_equal(y.fault, fault);
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
    for (int i = 0; i < 50; i += op_stride()) {
        activate_case c = i < 2 ? random_activate(&random, OP_LARGE_ROWS, 256 + 3 * i)
                                : random_activate(&random, 140, op_size(&random));
        size_t items = (size_t)(c.rows.rows * c.width), scales = (size_t)c.rows.rows * 4;
        spoil_activate(&random, &c, i);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_activate), cmocka_unit_test(test_activate_bits)};
    return op_run("op_moe_activate", tests);
}
