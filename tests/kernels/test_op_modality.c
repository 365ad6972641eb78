// Features at some of a unit's tokens: what is added there, its gradient, and the vote on the gate.
#include <math.h>
#include <string.h>

#include "op_test.h"

typedef struct features {
    int64_t tokens, rows, width;
    int8_t gate;
    int32_t *at, vote;
    float *x, *y, *dy, *dot; // x also serves as dx
    float tau;
} features;

// Rows at ascending tokens of their own.
static features random_features(op_random *random, int64_t tokens, int64_t width)
{
    features f = {.tokens = tokens, .width = width, .gate = (int8_t)op_int(random, -128, 127)};
    f.tau = op_int(random, 0, 2) ? op_float(random, 3.0f) : 0.0f;
    f.at = op_host((size_t)tokens * 4);
    int share = op_int(random, 0, 3);
    for (int64_t t = 0; t < tokens; t++)
        if (op_int(random, 0, 3) < share)
            f.at[f.rows++] = (int32_t)t;
    f.x = op_floats(random, tokens * width, 3.0f);
    f.y = op_floats(random, f.rows * width, 2.0f);
    f.dy = op_host((size_t)(f.rows * width) * 4);
    f.dot = op_host((size_t)f.rows * 4);
    f.vote = op_int(random, -9, 9);
    return f;
}

static void run_add(const op_backend *on, const features *f, float *x)
{
    op_call call = op_begin(on);
    tv_modality_add_args a = {.rows = f->rows, .width = f->width};
    a.gate = op_in(&call, &f->gate, 1);
    a.at = op_in(&call, f->at, (size_t)f->rows * 4);
    a.y = op_in(&call, f->y, (size_t)(f->rows * f->width) * 4);
    a.x = op_out(&call, x, (size_t)(f->tokens * f->width) * 4);
    op_end(&call, on->backend->modality.add(&a, NULL));
}

static void run_back(const op_backend *on, features *f)
{
    op_call call = op_begin(on);
    tv_modality_back_args a = {.rows = f->rows, .width = f->width, .tau = f->tau};
    a.gate = op_in(&call, &f->gate, 1);
    a.at = op_in(&call, f->at, (size_t)f->rows * 4);
    a.y = op_in(&call, f->y, (size_t)(f->rows * f->width) * 4);
    a.dx = op_in(&call, f->x, (size_t)(f->tokens * f->width) * 4);
    a.dy = op_out(&call, f->dy, (size_t)(f->rows * f->width) * 4);
    a.dot = op_out(&call, f->dot, (size_t)f->rows * 4);
    a.vote = op_out(&call, &f->vote, sizeof f->vote);
    op_end(&call, on->backend->modality.back(&a, NULL));
}

static float gate_of(const features *f) { return (float)(f->gate + 128) / 256.0f; }

// Tokens without a feature keep their bits.
static void check_add(const op_backend *on)
{
    op_random random = {701, 0};
    for (int i = 0; i < 40; i += op_stride()) {
        features f = random_features(&random, op_int(&random, 0, 30), op_int(&random, 0, 70));
        float *before = op_host_copy(f.x, (size_t)(f.tokens * f.width) * 4);
        run_add(on, &f, f.x);
        for (int64_t t = 0, r = 0; t < f.tokens; t++) {
            int has = r < f.rows && f.at[r] == t;
            for (int64_t c = 0; c < f.width; c++) {
                float old = before[t * f.width + c];
                float want = has ? fmaf(gate_of(&f), f.y[r * f.width + c], old) : old;
                op_same("x", on, &want, f.x + t * f.width + c, sizeof want);
            }
            r += has;
        }
    }
}

static int sign_of(double x) { return (x > 0) - (x < 0); }

// The vote is the sign of the gate's gradient over all rows, unless that is less than tau of its own scatter.
static void check_back(const op_backend *on)
{
    op_random random = {702, 0};
    int cast = 0, held = 0;
    for (int i = 0; i < 120; i += op_stride()) {
        features f = random_features(&random, op_int(&random, 0, 30), op_int(&random, 0, 70));
        int32_t before = f.vote;
        double s = 0, q = 0;
        run_back(on, &f);
        for (int64_t r = 0; r < f.rows; r++) {
            double dot = 0;
            for (int64_t c = 0; c < f.width; c++) {
                float dx = f.x[f.at[r] * f.width + c];
                dot += (double)dx * (double)f.y[r * f.width + c];
                assert_true(f.dy[r * f.width + c] == gate_of(&f) * dx);
            }
            if (f.width > 0)
                op_near("dot", dot, f.dot[r], 1e-4);
            s += dot, q += dot * dot;
        }
        double limit = (double)f.tau * (double)f.tau * q;
        if (fabs(s * s - limit) < 1e-3 * (1 + limit) && f.rows > 0 && f.width > 0)
            continue; // too near to call in double
        int want = s * s >= limit ? sign_of(s) : 0;
        assert_int_equal(f.vote - before, want);
        cast += want != 0, held += want == 0 && f.rows > 0 && f.width > 0;
    }
    assert_true(cast * op_stride() > 10 && held * op_stride() > 4);
}

static void compare_one(const op_backend *on, features f)
{
    features want = f;
    size_t values = (size_t)(f.tokens * f.width) * 4, rows = (size_t)(f.rows * f.width) * 4;
    float *x = op_host_copy(f.x, values), *want_x = op_host_copy(f.x, values);
    want.dy = op_host(rows), want.dot = op_host((size_t)f.rows * 4);
    run_add(op_ref(), &want, want_x), run_add(on, &f, x);
    op_same("x", on, want_x, x, values);
    run_back(op_ref(), &want), run_back(on, &f);
    op_same("dy", on, want.dy, f.dy, rows);
    op_same("dot", on, want.dot, f.dot, (size_t)f.rows * 4);
    op_same("vote", on, &want.vote, &f.vote, sizeof f.vote);
}

static void compare(const op_backend *on)
{
    op_random random = {703, 0};
    for (int i = 0; i < 40; i += op_stride()) {
        int64_t tokens = op_size(&random);
        compare_one(on, random_features(&random, tokens, op_size(&random)));
    }
    compare_one(on, random_features(&random, OP_LARGE_ROWS, OP_LARGE_COLS));
}

static void test_add(void **state)
{
    (void)state;
    op_on_each(check_add);
}

static void test_back(void **state)
{
    (void)state;
    op_on_each(check_back);
}

static void test_against_ref(void **state)
{
    (void)state;
    op_against_ref(compare);
}

static int clean_up(void **state)
{
    (void)state;
    op_host_free();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(test_add, clean_up),
                                       cmocka_unit_test_teardown(test_back, clean_up),
                                       cmocka_unit_test_teardown(test_against_ref, clean_up)};
    return op_run("op_modality", tests);
}
