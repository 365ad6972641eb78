// Schedules against their formulas in double, and the fixed points that the ballot sees.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/schedule.h"

static tv_config config_of(int schedule, int64_t steps, int64_t warmup)
{
    tv_config config = {0};
    config.train.steps = steps;
    config.update.schedule = schedule;
    config.update.warmup = warmup;
    config.update.step = 8.0;
    config.update.final = 0.02;
    config.update.exponent_step = 0.02;
    config.update.threshold = 64;
    config.update.rho_first = 0.01;
    config.update.rho_last = 0.0005;
    return config;
}

static void test_linear(void **state)
{
    (void)state;
    tv_config config = config_of(TV_SCHEDULE_LINEAR, 101, 50);
    assert_true(fabs(tv_schedule_fraction(&config, 0) - 0.02) < 1e-12);
    assert_true(fabs(tv_schedule_fraction(&config, 49) - 1.0) < 1e-12);
    assert_true(fabs(tv_schedule_fraction(&config, 50) - 1.0) < 1e-12);
    assert_true(fabs(tv_schedule_fraction(&config, 75) - 0.51) < 1e-12);
    assert_true(fabs(tv_schedule_fraction(&config, 100) - 0.02) < 1e-12);
    assert_int_equal(tv_schedule_eta_q(&config, 50), 8 * 65536);
    assert_int_equal(tv_schedule_eta_q(&config, 100), 10486);    // round(0.16 65536)
    assert_int_equal(tv_schedule_exponent_q(&config, 50), 1311); // round(0.02 65536)
}

static void test_cosine_and_constant(void **state)
{
    (void)state;
    tv_config config = config_of(TV_SCHEDULE_COSINE, 11, 0);
    for (int64_t s = 0; s <= 10; s++) {
        double expected = 0.02 + 0.98 * (1.0 + cos(M_PI * (double)s / 10.0)) / 2.0;
        assert_true(fabs(tv_schedule_fraction(&config, s) - expected) < 1e-12);
    }
    config.update.schedule = TV_SCHEDULE_CONSTANT;
    assert_true(tv_schedule_fraction(&config, 7) == 1.0);
    config.train.steps = 1; // no division by a length of zero
    config.update.schedule = TV_SCHEDULE_LINEAR;
    assert_true(tv_schedule_fraction(&config, 0) == 1.0);
}

static void test_threshold(void **state)
{
    (void)state;
    tv_config config = config_of(TV_SCHEDULE_CONSTANT, 100, 0);
    assert_int_equal(tv_schedule_threshold(&config, 0), 64);
    config.update.threshold_warmup = 10;
    assert_int_equal(tv_schedule_threshold(&config, 0), 127); // 2 H is over int8
    assert_int_equal(tv_schedule_threshold(&config, 5), 64 + 63 * 5 / 10);
    assert_int_equal(tv_schedule_threshold(&config, 10), 64);
    config.update.threshold = 20;
    assert_int_equal(tv_schedule_threshold(&config, 0), 40);
    config.update.rule = TV_UPDATE_CLASSIC;
    assert_int_equal(tv_schedule_threshold(&config, 50), 3);
}

static void test_rho_and_classic(void **state)
{
    (void)state;
    tv_config config = config_of(TV_SCHEDULE_CONSTANT, 101, 0);
    for (int64_t s = 0; s <= 100; s += 10) {
        double expected = 0.01 * pow(0.05, (double)s / 100.0);
        assert_true(fabs((double)tv_schedule_rho(&config, s) / expected - 1.0) < 1e-5);
    }
    assert_int_equal(tv_schedule_classic_step(1.99), 1);
    assert_int_equal(tv_schedule_classic_step(2.0), 2);
    assert_int_equal(tv_schedule_classic_step(4.9), 3);
    assert_int_equal(tv_schedule_classic_step(5.0), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_cosine_and_constant),
        cmocka_unit_test(test_threshold),
        cmocka_unit_test(test_rho_and_classic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
