// ballot_e: votes move exponents.
#include <math.h>
#include <string.h>

#include "base/pack.h"
#include "base/tensor.h"
#include "op_test.h"

typedef struct exponent_case {
    tv_ballot_e_args a; // numbers only
    int8_t *t, *E, *accum;
    int *votes;
} exponent_case;

typedef struct exponent_result {
    int8_t *E, *accum;
    int64_t moved;
} exponent_result;

static exponent_case plain_case(int64_t rows, int64_t cols, int group)
{
    exponent_case c = {.a = {.rows = rows,
                             .cols = cols,
                             .group = group,
                             .base = -5,
                             .vote_bits = 8,
                             .eta_e_q = 1 << 16,
                             .threshold = 8,
                             .seed = 5,
                             .tensor_id = 6,
                             .step = 7}};
    c.t = op_host((size_t)(rows * cols));
    c.votes = op_host((size_t)(rows * cols) * sizeof(int));
    c.E = op_host((size_t)(rows * tv_row_groups(cols, group)));
    c.accum = op_host((size_t)(rows * tv_row_groups(cols, group)));
    return c;
}

static exponent_result run(const op_backend *on, const exponent_case *c)
{
    int64_t rows = c->a.rows, cols = c->a.cols, row_bytes = tv_row_bytes(cols), items = rows * cols;
    size_t groups = (size_t)(rows * tv_row_groups(cols, c->a.group));
    exponent_result out = {op_host_copy(c->E, groups), op_host_copy(c->accum, groups), 50};
    uint8_t *T = op_host((size_t)(rows * row_bytes));
    for (int64_t n = 0; n < rows; n++)
        tv_pack_row(c->t + n * cols, cols, T + n * row_bytes);
    int8_t *narrow = op_host((size_t)items);
    int16_t *wide = op_host((size_t)items * 2);
    for (int64_t i = 0; i < items; i++) {
        narrow[i] = (int8_t)c->votes[i];
        wide[i] = (int16_t)c->votes[i];
    }
    op_call call = op_begin(on);
    tv_ballot_e_args a = c->a;
    a.T = op_in(&call, T, (size_t)(rows * row_bytes));
    a.E = op_out(&call, out.E, groups);
    a.E_accum = op_out(&call, out.accum, groups);
    a.votes = a.vote_bits == 8 ? op_in(&call, narrow, (size_t)items) : op_in(&call, wide, (size_t)items * 2);
    a.stats = op_out(&call, &out.moved, sizeof out.moved);
    op_end(&call, on->backend->ballot_e(&a, NULL));
    out.moved -= 50;
    return out;
}

// A group of four trits, their votes, exponent and counter; wanted exponent and counter.
typedef struct hand_worked {
    int t[4], v[4], E, accum, want_E, want_accum;
} hand_worked;

// eta_E = 4 counter units at a unanimous group, H_E = 8, window -5 .. 1 (m = 0). All steps are whole, so no draw shows.
static const hand_worked cases[] = {
    {{1, 1, -1, -1}, {2, 1, -3, -1}, -2, 0, -2, -4}, // every weight should shrink: the counter falls
    {{1, 1, -1, -1}, {-2, -1, 3, 1}, -2, 0, -2, 4},  // every weight should grow
    {{1, -1, 0, 0}, {9, -9, 9, -9}, -2, 1, -2, -1},  // zero trits say nothing: score 2 of 4
    {{1, 1, 1, 1}, {1, 1, -1, -1}, -2, 3, -2, 3},    // a draw
    {{1, 1, 1, 1}, {0, 0, 0, 0}, -2, 3, -2, 3},      // no votes
    {{1, 1, 1, 1}, {-1, -1, -1, -1}, -2, 4, -1, 0},  // reaches 8: up, counter restarts
    {{1, 1, 1, 1}, {-1, -1, -1, -1}, -2, 3, -2, 7},  // one short
    {{1, 1, 1, 1}, {1, 1, 1, 1}, -2, -4, -3, 0},     // down
    {{1, 1, 1, 1}, {1, 1, 1, 1}, -2, -3, -2, -7},    // one short
    {{1, 1, 1, 1}, {-1, -1, -1, -1}, 0, 7, 1, 0},    // to the top of the window
    {{1, 1, 1, 1}, {-1, -1, -1, -1}, 1, 7, 1, 7},    // the top: stays
    {{1, 1, 1, 1}, {1, 1, 1, 1}, -4, -7, -5, 0},     // to its foot
    {{1, 1, 1, 1}, {1, 1, 1, 1}, -5, -7, -5, -7},    // the foot: stays
    {{-1, -1, -1, 0}, {5, 5, 5, 0}, -2, 0, -2, 3},   // three quarters
};

static void check_hand_worked(const op_backend *on)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        exponent_case c = plain_case(1, 4, 4);
        c.a.eta_e_q = 4 << 16;
        for (int k = 0; k < 4; k++) {
            c.t[k] = (int8_t)cases[i].t[k];
            c.votes[k] = cases[i].v[k];
        }
        c.E[0] = (int8_t)cases[i].E;
        c.accum[0] = (int8_t)cases[i].accum;
        for (c.a.vote_bits = 8; c.a.vote_bits <= 16; c.a.vote_bits += 8) {
            exponent_result got = run(on, &c);
            if (got.E[0] != cases[i].want_E || got.accum[0] != cases[i].want_accum)
                fail_msg("%s: case %zu: got E %d, counter %d", on->label, i, got.E[0], got.accum[0]);
            assert_int_equal(got.moved, cases[i].want_E != cases[i].E);
        }
    }
}

static void test_hand_worked(void **state)
{
    (void)state;
    op_on_each(check_hand_worked);
}

// The window's top for each number of mantissa bits, and the last, shorter group's own length.
static void check_edges(const op_backend *on)
{
    static const int codes[4] = {7, 12, 20, 32};
    for (int m = 0; m <= 3; m++) {
        exponent_case c = plain_case(1, 6, 4); // groups of 4 and 2
        c.a.mantissa_bits = m;
        c.a.eta_e_q = 6 << 16;
        for (int k = 0; k < 6; k++)
            c.t[k] = 1, c.votes[k] = -1;
        c.E[0] = (int8_t)(c.a.base + codes[m] - 1);
        c.E[1] = (int8_t)(c.a.base + codes[m] - 2);
        c.accum[0] = c.accum[1] = 7;
        exponent_result got = run(on, &c);
        assert_int_equal(got.E[0], c.a.base + codes[m] - 1);
        assert_int_equal(got.accum[0], 7);
        assert_int_equal(got.E[1], c.a.base + codes[m] - 1);
        assert_int_equal(got.accum[1], 0);
        assert_int_equal(got.moved, 1);
        c.E[1] = c.accum[0] = c.accum[1] = 0;
        c.votes[4] = 0; // score 4 of 4 and 1 of 2
        got = run(on, &c);
        assert_int_equal(got.accum[0], 6);
        assert_int_equal(got.accum[1], 3);
    }
}

static void test_edges(void **state)
{
    (void)state;
    op_on_each(check_edges);
}

// A fractional step is right in the mean.
static void check_mean_step(const op_backend *on)
{
    exponent_case c = plain_case(300, 256, 4);
    c.a.eta_e_q = 1311; // 0.02
    for (int i = 0; i < 300 * 256; i++) {
        c.t[i] = 1;
        c.votes[i] = i % 4 == 0 ? 0 : -2; // 3 of 4
    }
    exponent_result got = run(on, &c);
    double total = 0, want = 1311 / 65536.0 * 0.75;
    for (int i = 0; i < 300 * 64; i++) {
        assert_true(got.accum[i] == 0 || got.accum[i] == 1);
        total += got.accum[i];
    }
    assert_true(fabs(total / 19200 - want) < 4 * sqrt(want / 19200));
    assert_int_equal(got.moved, 0);
}

static void test_mean_step(void **state)
{
    (void)state;
    op_on_each(check_mean_step);
}

static exponent_case random_case(op_random *random, int64_t rows, int64_t cols)
{
    exponent_case c = plain_case(rows, cols, tv_scale_group((tv_scale_type)op_int(random, 0, TV_SCALE_TYPE_COUNT - 1)));
    c.a.first_row = op_int(random, 0, 1 << 20);
    c.a.base = op_int(random, -40, 20);
    c.a.mantissa_bits = op_int(random, 0, 3);
    c.a.vote_bits = op_int(random, 0, 1) ? 8 : 16;
    c.a.eta_e_q = (uint32_t)op_int(random, 0, op_int(random, 0, 1) ? 20 << 16 : 1 << 16);
    c.a.threshold = op_int(random, 1, 100);
    c.a.seed = op_next(random), c.a.tensor_id = op_next(random), c.a.step = op_next(random);
    for (int64_t i = 0; i < rows * cols; i++) {
        c.t[i] = (int8_t)op_int(random, -1, 1);
        c.votes[i] = op_int(random, -120, 120) * (op_int(random, 0, 3) > 0);
    }
    for (int64_t i = 0; i < rows * tv_row_groups(cols, c.a.group); i++) {
        c.E[i] = (int8_t)(c.a.base + op_int(random, 0, tv_lattice_codes(c.a.mantissa_bits) - 1));
        c.accum[i] = (int8_t)op_int(random, -(c.a.threshold - 1), c.a.threshold - 1);
    }
    return c;
}

static void against_oracle(const op_backend *on, const exponent_case *c)
{
    int64_t groups = tv_row_groups(c->a.cols, c->a.group), moved = 0;
    exponent_result got = run(on, c);
    for (int64_t i = 0; i < c->a.rows * groups; i++) {
        int64_t row = i / groups, length = 0;
        double score = 0, last = c->a.base + (7 - c->a.mantissa_bits) * pow(2, c->a.mantissa_bits) - 1;
        for (int64_t k = 0; k < c->a.cols; k++)
            if (k / c->a.group == i % groups) {
                double v = c->votes[row * c->a.cols + k];
                score += (v > 0 ? 1 : v < 0 ? -1 : 0) * c->t[row * c->a.cols + k];
                length++;
            }
        tv_rng_key key = {c->a.seed, 2, c->a.tensor_id, c->a.step};
        double r = tv_rng16(key, (uint64_t)((c->a.first_row + row) * groups + i % groups));
        double d = floor((floor(c->a.eta_e_q * fabs(score) / (double)length) + r) / 65536);
        double e = c->accum[i] - (score > 0 ? d : score < 0 ? -d : 0), E = c->E[i];
        if (fabs(e) >= c->a.threshold) {
            double next = E + (e > 0 ? 1 : -1);
            int fits = next >= c->a.base && next <= last;
            moved += fits;
            e = fits ? 0 : copysign(c->a.threshold - 1, e);
            E = fits ? next : E;
        }
        assert_true(got.E[i] == E && got.accum[i] == e);
    }
    assert_int_equal(got.moved, moved);
}

static void check_oracle(const op_backend *on)
{
    op_random random = {121, 0};
    for (int i = 0; i < 120; i++) {
        exponent_case c = random_case(&random, op_int(&random, 0, 9), op_int(&random, 0, 140));
        against_oracle(on, &c);
    }
}

static void test_oracle(void **state)
{
    (void)state;
    op_on_each(check_oracle);
}

static void check_bits(const op_backend *on)
{
    op_random random = {122, 0};
    for (int i = 0; i < 120; i++) {
        int64_t rows = i < 6 ? OP_LARGE_ROWS : op_int(&random, 0, 30), cols = i < 6 ? 203 : op_size(&random);
        exponent_case c = random_case(&random, rows, cols);
        size_t groups = (size_t)(c.a.rows * tv_row_groups(c.a.cols, c.a.group));
        exponent_result want = run(op_ref(), &c), got = run(on, &c), again = run(on, &c);
        op_same("E", on, want.E, got.E, groups);
        op_same("E_accum", on, want.accum, got.accum, groups);
        assert_int_equal(want.moved, got.moved);
        op_same("E of a second run", on, got.E, again.E, groups);
    }
}

static void test_bits(void **state)
{
    (void)state;
    op_against_ref(check_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hand_worked), cmocka_unit_test(test_edges),
                                       cmocka_unit_test(test_mean_step), cmocka_unit_test(test_oracle),
                                       cmocka_unit_test(test_bits)};
    return op_run("op_ballot_e", tests);
}
