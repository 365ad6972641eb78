// The sampler: a pure function, in range, spread evenly, different for every argument.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/sampler.h"

static void test_range_and_spread(void **state)
{
    (void)state;
    enum { BINS = 16, DRAWS = 64000 };
    int64_t bins[BINS] = {0};
    for (int64_t i = 0; i < DRAWS; i++) {
        int64_t w = tv_sample_window(7, i / 640, i % 640, 1000003);
        assert_in_range(w, 0, 1000002);
        bins[w * BINS / 1000003]++;
    }
    for (int b = 0; b < BINS; b++) // 4000 expected, standard deviation 61
        assert_in_range(bins[b], 3700, 4300);
    assert_int_equal(tv_sample_window(7, 3, 5, 1), 0);
}

static void test_every_argument_counts(void **state)
{
    (void)state;
    int64_t n = (int64_t)1 << 40, base = tv_sample_window(1, 2, 3, n);
    assert_int_equal(base, tv_sample_window(1, 2, 3, n));
    assert_int_not_equal(base, tv_sample_window(2, 2, 3, n));
    assert_int_not_equal(base, tv_sample_window(1, 3, 3, n));
    assert_int_not_equal(base, tv_sample_window(1, 2, 4, n));
}

static void test_tokens(void **state)
{
    (void)state;
    const uint8_t bytes[5] = {10, 255, 0, 7, 8};
    int32_t ids[4], targets[4];
    tv_window_tokens(bytes, 4, ids, targets);
    for (int t = 0; t < 4; t++) {
        assert_int_equal(ids[t], bytes[t]);
        assert_int_equal(targets[t], bytes[t + 1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_range_and_spread),
        cmocka_unit_test(test_every_argument_counts),
        cmocka_unit_test(test_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
