// The conversation's cells: boundaries, sums over segments and back, a segment of both cells and its gradient, carried states.
#include <math.h>
#include <string.h>

#include "op_test.h"

typedef struct shape {
    int64_t windows, context, segment, segments, width, stride, rows;
} shape;

static shape random_shape(op_random *random)
{
    shape s = {.windows = op_int(random, 0, 5), .context = op_int(random, 1, 23), .segment = op_int(random, 1, 9)};
    s.segments = op_int(random, 0, (int)((s.context + s.segment - 1) / s.segment));
    s.width = op_int(random, 0, 41);
    s.stride = s.width + op_int(random, 0, 7);
    s.rows = s.segments * s.windows;
    return s;
}

static shape large_shape(void) { return (shape){37, 64, 8, 8, 133, 140, 37 * 8}; }

// First token of segment row r, and the one behind its last.
static int64_t first_token(const shape *s, int64_t r)
{
    return r % s->windows * s->context + r / s->windows * s->segment;
}
static int64_t end_token(const shape *s, int64_t r)
{
    int64_t end = first_token(s, r) + s->segment, window = (r % s->windows + 1) * s->context;
    return end < window ? end : window;
}

// ---- boundaries ------------------------------------------------------------------------------------------------------------------

static void run_kinds(const op_backend *on, const shape *s, const int32_t *ids, int32_t *kind)
{
    op_call call = op_begin(on);
    tv_focus_kinds_args a = {
        .windows = s->windows, .context = s->context, .segment = s->segment, .segments = s->segments};
    a.ids = op_in(&call, ids, (size_t)(s->windows * s->context) * 4);
    a.kind = op_out(&call, kind, (size_t)s->rows * 4);
    op_end(&call, on->backend->focus.kinds(&a, NULL));
}

static void check_kinds(const op_backend *on)
{
    op_random random = {601, 0};
    int64_t found[TV_FOCUS_KINDS] = {0};
    for (int i = 0; i < 80; i++) {
        shape s = random_shape(&random);
        int32_t *ids = op_host((size_t)(s.windows * s.context) * 4), *kind = op_host((size_t)s.rows * 4);
        for (int64_t t = 0; t < s.windows * s.context; t++)
            ids[t] = op_int(&random, 0, 15) == 0 ? 256 : op_int(&random, 0, 1) ? 10 : 97;
        run_kinds(on, &s, ids, kind);
        for (int64_t r = 0; r < s.rows; r++) {
            int document = 0, paragraph = 0;
            for (int64_t t = first_token(&s, r); t < end_token(&s, r); t++) {
                document |= ids[t] == 256;
                paragraph |= t % s.context > 0 && ids[t] == 10 && ids[t - 1] == 10;
            }
            int want = document ? TV_FOCUS_DOCUMENT : paragraph ? TV_FOCUS_PARAGRAPH : TV_FOCUS_NONE;
            assert_int_equal(kind[r], want);
            found[want]++;
        }
    }
    for (int k = 0; k < TV_FOCUS_KINDS; k++)
        assert_true(found[k] > 20);
}

static void test_kinds(void **state)
{
    (void)state;
    op_on_each(check_kinds);
}

// ---- sums over a segment, and what is added to it --------------------------------------------------------------------------------

static void run_gather(const op_backend *on, const shape *s, float divisor, const float *x, const float *add,
                       float *out)
{
    op_call call = op_begin(on);
    tv_focus_gather_args a = {.windows = s->windows,
                              .context = s->context,
                              .segment = s->segment,
                              .segments = s->segments,
                              .width = s->width,
                              .stride = s->stride,
                              .divisor = divisor};
    a.x = op_in(&call, x, (size_t)(s->windows * s->context * s->width) * 4);
    a.add = op_in(&call, add, (size_t)(s->rows * s->width) * 4);
    a.out = op_out(&call, out, (size_t)(s->rows * s->stride) * 4);
    op_end(&call, on->backend->focus.gather(&a, NULL));
}

static void run_scatter(const op_backend *on, const shape *s, float divisor, const float *y, float *x, float *copy)
{
    op_call call = op_begin(on);
    tv_focus_scatter_args a = {.windows = s->windows,
                               .context = s->context,
                               .segment = s->segment,
                               .segments = s->segments,
                               .width = s->width,
                               .stride = s->stride,
                               .divisor = divisor};
    a.y = op_in(&call, y, (size_t)(s->rows * s->stride) * 4);
    a.x = op_out(&call, x, (size_t)(s->windows * s->context * s->width) * 4);
    a.copy = op_out(&call, copy, (size_t)(s->rows * s->width) * 4);
    op_end(&call, on->backend->focus.scatter(&a, NULL));
}

static void check_segments(const op_backend *on)
{
    op_random random = {602, 0};
    for (int i = 0; i < 60; i += op_stride()) {
        shape s = random_shape(&random);
        int64_t values = s.windows * s.context * s.width, row_values = s.rows * s.width;
        float divisor = i % 2 ? 1.0f : (float)s.segment;
        float *x = op_floats(&random, values, 3), *add = op_floats(&random, row_values, 1);
        float *out = op_floats(&random, s.rows * s.stride, 1), *copy = op_host((size_t)row_values * 4);
        float *before = op_host_copy(out, (size_t)(s.rows * s.stride) * 4);
        run_gather(on, &s, divisor, x, i % 3 ? add : NULL, out);
        float *spread = op_host_copy(x, (size_t)values * 4);
        run_scatter(on, &s, divisor, out, spread, i % 3 ? copy : NULL);
        for (int64_t r = 0; r < s.rows; r++)
            for (int64_t c = 0; c < s.stride; c++) {
                float got = out[r * s.stride + c], sum = 0;
                if (c >= s.width) {
                    assert_true(got == before[r * s.stride + c]); // beside the matrix nothing is written
                    continue;
                }
                for (int64_t t = first_token(&s, r); t < end_token(&s, r); t++) {
                    sum += x[t * s.width + c];
                    assert_true(spread[t * s.width + c] == x[t * s.width + c] + got / divisor);
                }
                assert_true(got == sum / divisor + (i % 3 ? add[r * s.width + c] : 0));
                assert_true(i % 3 == 0 || copy[r * s.width + c] == got);
            }
    }
}

static void test_segments(void **state)
{
    (void)state;
    op_on_each(check_segments);
}

// ---- cells ---------------------------------------------------------------------------------------------------------------------------

typedef struct cells {
    int64_t rows, width, stride;
    float *z, *h, *c;              // in
    float *next_h, *next_c, *tail; // of the forward
    float *slow;                   // too
    float *grad, *slow_grad, *tail_grad, *dh, *dc, *dz;
} cells;

static cells random_cells(op_random *random, int64_t rows, int64_t width)
{
    cells k = {.rows = rows, .width = width, .stride = 2 * width + op_int(random, 0, 5)};
    k.z = op_floats(random, rows * TV_FOCUS_GATES * width, 4);
    k.h = op_floats(random, rows * 2 * width, 1);
    k.c = op_floats(random, rows * 2 * width, 2);
    k.next_h = op_host((size_t)(rows * 2 * width) * 4);
    k.next_c = op_host((size_t)(rows * 2 * width) * 4);
    k.tail = op_floats(random, rows * k.stride, 1);
    k.slow = op_host((size_t)(rows * width) * 4);
    k.grad = op_floats(random, rows * 2 * width, 1);
    k.slow_grad = op_floats(random, rows * width, 1);
    k.tail_grad = op_floats(random, rows * k.stride, 1);
    k.dh = op_floats(random, rows * 2 * width, 1);
    k.dc = op_floats(random, rows * 2 * width, 1);
    k.dz = op_host((size_t)(rows * TV_FOCUS_GATES * width) * 4);
    return k;
}

static size_t state_bytes(const cells *k) { return (size_t)(k->rows * 2 * k->width) * 4; }
static size_t gate_bytes(const cells *k) { return (size_t)(k->rows * TV_FOCUS_GATES * k->width) * 4; }
static size_t tail_bytes(const cells *k) { return (size_t)(k->rows * k->stride) * 4; }

static void run_cell(const op_backend *on, const cells *k, float *next_h, float *next_c, float *tail, float *slow)
{
    op_call call = op_begin(on);
    tv_focus_cell_args a = {.rows = k->rows, .width = k->width, .stride = k->stride};
    a.z = op_in(&call, k->z, gate_bytes(k));
    a.h = op_in(&call, k->h, state_bytes(k));
    a.c = op_in(&call, k->c, state_bytes(k));
    a.next_h = op_out(&call, next_h, state_bytes(k));
    a.next_c = op_out(&call, next_c, state_bytes(k));
    a.tail = op_out(&call, tail, tail_bytes(k));
    a.slow = op_out(&call, slow, state_bytes(k) / 2);
    op_end(&call, on->backend->focus.cell(&a, NULL));
}

static void run_back(const op_backend *on, const cells *k, int chained, float *dh, float *dc, float *dz)
{
    op_call call = op_begin(on);
    tv_focus_back_args a = {.rows = k->rows, .width = k->width, .stride = k->stride, .chained = chained};
    a.z = op_in(&call, k->z, gate_bytes(k));
    a.h = op_in(&call, k->h, state_bytes(k));
    a.c = op_in(&call, k->c, state_bytes(k));
    a.grad = op_in(&call, k->grad, state_bytes(k));
    a.slow_grad = op_in(&call, k->slow_grad, state_bytes(k) / 2);
    a.tail_grad = op_in(&call, chained ? k->tail_grad : NULL, tail_bytes(k));
    a.dh = op_out(&call, dh, state_bytes(k));
    a.dc = op_out(&call, dc, state_bytes(k));
    a.dz = op_out(&call, dz, gate_bytes(k));
    op_end(&call, on->backend->focus.back(&a, NULL));
}

static double logistic(double x) { return 1 / (1 + exp(-x)); }

// A cell in double: z its four gates, n values apart.
static double cell_c(const double *z, double kept) { return logistic(z[1] + 1) * kept + logistic(z[0]) * tanh(z[2]); }
static double cell_h(const double *z, double kept) { return logistic(z[3]) * tanh(cell_c(z, kept)); }

// in: 11 pre-activations, h and c of the fast and of the slow cell; out: the same states afterwards.
static void cells_in_double(const double in[15], double out[4])
{
    double topic = logistic(in[8] - 2), keep = (1 - logistic(in[9] - 2)) * (1 - logistic(in[10] - 2) / 2);
    double h_slow = keep * in[12], c_fast = keep * in[13], c_slow = keep * in[14];
    out[0] = cell_h(in, c_fast);
    out[1] = h_slow + topic * (cell_h(in + 4, c_slow) - h_slow);
    out[2] = cell_c(in, c_fast);
    out[3] = c_slow + topic * (cell_c(in + 4, c_slow) - c_slow);
}

static void read_element(const cells *k, int64_t w, int64_t i, double in[15])
{
    int64_t n = k->width;
    for (int g = 0; g < TV_FOCUS_GATES; g++)
        in[g] = k->z[(w * TV_FOCUS_GATES + g) * n + i];
    in[11] = k->h[w * 2 * n + i];
    in[12] = k->h[w * 2 * n + n + i];
    in[13] = k->c[w * 2 * n + i];
    in[14] = k->c[w * 2 * n + n + i];
}

// The gradient of input j by central differences of the weighted states.
static double slope(const double in[15], int j, const double weight[4])
{
    double moved[15], up[4], down[4], sum = 0;
    const double step = 1e-5;
    memcpy(moved, in, sizeof moved);
    moved[j] = in[j] + step;
    cells_in_double(moved, up);
    moved[j] = in[j] - step;
    cells_in_double(moved, down);
    for (int k = 0; k < 4; k++)
        sum += weight[k] * (up[k] - down[k]) / (2 * step);
    return sum;
}

static void check_element(const cells *k, int64_t w, int64_t i, int chained, const float *old_dh, const float *old_dc)
{
    int64_t n = k->width, fast = w * 2 * n + i, slow = fast + n;
    double in[15], out[4], weight[4];
    read_element(k, w, i, in);
    cells_in_double(in, out);
    op_near("h of the fast cell", out[0], k->next_h[fast], 1e-5);
    op_near("h of the slow cell", out[1], k->next_h[slow], 1e-5);
    op_near("c of the fast cell", out[2], k->next_c[fast], 1e-5);
    op_near("c of the slow cell", out[3], k->next_c[slow], 1e-5);
    assert_true(k->tail[w * k->stride + i] == k->next_h[fast]);
    assert_true(k->tail[w * k->stride + n + i] == k->next_h[slow]);
    weight[0] = k->grad[fast] + (chained ? old_dh[fast] + k->tail_grad[w * k->stride + i] : 0);
    assert_true(k->slow[w * n + i] == k->next_h[slow]);
    weight[1] =
        k->grad[slow] + k->slow_grad[w * n + i] + (chained ? old_dh[slow] + k->tail_grad[w * k->stride + n + i] : 0);
    weight[2] = chained ? old_dc[fast] : 0;
    weight[3] = chained ? old_dc[slow] : 0;
    for (int g = 0; g < TV_FOCUS_GATES; g++)
        op_near("dz", slope(in, g, weight), k->dz[(w * TV_FOCUS_GATES + g) * n + i], 1e-4);
    op_near("dh of the fast cell", slope(in, 11, weight), k->dh[fast], 1e-4);
    op_near("dh of the slow cell", slope(in, 12, weight), k->dh[slow], 1e-4);
    op_near("dc of the fast cell", slope(in, 13, weight), k->dc[fast], 1e-4);
    op_near("dc of the slow cell", slope(in, 14, weight), k->dc[slow], 1e-4);
}

static void check_cells(const op_backend *on)
{
    op_random random = {603, 0};
    for (int i = 0; i < 30; i += op_stride()) {
        cells k = random_cells(&random, op_int(&random, 0, 5), op_int(&random, 0, 37));
        float *old_dh = op_host_copy(k.dh, state_bytes(&k)), *old_dc = op_host_copy(k.dc, state_bytes(&k));
        run_cell(on, &k, k.next_h, k.next_c, k.tail, k.slow);
        run_back(on, &k, i % 2, k.dh, k.dc, k.dz);
        for (int64_t w = 0; w < k.rows; w++)
            for (int64_t e = 0; e < k.width; e++)
                check_element(&k, w, e, i % 2, old_dh, old_dc);
    }
}

static void test_cells(void **state)
{
    (void)state;
    op_on_each(check_cells);
}

// ---- carried states --------------------------------------------------------------------------------------------------------------------

static void run_load(const op_backend *on, const cells *k, const int16_t *carried, float *h, float *c)
{
    op_call call = op_begin(on);
    tv_focus_load_args a = {.rows = k->rows, .width = k->width, .stride = k->stride};
    a.carried = op_in(&call, carried, state_bytes(k));
    a.h = op_out(&call, h, state_bytes(k));
    a.c = op_out(&call, c, state_bytes(k));
    a.tail = op_out(&call, k->tail, tail_bytes(k));
    a.slow = op_out(&call, k->slow, state_bytes(k) / 2);
    op_end(&call, on->backend->focus.load(&a, NULL));
}

static void run_save(const op_backend *on, const cells *k, const float *h, const float *c, int16_t *carried)
{
    op_call call = op_begin(on);
    tv_focus_save_args a = {.rows = k->rows, .width = k->width};
    a.h = op_in(&call, h, state_bytes(k));
    a.c = op_in(&call, c, state_bytes(k));
    a.carried = op_out(&call, carried, state_bytes(k));
    op_end(&call, on->backend->focus.save(&a, NULL));
}

// What was saved loads as the nearest steps of the scale, saves again as it is, and no row of it is a window's that starts from nothing.
static void check_carried(const op_backend *on)
{
    op_random random = {604, 0};
    for (int i = 0; i < 20; i++) {
        cells k = random_cells(&random, op_int(&random, 0, 5), op_int(&random, 0, 37));
        int16_t *carried = op_host(state_bytes(&k)), *again = op_host(state_bytes(&k));
        float *h = op_host(state_bytes(&k)), *c = op_host(state_bytes(&k));
        int64_t wide = 2 * k.width;
        if (k.rows * k.width > 0)
            k.c[0] = 20, k.c[1] = -20, k.h[0] = 1, k.h[1] = -1;
        run_save(on, &k, k.h, k.c, carried);
        run_load(on, &k, carried, h, c);
        run_save(on, &k, h, c, again);
        op_same("what is saved again", on, carried, again, state_bytes(&k));
        for (int64_t e = 0; e < k.rows * wide; e++) {
            double bounded = k.c[e] > 32767.0f / 4096    ? 32767.0 / 4096
                             : k.c[e] < -32767.0f / 4096 ? -32767.0 / 4096
                                                         : k.c[e];
            assert_true(fabs(h[e] - k.h[e]) <= 0.5 / 16384);
            assert_true(fabs(c[e] - bounded) <= 0.5 / 4096);
            assert_true(k.tail[e / wide * k.stride + e % wide] == h[e]);
        }
        for (int64_t e = 0; e < k.rows * k.width; e++)
            assert_true(k.slow[e] == h[e / k.width * wide + k.width + e % k.width]);
        run_load(on, &k, NULL, h, c);
        for (int64_t e = 0; e < k.rows * wide; e++)
            assert_true(h[e] == 0 && c[e] == 0 && k.tail[e / wide * k.stride + e % wide] == 0);
    }
}

static void test_carried(void **state)
{
    (void)state;
    op_on_each(check_carried);
}

// ---- figures -----------------------------------------------------------------------------------------------------------------------------

static void run_gates(const op_backend *on, const cells *k, int64_t *sums)
{
    op_call call = op_begin(on);
    tv_focus_gates_args a = {.rows = k->rows, .width = k->width};
    a.z = op_in(&call, k->z, gate_bytes(k));
    a.sums = op_out(&call, sums, TV_FOCUS_SUMS * sizeof *sums);
    op_end(&call, on->backend->focus.gates(&a, NULL));
}

static void check_gates(const op_backend *on)
{
    static const int column[TV_FOCUS_SUMS] = {8, 9, 10, 1, 5};
    op_random random = {605, 0};
    for (int i = 0; i < 10; i++) {
        cells k = random_cells(&random, op_int(&random, 0, 9), op_int(&random, 0, 37));
        int64_t sums[TV_FOCUS_SUMS] = {7, 7, 7, 7, 7};
        run_gates(on, &k, sums);
        for (int g = 0; g < TV_FOCUS_SUMS; g++) {
            double want = 0;
            for (int64_t e = 0; e < k.rows * k.width; e++)
                want += logistic(k.z[(e / k.width * TV_FOCUS_GATES + column[g]) * k.width + e % k.width] +
                                 (g < 3 ? -2 : 1));
            assert_true(fabs((double)(sums[g] - 7) / TV_FOCUS_SUM_SCALE - want) <=
                        1e-4 * (double)(k.rows * k.width + 1));
        }
    }
}

static void test_gates(void **state)
{
    (void)state;
    op_on_each(check_gates);
}

// ---- the same bits as ref ------------------------------------------------------------------------------------------------------------------

static void compare_segments(const op_backend *on, op_random *random, const shape *s)
{
    size_t bytes = (size_t)(s->windows * s->context * s->width) * 4, row_bytes = (size_t)(s->rows * s->stride) * 4;
    float *x = op_floats(random, s->windows * s->context * s->width, 3),
          *add = op_floats(random, s->rows * s->width, 1);
    float *want = op_host(row_bytes), *got = op_host(row_bytes);
    float *want_x = op_host_copy(x, bytes), *got_x = op_host_copy(x, bytes);
    run_gather(op_ref(), s, (float)s->segment, x, add, want);
    run_gather(on, s, (float)s->segment, x, add, got);
    op_same("gather", on, want, got, row_bytes);
    run_scatter(op_ref(), s, 3, want, want_x, NULL);
    run_scatter(on, s, 3, want, got_x, NULL);
    op_same("scatter", on, want_x, got_x, bytes);
}

static void compare_cells(const op_backend *on, op_random *random, int64_t rows, int64_t width)
{
    cells k = random_cells(random, rows, width);
    int64_t sums[2][TV_FOCUS_SUMS] = {{0}};
    float *next_h = op_host(state_bytes(&k)), *next_c = op_host(state_bytes(&k)), *dz = op_host(gate_bytes(&k));
    float *tail = op_host_copy(k.tail, tail_bytes(&k)), *slow = op_host(state_bytes(&k) / 2);
    run_cell(op_ref(), &k, k.next_h, k.next_c, k.tail, k.slow);
    run_cell(on, &k, next_h, next_c, tail, slow);
    op_same("h", on, k.next_h, next_h, state_bytes(&k));
    op_same("c", on, k.next_c, next_c, state_bytes(&k));
    op_same("tail", on, k.tail, tail, tail_bytes(&k));
    op_same("slow", on, k.slow, slow, state_bytes(&k) / 2);
    for (int chained = 0; chained < 2; chained++) {
        float *dh = op_host_copy(k.dh, state_bytes(&k)), *dc = op_host_copy(k.dc, state_bytes(&k));
        float *want_dh = op_host_copy(k.dh, state_bytes(&k)), *want_dc = op_host_copy(k.dc, state_bytes(&k));
        run_back(op_ref(), &k, chained, want_dh, want_dc, k.dz);
        run_back(on, &k, chained, dh, dc, dz);
        op_same("dz", on, k.dz, dz, gate_bytes(&k));
        op_same("dh", on, want_dh, dh, state_bytes(&k));
        op_same("dc", on, want_dc, dc, state_bytes(&k));
    }
    run_gates(op_ref(), &k, sums[0]);
    run_gates(on, &k, sums[1]);
    op_same("sums of gates", on, sums[0], sums[1], sizeof sums[0]);
}

static void compare_carried(const op_backend *on, op_random *random)
{
    cells k = random_cells(random, op_int(random, 0, 60), op_int(random, 0, 60));
    int16_t *want = op_host(state_bytes(&k)), *got = op_host(state_bytes(&k));
    float *h = op_host(state_bytes(&k)), *c = op_host(state_bytes(&k));
    run_save(op_ref(), &k, k.h, k.c, want);
    run_save(on, &k, k.h, k.c, got);
    op_same("carried", on, want, got, state_bytes(&k));
    run_load(op_ref(), &k, want, k.next_h, k.next_c);
    run_load(on, &k, want, h, c);
    op_same("loaded h", on, k.next_h, h, state_bytes(&k));
    op_same("loaded c", on, k.next_c, c, state_bytes(&k));
}

static void compare(const op_backend *on)
{
    op_random random = {606, 0};
    shape large = large_shape();
    for (int i = 0; i < 30; i += op_stride()) {
        shape s = random_shape(&random);
        compare_segments(on, &random, &s);
        compare_cells(on, &random, op_int(&random, 0, 9), op_int(&random, 0, 70));
        compare_carried(on, &random);
    }
    compare_segments(on, &random, &large);
    compare_cells(on, &random, OP_LARGE_ROWS, 131);
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_kinds, clean_up), cmocka_unit_test_teardown(test_segments, clean_up),
        cmocka_unit_test_teardown(test_cells, clean_up), cmocka_unit_test_teardown(test_carried, clean_up),
        cmocka_unit_test_teardown(test_gates, clean_up), cmocka_unit_test_teardown(test_against_ref, clean_up)};
    return op_run("op_focus", tests);
}
