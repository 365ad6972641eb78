// gate, gate_backward.
#include <math.h>
#include <string.h>

#include "op_test.h"

static float *run(const op_backend *on, int64_t tokens, int64_t width, const float *gu)
{
    size_t items = (size_t)(tokens * width);
    float *h = op_host(items * 4);
    op_call call = op_begin(on);
    tv_gate_args a = {tokens, width, op_in(&call, gu, items * 8), NULL};
    a.h = op_out(&call, h, items * 4);
    op_end(&call, on->backend->gate(&a, NULL));
    return h;
}

static double silu(double x) { return x / (1 + exp(-x)); }

static void check_forward(const op_backend *on)
{
    op_random random = {91, 0};
    for (int i = 0; i < 20; i++) {
        int64_t tokens = op_int(&random, 1, 9), width = op_int(&random, 1, 90);
        float *gu = op_floats(&random, tokens * width * 2, i % 2 ? 4.0f : 60.0f), *h = run(on, tokens, width, gu);
        for (int64_t t = 0; t < tokens; t++)
            for (int64_t f = 0; f < width; f++) {
                double want = silu((double)gu[t * 2 * width + f]) * (double)gu[t * 2 * width + width + f];
                assert_true(fabs((double)h[t * width + f] - want) <= 4e-7 * fabs(want) + 1e-44);
            }
    }
}

static void test_forward(void **state)
{
    (void)state;
    op_on_each(check_forward);
}

typedef struct back_case {
    int64_t tokens, width;
    int8_t *q;
    float *scale, *dh;
} back_case;

static back_case random_back(op_random *random, int64_t tokens, int64_t width)
{
    back_case c = {tokens, width, op_int8s(random, 2 * tokens * width, -127, 127), op_floats(random, 2 * tokens, 0.05f),
                   op_floats(random, tokens * width, 1.0f)};
    for (int64_t t = 0; t < 2 * tokens; t++)
        c.scale[t] = fabsf(c.scale[t]);
    return c;
}

static float *run_back(const op_backend *on, const back_case *c)
{
    size_t items = (size_t)(c->tokens * c->width);
    float *dgu = op_host(items * 8);
    op_call call = op_begin(on);
    tv_gate_backward_args a = {.tokens = c->tokens, .width = c->width};
    a.saved_q = op_in(&call, c->q, items * 2);
    a.saved_scale = op_in(&call, c->scale, (size_t)c->tokens * 8);
    a.dh = op_in(&call, c->dh, items * 4);
    a.dgu = op_out(&call, dgu, items * 8);
    op_end(&call, on->backend->gate_backward(&a, NULL));
    return dgu;
}

// Against finite differences of silu(a) u in double.
static void check_backward(const op_backend *on)
{
    op_random random = {92, 0};
    for (int i = 0; i < 20; i++) {
        back_case c = random_back(&random, op_int(&random, 1, 9), op_int(&random, 1, 90));
        float *dgu = run_back(on, &c);
        for (int64_t t = 0; t < c.tokens; t++)
            for (int64_t f = 0; f < c.width; f++) {
                int64_t gate = 2 * t * c.width + f, up = gate + c.width;
                double a = c.q[gate] * (double)c.scale[2 * t], u = c.q[up] * (double)c.scale[2 * t + 1];
                double dh = (double)c.dh[t * c.width + f], step = 1e-5;
                op_near("up", dh * silu(a), (double)dgu[up], 1e-6);
                op_near("gate", dh * u * (silu(a + step) - silu(a - step)) / (2 * step), (double)dgu[gate], 2e-6);
            }
    }
}

static void test_backward(void **state)
{
    (void)state;
    op_on_each(check_backward);
}

static void check_bits(const op_backend *on)
{
    op_random random = {93, 0};
    for (int i = 0; i < 80; i++) {
        int64_t tokens = i < 2 ? OP_LARGE_ROWS : op_size(&random), width = i < 2 ? OP_LARGE_COLS : op_size(&random);
        float *gu = op_floats(&random, tokens * width * 2, i % 2 ? 5.0f : 200.0f);
        if (tokens * width > 0 && i % 5 == 0) {
            static const float special[] = {INFINITY, -INFINITY, NAN, -0.0f, 0x1p-149f};
            for (int j = 0; j < 5; j++)
                gu[op_int(&random, 0, (int)(tokens * width * 2) - 1)] = special[j];
        }
        op_same_floats("h", on, run(op_ref(), tokens, width, gu), run(on, tokens, width, gu), tokens * width);
        back_case c = random_back(&random, tokens, width);
        op_same_floats("dgu", on, run_back(op_ref(), &c), run_back(on, &c), 2 * tokens * width);
    }
}

static void test_bits(void **state)
{
    (void)state;
    op_against_ref(check_bits);
}

// Floats of all magnitudes and both signs, and the ends of the stretch where a backend may take a short way.
#define EVERY_TOKENS 4096
#define EVERY_WIDTH 256

static float every(int64_t i)
{
    static const float ends[] = {0.0f, 80.0f, 80.00001f, 79.99999f, 87.0f, 88.0f, 103.0f, 105.0f, 120.0f, 0x1p-126f};
    uint32_t bits = (uint32_t)i * 4099u; // over all 2^32 / 4099 of them
    float value;
    memcpy(&value, &bits, sizeof value);
    return i < 20 ? ends[i / 2] * (i % 2 ? -1.0f : 1.0f) : value;
}

static void check_every(const op_backend *on)
{
    int64_t items = EVERY_TOKENS * EVERY_WIDTH;
    float *gu = op_host((size_t)items * 8);
    back_case c = {items, 1, op_host((size_t)items * 2), op_host((size_t)items * 8), op_host((size_t)items * 4)};
    for (int64_t i = 0; i < items; i++) {
        float x = every(i);
        gu[i / EVERY_WIDTH * 2 * EVERY_WIDTH + i % EVERY_WIDTH] = x;
        gu[(i / EVERY_WIDTH * 2 + 1) * EVERY_WIDTH + i % EVERY_WIDTH] = 1.0f;
        c.q[2 * i] = x < 0.0f ? -1 : 1;
        c.q[2 * i + 1] = 1;
        c.scale[2 * i] = fabsf(x);
        c.scale[2 * i + 1] = c.dh[i] = 1.0f;
    }
    op_same_floats("h", on, run(op_ref(), EVERY_TOKENS, EVERY_WIDTH, gu), run(on, EVERY_TOKENS, EVERY_WIDTH, gu),
                   items);
    op_same_floats("dgu", on, run_back(op_ref(), &c), run_back(on, &c), 2 * items);
}

static void test_every(void **state)
{
    (void)state;
    op_against_ref(check_every);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forward), cmocka_unit_test(test_backward),
                                       cmocka_unit_test(test_bits), cmocka_unit_test(test_every)};
    return op_run("op_gate", tests);
}
