// base/fmath_tables.h against libm, and the pinned hash of one rotary table.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/fmath_tables.h"
#include "base/hash.h"
#include "base/rng.h"

// A double in [0, 1) from the test's own stream.
static double uniform(uint64_t i)
{
    tv_rng_key key = {.seed = 3, .purpose = TV_RNG_SAMPLER};
    return ldexp((double)(tv_rng64(key, i) >> 11), -53);
}

static void check_angle(double x)
{
    if (fabs(tv_cos_double(x) - cos(x)) > 0x1p-51 || fabs(tv_sin_double(x) - sin(x)) > 0x1p-51)
        fail_msg("cos(%a) = %a, libm %a; sin = %a, libm %a", x, tv_cos_double(x), cos(x), tv_sin_double(x), sin(x));
}

static void test_sin_cos(void **state)
{
    (void)state;
    assert_true(tv_cos_double(0.0) == 1.0 && tv_sin_double(0.0) == 0.0);
    assert_true(fabs(tv_cos_double(M_PI) + 1.0) <= 0x1p-52 && fabs(tv_cos_double(M_PI_2)) < 1e-16);
    for (uint64_t i = 0; i < 200000; i++) {
        double sign = i & 1 ? -1.0 : 1.0;
        check_angle(sign * 7.0 * uniform(i));
        check_angle(sign * ldexp(uniform(i), (int)(i % 60) - 30));
        check_angle(sign * (double)(i % 5000) * M_PI_4);
    }
    // Near a zero, where sin x is the reduced angle itself, the error is that of pi / 2 in 106 bits.
    for (int k = 1; k < 1000; k++) {
        double x = k * M_PI;
        assert_true(fabs(tv_sin_double(x) - sin(x)) <= 0x1p-51 * fabs(sin(x)) + 0x1p-104 * x);
    }
}

static void test_pow(void **state)
{
    (void)state;
    static const double bases[] = {10000.0, 500000.0, 1e6, 2.0, 10.0, 0.5, 1.0, 1.4142, 3e-5};
    for (size_t b = 0; b < sizeof bases / sizeof *bases; b++) {
        for (uint64_t i = 0; i < 2000; i++) {
            double exponent = 8.0 * uniform(i) - 4.0, want = pow(bases[b], exponent);
            double bound = 0x1p-52 * (2.0 + fabs(exponent * log(bases[b])));
            assert_true(fabs(tv_pow_double(bases[b], exponent) - want) <= bound * want);
        }
    }
    assert_true(tv_pow_double(10000.0, 0.0) == 1.0 && tv_pow_double(1.0, 17.5) == 1.0);
}

static double float_error(float got, double want)
{
    double magnitude = fmax(fabs(want), 0x1p-126);
    return fabs((double)got - want) / ldexp(1.0, ilogb(magnitude) - 23);
}

static void check_table(int64_t context, int64_t half, double base)
{
    size_t bytes = (size_t)(context * half) * sizeof(float);
    float *cos_table = malloc(bytes), *sin_table = malloc(bytes);
    assert_true(cos_table && sin_table);
    tv_rotary_table(context, half, base, cos_table, sin_table);
    double worst = 0.0;
    for (int64_t p = 0; p < context; p++) {
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)p * pow(base, -(double)i / (double)half);
            worst = fmax(worst, float_error(cos_table[p * half + i], cos(angle)));
            worst = fmax(worst, float_error(sin_table[p * half + i], sin(angle)));
        }
    }
    printf("rotary table [%lld, %lld]: largest error %.3f ulp\n", (long long)context, (long long)half, worst);
    assert_true(worst <= 1.0);
    free(cos_table);
    free(sin_table);
}

static void test_rotary_table(void **state)
{
    (void)state;
    check_table(1, 1, 10000.0);
    check_table(128, 32, 10000.0);
    check_table(512, 48, 500000.0);
    check_table(2048, 64, 10000.0);
}

// cos table, then sin table, 128 x 32 floats each, base 10000. Any change of these bits changes every run.
static void test_pinned_hash(void **state)
{
    (void)state;
    static float tables[2][128 * 32];
    tv_rotary_table(128, 32, 10000.0, tables[0], tables[1]);
    char hex[TV_HASH_HEX];
    tv_hash_format(tv_hash_bytes(tables, sizeof tables), hex);
    assert_string_equal(hex, "635c114f945ac2d1cc5948e87536a9be");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sin_cos),
        cmocka_unit_test(test_pow),
        cmocka_unit_test(test_rotary_table),
        cmocka_unit_test(test_pinned_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
