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

// Slots go on where they ended, begin again behind the end of their stream, and share the text without overlap.
static void test_streams(void **state)
{
    (void)state;
    const int64_t n = 1003, slots = 7, context = 16, length = n / slots;
    for (int64_t slot = 0; slot < slots; slot++) {
        assert_int_equal(tv_stream_window(0, slot, slots, context, n), slot * length);
        for (int64_t step = 1; step < 60; step++) {
            int64_t at = tv_stream_window(step, slot, slots, context, n) - slot * length;
            int64_t before = tv_stream_window(step - 1, slot, slots, context, n) - slot * length;
            assert_in_range(at, 0, length - 1);
            assert_int_equal(at, (before + context) % length);
        }
    }
    // Fewer starts than slots; a step so late that step context needs more than 64 bits.
    for (int64_t slot = 0; slot < slots; slot++)
        assert_int_equal(tv_stream_window(9, slot, slots, context, 3), slot % 3);
    assert_int_equal(tv_stream_window((int64_t)1 << 60, 0, 1, 1000, 999),
                     (int64_t)(((unsigned __int128)1 << 60) % 999));
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
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
