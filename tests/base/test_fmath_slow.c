// base/fmath.h: the error bound at every one of the 2^32 bit patterns for exp and sigmoid, at every third for log and
// silu.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fmath_oracle.h"

static void test_exp(void **state)
{
    (void)state;
    assert_true(fmath_scan(FMATH_EXP, 1) <= 2.0);
}

static void test_log(void **state)
{
    (void)state;
    assert_true(fmath_scan(FMATH_LOG, 3) <= 2.0);
}

static void test_sigmoid(void **state)
{
    (void)state;
    assert_true(fmath_scan(FMATH_SIGMOID, 1) <= 2.0);
}

static void test_silu(void **state)
{
    (void)state;
    assert_true(fmath_scan(FMATH_SILU, 3) <= 2.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_sigmoid),
        cmocka_unit_test(test_silu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
