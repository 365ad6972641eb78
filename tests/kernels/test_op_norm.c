// norm, norm_backward, row_sum, add, fill: the float row ops.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "op_test.h"

typedef struct norm_case {
    int64_t rows, cols;
    float *x;
    int8_t *w8;
    int exponent, evaluation;
} norm_case;

typedef struct norm_result {
    float *y, *scale, *rstd;
    int8_t *q;
    int32_t fault;
} norm_result;

static norm_case random_case(op_random *random, int64_t rows, int64_t cols)
{
    norm_case c = {
        rows, cols, op_floats(random, rows * cols, 2.0f), op_int8s(random, cols, -64, 64), op_int(random, -9, 3), 0};
    return c;
}

static norm_result run(const op_backend *on, const norm_case *c)
{
    size_t items = (size_t)(c->rows * c->cols), row_bytes = (size_t)c->rows * sizeof(float);
    norm_result out = {op_host(items * sizeof(float)), NULL, NULL, NULL, 0};
    if (!c->evaluation)
        out.scale = op_host(row_bytes), out.rstd = op_host(row_bytes), out.q = op_host(items);
    op_call call = op_begin(on);
    tv_norm_args a = {.rows = c->rows, .cols = c->cols, .exponent = c->exponent};
    a.x = op_in(&call, c->x, items * sizeof(float));
    a.w8 = op_in(&call, c->w8, (size_t)c->cols);
    a.y = op_out(&call, out.y, items * sizeof(float));
    a.saved_q = op_out(&call, out.q, items);
    a.saved_scale = op_out(&call, out.scale, row_bytes);
    a.saved_rstd = op_out(&call, out.rstd, row_bytes);
    a.fault = op_out(&call, &out.fault, sizeof out.fault);
    op_end(&call, on->backend->norm(&a, NULL));
    return out;
}

static double weight(const norm_case *c, int64_t k) { return ldexp(c->w8[k], c->exponent); }

static void check_forward(const op_backend *on)
{
    op_random random = {71, 0};
    for (int i = 0; i < 30; i++) {
        norm_case c = random_case(&random, op_int(&random, 1, 8), op_int(&random, 1, 300));
        norm_result got = run(on, &c);
        for (int64_t t = 0; t < c.rows; t++) {
            double squares = 0, most = 0;
            for (int64_t k = 0; k < c.cols; k++) {
                double x = (double)c.x[t * c.cols + k];
                squares += x * x, most = fmax(most, fabs(x));
            }
            double r = 1 / sqrt(squares / (double)c.cols + 1e-5);
            op_near("rstd", r, (double)got.rstd[t], 2e-6);
            op_near("scale", most / 127, (double)got.scale[t], 1e-6);
            for (int64_t k = 0; k < c.cols; k++) {
                double x = (double)c.x[t * c.cols + k];
                op_near("y", x * r * weight(&c, k), (double)got.y[t * c.cols + k], 2e-6);
                assert_true(fabs(got.q[t * c.cols + k] - x / most * 127) < 0.501);
            }
        }
        c.evaluation = 1;
        op_same_floats("y in evaluation", on, got.y, run(on, &c).y, c.rows * c.cols);
    }
}

static void test_forward(void **state)
{
    (void)state;
    op_on_each(check_forward);
}

static void check_fault(const op_backend *on)
{
    op_random random = {72, 0};
    static const float special[3] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 12; i++) {
        norm_case c = random_case(&random, 4, 70);
        c.evaluation = i % 2;
        norm_result clean = run(on, &c);
        assert_int_equal(clean.fault, 0);
        c.x[2 * 70 + op_int(&random, 0, 69)] = special[i % 3];
        norm_result got = run(on, &c);
        assert_int_equal(got.fault, 1);
        op_same_floats("rows before the fault", on, clean.y, got.y, 2 * 70);
        op_same_floats("rows after the fault", on, clean.y + 3 * 70, got.y + 3 * 70, 70);
        for (int64_t k = 0; !c.evaluation && k < 70; k++)
            assert_int_equal(got.q[2 * 70 + k], 0);
    }
}

static void test_fault(void **state)
{
    (void)state;
    op_on_each(check_fault);
}

typedef struct back_case {
    int64_t rows, cols;
    float *dy, *start, *scale, *rstd;
    int8_t *w8, *q;
    int exponent, accumulate;
} back_case;

// in_place: dx is dy.
static float *run_back(const op_backend *on, const back_case *c, int in_place)
{
    size_t items = (size_t)(c->rows * c->cols);
    float *dx = op_host_copy(in_place ? c->dy : c->start, items * sizeof(float));
    op_call call = op_begin(on);
    tv_norm_backward_args a = {.rows = c->rows, .cols = c->cols, .exponent = c->exponent, .accumulate = c->accumulate};
    a.dx = op_out(&call, dx, items * sizeof(float));
    a.dy = in_place ? a.dx : op_in(&call, c->dy, items * sizeof(float));
    a.w8 = op_in(&call, c->w8, (size_t)c->cols);
    a.saved_q = op_in(&call, c->q, items);
    a.saved_scale = op_in(&call, c->scale, (size_t)c->rows * sizeof(float));
    a.saved_rstd = op_in(&call, c->rstd, (size_t)c->rows * sizeof(float));
    op_end(&call, on->backend->norm_backward(&a, NULL));
    return dx;
}

// Loss <dy, y> of one row, in double.
static double loss_of(const norm_case *c, const float *dy, const double *x)
{
    double squares = 0, loss = 0;
    for (int64_t k = 0; k < c->cols; k++)
        squares += x[k] * x[k];
    double r = 1 / sqrt(squares / (double)c->cols + 1e-5);
    for (int64_t k = 0; k < c->cols; k++)
        loss += (double)dy[k] * x[k] * r * weight(c, k);
    return loss;
}

// Against finite differences of the forward formula in double, at an x that int8 represents exactly.
static void check_backward(const op_backend *on)
{
    op_random random = {73, 0};
    for (int i = 0; i < 20; i++) {
        int64_t cols = op_int(&random, 2, 70);
        norm_case c = random_case(&random, 1, cols);
        int8_t *q = op_int8s(&random, cols, -127, 127);
        q[0] = 127;
        double x[70];
        for (int64_t k = 0; k < cols; k++)
            c.x[k] = (float)q[k] * 0x1p-6f, x[k] = (double)c.x[k];
        norm_result saved = run(on, &c);
        back_case b = {1,
                       cols,
                       op_floats(&random, cols, 1.0f),
                       op_floats(&random, cols, 1.0f),
                       saved.scale,
                       saved.rstd,
                       c.w8,
                       saved.q,
                       c.exponent,
                       1};
        float *dx = run_back(on, &b, 0);
        double size = 0;
        for (int64_t k = 0; k < cols; k++)
            size = fmax(size, fabs((double)dx[k] - (double)b.start[k]));
        for (int64_t k = 0; k < cols; k++) {
            double keep = x[k], h = 1e-5;
            x[k] = keep + h;
            double up = loss_of(&c, b.dy, x);
            x[k] = keep - h;
            double down = loss_of(&c, b.dy, x);
            x[k] = keep;
            assert_true(fabs((double)dx[k] - (double)b.start[k] - (up - down) / (2 * h)) < 1e-5 * (size + 1));
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
    op_random random = {74, 0};
    for (int i = 0; i < 100; i++) {
        int64_t rows = i < 4 ? OP_LARGE_ROWS : op_int(&random, 0, 40), cols = i < 4 ? OP_LARGE_COLS : op_size(&random);
        norm_case c = random_case(&random, rows, cols);
        int64_t items = c.rows * c.cols;
        if (i % 5 == 0 && items)
            c.x[op_int(&random, 0, (int)items - 1)] = i % 2 ? NAN : 0x1p+80f;
        c.evaluation = i % 4 == 3;
        norm_result want = run(op_ref(), &c), got = run(on, &c);
        op_same_floats("y", on, want.y, got.y, items);
        assert_int_equal(want.fault, got.fault);
        if (c.evaluation)
            continue;
        op_same("saved q", on, want.q, got.q, (size_t)items);
        op_same_floats("saved scale", on, want.scale, got.scale, c.rows);
        op_same_floats("rstd", on, want.rstd, got.rstd, c.rows);
        back_case b = {c.rows,
                       c.cols,
                       op_floats(&random, items, 1.0f),
                       op_floats(&random, items, 1.0f),
                       want.scale,
                       want.rstd,
                       c.w8,
                       want.q,
                       c.exponent,
                       i % 2};
        op_same_floats("dx", on, run_back(op_ref(), &b, 0), run_back(on, &b, 0), items);
        b.accumulate = 0;
        op_same_floats("dx in place", on, run_back(op_ref(), &b, 0), run_back(on, &b, 1), items);
    }
}

static void test_bits(void **state)
{
    (void)state;
    op_against_ref(check_bits);
}

static float *run_row_sum(const op_backend *on, int64_t rows, int64_t cols, const float *x)
{
    float *out = op_host((size_t)rows * sizeof *out);
    op_call call = op_begin(on);
    tv_row_sum_args a = {rows, cols, op_in(&call, x, (size_t)(rows * cols) * sizeof *x), NULL};
    a.out = op_out(&call, out, (size_t)rows * sizeof *out);
    op_end(&call, on->backend->row_sum(&a, NULL));
    return out;
}

static float *run_add(const op_backend *on, int64_t count, const float *x, const float *start)
{
    float *y = op_host_copy(start, (size_t)count * sizeof *y);
    op_call call = op_begin(on);
    tv_add_args a = {count, op_in(&call, x, (size_t)count * sizeof *x), NULL};
    a.y = op_out(&call, y, (size_t)count * sizeof *y);
    op_end(&call, on->backend->add(&a, NULL));
    return y;
}

// The fixed tree as a recursion: the sum of `width` lanes from l on is that of the first half plus that of the second.
static float tree(const float *lane, int l, int width)
{
    return width == 1 ? lane[l] : tree(lane, l, width / 2) + tree(lane, l + width / 2, width / 2);
}

// Lane number with its five bits reversed: lanes that differ by 16 are added first, so they must lie side by side.
static int reversed(int l) { return (l & 1) << 4 | (l & 2) << 2 | (l & 4) | (l & 8) >> 2 | (l & 16) >> 4; }

static void check_small(const op_backend *on)
{
    op_random random = {75, 0};
    for (int i = 0; i < 60; i++) {
        int64_t rows = i == 0 ? OP_LARGE_ROWS : op_int(&random, 1, 9), cols = i == 0 ? OP_LARGE_COLS : op_size(&random);
        float *x = op_floats(&random, rows * cols, 1.0f), *sum = run_row_sum(on, rows, cols, x);
        for (int64_t r = 0; cols && r < rows; r++) {
            float lane[32];
            for (int l = 0; l < 32; l++) {
                volatile float s = 0.0f;
                for (int64_t c = l; c < cols; c += 32)
                    s = s + x[r * cols + c];
                lane[reversed(l)] = s;
            }
            float want = tree(lane, 0, 32);
            op_same_floats("row sum", on, &want, sum + r, 1);
        }
        float *start = op_floats(&random, rows * cols, 1.0f), *y = run_add(on, rows * cols, x, start);
        for (int64_t j = 0; j < rows * cols; j++)
            assert_true(y[j] == (float)((double)start[j] + (double)x[j]));
        op_call call = op_begin(on);
        tv_fill_args fill = {rows * cols, -0.0f, op_out(&call, y, (size_t)(rows * cols) * sizeof *y)};
        op_end(&call, on->backend->fill(&fill, NULL));
        for (int64_t j = 0; j < rows * cols; j++)
            assert_true(y[j] == 0.0f && signbit(y[j]));
    }
}

static void test_small(void **state)
{
    (void)state;
    op_on_each(check_small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward), cmocka_unit_test(test_fault), cmocka_unit_test(test_backward),
        cmocka_unit_test(test_bits),    cmocka_unit_test(test_small),
    };
    return op_run("op_norm", tests);
}
