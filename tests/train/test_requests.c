// Requests of one rank: signals, files, and how much time is kept back.
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "train/requests.h"
#include "train/trainer.h"

static const uint64_t out_of_time = TV_FLAG_STOP | TV_FLAG_TIME;

static int clear_environment(void **state)
{
    (void)state;
    unsetenv("SLURM_JOB_END_TIME");
    unsetenv("OMPI_COMM_WORLD_SIZE");
    return 0;
}

static void set_job_end(double seconds_from_now)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)time(NULL) + (long long)seconds_from_now);
    assert_int_equal(setenv("SLURM_JOB_END_TIME", text, 1), 0);
}

// The clock of the job's end ticks in seconds: half a minute on each side of the limit is far from it.
static void test_margin(void **state)
{
    (void)state;
    tv_requests r;
    set_job_end(1000);
    tv_requests_open(&r, NULL, 0);
    assert_int_equal(tv_requests_take(&r), 0);
    tv_requests_expect(&r, (size_t)60e9); // 601 s of a save, by guess
    assert_int_equal(tv_requests_take(&r), 0);
    tv_requests_expect(&r, (size_t)70e9);
    assert_int_equal(tv_requests_take(&r), out_of_time);
    tv_requests_saved(&r, 300); // what was measured counts more than the guess: 450 s and twice the step
    tv_requests_step(&r, 250);
    tv_requests_step(&r, 1);
    assert_int_equal(tv_requests_take(&r), 0);
    assert_int_equal(tv_requests_stop(&r), 0);
    tv_requests_step(&r, 290);
    assert_int_equal(tv_requests_take(&r), out_of_time);
    assert_int_equal(tv_requests_stop(&r), out_of_time);
}

static void test_earlier_limit(void **state)
{
    (void)state;
    tv_requests r;
    set_job_end(1000);
    tv_requests_open(&r, NULL, 0.5);
    assert_int_equal(tv_requests_take(&r), out_of_time);
    tv_requests_open(&r, NULL, 1e6);
    assert_int_equal(tv_requests_take(&r), 0);
    set_job_end(-5);
    tv_requests_open(&r, NULL, 1e6);
    assert_int_equal(tv_requests_take(&r), out_of_time);
    assert_int_equal(setenv("SLURM_JOB_END_TIME", "Unknown", 1), 0);
    tv_requests_open(&r, NULL, 0);
    assert_int_equal(tv_requests_take(&r), 0);
}

static void make_file(const char *dir, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
}

static void test_kill_time(void **state)
{
    (void)state;
    tv_requests r;
    setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
    unsetenv("OMPI_MCA_odls_base_sigkill_timeout");
    tv_requests_open(&r, NULL, 0);
    tv_requests_saved(&r, 0.9);
    assert_false(r.warned);
    tv_requests_saved(&r, 1.1);
    assert_true(r.warned);
    setenv("OMPI_MCA_odls_base_sigkill_timeout", "30", 1);
    tv_requests_open(&r, NULL, 0);
    tv_requests_saved(&r, 29);
    assert_false(r.warned);
    unsetenv("OMPI_MCA_odls_base_sigkill_timeout");
}

static void *sleep_until_done(void *done)
{
    while (!atomic_load((atomic_int *)done))
        usleep(1000);
    return NULL;
}

// A signal may come to a thread of MPI's own. The thread lives on until the request is seen: nothing else puts the two in order.
static void test_signal_of_another_thread(void **state)
{
    (void)state;
    tv_requests r;
    pthread_t thread;
    atomic_int done = 0;
    uint64_t flags = 0;
    tv_requests_install();
    tv_requests_open(&r, NULL, 0);
    assert_int_equal(pthread_create(&thread, NULL, sleep_until_done, &done), 0);
    assert_int_equal(pthread_kill(thread, SIGUSR1), 0);
    for (int i = 0; i < 20000 && !flags; i++) {
        usleep(1000);
        flags = tv_requests_take(&r);
    }
    atomic_store(&done, 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(flags, TV_FLAG_SAVE);
    assert_int_equal(tv_requests_take(&r), 0);
}

// Last: a request to stop stays.
static void test_files_and_signals(void **state)
{
    (void)state;
    char dir[] = "requests-XXXXXX";
    tv_requests r, other;
    assert_non_null(mkdtemp(dir));
    tv_requests_install();
    tv_requests_open(&r, dir, 0);
    tv_requests_open(&other, NULL, 0);
    make_file(dir, "save");
    assert_int_equal(tv_requests_take(&other), 0); // another rank looks
    assert_int_equal(tv_requests_stop(&r), 0);
    assert_int_equal(tv_requests_take(&r), TV_FLAG_SAVE);
    assert_int_equal(tv_requests_take(&r), 0); // consumed
    raise(SIGUSR1);
    assert_int_equal(tv_requests_stop(&r), 0);
    assert_int_equal(tv_requests_take(&r), TV_FLAG_SAVE);
    assert_int_equal(tv_requests_take(&r), 0);
    make_file(dir, "stop");
    assert_int_equal(tv_requests_stop(&r), TV_FLAG_STOP);
    assert_int_equal(tv_requests_take(&r), TV_FLAG_STOP);
    raise(SIGTERM);
    raise(SIGINT); // the first SIGINT, though not the first request: the process lives
    assert_int_equal(tv_requests_take(&r), TV_FLAG_STOP);
    assert_int_equal(rmdir(dir), 0); // both files are gone
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_margin, clear_environment),
        cmocka_unit_test_setup(test_earlier_limit, clear_environment),
        cmocka_unit_test_setup(test_kill_time, clear_environment),
        cmocka_unit_test_setup(test_signal_of_another_thread, clear_environment),
        cmocka_unit_test_setup(test_files_and_signals, clear_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
