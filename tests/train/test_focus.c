// The conversation's cells in training, on one rank: states go on with a slot's text and move only with a step that is applied; without
// streams nothing is carried; what carried states say does reach the loss.
#include "run_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "train/eval.h"

static void open_run(run *r, const char *const *sets) { run_open(r, "tests/data/invariance-focus.yaml", sets, "cpu"); }

static size_t carried_bytes(const tv_side *side)
{
    return (size_t)(side->held_rows * side->spec.cols) * sizeof(int16_t);
}

static void test_carried(void **state)
{
    (void)state;
    const char *sets[] = {NULL};
    run r;
    open_run(&r, sets);
    const tv_side *side = run_side(&r, "focus", NULL);
    assert_non_null(side);
    assert_int_equal(side->spec.rows, r.config.train.units * r.config.train.unit_windows);
    assert_int_equal(side->spec.cols, 4 * r.config.focus.width);
    const int16_t *q = side->data;
    for (int64_t i = 0; i < side->held_rows * side->spec.cols; i++)
        assert_int_equal(q[i], 0);
    for (int s = 0; s < 3; s++) {
        int16_t *before = malloc(carried_bytes(side));
        assert_non_null(before);
        memcpy(before, q, carried_bytes(side));
        run_step(&r);
        for (int64_t row = 0; row < side->held_rows; row++)
            assert_true(memcmp(before + row * side->spec.cols, q + row * side->spec.cols,
                               (size_t)side->spec.cols * sizeof *q) != 0);
        free(before);
    }
    run_close(&r);
}

// Two runs that differ in the states they start from: the text is the same, the loss is not.
static void test_reaches_the_loss(void **state)
{
    (void)state;
    const char *sets[] = {NULL};
    run a, b;
    double loss[2];
    open_run(&a, sets);
    run_step(&a);
    loss[0] = run_step(&a);
    run_close(&a);
    open_run(&b, sets);
    run_step(&b);
    memset(run_side(&b, "focus", NULL)->data, 0, carried_bytes(run_side(&b, "focus", NULL)));
    loss[1] = run_step(&b);
    run_close(&b);
    assert_true(loss[0] != loss[1]);
}

static void test_nothing_carried(void **state)
{
    (void)state;
    const char *sets[] = {"data.order=random", NULL};
    run r;
    open_run(&r, sets);
    assert_null(run_side(&r, "focus", NULL));
    run_step(&r);
    run_close(&r);
}

// Evaluation starts from zeros and leaves the states alone.
static void test_evaluation(void **state)
{
    (void)state;
    const char *sets[] = {NULL};
    run r;
    tv_eval_report report[2];
    open_run(&r, sets);
    run_step(&r);
    const tv_side *side = run_side(&r, "focus", NULL);
    int16_t *before = malloc(carried_bytes(side));
    assert_non_null(before);
    memcpy(before, side->data, carried_bytes(side));
    for (int i = 0; i < 2; i++) {
        tv_eval_args args = {.model = &r.trainer.model,
                             .backend = r.backend,
                             .places = &r.trainer.places,
                             .batch = &r.trainer.batch,
                             .corpus = r.trainer.train_text,
                             .modalities = &r.trainer.modalities,
                             .windows = 8};
        TRY(tv_eval_run(&args, &report[i]));
        assert_memory_equal(before, side->data, carried_bytes(side));
        memset(side->data, 0, carried_bytes(side));
        memset(before, 0, carried_bytes(side));
    }
    assert_true(report[0].loss == report[1].loss);
    free(before);
    run_close(&r);
}

// A step that fails moves no state; made again, it gives what it gives in a run without the failure.
static void test_failed_step(void **state)
{
    (void)state;
    const char *sets[] = {NULL};
    run r;
    tv_step_report report;
    tv_hash128 want, got;
    open_run(&r, sets);
    run_step(&r);
    run_step(&r);
    TRY(tv_trainer_digest(&r.trainer, &want));
    run_close(&r);
    open_run(&r, sets);
    run_step(&r);
    const tv_side *side = run_side(&r, "focus", NULL);
    int16_t *before = malloc(carried_bytes(side));
    assert_non_null(before);
    memcpy(before, side->data, carried_bytes(side));
    setenv("TV_FAULT", "step.gradient:hit=7:nan", 1);
    TRY(tv_fault_open(0));
    assert_int_equal(tv_trainer_step(&r.trainer, 0, &report), TV_NUMERIC);
    setenv("TV_FAULT", "", 1);
    TRY(tv_fault_open(0));
    assert_memory_equal(before, side->data, carried_bytes(side));
    run_step(&r);
    TRY(tv_trainer_digest(&r.trainer, &got));
    assert_true(tv_hash_equal(want, got));
    free(before);
    run_close(&r);
}

// Mean gates are shares.
static void test_figures(void **state)
{
    (void)state;
    const char *sets[] = {NULL};
    run r;
    int found = 0;
    open_run(&r, sets);
    run_step(&r);
    for (int64_t i = 0; i < r.trainer.model.part_count; i++) {
        tv_part *part = r.trainer.model.parts[i];
        tv_figures figures = {.count = 0};
        if (strcmp(part->name, "focus") != 0)
            continue;
        part->ops->tell(part, &figures);
        for (int f = 0; f < figures.count; f++) {
            assert_true(figures.items[f].value > 0.001 && figures.items[f].value < 0.999);
            found++;
        }
    }
    assert_int_equal(found, TV_FOCUS_SUMS);
    run_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_carried),         cmocka_unit_test(test_reaches_the_loss),
                                       cmocka_unit_test(test_nothing_carried), cmocka_unit_test(test_evaluation),
                                       cmocka_unit_test(test_failed_step),     cmocka_unit_test(test_figures)};
    return cmocka_run_group_tests_name("focus", tests, NULL, NULL);
}
