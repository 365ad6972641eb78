// base/tensor.h: types, the scale lattice written out, initial exponents against libm.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/tensor.h"

static void test_dtypes(void **state)
{
    (void)state;
    assert_int_equal(tv_dtype_bytes(TV_U8), 1);
    assert_int_equal(tv_dtype_bytes(TV_I8), 1);
    assert_int_equal(tv_dtype_bytes(TV_I16), 2);
    assert_int_equal(tv_dtype_bytes(TV_I32), 4);
    assert_string_equal(tv_dtype_name(TV_U8), "uint8");
    assert_string_equal(tv_dtype_name(TV_I8), "int8");
    assert_string_equal(tv_dtype_name(TV_I16), "int16");
    assert_string_equal(tv_dtype_name(TV_I32), "int32");
}

static void test_scale_types(void **state)
{
    (void)state;
    static const char *const names[] = {"T4", "T6", "T8", "T16", "T32", "T64"};
    static const int groups[] = {4, 6, 8, 16, 32, 64};
    assert_int_equal(TV_SCALE_TYPE_COUNT, 6);
    for (int i = 0; i < 6; i++) {
        tv_scale_type type = TV_SCALE_TYPE_COUNT;
        assert_int_equal(tv_scale_type_parse(names[i], &type), 0);
        assert_int_equal(type, i);
        assert_int_equal(tv_scale_group(type), groups[i]);
        assert_string_equal(tv_scale_type_name(type), names[i]);
    }
    static const char *const wrong[] = {"", "T", "T5", "t32", "T32 ", "T323", "32"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        tv_scale_type type = TV_T8;
        assert_int_equal(tv_scale_type_parse(wrong[i], &type), -1);
        assert_int_equal(type, TV_T8);
    }
}

static void test_shapes(void **state)
{
    (void)state;
    for (int64_t cols = 0; cols < 200; cols++) {
        assert_int_equal(tv_row_bytes(cols), (int64_t)ceil((double)cols / 5.0));
        for (int type = 0; type < TV_SCALE_TYPE_COUNT; type++) {
            int group = tv_scale_group((tv_scale_type)type);
            assert_int_equal(tv_row_groups(cols, group), (int64_t)ceil((double)cols / group));
        }
    }
}

static void test_lattice_tables(void **state)
{
    (void)state;
    static const int m0[] = {1, 2, 4, 8, 16, 32, 64};
    static const int m1[] = {2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96};
    static const int m2[] = {4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112};
    static const int m3[] = {8,  9,  10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 26,  28,  30,
                             32, 36, 40, 44, 48, 52, 56, 60, 64, 72, 80, 88, 96, 104, 112, 120};
    static const struct {
        const int *values;
        int codes;
    } want[] = {{m0, 7}, {m1, 12}, {m2, 20}, {m3, 32}};
    for (int m = 0; m <= TV_MANTISSA_BITS_MAX; m++) {
        assert_int_equal(tv_lattice_codes(m), want[m].codes);
        for (int code = 0; code < want[m].codes; code++)
            assert_int_equal(tv_lattice_value(m, code), want[m].values[code]);
        assert_int_equal(tv_lattice_max(m), want[m].values[want[m].codes - 1]);
        assert_true(tv_lattice_max(m) <= INT8_MAX);
    }
}

// The start's scale L[E - b] 2^b is 2^e0, and the code lies in the middle octave.
static void test_lattice_start(void **state)
{
    (void)state;
    for (int m = 0; m <= TV_MANTISSA_BITS_MAX; m++) {
        for (int e0 = -20; e0 <= 5; e0++) {
            int b = 1000, e = 1000;
            tv_lattice_start(m, e0, &b, &e);
            int code = e - b;
            assert_in_range(code, 0, tv_lattice_codes(m) - 1);
            assert_true(ldexp(tv_lattice_value(m, code), b) == ldexp(1.0, e0));
            assert_int_equal(code >> m, (7 - m) / 2);
            if (m == 0)
                assert_int_equal(b, e0 - 3);
        }
    }
}

static void test_initial_exponent(void **state)
{
    (void)state;
    // log2 sqrt x = log2(x) / 2. At the halves 1.5 / k is a power of two and log2 is exact, so round() sees the half
    // itself.
    for (int64_t k = 1; k <= 100000; k++) {
        int want = (int)round(0.5 * log2(1.5 / (double)k));
        assert_int_equal(tv_initial_exponent(k, 0), want);
        assert_int_equal(tv_initial_exponent(k, 1), want - 1);
    }
    assert_int_equal(tv_initial_exponent(1, 0), 0);
    assert_int_equal(tv_initial_exponent(3, 0), -1);          // -0.5, away from zero
    assert_int_equal(tv_initial_exponent(INT64_MAX, 0), -31); // log2 sqrt(1.5 / 2^63) = -31.2
}

static void test_reduced_length(void **state)
{
    (void)state;
    assert_int_equal(tv_reduced_length_max(0), 264208);
    assert_int_equal(tv_reduced_length_max(3), 140911);
    for (int m = 0; m <= TV_MANTISSA_BITS_MAX; m++) {
        int64_t length = tv_reduced_length_max(m), product = 127 * tv_lattice_max(m);
        assert_true(length * product <= INT32_MAX && (length + 1) * product > INT32_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtypes),         cmocka_unit_test(test_scale_types),
        cmocka_unit_test(test_shapes),         cmocka_unit_test(test_lattice_tables),
        cmocka_unit_test(test_lattice_start),  cmocka_unit_test(test_initial_exponent),
        cmocka_unit_test(test_reduced_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
