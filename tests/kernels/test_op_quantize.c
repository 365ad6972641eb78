// quantize_rows, quantize_rows2, quantize_channels, quantize_channels2.
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "op_test.h"

typedef struct rows_result {
    int8_t *q, *lo; // lo: two digits only
    float *scale;
    int32_t fault;
} rows_result;

// qmax 0 means two digits.
static rows_result run_rows(const op_backend *on, int64_t rows, int64_t cols, int qmax, const float *x)
{
    size_t items = (size_t)(rows * cols);
    rows_result out = {op_host(items), op_host(items), op_host((size_t)rows * sizeof(float)), 0};
    op_call call = op_begin(on);
    const float *in = op_in(&call, x, items * sizeof(float));
    int8_t *q = op_out(&call, out.q, items), *lo = op_out(&call, out.lo, items);
    float *scale = op_out(&call, out.scale, (size_t)rows * sizeof(float));
    int32_t *fault = op_out(&call, &out.fault, sizeof out.fault);
    tv_quantize_rows_args one = {rows, cols, qmax, in, q, scale, fault};
    tv_quantize_rows2_args two = {rows, cols, in, q, lo, scale, fault};
    op_end(&call, qmax ? on->backend->quantize_rows(&one, NULL) : on->backend->quantize_rows2(&two, NULL));
    return out;
}

static const int qmax_of[] = {127, 1, 4, 13, 40, 121, 0};

static float absmax_of(const float *x, int64_t count, int64_t stride)
{
    float top = 0;
    for (int64_t i = 0; i < count; i++)
        top = fmaxf(top, fabsf(x[i * stride]));
    return top;
}

// Each value is within half a step of its quantised one, the largest gets qmax, hi and lo are the digits of one integer.
static void check_rows(const op_backend *on)
{
    op_random random = {21, 0};
    for (int i = 0; i < 7; i++) {
        int64_t rows = 6, cols = 77;
        float *x = op_floats(&random, rows * cols, 3.0f);
        for (int64_t c = 0; c < cols; c++) {
            x[cols + c] *= 0x1p-70f;
            x[2 * cols + c] *= 0x1p+100f;
            x[3 * cols + c] = 0.0f;
        }
        int qmax = qmax_of[i], steps = qmax ? qmax : 16129;
        rows_result got = run_rows(on, rows, cols, qmax, x);
        assert_int_equal(got.fault, 0);
        for (int64_t t = 0; t < rows; t++) {
            float absmax = absmax_of(x + t * cols, cols, 1);
            assert_true(got.scale[t] == absmax / (float)steps);
            int most = 0;
            for (int64_t c = 0; c < cols; c++) {
                int64_t j = t * cols + c;
                int Q = qmax ? got.q[j] : 127 * got.q[j] + got.lo[j];
                if (!qmax)
                    assert_true(abs(got.lo[j]) <= 63 && abs(got.q[j]) <= 127);
                double exact = absmax > 0 ? (double)x[j] * steps / (double)absmax : 0;
                assert_true(fabs(Q - exact) <= 0.5 + 1e-6 * steps);
                most = abs(Q) > most ? abs(Q) : most;
            }
            assert_int_equal(most, absmax > 0 ? steps : 0);
        }
    }
}

static void test_rows(void **state)
{
    (void)state;
    op_on_each(check_rows);
}

// Half-way values go to the even neighbour: with absmax = qmax the factor is exactly 1.
static void check_half_even(const op_backend *on)
{
    const float x[9] = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 125.5f, 126.5f};
    const int8_t want[9] = {127, 0, 2, 2, 0, -2, -2, 126, 126};
    op_same("rounded to even", on, want, run_rows(on, 1, 9, 127, x).q, 9);
    const float y[6] = {16129.0f, 0.5f, 1.5f, 63.0f, 64.0f, -64.5f}; // Q: 16129, 0, 2, 63, 64, -64
    const int8_t hi[6] = {127, 0, 0, 0, 1, -1}, lo[6] = {0, 0, 2, 63, -63, 63};
    rows_result two = run_rows(on, 1, 6, 0, y);
    op_same("high digits", on, hi, two.q, 6);
    op_same("low digits", on, lo, two.lo, 6);
}

static void test_half_even(void **state)
{
    (void)state;
    op_on_each(check_half_even);
}

// Tiny rows count as zero, NaN and Inf rows give zeros and the fault; other rows are untouched by it.
static void check_special(const op_backend *on)
{
    static const float special[4] = {NAN, -NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 7; i++)
        for (int s = 0; s < 4; s++)
            for (int64_t at = 0; at < 67; at += 11) {
                op_random random = {22, 0};
                float *x = op_floats(&random, 3 * 67, 1.0f);
                rows_result clean = run_rows(on, 3, 67, qmax_of[i], x);
                assert_int_equal(clean.fault, 0);
                x[67 + at] = special[s];
                rows_result got = run_rows(on, 3, 67, qmax_of[i], x);
                assert_int_equal(got.fault, 1);
                assert_true(got.scale[1] == 0.0f && got.scale[0] == clean.scale[0] && got.scale[2] == clean.scale[2]);
                for (int64_t c = 0; c < 67; c++) {
                    assert_int_equal(got.q[67 + c], 0);
                    assert_int_equal(got.lo[67 + c], 0);
                    assert_int_equal(got.q[c], clean.q[c]);
                    assert_int_equal(got.q[134 + c], clean.q[134 + c]);
                }
            }
    const float tiny[8] = {0x1.fffffep-101f, 0, 0, 0, 0x1p-100f, -0x1p-101f, 0, 0}; // rows just below and at the border
    rows_result got = run_rows(on, 2, 4, 127, tiny);
    assert_int_equal(got.fault, 0);
    assert_true(got.scale[0] == 0.0f && got.scale[1] == 0x1p-100f / 127.0f);
    const int8_t want[8] = {0, 0, 0, 0, 127, -64, 0, 0};
    op_same("rows at the border of zero", on, want, got.q, 8);
    const float huge[4] = {FLT_MAX, -FLT_MAX, FLT_MAX / 2, FLT_MIN};
    rows_result big = run_rows(on, 1, 4, 127, huge);
    assert_int_equal(big.fault, 0);
    assert_int_equal(big.q[0], 127);
    assert_int_equal(big.q[1], -127);
    assert_int_equal(big.q[3], 0);
}

static void test_special(void **state)
{
    (void)state;
    op_on_each(check_special);
}

static void spoil(op_random *random, float *x, int64_t count)
{
    static const float values[] = {NAN, INFINITY, -INFINITY, 0x1p-120f, 0x1p-149f, -0.0f, 0x1p+120f};
    if (count)
        x[op_int(random, 0, (int)count - 1)] = values[op_int(random, 0, 6)];
}

static void check_rows_bits(const op_backend *on)
{
    op_random random = {23, 0};
    for (int i = 0; i < 150; i += op_stride()) {
        int64_t rows = i < 7 ? OP_LARGE_ROWS : op_int(&random, 0, 40), cols = i < 7 ? OP_LARGE_COLS : op_size(&random);
        float *x = op_floats(&random, rows * cols, 1.0f);
        if (i % 3 == 0)
            spoil(&random, x, rows * cols);
        rows_result want = run_rows(op_ref(), rows, cols, qmax_of[i % 7], x),
                    got = run_rows(on, rows, cols, qmax_of[i % 7], x);
        op_same("q", on, want.q, got.q, (size_t)(rows * cols));
        op_same("low digit", on, want.lo, got.lo, (size_t)(rows * cols));
        op_same("scale", on, want.scale, got.scale, (size_t)rows * sizeof(float));
        assert_int_equal(want.fault, got.fault);
    }
}

static void test_rows_bits(void **state)
{
    (void)state;
    op_against_ref(check_rows_bits);
}

typedef struct channels_case {
    int64_t tokens, channels;
    const float *x; // or q and scale
    const int8_t *q;
    const float *scale;
    int two;
} channels_case;

typedef struct channels_result {
    int8_t *hi, *lo;
    int32_t *sumsq;
    int64_t *sumsq2;
    int32_t fault;
} channels_result;

static channels_result run_channels(const op_backend *on, const channels_case *in)
{
    size_t items = (size_t)(in->tokens * in->channels), channels = (size_t)in->channels;
    channels_result out = {op_host(items), op_host(items), op_host(channels * 4), op_host(channels * 8), 0};
    op_call call = op_begin(on);
    const float *x = op_in(&call, in->x, items * sizeof(float));
    int8_t *hi = op_out(&call, out.hi, items), *lo = op_out(&call, out.lo, items);
    int32_t *fault = op_out(&call, &out.fault, sizeof out.fault);
    if (in->two) {
        tv_quantize_channels2_args a = {in->tokens, in->channels, x, hi, lo, op_out(&call, out.sumsq2, channels * 8),
                                        fault};
        op_end(&call, on->backend->quantize_channels2(&a, NULL));
    } else {
        tv_quantize_channels_args a = {
            .tokens = in->tokens, .channels = in->channels, .x = x, .qt = hi, .fault = fault};
        a.q = op_in(&call, in->q, items);
        a.scale = op_in(&call, in->scale, (size_t)in->tokens * sizeof(float));
        a.sumsq = op_out(&call, out.sumsq, channels * 4);
        op_end(&call, on->backend->quantize_channels(&a, NULL));
    }
    return out;
}

// A channel's quantised values are those of quantize_rows on the transposed matrix; sums of squares by double.
static void check_channels(const op_backend *on)
{
    op_random random = {24, 0};
    for (int kind = 0; kind < 3; kind++) { // float input, saved operand, two digits
        int64_t tokens = 75, channels = 34;
        channels_case in = {.tokens = tokens, .channels = channels, .two = kind == 2};
        float *value = op_floats(&random, tokens * channels, 1.0f),
              *across = op_host((size_t)(tokens * channels) * sizeof(float));
        in.q = kind == 1 ? op_int8s(&random, tokens * channels, -127, 127) : NULL;
        in.scale = kind == 1 ? op_floats(&random, tokens, 1.0f) : NULL;
        in.x = kind == 1 ? NULL : value;
        for (int64_t t = 0; t < tokens; t++)
            for (int64_t c = 0; c < channels; c++) {
                if (kind == 1)
                    value[t * channels + c] = (float)in.q[t * channels + c] * in.scale[t];
                if (c == 5)
                    value[t * channels + c] *= kind == 1 ? 1.0f : 0.0f;
                across[c * tokens + t] = value[t * channels + c];
            }
        channels_result got = run_channels(on, &in);
        rows_result want = run_rows(op_ref(), channels, tokens, kind == 2 ? 0 : 127, across);
        assert_int_equal(got.fault, 0);
        op_same("transposed digits", on, want.q, got.hi, (size_t)(tokens * channels));
        op_same("transposed low digits", on, want.lo, got.lo, (size_t)(tokens * channels));
        for (int64_t c = 0; c < channels; c++) {
            double sum = 0;
            for (int64_t t = 0; t < tokens; t++)
                sum += pow(kind == 2 ? 127.0 * got.hi[c * tokens + t] + got.lo[c * tokens + t] : got.hi[c * tokens + t],
                           2);
            assert_true(sum == (double)(kind == 2 ? got.sumsq2[c] : got.sumsq[c]));
        }
    }
}

static void test_channels(void **state)
{
    (void)state;
    op_on_each(check_channels);
}

static void check_channels_special(const op_backend *on)
{
    op_random random = {25, 0};
    for (int two = 0; two < 2; two++) {
        channels_case in = {.tokens = 19, .channels = 21, .two = two};
        float *x = op_floats(&random, 19 * 21, 1.0f);
        in.x = x;
        channels_result clean = run_channels(on, &in);
        x[7 * 21 + 20] = NAN;
        channels_result got = run_channels(on, &in);
        assert_int_equal(got.fault, 1);
        assert_int_equal(two ? got.sumsq2[20] : got.sumsq[20], 0);
        for (int64_t t = 0; t < 19; t++)
            assert_int_equal(got.hi[20 * 19 + t], 0);
        op_same("other channels", on, clean.hi, got.hi, 20 * 19);
    }
}

static void test_channels_special(void **state)
{
    (void)state;
    op_on_each(check_channels_special);
}

static void check_channels_bits(const op_backend *on)
{
    op_random random = {26, 0};
    for (int i = 0; i < 120; i += op_stride()) {
        channels_case in = {.tokens = op_size(&random), .channels = op_size(&random), .two = i % 3 == 2};
        if (i < 3)
            in.tokens = OP_LARGE_COLS, in.channels = OP_LARGE_ROWS;
        else if (i % 4 == 3) // whole loads and stores, some of one tile of tokens
            in.tokens = 16 * (1 + i % 11), in.channels = 16 * (1 + i % 23);
        int64_t items = in.tokens * in.channels;
        if (i % 3 == 1) {
            float *scale = op_floats(&random, in.tokens, 1.0f);
            if (i % 2)
                spoil(&random, scale, in.tokens);
            in.scale = scale;
            in.q = op_int8s(&random, items, -127, 127);
        } else {
            float *x = op_floats(&random, items, 1.0f);
            if (i % 2)
                spoil(&random, x, items);
            in.x = x;
        }
        channels_result want = run_channels(op_ref(), &in), got = run_channels(on, &in);
        op_same("qt", on, want.hi, got.hi, (size_t)items);
        op_same("low digit", on, want.lo, got.lo, (size_t)items);
        op_same("sumsq", on, want.sumsq, got.sumsq, (size_t)in.channels * 4);
        op_same("sumsq of two digits", on, want.sumsq2, got.sumsq2, (size_t)in.channels * 8);
        assert_int_equal(want.fault, got.fault);
    }
}

static void test_channels_bits(void **state)
{
    (void)state;
    op_against_ref(check_channels_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),          cmocka_unit_test(test_half_even), cmocka_unit_test(test_special),
        cmocka_unit_test(test_rows_bits),     cmocka_unit_test(test_channels),  cmocka_unit_test(test_channels_special),
        cmocka_unit_test(test_channels_bits),
    };
    return op_run("op_quantize", tests);
}
