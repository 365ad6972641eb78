// Which launcher the environment names, and that no launcher means no MPI.
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include <stdlib.h>
#include <string.h>

#include "comm/comm_impl.h"

static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK",    "PMI_RANK",     "PMI_SIZE",
                                        "SLURM_STEP_ID",        "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"};

static int clear_environment(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
    return 0;
}

static void set(const char *name, const char *value) { assert_int_equal(setenv(name, value, 1), 0); }

static void expect_launcher(const char *name, int64_t size)
{
    tv_launcher launcher = {"unset", -1};
    assert_int_equal(tv_launcher_detect(&launcher), TV_OK);
    if (name == NULL)
        assert_null(launcher.name);
    else
        assert_string_equal(launcher.name, name);
    assert_int_equal(launcher.size, size);
}

static void expect_self(void)
{
    tv_comm *comm = NULL;
    expect_launcher(NULL, 0);
    assert_int_equal(tv_comm_open(NULL, NULL, &comm), TV_OK);
    assert_ptr_equal(comm->ops, &tv_comm_self_ops);
    assert_int_equal(tv_comm_size(comm), 1);
    tv_comm_close(comm);
}

static void test_none(void **state)
{
    (void)state;
    expect_self();
}

static void test_mpirun(void **state)
{
    (void)state;
    set("OMPI_COMM_WORLD_SIZE", "12");
    expect_launcher("mpirun", 12);
    // mpirun inside a Slurm step of one task per host
    set("PMIX_RANK", "3");
    set("SLURM_STEP_ID", "0");
    set("SLURM_PROCID", "1");
    set("SLURM_NTASKS", "2");
    expect_launcher("mpirun", 12);
}

static void test_number_unusable(void **state)
{
    (void)state;
    const char *const bad[] = {"", "x", "4x", "-4", "0", "99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        set("OMPI_COMM_WORLD_SIZE", bad[i]);
        expect_launcher("mpirun", 0);
    }
}

static void test_pmi(void **state)
{
    (void)state;
    set("PMI_RANK", "0");
    set("PMI_SIZE", "6");
    expect_launcher("the PMI launcher", 6);
    clear_environment(NULL);
    set("PMIX_RANK", "0");
    expect_launcher("the PMI launcher", 0);
}

static void test_srun_pmix(void **state)
{
    (void)state;
    set("PMIX_RANK", "1");
    set("SLURM_STEP_ID", "0");
    set("SLURM_PROCID", "1");
    set("SLURM_NTASKS", "4");
    expect_launcher("srun", 4);
    set("SLURM_STEP_NUM_TASKS", "3"); // a step smaller than the job
    expect_launcher("srun", 3);
}

static void test_srun_pmi2(void **state)
{
    (void)state;
    set("PMI_RANK", "1");
    set("SLURM_STEP_ID", "0");
    set("SLURM_PROCID", "1");
    set("SLURM_NTASKS", "4");
    expect_launcher("srun", 4); // some MPI may speak it
}

static void test_srun_without_pmi(void **state)
{
    (void)state;
    set("SLURM_STEP_ID", "0");
    set("SLURM_PROCID", "1");
    set("SLURM_NTASKS", "4");
    tv_comm *comm = NULL;
    assert_int_equal(tv_comm_open(NULL, NULL, &comm), TV_COMM);
    assert_null(comm);
    assert_non_null(strstr(tv_status_message(), "4 tasks"));
    assert_non_null(strstr(tv_status_message(), "start with srun --mpi=pmix"));
}

static void test_slurm_alone(void **state)
{
    (void)state;
    // a batch script of a job of four tasks starts the program directly
    set("SLURM_PROCID", "0");
    set("SLURM_NTASKS", "4");
    expect_self();
    // srun -n 1 inside that job
    set("SLURM_STEP_ID", "0");
    set("SLURM_STEP_NUM_TASKS", "1");
    expect_self();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_none, clear_environment),
        cmocka_unit_test_setup(test_mpirun, clear_environment),
        cmocka_unit_test_setup(test_number_unusable, clear_environment),
        cmocka_unit_test_setup(test_pmi, clear_environment),
        cmocka_unit_test_setup(test_srun_pmix, clear_environment),
        cmocka_unit_test_setup(test_srun_pmi2, clear_environment),
        cmocka_unit_test_setup(test_srun_without_pmi, clear_environment),
        cmocka_unit_test_setup(test_slurm_alone, clear_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
