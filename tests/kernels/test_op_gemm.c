// gemm: one and two digits, with and without accumulation.
#include <math.h>
#include <stdlib.h>

#include "op_test.h"

typedef struct gemm_case {
    int64_t m, n, reduce;
    int8_t *a, *a_lo, *b;
    float *scale, *y; // y: what it holds before
    int exponent, accumulate;
} gemm_case;

static gemm_case random_case(op_random *random, int64_t m, int64_t n, int64_t reduce)
{
    gemm_case c = {.m = m, .n = n, .reduce = reduce};
    c.a = op_int8s(random, m * reduce, -127, 127);
    c.a_lo = op_int(random, 0, 2) == 0 ? op_int8s(random, m * reduce, -63, 63) : NULL;
    c.b = op_int8s(random, n * reduce, -120, 120);
    c.scale = op_floats(random, m, 0.01f);
    c.y = op_floats(random, m * n, 1.0f);
    c.exponent = op_int(random, -20, 5);
    c.accumulate = op_int(random, 0, 1);
    return c;
}

static float *run(const op_backend *on, const gemm_case *c)
{
    size_t a_bytes = (size_t)(c->m * c->reduce), y_bytes = (size_t)(c->m * c->n) * sizeof(float);
    float *y = op_host_copy(c->y, y_bytes);
    op_call call = op_begin(on);
    tv_gemm_args a = {.m = c->m, .n = c->n, .reduce = c->reduce, .exponent = c->exponent, .accumulate = c->accumulate};
    a.a = op_in(&call, c->a, a_bytes);
    a.a_lo = op_in(&call, c->a_lo, a_bytes);
    a.b = op_in(&call, c->b, (size_t)(c->n * c->reduce));
    a.scale = op_in(&call, c->scale, (size_t)c->m * sizeof(float));
    a.y = op_out(&call, y, y_bytes);
    op_end(&call, on->backend->gemm(&a, NULL));
    return y;
}

// The sum column by column in int64; the exact real value rounds to the result within the formula's three roundings.
static void check_oracle(const op_backend *on)
{
    op_random random = {41, 0};
    for (int i = 0; i < 25; i += op_stride()) {
        gemm_case c = random_case(&random, op_int(&random, 1, 20), op_int(&random, 1, 40), op_int(&random, 1, 500));
        float *y = run(on, &c);
        for (int64_t j = 0; j < c.n; j++)
            for (int64_t row = 0; row < c.m; row++) {
                int64_t acc = 0;
                for (int64_t r = c.reduce - 1; r >= 0; r--) {
                    int64_t left = c.a[row * c.reduce + r];
                    if (c.a_lo)
                        left = 127 * left + c.a_lo[row * c.reduce + r];
                    acc += left * c.b[j * c.reduce + r];
                }
                double exact = ldexp((double)acc * (double)c.scale[row], c.exponent);
                double size = fabs(exact) + (c.accumulate ? fabs((double)c.y[row * c.n + j]) : 0);
                exact += c.accumulate ? (double)c.y[row * c.n + j] : 0;
                assert_true(fabs((double)y[row * c.n + j] - exact) <= 2e-7 * size);
            }
    }
}

static void test_oracle(void **state)
{
    (void)state;
    op_on_each(check_oracle);
}

// Sums that must not saturate: the longest reduced length with the largest operands.
static void check_largest(const op_backend *on)
{
    int64_t reduce = 140911; // m = 3: 2^31 / (127 * 120)
    gemm_case c = {.m = 2, .n = 2, .reduce = reduce};
    c.a = op_host((size_t)(2 * reduce));
    c.b = op_host((size_t)(2 * reduce));
    c.scale = op_host(2 * sizeof(float));
    c.y = op_host(4 * sizeof(float));
    c.scale[0] = c.scale[1] = 1.0f;
    for (int64_t r = 0; r < reduce; r++) {
        c.a[r] = 127;
        c.a[reduce + r] = -127;
        c.b[r] = 120;
        c.b[reduce + r] = -120;
    }
    float want = (float)(127 * 120 * reduce), *y = run(on, &c);
    assert_true(y[0] == want && y[3] == want && y[1] == -want && y[2] == -want);
}

static void test_largest(void **state)
{
    (void)state;
    op_on_each(check_largest);
}

static void same(const op_backend *on, const gemm_case *c)
{
    float *want = run(op_ref(), c), *got = run(on, c), *again = run(on, c);
    op_same_floats("y", on, want, got, c->m * c->n);
    op_same("y of a second run", on, got, again, (size_t)(c->m * c->n) * sizeof(float));
}

static void check_bits(const op_backend *on)
{
    op_random random = {42, 0};
    for (int dimension = 0; dimension < 3; dimension++)
        for (int i = 0; i < op_edge_count; i += op_stride()) {
            int64_t size[3] = {33, 18, 70};
            size[dimension] = op_edges[i];
            gemm_case c = random_case(&random, size[0], size[1], size[2]);
            same(on, &c);
        }
    for (int i = 0; i < 60; i += op_stride()) {
        gemm_case c = random_case(&random, op_size(&random), op_size(&random), op_size(&random));
        same(on, &c);
    }
    // Rows of whole 16-byte pieces have a path of their own on some backends.
    for (int i = 0; i < 40; i += op_stride()) {
        gemm_case c = random_case(&random, op_size(&random), op_size(&random), 16 * (1 + op_size(&random) / 4));
        same(on, &c);
    }
    static const int64_t large[4][3] = {{70, 90, 1031}, {1, 300, 2049}, {257, 3, 1536}, {261, 301, 515}};
    for (int i = 0; i < 4; i++) {
        gemm_case c = random_case(&random, large[i][0], large[i][1], large[i][2]);
        same(on, &c);
    }
}

static void test_bits(void **state)
{
    (void)state;
    op_against_ref(check_bits);
}

// More tiles of 128 x 128 than a GPU has multiprocessors, so that each of them takes several: one and two digits, both ways to store.
static void check_turns(const op_backend *on)
{
    op_random random = {43, 0};
    static const int64_t size[3][3] = {{2200, 1032, 144}, {2200, 1030, 144}, {2200, 1032, 136}};
    for (int i = 0; i < 12 && !on->backend->host_memory; i += op_stride()) {
        gemm_case c = random_case(&random, size[i / 4][0], size[i / 4][1], size[i / 4][2]);
        c.a_lo = i % 2 ? op_int8s(&random, c.m * c.reduce, -63, 63) : NULL;
        c.accumulate = i / 2 % 2;
        same(on, &c);
        op_host_free();
    }
}

static void test_turns(void **state)
{
    (void)state;
    op_against_ref(check_turns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_oracle), cmocka_unit_test(test_largest),
                                       cmocka_unit_test(test_bits), cmocka_unit_test(test_turns)};
    return op_run("op_gemm", tests);
}
