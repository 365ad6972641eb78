// The trainer on one rank: resume gives the same bits, ref equals the fast backend, nothing is allocated inside a step, and
// a NaN stops the step before the ballot. The fast backend is the one that TV_TEST_BACKEND names, else auto's.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/atomic_file.h"
#include "train/eval.h"
#include "train/resume.h"
#include "train/trainer.h"

static int64_t allocations;
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_aligned_alloc(size_t align, size_t bytes);
int __real_posix_memalign(void **out, size_t align, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes);
int __wrap_posix_memalign(void **out, size_t align, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
    allocations++;
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    allocations++;
    return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
    allocations++;
    return __real_realloc(memory, bytes);
}

void *__wrap_aligned_alloc(size_t align, size_t bytes)
{
    allocations++;
    return __real_aligned_alloc(align, bytes);
}

int __wrap_posix_memalign(void **out, size_t align, size_t bytes)
{
    allocations++;
    return __real_posix_memalign(out, align, bytes);
}

typedef struct fixture {
    tv_config config;
    tv_comm *comm;
    const tv_backend *backend;
    tv_trainer trainer;
} fixture;

static void require(tv_status st)
{
    if (st != TV_OK)
        print_error("%s: %s\n", tv_status_place(), tv_status_message());
    assert_int_equal(st, TV_OK);
}

static void open_fixture(fixture *f, const tv_backend *backend, const char *set)
{
    memset(f, 0, sizeof *f);
    require(tv_config_init(&f->config));
    require(tv_config_read_file(&f->config, "tests/data/invariance.yaml"));
    require(tv_config_set(&f->config, "train.units=4"));
    if (set)
        require(tv_config_set(&f->config, set));
    require(tv_config_check(&f->config));
    require(tv_comm_open_self(&f->comm));
    f->backend = backend;
    require(tv_trainer_open(&f->trainer, &f->config, f->comm, backend));
}

static void close_fixture(fixture *f)
{
    tv_trainer_close(&f->trainer);
    tv_config_free(&f->config);
    tv_comm_close(f->comm);
}

static const tv_backend *open_backend(const char *name)
{
    const tv_backend *backend;
    require(tv_backend_find(name, &backend));
    require(backend->open(0, 1, 2));
    return backend;
}

static const char *fast_name(void)
{
    const char *name = getenv("TV_TEST_BACKEND");
    return name && name[0] ? name : "auto";
}

static tv_hash128 train(fixture *f, int steps)
{
    tv_hash128 digest;
    tv_step_report report;
    for (int s = 0; s < steps; s++)
        require(tv_trainer_step(&f->trainer, 0, &report));
    require(tv_trainer_digest(&f->trainer, &digest));
    return digest;
}

static void test_fast_equals_ref(void **state)
{
    (void)state;
    static const char *const sets[] = {"train.seed=1",
                                       "vote.levels=7",
                                       "model.latent_kv=12",
                                       "model.scale_type=T6",
                                       "model.scale_mantissa_bits=3",
                                       "update.rule=classic",
                                       "update.rule=budget",
                                       "vote.combine=mean"};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        fixture f;
        const tv_backend *ref = open_backend("ref");
        open_fixture(&f, ref, sets[i]);
        tv_hash128 expected = train(&f, 6);
        close_fixture(&f);
        ref->close();
        const tv_backend *fast = open_backend(fast_name());
        open_fixture(&f, fast, sets[i]);
        tv_hash128 digest = train(&f, 6);
        close_fixture(&f);
        fast->close();
        if (!tv_hash_equal(expected, digest))
            print_error("ref and %s differ with %s\n", fast->name, sets[i]);
        assert_true(tv_hash_equal(expected, digest));
    }
}

static void test_resume(void **state)
{
    (void)state;
    fixture f;
    char folder[] = "/tmp/trivote-trainer-XXXXXX", path[256];
    const tv_backend *backend = open_backend(fast_name());
    assert_non_null(mkdtemp(folder));
    open_fixture(&f, backend, NULL);
    tv_hash128 saved, half = train(&f, 5);
    require(tv_trainer_save(&f.trainer, folder, &saved));
    assert_true(tv_hash_equal(half, saved));
    tv_hash128 whole = train(&f, 5);
    assert_false(tv_hash_equal(half, whole));
    close_fixture(&f);

    open_fixture(&f, backend, NULL);
    snprintf(path, sizeof path, "%s/step-000000005", folder);
    require(tv_trainer_load(&f.trainer, path, 1));
    assert_int_equal(f.trainer.step, 5);
    tv_hash128 resumed = train(&f, 5);
    assert_true(tv_hash_equal(whole, resumed));
    close_fixture(&f);

    // Another config is refused, and the key is named.
    open_fixture(&f, backend, "vote.dead_zone=0.25");
    assert_int_equal(tv_trainer_load(&f.trainer, path, 1), TV_CHECKPOINT);
    assert_non_null(strstr(tv_status_message(), "vote.dead_zone"));
    close_fixture(&f);
    require(tv_dir_remove(path));
    snprintf(path, sizeof path, "%s/latest", folder);
    unlink(path);
    rmdir(folder);
    backend->close();
}

static void test_no_allocation_in_a_step(void **state)
{
    (void)state;
    fixture f;
    const tv_backend *backend = open_backend(fast_name());
    open_fixture(&f, backend, NULL);
    train(&f, 1); // the backend's workspace grows to its size here
    tv_step_report report;
    int64_t before = allocations;
    require(tv_trainer_step(&f.trainer, 0, &report));
    assert_int_equal(allocations, before);
    close_fixture(&f);
    assert_true(allocations > 0);
    backend->close();
}

// A backend whose loss of one row is NaN from some forward on (the forward asks for no gradient).
static tv_backend broken;
static const tv_backend *sound;
static int xent_calls, first_bad_call;

static tv_status xent_nan(const tv_xent_args *args, void *stream)
{
    tv_fill_args nan = {.count = 1, .value = NAN, .y = args->loss + 1};
    TV_TRY(sound->xent(args, stream));
    return !args->grad && ++xent_calls >= first_bad_call ? sound->fill(&nan, stream) : TV_OK;
}

static void check_nan_in_unit(int unit, const char *message)
{
    fixture f;
    tv_step_report report;
    tv_hash128 before, after;
    sound = open_backend(fast_name());
    broken = *sound;
    broken.xent = xent_nan;
    xent_calls = 0;
    first_bad_call = unit + 1;
    open_fixture(&f, &broken, NULL);
    require(tv_trainer_digest(&f.trainer, &before));
    assert_int_equal(tv_trainer_step(&f.trainer, 0, &report), TV_NUMERIC);
    assert_non_null(strstr(tv_status_message(), message));
    require(tv_trainer_digest(&f.trainer, &after));
    assert_true(tv_hash_equal(before, after));
    assert_int_equal(f.trainer.step, 0);
    close_fixture(&f);
    sound->close();
}

// In one of the earlier units, which the guard tells of, and in the last one, which ends after it.
static void test_nan_stops_before_the_ballot(void **state)
{
    (void)state;
    check_nan_in_unit(2, "unit 2");
    check_nan_in_unit(3, "unit 3");
}

static void test_loss_falls(void **state)
{
    (void)state;
    fixture f;
    tv_step_report report = {0};
    double first = 0;
    const tv_backend *backend = open_backend(fast_name());
    open_fixture(&f, backend, "train.seed=3");
    for (int s = 0; s < 20; s++) {
        require(tv_trainer_step(&f.trainer, 0, &report));
        if (s == 0)
            first = report.loss;
    }
    print_message("loss %.3f -> %.3f\n", first, report.loss);
    assert_true(report.loss < first - 0.5);
    close_fixture(&f);
    backend->close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fast_equals_ref),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_no_allocation_in_a_step),
        cmocka_unit_test(test_nan_stops_before_the_ballot),
        cmocka_unit_test(test_loss_falls),
    };
    const tv_backend *backend;
    if (tv_backend_find(fast_name(), &backend) != TV_OK || backend->open(0, 1, 1) != TV_OK) {
        printf("skipped: no NVIDIA GPU (%s)\n", tv_status_message());
        return 77;
    }
    backend->close();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
