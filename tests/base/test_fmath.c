// base/fmath.h: error bounds on a dense grid and at the edges, special values, and equal bits of scalar and vector
// code.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/fmath.h"
#include "base/hash.h"
#include "base/rng.h"
#include "fmath_oracle.h"

enum { GRID_STRIDE = 101, BITS_STRIDE = 4099, NEIGHBOURS = 500 };

static void test_grid(void **state)
{
    (void)state;
    for (int kind = 0; kind < FMATH_KINDS; kind++)
        assert_true(fmath_scan((fmath_kind)kind, GRID_STRIDE) <= 2.0);
}

// Around every place where the code changes its course: range ends, subnormal borders, binades, multiples of ln 2 / 2.
static void test_edges(void **state)
{
    (void)state;
    static const float places[] = {0.0f,        0x1p-149f,   0x1p-126f,   0x1p-24f,    0.25f,          0.5f,
                                   0.70710678f, 1.0f,        1.41421356f, 2.0f,        0.34657359f,    1.03972077f,
                                   16.0f,       17.3286795f, 87.3365447f, 88.7228394f, 88.3762626f,    103.278929f,
                                   103.972077f, 105.0f,      106.0f,      108.5f,      120.0f,         150.0f,
                                   700.0f,      0x1p23f,     0x1p126f,    0x1p127f,    0x1.fffffep127f};
    for (int kind = 0; kind < FMATH_KINDS; kind++) {
        for (size_t p = 0; p < sizeof places / sizeof *places; p++) {
            for (int64_t k = -NEIGHBOURS; k <= NEIGHBOURS; k++) {
                for (uint32_t sign = 0; sign < 2; sign++) {
                    int64_t bits = (int64_t)tv_float_bits(places[p]) + k;
                    float x = tv_bits_float((uint32_t)(bits < 0 ? 0 : bits) | sign << 31), y;
                    fmath_evaluate((fmath_kind)kind, FMATH_SCALAR, &x, &y, 1);
                    if (fmath_error((fmath_kind)kind, x, y) > 2.0)
                        fail_msg("%s(%a) = %a is %g ulp off", fmath_name((fmath_kind)kind), x, y,
                                 fmath_error((fmath_kind)kind, x, y));
                }
            }
        }
    }
}

#define ASSERT_BITS(expression, bits) assert_int_equal(tv_float_bits(expression), (bits))

static void test_special_values(void **state)
{
    (void)state;
    const float inf = INFINITY;
    ASSERT_BITS(tv_exp(-inf), 0);
    ASSERT_BITS(tv_exp(inf), 0x7F800000u);
    ASSERT_BITS(tv_exp(0.0f), 0x3F800000u);
    ASSERT_BITS(tv_exp(-0.0f), 0x3F800000u);
    ASSERT_BITS(tv_exp(88.7228394f), tv_float_bits((float)exp(88.7228394f)));
    ASSERT_BITS(tv_exp(88.73f), 0x7F800000u);
    ASSERT_BITS(tv_exp(-104.0f), 0);
    ASSERT_BITS(tv_exp(-103.9f), 1);
    ASSERT_BITS(tv_log(0.0f), 0xFF800000u);
    ASSERT_BITS(tv_log(-0.0f), 0xFF800000u);
    ASSERT_BITS(tv_log(inf), 0x7F800000u);
    ASSERT_BITS(tv_log(1.0f), 0);
    ASSERT_BITS(tv_log(0x1p-149f), tv_float_bits((float)log(0x1p-149)));
    ASSERT_BITS(tv_log(-0x1p-149f), 0x7FC00000u);
    ASSERT_BITS(tv_log(-inf), 0x7FC00000u);
    ASSERT_BITS(tv_sigmoid(-inf), 0);
    ASSERT_BITS(tv_sigmoid(inf), 0x3F800000u);
    ASSERT_BITS(tv_sigmoid(0.0f), 0x3F000000u);
    ASSERT_BITS(tv_silu(-inf), 0x80000000u);
    ASSERT_BITS(tv_silu(inf), 0x7F800000u);
    ASSERT_BITS(tv_silu(0.0f), 0);
    ASSERT_BITS(tv_silu(0x1.fffffep127f), 0x7F7FFFFFu);
    static const uint32_t nans[] = {0x7FC00000u, 0xFFC00000u, 0x7FFFFFFFu, 0x7F800001u, 0xFFFFFFFFu, 0xFF800001u};
    for (size_t i = 0; i < sizeof nans / sizeof *nans; i++) {
        float x = tv_bits_float(nans[i]);
        ASSERT_BITS(tv_exp(x), 0x7FC00000u);
        ASSERT_BITS(tv_log(x), 0x7FC00000u);
        ASSERT_BITS(tv_sigmoid(x), 0x7FC00000u);
        ASSERT_BITS(tv_silu(x), 0x7FC00000u);
    }
}

static void test_vector_bits(void **state)
{
    (void)state;
    enum { BLOCK = 1003 }; // not a multiple of any vector: the remainder loop runs too
    float x[BLOCK], scalar[BLOCK], vector[BLOCK];
    for (int width = FMATH_AVX2; width < FMATH_WIDTHS; width++) {
        if (!fmath_width_runs((fmath_width)width)) {
            printf("vector width %d does not run on this processor: left out\n", width);
            continue;
        }
        for (int kind = 0; kind < FMATH_KINDS; kind++) {
            for (uint64_t first = 0; first < 1ull << 32; first += (uint64_t)BLOCK * BITS_STRIDE) {
                for (int i = 0; i < BLOCK; i++)
                    x[i] = tv_bits_float((uint32_t)(first + (uint64_t)i * BITS_STRIDE));
                fmath_evaluate((fmath_kind)kind, FMATH_SCALAR, x, scalar, BLOCK);
                fmath_evaluate((fmath_kind)kind, (fmath_width)width, x, vector, BLOCK);
                assert_memory_equal(scalar, vector, sizeof scalar);
            }
        }
    }
}

// The same bits from every compiler and processor: the hash of the results at every 4099th bit pattern.
static void test_pinned_bits(void **state)
{
    (void)state;
    static const char *const pinned[FMATH_KINDS] = {
        "fd7cb49fc3a5b3c53a47e3eca66c2dd2", "daa2a827ad43531c26ddfa3caa6a72af", "8151718739a388fa5f91fbdbd26a6b41",
        "4d5ba538bd75aeff28f7cec9e1e8fca4"};
    enum { BLOCK = 1024 };
    float x[BLOCK], y[BLOCK];
    for (int kind = 0; kind < FMATH_KINDS; kind++) {
        tv_hash_stream *stream = tv_hash_stream_new();
        assert_non_null(stream);
        for (uint64_t first = 0; first < 1ull << 32; first += (uint64_t)BLOCK * BITS_STRIDE) {
            for (int i = 0; i < BLOCK; i++)
                x[i] = tv_bits_float((uint32_t)(first + (uint64_t)i * BITS_STRIDE));
            fmath_evaluate((fmath_kind)kind, FMATH_SCALAR, x, y, BLOCK);
            tv_hash_stream_add(stream, y, sizeof y);
        }
        char hex[TV_HASH_HEX];
        tv_hash_format(tv_hash_stream_value(stream), hex);
        tv_hash_stream_free(stream);
        assert_string_equal(hex, pinned[kind]);
    }
}

static void test_exp2i(void **state)
{
    (void)state;
    for (int e = -149; e <= 127; e++)
        assert_true(tv_exp2i(e) == ldexpf(1.0f, e));
    assert_true(tv_exp2i(-150) == 0.0f && tv_exp2i(-1000) == 0.0f && tv_exp2i(INT32_MIN) == 0.0f);
    assert_true(isinf(tv_exp2i(128)) && isinf(tv_exp2i(1000)) && isinf(tv_exp2i(INT32_MAX)));
    assert_true(tv_exp2i(128) > 0.0f);
}

// Every lane of the full xor tree, in floats whose sum depends on the order.
static void test_lanes_combine(void **state)
{
    (void)state;
    for (uint32_t trial = 0; trial < 1000; trial++) {
        float lane[32], tree[32], next[32];
        tv_rng_key key = {.seed = trial, .purpose = TV_RNG_SAMPLER};
        for (int l = 0; l < 32; l++) {
            uint32_t bits = (uint32_t)tv_rng64(key, (uint64_t)l);
            lane[l] = tree[l] = ldexpf((float)(bits & 0xFFFFFF) - 8388608.0f, (int)(bits >> 29));
        }
        for (int distance = 16; distance >= 1; distance /= 2) {
            for (int l = 0; l < 32; l++)
                next[l] = tree[l] + tree[l ^ distance];
            memcpy(tree, next, sizeof tree);
        }
        float sum = tv_lanes_combine(lane);
        for (int l = 0; l < 32; l++)
            ASSERT_BITS(sum, tv_float_bits(tree[l]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grid),          cmocka_unit_test(test_edges),       cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_vector_bits),   cmocka_unit_test(test_pinned_bits), cmocka_unit_test(test_exp2i),
        cmocka_unit_test(test_lanes_combine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
