// Who is slowest, at what, and by how much; the GPUs' worst.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/lag.h"

static void names_rank_and_phase(void **state)
{
    const tv_lag_record records[] = {
        {.seconds = {0.01, 0.20, 0.40, 0.05}},
        {.seconds = {0.01, 0.21, 0.40, 0.05}},
        {.seconds = {0.01, 0.21, 0.56, 0.05}},
        {.seconds = {0.02, 0.20, 0.41, 0.05}},
    };
    tv_lag_report report;
    (void)state;
    assert_int_equal(tv_lag_judge(records, 4, &report), TV_OK);
    assert_int_equal(report.rank, 2);
    assert_int_equal(report.phase, TV_LAG_BACKWARD);
    assert_true(report.median[TV_LAG_BACKWARD] == 0.40 && report.slowest[TV_LAG_BACKWARD] == 0.56);
    assert_true(report.ratio > 0.83 / 0.67 - 1e-9 && report.ratio < 0.83 / 0.67 + 1e-9);
    assert_int_equal(report.gpus, 0);
    assert_int_equal(report.hottest, -1);
}

static void of_two_the_quicker_is_the_median(void **state)
{
    const tv_lag_record records[] = {{.seconds = {0.4, 0.1, 0.1, 0.1}}, {.seconds = {0.1, 0.1, 0.1, 0.1}}};
    tv_lag_report report;
    (void)state;
    assert_int_equal(tv_lag_judge(records, 2, &report), TV_OK);
    assert_int_equal(report.rank, 0);
    assert_int_equal(report.phase, TV_LAG_DATA);
    assert_true(report.ratio > 1.74 && report.ratio < 1.76);
}

static void alone_or_idle_nobody_lags(void **state)
{
    const tv_lag_record records[] = {{.seconds = {1, 2, 3, 4}}, {.seconds = {0}}};
    tv_lag_report report;
    (void)state;
    assert_int_equal(tv_lag_judge(records, 1, &report), TV_OK);
    assert_true(report.ratio == 1);
    assert_int_equal(tv_lag_judge(&records[1], 1, &report), TV_OK);
    assert_true(report.ratio < TV_LAG_TOLD);
}

static void finds_the_worst_gpus(void **state)
{
    const tv_lag_record records[] = {
        {.gpu = {.present = 1, .temperature = 60, .power = 300}},
        {.gpu = {.present = 1, .temperature = 88, .power = 650, .throttle = TV_THROTTLE_HEAT_SOFTWARE}},
        {.gpu = {.present = 1, .temperature = 70, .power = -1, .ecc_uncorrected = 3}},
        {.gpu = {.present = 1, .temperature = 71, .power = 100, .throttle = TV_THROTTLE_POWER_CAP | TV_THROTTLE_IDLE}},
        {.gpu = {.present = 0}},
    };
    tv_lag_report report;
    (void)state;
    assert_int_equal(tv_lag_judge(records, 5, &report), TV_OK);
    assert_int_equal(report.gpus, 4);
    assert_int_equal(report.hottest, 1);
    assert_int_equal(report.most_errors, 2);
    assert_int_equal(report.throttled, 1);
    assert_int_equal(report.throttled_ranks, 2);
    assert_true(report.power == 1050);
}

// The first step is left out; what is gathered starts anew.
static void gathers_means(void **state)
{
    tv_comm *comm;
    tv_lag lag;
    tv_lag_report report;
    const tv_gpu_state none = {0};
    (void)state;
    assert_int_equal(tv_comm_open_self(&comm), TV_OK);
    assert_int_equal(tv_lag_open(&lag, 1e-9, 1), TV_OK);
    tv_lag_add(&lag, &(tv_step_times){.forward = 100});
    assert_int_equal(tv_lag_flags(&lag, comm), 0); // nothing to tell yet
    tv_lag_add(&lag, &(tv_step_times){.forward = 1, .exchange = 50});
    tv_lag_add(&lag, &(tv_step_times){.forward = 3, .ballot = 1});
    assert_int_equal(tv_lag_flags(&lag, comm), TV_FLAG_TIMES);
    assert_int_equal(tv_lag_gather(&lag, comm, &none, &report), TV_OK);
    assert_int_equal(report.steps, 2);
    assert_true(report.slowest[TV_LAG_FORWARD] == 2 && report.slowest[TV_LAG_BALLOT] == 0.5);
    assert_int_equal(tv_lag_gather(&lag, comm, &none, &report), TV_OK);
    assert_int_equal(report.steps, 0);
    tv_lag_close(&lag);
    assert_int_equal(tv_lag_open(&lag, 0, 1), TV_OK);
    tv_lag_add(&lag, &(tv_step_times){.forward = 1});
    tv_lag_add(&lag, &(tv_step_times){.forward = 1});
    assert_int_equal(tv_lag_flags(&lag, comm), 0); // switched off
    tv_lag_close(&lag);
    tv_comm_close(comm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_rank_and_phase),
        cmocka_unit_test(of_two_the_quicker_is_the_median),
        cmocka_unit_test(alone_or_idle_nobody_lags),
        cmocka_unit_test(finds_the_worst_gpus),
        cmocka_unit_test(gathers_means),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
