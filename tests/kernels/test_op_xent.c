// xent: softmax cross-entropy and its gradient.
#include <math.h>

#include "op_test.h"

typedef struct xent_case {
    int64_t rows, vocab;
    float *logits;
    int32_t *targets;
    float weight; // of the gradient
} xent_case;

typedef struct xent_result {
    float *loss, *grad;
    int32_t fault;
} xent_result;

enum { NO_GRADIENT, OWN_ARRAY, IN_PLACE };

static xent_case random_case(op_random *random, int64_t rows, int64_t vocab, float size)
{
    xent_case c = {rows, vocab, op_floats(random, rows * vocab, size), op_host((size_t)rows * 4), 1.0f};
    for (int64_t t = 0; vocab && t < rows; t++)
        c.targets[t] = op_int(random, 0, 9) == 0 ? -1 : op_int(random, 0, (int)vocab - 1);
    return c;
}

static xent_result run(const op_backend *on, const xent_case *c, int gradient)
{
    size_t bytes = (size_t)(c->rows * c->vocab) * 4;
    xent_result out = {op_host((size_t)c->rows * 4), NULL, 0};
    if (gradient == OWN_ARRAY)
        out.grad = op_host(bytes);
    if (gradient == IN_PLACE)
        out.grad = op_host_copy(c->logits, bytes);
    op_call call = op_begin(on);
    tv_xent_args a = {.rows = c->rows, .vocab = c->vocab, .weight = c->weight};
    a.grad = op_out(&call, out.grad, bytes);
    a.logits = gradient == IN_PLACE ? a.grad : op_in(&call, c->logits, bytes);
    a.targets = op_in(&call, c->targets, (size_t)c->rows * 4);
    a.loss = op_out(&call, out.loss, (size_t)c->rows * 4);
    a.fault = op_out(&call, &out.fault, sizeof out.fault);
    op_end(&call, on->backend->xent(&a, NULL));
    return out;
}

static double exact_loss(const float *logits, int64_t vocab, int32_t target, int64_t moved, double by)
{
    long double total = 0, own = 0;
    for (int64_t v = 0; v < vocab; v++) {
        long double l = (long double)logits[v] + (v == moved ? (long double)by : 0);
        total += expl(l);
        own = v == target ? l : own;
    }
    return (double)(logl(total) - own);
}

static void check_oracle(const op_backend *on)
{
    op_random random = {101, 0};
    for (int i = 0; i < 20; i++) {
        xent_case c = random_case(&random, op_int(&random, 1, 6), op_int(&random, 1, 70), 8.0f);
        c.weight = i % 2 ? 2.5f : 1.0f;
        xent_result got = run(on, &c, OWN_ARRAY);
        assert_int_equal(got.fault, 0);
        for (int64_t t = 0; t < c.rows; t++) {
            const float *row = c.logits + t * c.vocab;
            int32_t target = c.targets[t];
            op_near("loss", target < 0 ? 0 : exact_loss(row, c.vocab, target, 0, 0), (double)got.loss[t], 1e-6);
            for (int64_t v = 0; v < c.vocab; v++) {
                double h = 1e-4, slope = 0;
                if (target >= 0)
                    slope =
                        (exact_loss(row, c.vocab, target, v, h) - exact_loss(row, c.vocab, target, v, -h)) / (2 * h);
                op_near("gradient", slope * (double)c.weight, (double)got.grad[t * c.vocab + v], 1e-6);
            }
        }
    }
}

static void test_oracle(void **state)
{
    (void)state;
    op_on_each(check_oracle);
}

static void check_fault(const op_backend *on)
{
    op_random random = {102, 0};
    static const float special[3] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 18; i++) {
        xent_case c = random_case(&random, 3, 66, 2.0f);
        c.targets[1] = i % 6 == 5 ? -1 : 7;
        xent_result clean = run(on, &c, i % 3);
        c.logits[66 + (i < 6 ? 7 : op_int(&random, 0, 65))] = special[i % 3];
        xent_result got = run(on, &c, i % 3);
        assert_int_equal(clean.fault, 0);
        assert_int_equal(got.fault, 1);
        assert_true(got.loss[0] == clean.loss[0] && got.loss[2] == clean.loss[2]);
    }
    float far[2] = {3e38f, -3e38f}; // finite logits whose loss is not
    int32_t target = 1;
    xent_case c = {1, 2, far, &target, 1.0f};
    assert_int_equal(run(on, &c, NO_GRADIENT).fault, 1);
    target = 0;
    xent_result fine = run(on, &c, NO_GRADIENT);
    assert_int_equal(fine.fault, 0);
    assert_true(fine.loss[0] == 0.0f);
}

static void test_fault(void **state)
{
    (void)state;
    op_on_each(check_fault);
}

static void check_bits(const op_backend *on)
{
    op_random random = {103, 0};
    for (int i = 0; i < 90; i++) {
        int64_t rows = i < 4 ? OP_LARGE_ROWS : op_int(&random, 0, 40), vocab = i % 4 == 0 ? 264 : op_size(&random);
        xent_case c = random_case(&random, rows, vocab, i % 2 ? 3.0f : 90.0f);
        c.weight = i % 3 == 0 ? 1.0f : i % 7 == 0 ? 0.0f : 0.3f;
        if (i % 10 == 0 && c.rows * c.vocab > 0)
            c.logits[op_int(&random, 0, (int)(c.rows * c.vocab) - 1)] = INFINITY;
        xent_result want = run(op_ref(), &c, OWN_ARRAY), got = run(on, &c, i % 3);
        op_same_floats("loss", on, want.loss, got.loss, c.rows);
        assert_int_equal(want.fault, got.fault);
        if (got.grad)
            op_same_floats("gradient", on, want.grad, got.grad, c.rows * c.vocab);
    }
}

static void test_bits(void **state)
{
    (void)state;
    op_against_ref(check_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_oracle), cmocka_unit_test(test_fault),
                                       cmocka_unit_test(test_bits)};
    return op_run("op_xent", tests);
}
