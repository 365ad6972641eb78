// ballot, ballot_histogram: votes move trits.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/pack.h"
#include "base/tensor.h"
#include "op_test.h"

// Trits are kept unpacked here; run packs and unpacks them.
typedef struct ballot_case {
    tv_ballot_args a; // numbers only
    int8_t *t, *accum;
    int *votes;
} ballot_case;

typedef struct ballot_result {
    int8_t *t, *accum;
    uint8_t *T;
    int64_t stats[2], histogram[256];
} ballot_result;

static ballot_case plain_case(tv_rule rule, int64_t rows, int64_t cols)
{
    ballot_case c = {.a = {.rows = rows,
                           .cols = cols,
                           .vote_bits = 8,
                           .rule = rule,
                           .combine = TV_COMBINE_MAJORITY,
                           .units = 4,
                           .quorum = 1,
                           .threshold = 64,
                           .eta_q = 8 << 16,
                           .classic_step = 3,
                           .theta = 10,
                           .theta_min = 5,
                           .cut = -1,
                           .seed = 1,
                           .tensor_id = 2,
                           .step = 3}};
    if (rule == TV_RULE_CLASSIC)
        c.a.threshold = 3;
    c.t = op_host((size_t)(rows * cols));
    c.accum = op_host((size_t)(rows * cols));
    c.votes = op_host((size_t)(rows * cols) * sizeof(int));
    return c;
}

static void *stored_votes(const ballot_case *c)
{
    int64_t items = c->a.rows * c->a.cols;
    int8_t *narrow = op_host((size_t)items);
    int16_t *wide = op_host((size_t)items * 2);
    for (int64_t i = 0; i < items; i++) {
        narrow[i] = (int8_t)c->votes[i];
        wide[i] = (int16_t)c->votes[i];
    }
    return c->a.vote_bits == 8 ? (void *)narrow : (void *)wide;
}

static ballot_result run(const op_backend *on, const ballot_case *c, int histogram)
{
    int64_t rows = c->a.rows, cols = c->a.cols, row_bytes = tv_row_bytes(cols);
    size_t items = (size_t)(rows * cols);
    ballot_result out = {
        op_host(items), op_host_copy(c->accum, items), op_host((size_t)(rows * row_bytes)), {1000, 2000}, {0}};
    for (int64_t n = 0; n < rows; n++)
        tv_pack_row(c->t + n * cols, cols, out.T + n * row_bytes);
    for (int i = 0; i < 256; i++)
        out.histogram[i] = i;
    op_call call = op_begin(on);
    tv_ballot_args a = c->a;
    if (histogram) {
        a.T = (uint8_t *)(uintptr_t)op_in(&call, out.T, (size_t)(rows * row_bytes));
        a.T_accum = (int8_t *)(uintptr_t)op_in(&call, out.accum, items);
        a.histogram = op_out(&call, out.histogram, sizeof out.histogram);
    } else {
        a.T = op_out(&call, out.T, (size_t)(rows * row_bytes));
        a.T_accum = op_out(&call, out.accum, items);
        a.stats = op_out(&call, out.stats, sizeof out.stats);
    }
    a.votes = op_in(&call, stored_votes(c), items * (size_t)(a.vote_bits / 8));
    op_end(&call, histogram ? on->backend->ballot_histogram(&a, NULL) : on->backend->ballot(&a, NULL));
    for (int64_t n = 0; n < rows; n++)
        assert_int_equal(tv_pack_find_invalid(out.T + n * row_bytes, cols), -1);
    for (int64_t n = 0; n < rows; n++)
        tv_unpack_row(out.T + n * row_bytes, cols, out.t + n * cols);
    out.stats[0] -= 1000;
    out.stats[1] -= 2000;
    for (int i = 0; i < 256; i++)
        out.histogram[i] -= i;
    return out;
}

// One element: trit t, counter accum, vote sum v; wanted trit and counter after the step.
static void one(const op_backend *on, ballot_case c, const int in[3], const int want[2])
{
    c.t[0] = (int8_t)in[0];
    c.accum[0] = (int8_t)in[1];
    c.votes[0] = in[2];
    for (c.a.vote_bits = 8; c.a.vote_bits <= 16; c.a.vote_bits += 8) {
        ballot_result got = run(on, &c, 0);
        if (got.t[0] != want[0] || got.accum[0] != want[1])
            fail_msg("%s: t %d, counter %d, vote %d: got t %d, counter %d, wanted %d, %d", on->label, in[0], in[1],
                     in[2], got.t[0], got.accum[0], want[0], want[1]);
        assert_int_equal(got.stats[0], in[0] != want[0]);
        assert_int_equal(got.stats[1], want[0] == 0);
    }
}

#define ONE(t, accum, vote, want_t, want_accum)                                                                        \
    one(on, c, (const int[]){t, accum, vote}, (const int[]){want_t, want_accum})

static void check_restart(const op_backend *on)
{
    ballot_case c = plain_case(TV_RULE_RESTART, 1, 1); // a whole step of 8: the random bits never show
    ONE(0, 0, 3, 0, -8);                               // positive vote sum: down
    ONE(0, 0, -1, 0, 8);                               // size of the vote does not matter
    ONE(0, 10, 0, 0, 10);                              // no vote
    ONE(0, 55, -1, 0, 63);                             // one below the border
    ONE(0, 56, -1, 1, 0);                              // on the border: flips, restarts at 0
    ONE(0, 60, -1, 1, 4);                              // the rest is kept
    ONE(0, -60, 1, -1, -4);
    ONE(-1, 60, -1, 0, 4);
    ONE(1, -60, 1, 0, -4);
    ONE(1, 60, -1, 1, 63); // at its bound
    ONE(-1, -60, 1, -1, -63);
    c.a.quorum = 3;
    ONE(0, 5, 2, 0, 5);
    ONE(0, 5, -2, 0, 5);
    ONE(0, 5, 3, 0, -3);
    ONE(0, 5, -3, 0, 13);
    c.a.quorum = 1;
    c.a.threshold = 32; // fell since the last step: no flip without a vote, but the clamp
    ONE(0, 60, 0, 0, 31);
    ONE(0, -60, 0, 0, -31);
    ONE(0, 60, -1, 1, 31); // 68 - 32 is still too large
    c.a.threshold = 64;
    c.a.eta_q = 300u << 16; // a step larger than int8
    ONE(0, 0, -1, 1, 63);
    ONE(0, 0, 1, -1, -63);
    c.a.combine = TV_COMBINE_MEAN;
    c.a.eta_q = 8 << 16;
    ONE(0, 0, 3, 0, -6); // 8 3/4
    ONE(0, 0, -4, 0, 8);
    ONE(0, 60, -2, 1, 0);
    ONE(0, 7, 0, 0, 7);
}

static void check_classic(const op_backend *on)
{
    ballot_case c = plain_case(TV_RULE_CLASSIC, 1, 1);
    ONE(0, 0, -1, 1, 0);
    ONE(0, 2, -9, 1, 0); // nothing of the 5 is kept
    ONE(0, 0, 1, -1, 0);
    ONE(0, 2, 1, 0, -1);
    ONE(1, 1, -1, 1, 2);
    ONE(-1, -1, 1, -1, -2);
    ONE(0, 2, 0, 0, 2);
    c.a.classic_step = 1;
    ONE(0, 1, -1, 0, 2);
    ONE(0, 2, -1, 1, 0);
    c.a.quorum = 2;
    ONE(0, 2, -1, 0, 2);
}

static void check_budget(const op_backend *on)
{
    ballot_case c = plain_case(TV_RULE_BUDGET, 1, 1); // theta 10, theta_min 5
    ONE(0, 8, -3, 1, 0);                              // 11 > theta
    ONE(0, -8, 3, -1, 0);
    ONE(1, -8, 3, 0, 0);
    ONE(0, 8, -1, 0, 9);  // below theta: kept
    ONE(0, 3, 1, 0, 2);   // the whole sum counts
    ONE(0, 3, -7, 0, 10); // at theta, tie_q 0
    ONE(1, 8, -7, 1, 10); // not movable: held within theta
    ONE(-1, -8, 7, -1, -10);
    ONE(1, 8, -1, 1, 9);
    ONE(1, 5, 5, 1, 0);      // 0 moves nowhere
    ONE(0, 120, -100, 1, 0); // saturates, then flips
    c.a.tie_q = 65536;
    ONE(0, 3, -7, 1, 0); // at theta, all ties flip
    ONE(0, -3, 7, -1, 0);
    ONE(1, 3, -7, 1, 10);
    c.a.theta_min = 10; // at theta_min a tie never flips
    ONE(0, 3, -7, 0, 10);
    ONE(0, 3, -8, 1, 0);
    c.a.theta = 127;
    ONE(0, 120, -100, 1, 0); // saturated, a tie
    c.a.tie_q = 0;
    ONE(0, 120, -100, 0, 127);
    ONE(0, -120, 100, 0, -127);
}

static void test_hand_worked(void **state)
{
    (void)state;
    op_on_each(check_restart);
    op_on_each(check_classic);
    op_on_each(check_budget);
}

// Votes with the sign of the gradient of <g, w> must carry every weight to -sign(g), whatever the rule.
static void check_descends(const op_backend *on)
{
    for (int rule = TV_RULE_RESTART; rule <= TV_RULE_CLASSIC; rule++)
        for (int combine = 0; combine < 2; combine++) {
            op_random random = {111, 0};
            ballot_case c = plain_case((tv_rule)rule, 6, 11);
            c.a.combine = (tv_combine)combine;
            for (int i = 0; i < 66; i++) {
                c.t[i] = (int8_t)op_int(&random, -1, 1);
                c.votes[i] = op_int(&random, 0, 1) ? 3 : -3;
            }
            for (c.a.step = 0; c.a.step < 40; c.a.step++) {
                ballot_result next = run(on, &c, 0);
                for (int i = 0; i < 66; i++)
                    assert_true(c.votes[i] > 0 ? next.t[i] <= c.t[i] : next.t[i] >= c.t[i]);
                memcpy(c.t, next.t, 66);
                memcpy(c.accum, next.accum, 66);
            }
            for (int i = 0; i < 66; i++)
                assert_int_equal(c.t[i], c.votes[i] > 0 ? -1 : 1);
        }
}

static void test_descends(void **state)
{
    (void)state;
    op_on_each(check_descends);
}

// A fractional step is right in the mean.
static void check_mean_step(const op_backend *on)
{
    static const double eta[3] = {0.3, 2.75, 0.01};
    for (int i = 0; i < 3; i++)
        for (int combine = 0; combine < 2; combine++) {
            ballot_case c = plain_case(TV_RULE_RESTART, 200, 500);
            c.a.combine = (tv_combine)combine;
            c.a.units = 16;
            c.a.threshold = 127;
            c.a.eta_q = (uint32_t)lround(eta[i] * 65536);
            for (int j = 0; j < 100000; j++)
                c.votes[j] = j % 2 ? 5 : -5;
            ballot_result got = run(on, &c, 0);
            double total = 0, want = eta[i] * (combine == TV_COMBINE_MEAN ? 5.0 / 16 : 1), part = want - floor(want);
            for (int j = 0; j < 100000; j++) {
                int moved = j % 2 ? -got.accum[j] : got.accum[j];
                assert_true(moved == floor(want) || moved == floor(want) + 1);
                total += moved;
            }
            assert_true(fabs(total / 1e5 - want) < 4 * sqrt(part * (1 - part) / 1e5) + 1e-5);
        }
}

static void test_mean_step(void **state)
{
    (void)state;
    op_on_each(check_mean_step);
}

static ballot_case random_case(op_random *random, int64_t rows, int64_t cols)
{
    ballot_case c = plain_case((tv_rule)op_int(random, 0, 2), rows, cols);
    c.a.combine = (tv_combine)op_int(random, 0, 1);
    c.a.vote_bits = op_int(random, 0, 1) ? 8 : 16;
    c.a.first_row = op_int(random, 0, 1 << 20);
    c.a.units = op_int(random, 1, 50);
    c.a.quorum = op_int(random, 0, 3);
    c.a.threshold = op_int(random, 1, 127);
    c.a.eta_q = (uint32_t)op_int(random, 0, 40 << 16);
    c.a.classic_step = op_int(random, 1, 4);
    c.a.theta_min = op_int(random, 1, 20);
    c.a.theta = c.a.theta_min + op_int(random, 0, 30);
    c.a.tie_q = (uint32_t)op_int(random, 0, 65536);
    c.a.cut = op_int(random, -1, 1) < 0 ? -1 : c.a.threshold + op_int(random, 0, 20);
    c.a.tie_quota = op_int(random, 0, 20);
    c.a.seed = op_next(random), c.a.tensor_id = op_next(random), c.a.step = op_next(random);
    for (int64_t i = 0; i < rows * cols; i++) {
        c.t[i] = (int8_t)op_int(random, -1, 1);
        c.accum[i] = (int8_t)op_int(random, -126, 126);
        int most = c.a.vote_bits == 8 ? 127 : op_int(random, 0, 1) ? 32767 : 5;
        c.votes[i] = op_int(random, 0, 2) == 0 ? 0 : op_int(random, -most, most);
    }
    return c;
}

// The counter before flips, by real arithmetic. Draws come from the definition: lane e mod 8 of block e / 8.
static double moved_counter(const ballot_case *c, int64_t i, double *moved)
{
    uint64_t e = (uint64_t)(c->a.first_row * c->a.cols + i);
    double v = c->votes[i], r = tv_rng16((tv_rng_key){c->a.seed, 1, c->a.tensor_id, c->a.step}, e), d;
    if (c->a.rule == TV_RULE_BUDGET) {
        *moved = v;
        return fmax(-127, fmin(127, c->accum[i] - v));
    }
    if (c->a.rule == TV_RULE_CLASSIC)
        d = fabs(v) >= c->a.quorum ? c->a.classic_step : 0;
    else if (c->a.combine == TV_COMBINE_MAJORITY)
        d = fabs(v) >= c->a.quorum ? floor((c->a.eta_q + r) / 65536) : 0;
    else
        d = floor((floor((double)c->a.eta_q * fabs(v) / c->a.units) + r) / 65536);
    *moved = v == 0 ? 0 : copysign(d, v);
    return c->accum[i] - *moved;
}

// Direction of the flip that the rule wants without a cap.
static int wanted_flip(const ballot_case *c, int64_t i, double a, double moved)
{
    uint64_t e = (uint64_t)(c->a.first_row * c->a.cols + i);
    int up = a > 0 ? 1 : -1;
    if (a == 0 || c->t[i] == up)
        return 0;
    if (c->a.rule == TV_RULE_BUDGET) {
        int tie = fabs(a) == c->a.theta && c->a.theta > c->a.theta_min &&
                  tv_rng16((tv_rng_key){c->a.seed, 8, c->a.tensor_id, c->a.step}, e) < c->a.tie_q;
        return fabs(a) > c->a.theta || tie ? up : 0;
    }
    return moved != 0 && fabs(a) >= c->a.threshold ? up : 0;
}

static void against_oracle(const op_backend *on, const ballot_case *c)
{
    ballot_result got = run(on, c, 0), counted = run(on, c, 1);
    int64_t ties = 0, flips = 0, zeros = 0, histogram[256] = {0};
    double H = c->a.threshold;
    for (int64_t i = 0; i < c->a.rows * c->a.cols; i++) {
        double moved, a = moved_counter(c, i, &moved);
        int flip = wanted_flip(c, i, a, moved), size = (int)fmin(fabs(a), 255);
        int movable = a != 0 && c->t[i] != (a > 0 ? 1 : -1);
        histogram[size] += c->a.rule == TV_RULE_BUDGET ? movable : flip != 0;
        if (c->a.rule == TV_RULE_BUDGET) {
            a = flip ? 0 : movable ? a : fmax(-c->a.theta, fmin(c->a.theta, a));
        } else {
            if (flip && c->a.cut >= 0 && (size < c->a.cut || (size == c->a.cut && ties++ >= c->a.tie_quota)))
                flip = 0;
            if (flip)
                a = c->a.rule == TV_RULE_CLASSIC ? 0 : a - flip * H;
            a = fmax(-(H - 1), fmin(H - 1, a));
        }
        assert_int_equal(got.t[i], c->t[i] + flip);
        assert_true(got.accum[i] == a);
        flips += flip != 0;
        zeros += got.t[i] == 0;
    }
    assert_int_equal(got.stats[0], flips);
    assert_int_equal(got.stats[1], zeros);
    assert_memory_equal(histogram, counted.histogram, sizeof histogram);
}

static void check_oracle(const op_backend *on)
{
    op_random random = {112, 0};
    for (int i = 0; i < 150; i += op_stride()) {
        ballot_case c = random_case(&random, op_int(&random, 0, 12), op_int(&random, 0, 70));
        against_oracle(on, &c);
    }
}

static void test_oracle(void **state)
{
    (void)state;
    op_on_each(check_oracle);
}

// The cut and quota that a caller takes from the histogram give exactly the wanted number of flips, largest first.
static void check_cap(const op_backend *on)
{
    op_random random = {113, 0};
    for (int i = 0; i < 20; i += op_stride()) {
        ballot_case c = random_case(&random, 30, 41);
        c.a.rule = i % 2 ? TV_RULE_CLASSIC : TV_RULE_RESTART;
        c.a.quorum = 1;
        c.a.threshold = 40;
        c.a.classic_step = 4;
        c.a.eta_q = 6 << 16;
        c.a.cut = -1;
        c.a.combine = TV_COMBINE_MAJORITY;
        ballot_result counted = run(on, &c, 1);
        int64_t all = run(on, &c, 0).stats[0], cap = all * (1 + i) / 25, above = 0;
        c.a.cut = 255;
        while (c.a.cut > 0 && above + counted.histogram[c.a.cut] <= cap)
            above += counted.histogram[c.a.cut--];
        c.a.tie_quota = cap - above;
        assert_true(all > 25);
        assert_int_equal(run(on, &c, 0).stats[0], cap);
    }
}

static void test_cap(void **state)
{
    (void)state;
    op_on_each(check_cap);
}

// Budget: theta from the histogram bounds the flips; half of the ties flip when tie_q says half.
static void check_budget_theta(const op_backend *on)
{
    op_random random = {114, 0};
    ballot_case c = random_case(&random, 100, 100);
    c.a.rule = TV_RULE_BUDGET;
    c.a.vote_bits = 8;
    c.a.theta_min = 1;
    for (int i = 0; i < 10000; i++) {
        c.accum[i] = (int8_t)op_int(&random, -20, 20);
        c.votes[i] = op_int(&random, -3, 3);
    }
    ballot_result counted = run(on, &c, 1);
    int64_t more = 0, allowed = 2000;
    for (c.a.theta = 255; more + counted.histogram[c.a.theta] <= allowed; c.a.theta--)
        more += counted.histogram[c.a.theta];
    int64_t ties = counted.histogram[c.a.theta];
    assert_true(c.a.theta > 1 && ties > 100);
    c.a.tie_q = 0;
    assert_int_equal(run(on, &c, 0).stats[0], more);
    c.a.tie_q = 65536;
    assert_int_equal(run(on, &c, 0).stats[0], more + ties);
    c.a.tie_q = 32768;
    double half = (double)(run(on, &c, 0).stats[0] - more);
    assert_true(fabs(half - (double)ties / 2) < 2 * sqrt((double)ties)); // four standard deviations
}

static void test_budget_theta(void **state)
{
    (void)state;
    op_on_each(check_budget_theta);
}

// A block of rows moves as it does inside the whole tensor.
static void check_block(const op_backend *on)
{
    op_random random = {115, 0};
    for (int i = 0; i < 20; i += op_stride()) {
        int64_t cols = op_int(&random, 1, 70);
        ballot_case whole = random_case(&random, 20, cols), block = whole;
        whole.a.cut = block.a.cut = -1;
        block.a.first_row += 7;
        block.a.rows = 5;
        block.t += 7 * cols, block.accum += 7 * cols, block.votes += 7 * cols;
        ballot_result all = run(on, &whole, 0), part = run(on, &block, 0);
        op_same("trits of a block", on, all.t + 7 * cols, part.t, (size_t)(5 * cols));
        op_same("counters of a block", on, all.accum + 7 * cols, part.accum, (size_t)(5 * cols));
    }
}

static void test_block(void **state)
{
    (void)state;
    op_on_each(check_block);
}

static void check_bits(const op_backend *on)
{
    op_random random = {116, 0};
    for (int i = 0; i < 120; i += op_stride()) {
        int64_t rows = i < 9 ? OP_LARGE_ROWS : op_int(&random, 0, 40), cols = i < 9 ? 203 : op_size(&random);
        ballot_case c = random_case(&random, rows, cols);
        size_t items = (size_t)(c.a.rows * c.a.cols);
        ballot_result want = run(op_ref(), &c, 0), got = run(on, &c, 0), again = run(on, &c, 0);
        op_same("T", on, want.T, got.T, (size_t)(c.a.rows * tv_row_bytes(c.a.cols)));
        op_same("T_accum", on, want.accum, got.accum, items);
        op_same("stats", on, want.stats, got.stats, sizeof want.stats);
        op_same("T of a second run", on, got.T, again.T, (size_t)(c.a.rows * tv_row_bytes(c.a.cols)));
        want = run(op_ref(), &c, 1), got = run(on, &c, 1);
        op_same("histogram", on, want.histogram, got.histogram, sizeof want.histogram);
    }
}

static void test_bits(void **state)
{
    (void)state;
    op_against_ref(check_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hand_worked), cmocka_unit_test(test_descends), cmocka_unit_test(test_mean_step),
        cmocka_unit_test(test_oracle),      cmocka_unit_test(test_cap),      cmocka_unit_test(test_budget_theta),
        cmocka_unit_test(test_block),       cmocka_unit_test(test_bits),
    };
    return op_run("op_ballot", tests);
}
