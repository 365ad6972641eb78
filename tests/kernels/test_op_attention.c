// rotary, attention, attention_backward.
#include <math.h>
#include <stdlib.h>

#include "op_test.h"

typedef struct rotary_case {
    int64_t tokens, heads, width, context;
    float *cosine, *sine, *x;
} rotary_case;

static rotary_case random_rotary(op_random *random)
{
    rotary_case c = {
        .heads = op_int(random, 0, 5), .width = 2 * op_int(random, 1, 40), .context = op_int(random, 1, 20)};
    c.tokens = c.context * op_int(random, 0, 4);
    int64_t angles = c.context * c.width / 2;
    c.cosine = op_host((size_t)angles * 4);
    c.sine = op_host((size_t)angles * 4);
    for (int64_t i = 0; i < angles; i++) {
        double angle = (double)op_float(random, 3.2f);
        c.cosine[i] = (float)cos(angle);
        c.sine[i] = (float)sin(angle);
    }
    c.x = op_floats(random, c.tokens * c.heads * c.width, 2.0f);
    return c;
}

static float *run_rotary(const op_backend *on, const rotary_case *c, const float *from, int inverse)
{
    size_t bytes = (size_t)(c->tokens * c->heads * c->width) * 4, angle_bytes = (size_t)(c->context * c->width / 2) * 4;
    float *x = op_host_copy(from, bytes);
    op_call call = op_begin(on);
    tv_rotary_args a = {
        .tokens = c->tokens, .heads = c->heads, .width = c->width, .context = c->context, .inverse = inverse};
    a.cos_table = op_in(&call, c->cosine, angle_bytes);
    a.sin_table = op_in(&call, c->sine, angle_bytes);
    a.x = op_out(&call, x, bytes);
    op_end(&call, on->backend->rotary(&a, NULL));
    return x;
}

// Pairs are complex numbers times e^(i angle); the inverse turns them back.
static void check_rotary(const op_backend *on)
{
    op_random random = {81, 0};
    for (int i = 0; i < 30; i += op_stride()) {
        rotary_case c = random_rotary(&random);
        float *y = run_rotary(on, &c, c.x, 0), *back = run_rotary(on, &c, y, 1);
        int64_t half = c.width / 2;
        for (int64_t j = 0; j < c.tokens * c.heads * c.width; j++) {
            int64_t channel = j % c.width, token = j / (c.heads * c.width), pair = channel % half;
            double size = hypot((double)c.x[j - channel + pair], (double)c.x[j - channel + pair + half]);
            double angle = atan2((double)c.x[j - channel + pair + half], (double)c.x[j - channel + pair]);
            int64_t row = token % c.context * half + pair;
            angle += atan2((double)c.sine[row], (double)c.cosine[row]);
            op_near("rotated", channel < half ? size * cos(angle) : size * sin(angle), (double)y[j], 1e-6);
            op_near("turned back", (double)c.x[j], (double)back[j], 2e-6);
        }
    }
}

static void test_rotary(void **state)
{
    (void)state;
    op_on_each(check_rotary);
}

static void check_rotary_bits(const op_backend *on)
{
    op_random random = {82, 0};
    for (int i = 0; i < 100; i += op_stride()) {
        rotary_case c = random_rotary(&random);
        if (i < 2) {
            c.tokens = c.context * (1 + OP_LARGE_ROWS / c.context);
            c.heads = 1 + OP_LARGE_COLS / c.width;
            c.x = op_floats(&random, c.tokens * c.heads * c.width, 2.0f);
        }
        op_same_floats("x", on, run_rotary(op_ref(), &c, c.x, i % 2), run_rotary(on, &c, c.x, i % 2),
                       c.tokens * c.heads * c.width);
    }
}

static void test_rotary_bits(void **state)
{
    (void)state;
    op_against_ref(check_rotary_bits);
}

typedef struct attention_case {
    int64_t tokens, heads, width, context;
    int8_t *operand[4]; // q, k, v, g
    float *scale[4];
} attention_case;

static attention_case random_attention(op_random *random, int64_t windows, int64_t context, int64_t heads,
                                       int64_t width)
{
    attention_case c = {windows * context, heads, width, context, {NULL}, {NULL}};
    for (int i = 0; i < 4; i++) {
        c.operand[i] = op_int8s(random, c.tokens * heads * width, -127, 127);
        c.scale[i] = op_floats(random, c.tokens * heads, 0.02f);
        for (int64_t j = 0; j < c.tokens * heads; j++)
            c.scale[i][j] = op_int(random, 0, 9) == 0 ? 0.0f : fabsf(c.scale[i][j]);
    }
    return c;
}

typedef struct attention_result {
    float *out, *top, *norm, *dq, *dk, *dv;
} attention_result;

static void forward(const op_backend *on, const attention_case *c, int evaluation, attention_result *r)
{
    size_t items = (size_t)(c->tokens * c->heads * c->width), rows = (size_t)(c->tokens * c->heads) * 4;
    r->out = op_host(items * 4);
    r->top = evaluation ? NULL : op_host(rows);
    r->norm = evaluation ? NULL : op_host(rows);
    op_call call = op_begin(on);
    tv_attention_args a = {.tokens = c->tokens, .heads = c->heads, .width = c->width, .context = c->context};
    a.q = op_in(&call, c->operand[0], items);
    a.k = op_in(&call, c->operand[1], items);
    a.v = op_in(&call, c->operand[2], items);
    a.q_scale = op_in(&call, c->scale[0], rows);
    a.k_scale = op_in(&call, c->scale[1], rows);
    a.v_scale = op_in(&call, c->scale[2], rows);
    a.out = op_out(&call, r->out, items * 4);
    a.top = op_out(&call, r->top, rows);
    a.norm = op_out(&call, r->norm, rows);
    op_end(&call, on->backend->attention(&a, NULL));
}

static void backward(const op_backend *on, const attention_case *c, attention_result *r)
{
    size_t items = (size_t)(c->tokens * c->heads * c->width), rows = (size_t)(c->tokens * c->heads) * 4;
    float **gradient[3] = {&r->dq, &r->dk, &r->dv};
    op_call call = op_begin(on);
    tv_attention_backward_args a = {.tokens = c->tokens, .heads = c->heads, .width = c->width, .context = c->context};
    const int8_t **operand[4] = {&a.q, &a.k, &a.v, &a.g};
    const float **scale[4] = {&a.q_scale, &a.k_scale, &a.v_scale, &a.g_scale};
    for (int i = 0; i < 4; i++) {
        *operand[i] = op_in(&call, c->operand[i], items);
        *scale[i] = op_in(&call, c->scale[i], rows);
    }
    a.top = op_in(&call, r->top, rows);
    a.norm = op_in(&call, r->norm, rows);
    float **place[3] = {&a.dq, &a.dk, &a.dv};
    for (int i = 0; i < 3; i++) {
        *gradient[i] = op_host(items * 4);
        for (size_t j = 0; j < items; j++)
            (*gradient[i])[j] = 1e30f; // must be overwritten, not added to
        *place[i] = op_out(&call, *gradient[i], items * 4);
    }
    op_end(&call, on->backend->attention_backward(&a, NULL));
}

// Softmax attention in double on plain matrices [M, H, d].
static void exact_attention(const attention_case *c, double *const x[3], double *out)
{
    for (int64_t t = 0; t < c->tokens; t++)
        for (int64_t h = 0; h < c->heads; h++) {
            double total = 0, *o = out + (t * c->heads + h) * c->width;
            for (int64_t d = 0; d < c->width; d++)
                o[d] = 0;
            for (int64_t s = t - t % c->context; s <= t; s++) {
                double score = 0;
                for (int64_t d = 0; d < c->width; d++)
                    score += x[0][(t * c->heads + h) * c->width + d] * x[1][(s * c->heads + h) * c->width + d];
                double weight = exp(score / sqrt((double)c->width));
                total += weight;
                for (int64_t d = 0; d < c->width; d++)
                    o[d] += weight * x[2][(s * c->heads + h) * c->width + d];
            }
            for (int64_t d = 0; d < c->width; d++)
                o[d] /= total;
        }
}

static double *dequantised(const attention_case *c, int operand)
{
    int64_t items = c->tokens * c->heads * c->width;
    double *x = op_host((size_t)items * sizeof *x);
    for (int64_t i = 0; i < items; i++)
        x[i] = c->operand[operand][i] * (double)c->scale[operand][i / c->width];
    return x;
}

static void check_forward(const op_backend *on)
{
    op_random random = {83, 0};
    for (int i = 0; i < 30; i += op_stride()) {
        attention_case c = random_attention(&random, op_int(&random, 1, 3), op_int(&random, 1, 70),
                                            op_int(&random, 1, 3), op_int(&random, 1, 40));
        int64_t items = c.tokens * c.heads * c.width;
        double *x[3] = {dequantised(&c, 0), dequantised(&c, 1), dequantised(&c, 2)},
               *out = op_host((size_t)items * sizeof *out);
        exact_attention(&c, x, out);
        attention_result got, plain;
        forward(on, &c, 0, &got);
        for (int64_t j = 0; j < items; j++)
            op_near("out", out[j], (double)got.out[j], 1e-5);
        for (int64_t j = 0; j < c.tokens * c.heads; j++) { // norm counts the largest as 1
            assert_true(got.norm[j] >= 1.0f && got.norm[j] <= (float)c.context);
            assert_true(j / c.heads % c.context != 0 || got.norm[j] == 1.0f);
        }
        forward(on, &c, 1, &plain);
        op_same_floats("out in evaluation", on, got.out, plain.out, items);
    }
}

static void test_forward(void **state)
{
    (void)state;
    op_on_each(check_forward);
}

// dq, dk, dv against finite differences of <g, attention(q, k, v)> in double.
static void check_backward(const op_backend *on)
{
    op_random random = {84, 0};
    for (int i = 0; i < 6; i++) {
        attention_case c = random_attention(&random, 2, op_int(&random, 1, 7), 2, op_int(&random, 1, 5));
        int64_t items = c.tokens * c.heads * c.width;
        double *x[3] = {dequantised(&c, 0), dequantised(&c, 1), dequantised(&c, 2)}, *g = dequantised(&c, 3);
        double *out = op_host((size_t)items * sizeof *out);
        attention_result got;
        forward(on, &c, 0, &got);
        backward(on, &c, &got);
        const float *gradient[3] = {got.dq, got.dk, got.dv};
        for (int which = 0; which < 3; which++)
            for (int64_t j = 0; j < items; j++) {
                double keep = x[which][j], slope = 0;
                for (int side = -1; side <= 1; side += 2) {
                    x[which][j] = keep + side * 1e-5;
                    exact_attention(&c, x, out);
                    for (int64_t k = 0; k < items; k++)
                        slope += side * out[k] * g[k] / 2e-5;
                }
                x[which][j] = keep;
                op_near(which == 0 ? "dq" : which == 1 ? "dk" : "dv", slope, (double)gradient[which][j], 1e-5);
            }
    }
}

static void test_backward(void **state)
{
    (void)state;
    op_on_each(check_backward);
}

static void same(const op_backend *on, const attention_case *c)
{
    attention_result want, got, again, plain;
    int64_t items = c->tokens * c->heads * c->width, rows = c->tokens * c->heads;
    forward(op_ref(), c, 0, &want);
    forward(on, c, 0, &got);
    op_same_floats("out", on, want.out, got.out, items);
    op_same_floats("top", on, want.top, got.top, rows);
    op_same_floats("norm", on, want.norm, got.norm, rows);
    forward(on, c, 1, &plain);
    op_same_floats("out in evaluation", on, want.out, plain.out, items);
    again = got;
    backward(op_ref(), c, &want);
    backward(on, c, &got);
    backward(on, c, &again);
    op_same_floats("dq", on, want.dq, got.dq, items);
    op_same_floats("dk", on, want.dk, got.dk, items);
    op_same_floats("dv", on, want.dv, got.dv, items);
    op_same_floats("dq of a second run", on, got.dq, again.dq, items);
    op_same_floats("dk of a second run", on, got.dk, again.dk, items);
    op_same_floats("dv of a second run", on, got.dv, again.dv, items);
}

static void check_bits(const op_backend *on)
{
    op_random random = {85, 0};
    for (int i = 0; i < op_edge_count; i += op_stride()) {
        attention_case by_context = random_attention(&random, 1 + i % 2, op_edges[i], 2, 24);
        same(on, &by_context);
        attention_case by_width = random_attention(&random, 2, 19, 1 + i % 3, op_edges[i]);
        same(on, &by_width);
    }
    for (int i = 0; i < 10; i += op_stride()) {
        attention_case c = random_attention(&random, op_int(&random, 0, 3), op_int(&random, 1, 150),
                                            op_int(&random, 0, 4), op_int(&random, 1, 80));
        same(on, &c);
    }
}

static void test_bits(void **state)
{
    (void)state;
    op_against_ref(check_bits);
}

// Heads of width 64, which a backend may do in tiles: whole tiles and tails, and a softmax so sharp that weights go down to 0.
static void check_tile_bits(const op_backend *on)
{
    static const int64_t contexts[] = {1, 8, 17, 31, 32, 33, 63, 64, 65, 100, 128, 200, 256, 289, 512};
    op_random random = {86, 0};
    for (int i = (int)(sizeof contexts / sizeof contexts[0]) - 1; i >= 0; i -= op_stride()) {
        int64_t windows = contexts[i] < 200 ? 3 : 1;
        attention_case c = random_attention(&random, windows, contexts[i], 1 + i % 2, 64);
        for (int64_t j = 0; i % 3 == 0 && j < c.tokens * c.heads; j++)
            c.scale[0][j] *= 200.0f;
        same(on, &c);
    }
}

static void test_tile_bits(void **state)
{
    (void)state;
    op_against_ref(check_tile_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rotary),   cmocka_unit_test(test_rotary_bits), cmocka_unit_test(test_forward),
        cmocka_unit_test(test_backward), cmocka_unit_test(test_bits),        cmocka_unit_test(test_tile_bits),
    };
    return op_run("op_attention", tests);
}
