// The blocks of attention's weighted sums: their scales, a case by hand, numbers at the ends of the range, and what a mask hides.
#include <float.h>
#include <math.h>
#include <string.h>

#include "attention_case.h"
#include "kernels/block_sum.h"
#include "kernels/ref/ref_common.h"

static void check_scale(float top, float to_integer, float from_integer)
{
    tv_block_scale scale = tv_block_scale_of(tv_abs_bits(top));
    assert_true(scale.to_integer == to_integer);
    assert_true(scale.from_integer == from_integer || (isnan(scale.from_integer) && isnan(from_integer)));
}

static void test_scale(void **state)
{
    (void)state;
    float least = ldexpf(1, -100);
    check_scale(0.0f, 0.0f, 0.0f);
    check_scale(-0.0f, 0.0f, 0.0f);
    check_scale(FLT_TRUE_MIN, 0.0f, 0.0f);
    check_scale(nextafterf(least, 0.0f), 0.0f, 0.0f);
    for (int e = -99; e <= 128; e++) { // 2^(e - 1) <= top < 2^e
        float low = ldexpf(1, e - 1), high = e == 128 ? FLT_MAX : nextafterf(ldexpf(1, e), 0.0f);
        check_scale(low, ldexpf(1, 14 - e), ldexpf(1, e - 14));
        check_scale(-high, ldexpf(1, 14 - e), ldexpf(1, e - 14));
        assert_true(rintf(low * ldexpf(1, 14 - e)) == 8192.0f);
        assert_true(rintf(high * ldexpf(1, 14 - e)) == 16384.0f);
    }
    check_scale(INFINITY, 0.0f, NAN);
    check_scale(-INFINITY, 0.0f, NAN);
    check_scale(-NAN, 0.0f, NAN);
}

// One channel, scores of 0: the weights are the scales of v. Over 70 keys:
//   keys 0..31: 1 five times, and 2^-15, 1.5 2^-13, 2^-14, of which 2^13 leaves 0.25, 1.5 and 0.5: 0, 2 and 0
//   keys 32..63: below 2^-100
//   keys 64..69: 2^-10 five times, and 2^-10 + 2^-24, of which 2^23 leaves 8192.5: 8192
static void check_by_hand(const op_backend *on)
{
    enum { KEYS = 70 };
    op_random random = {87, 0};
    attention_case c = attention_random(&random, 1, KEYS, 1, 1);
    for (int j = 0; j < KEYS; j++) {
        c.scale[0][j] = 0.0f;
        c.scale[2][j] = j < 5 ? 1.0f : j < 32 ? 0.0f : j < 64 ? ldexpf(1, -101) : ldexpf(1, -10);
        c.operand[2][j] = j < 5 ? 1 : j < 64 ? 127 : -3;
    }
    c.scale[2][5] = ldexpf(1, -15);
    c.scale[2][6] = ldexpf(1.5f, -13);
    c.operand[2][6] = 100;
    c.scale[2][7] = ldexpf(1, -14);
    c.scale[2][69] = ldexpf(1, -10) + ldexpf(1, -24);
    float first = (5 * 8192 + 2 * 100) / 8192.0f, last = 6 * 8192 * -3 / 8388608.0f;
    attention_result got;
    attention_forward(on, &c, 0, &got);
    assert_true(got.out[0] == 1.0f);
    assert_true(got.out[5] == 5.0f * (1.0f / 6));
    assert_true(got.out[31] == first * (1.0f / 32));
    assert_true(got.out[63] == first * (1.0f / 64));
    assert_true(got.out[69] == (first + last) * (1.0f / 70));
}

static void test_by_hand(void **state)
{
    (void)state;
    op_on_each(check_by_hand);
}

// Heads of 64 may take another way than those of 24.
static attention_case some_case(op_random *random, int i)
{
    return attention_random(random, 2, i % 2 == 0 ? 70 : 97, 2, i % 4 < 2 ? 24 : 64);
}

// Scales from 2^-120 to 2^120: sums that vanish, weights that vanish beside others, and Inf.
static void check_range(const op_backend *on)
{
    op_random random = {88, 0};
    for (int i = 0; i < 8; i += op_stride()) {
        attention_case c = some_case(&random, i);
        for (int64_t j = 0; j < c.tokens * c.heads; j++) {
            int e = op_int(&random, -120, i < 4 ? -80 : 120);
            c.scale[2 + j % 2][j] = ldexpf(1.0f + (float)op_int(&random, 0, 99) / 100, e);
        }
        attention_same(on, &c);
    }
}

static void test_range(void **state)
{
    (void)state;
    op_against_ref(check_range);
}

// One scale is not a number: the same places become NaN as on ref, and all others keep their bits. top and norm are ref's, since the largest
// score beside a NaN is left open.
static void check_not_finite(const op_backend *on)
{
    op_random random = {89, 0};
    for (int i = 0; i < 24; i += op_stride()) {
        attention_case c = some_case(&random, i);
        int64_t items = c.tokens * c.heads * c.width;
        c.scale[i / 4 % 4][op_int(&random, 0, (int)(c.tokens * c.heads) - 1)] = i % 3 == 0   ? INFINITY
                                                                                : i % 3 == 1 ? -INFINITY
                                                                                             : NAN;
        attention_result want, got;
        attention_forward(op_ref(), &c, 0, &want);
        attention_forward(on, &c, 0, &got);
        op_same_floats("out", on, want.out, got.out, items);
        got.top = want.top;
        got.norm = want.norm;
        attention_backward(op_ref(), &c, &want);
        attention_backward(on, &c, &got);
        op_same_floats("dq", on, want.dq, got.dq, items);
        op_same_floats("dk", on, want.dk, got.dk, items);
        op_same_floats("dv", on, want.dv, got.dv, items);
    }
}

static void test_not_finite(void **state)
{
    (void)state;
    op_against_ref(check_not_finite);
}

// A NaN in the scale of one value: exactly the queries that see it are NaN.
static void check_nan_value(const op_backend *on)
{
    op_random random = {90, 0};
    for (int i = 0; i < 4; i++) {
        attention_case c = some_case(&random, i);
        int64_t bad = op_int(&random, 0, (int)c.context - 1);
        c.scale[2][bad * c.heads] = i % 2 == 0 ? NAN : INFINITY;
        attention_result got;
        attention_forward(on, &c, 0, &got);
        for (int64_t j = 0; j < c.tokens * c.heads; j++) {
            int64_t token = j / c.heads;
            int sees = j % c.heads == 0 && token >= bad && token < c.context;
            for (int64_t d = 0; d < c.width; d++)
                assert_int_equal(isnan(got.out[j * c.width + d]) != 0, sees);
        }
    }
}

static void test_nan_value(void **state)
{
    (void)state;
    op_on_each(check_nan_value);
}

// Other keys and values from a token in the middle of a block on, some of them not numbers: what earlier queries give stays, bit by bit.
static void check_causal(const op_backend *on)
{
    op_random random = {91, 0};
    for (int i = 0; i < 8; i += op_stride()) {
        attention_case c = some_case(&random, i);
        c.tokens = c.context; // one window
        int64_t from = op_int(&random, 1, (int)c.context - 1), items = c.tokens * c.heads * c.width,
                row = c.heads * c.width;
        attention_case other = c;
        for (int which = 1; which <= 2; which++) {
            other.operand[which] = op_int8s(&random, items, -127, 127);
            other.scale[which] = op_floats(&random, c.tokens * c.heads, 3.0f);
            if (i >= 4)
                other.scale[which][from * c.heads] = which == 1 ? NAN : INFINITY;
            memcpy(other.operand[which], c.operand[which], (size_t)(from * row));
            memcpy(other.scale[which], c.scale[which], (size_t)(from * c.heads) * sizeof(float));
        }
        attention_result want, got;
        attention_forward(on, &c, 0, &want);
        attention_forward(on, &other, 0, &got);
        attention_backward(on, &c, &want);
        attention_backward(on, &other, &got);
        op_same("out before", on, want.out, got.out, (size_t)(from * row) * sizeof(float));
        op_same("dq before", on, want.dq, got.dq, (size_t)(from * row) * sizeof(float));
    }
}

static void test_causal(void **state)
{
    (void)state;
    op_on_each(check_causal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scale),      cmocka_unit_test(test_by_hand),   cmocka_unit_test(test_range),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_nan_value), cmocka_unit_test(test_causal),
    };
    return op_run("op_attention_blocks", tests);
}
