// base/fault.h: TV_FAULT is read, points count their hits, each action does what it says.
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fault.h"

static tv_status plan(const char *text, int rank)
{
    setenv("TV_FAULT", text, 1);
    return tv_fault_open(rank);
}

static void test_none(void **state)
{
    (void)state;
    unsetenv("TV_FAULT");
    assert_int_equal(tv_fault_open(0), TV_OK);
    assert_int_equal(tv_fault_armed, 0);
    assert_int_equal(tv_fault_errno(TV_FAULT_STEP_START_POINT), 0);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {{"step.strat:kill", "did you mean 'step.start'"},
                                         {"step.start", "no action"},
                                         {"step.start:errno=ENOPE", "ENOPE"},
                                         {"step.start:hit=0:kill", "hit=0"},
                                         {"step.start:rank=-1:kill", "rank=-1"},
                                         {"step.start:delay=soon", "delay=soon"},
                                         {"step.start:flip-bit", "does not take"},
                                         {"step.guard:errno=EIO", "does not take"},
                                         {":kill", "no fail point"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(plan(bad[i][0], 0), TV_USAGE);
        assert_non_null(strstr(tv_status_message(), bad[i][1]));
        assert_int_equal(tv_fault_armed, 0);
    }
}

static void test_rank_and_hit(void **state)
{
    (void)state;
    assert_int_equal(plan("step.start:rank=1:hit=2:errno=ENOSPC", 0), TV_OK);
    assert_int_equal(tv_fault_armed, 0);
    assert_int_equal(plan("step.start:rank=1:hit=2:errno=ENOSPC,step.start:hit=4:errno=EIO", 1), TV_OK);
    static const int wanted[] = {0, ENOSPC, 0, EIO, 0};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        assert_int_equal(tv_fault_errno(TV_FAULT_STEP_START_POINT), wanted[i]);
    assert_int_equal(plan("step.start:hit=*:errno=EIO", 7), TV_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tv_fault_status(TV_FAULT_STEP_START_POINT, TV_IO), TV_IO);
        assert_non_null(strstr(tv_status_message(), "step.start"));
    }
}

static void test_spoil(void **state)
{
    (void)state;
    float data[4] = {1, 2, 3, 4};
    assert_int_equal(plan("step.gradient:nan", 0), TV_OK);
    tv_fault_spoil(TV_FAULT_STEP_GRADIENT_POINT, data, sizeof data);
    assert_true(isnan(data[2]) && data[0] == 1 && data[1] == 2 && data[3] == 4);
}

static void test_delay(void **state)
{
    (void)state;
    assert_int_equal(plan("step.guard:delay=0.05", 0), TV_OK);
    double start = tv_clock_seconds();
    tv_fault_at(TV_FAULT_STEP_GUARD_POINT);
    assert_true(tv_clock_seconds() - start >= 0.05);
}

// What becomes of a process that comes to step.guard.
static int fate(const char *text)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        if (plan(text, 0) == TV_OK)
            tv_fault_at(TV_FAULT_STEP_GUARD_POINT);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    if (WIFSTOPPED(status)) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    return status;
}

static void test_kill_and_stop(void **state)
{
    (void)state;
    int status = fate("step.guard:kill");
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    status = fate("step.guard:stop");
    assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    assert_int_equal(fate("step.guard:rank=3:kill"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none),  cmocka_unit_test(test_refused), cmocka_unit_test(test_rank_and_hit),
        cmocka_unit_test(test_spoil), cmocka_unit_test(test_delay),   cmocka_unit_test(test_kill_and_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
