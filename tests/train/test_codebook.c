// Codebooks in training, on one rank: only rows that were used move, and their patterns never do; usage counts tokens, saturates and is
// halved; rows without use start again. On the backend that TV_TEST_BACKEND names, else auto's.
#include "run_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "base/pack.h"

static void open_run(run *r, const char *const *sets)
{
    run_open(r, "tests/data/invariance-vq.yaml", sets, run_backend_name());
}

static run_picture take_picture(const run *r) { return run_take_picture(r, "codebook.table", "codebook", "usage"); }

// Trits of the bucket's pattern, and counters there, never move.
static void check_patterns(const run_picture *p, int bits)
{
    for (int64_t row = 0; row < p->rows; row++) {
        int8_t trits[TV_VQ_COLS_MAX];
        tv_unpack_row(p->T + row * tv_row_bytes(p->cols), p->cols, trits);
        for (int c = 0; c < bits; c++) {
            assert_int_equal(trits[c], tv_vq_pattern(tv_vq_bucket_of(p->rows, bits, row), c));
            assert_int_equal(p->T_accum[row * p->cols + c], 0);
        }
    }
}

static void test_untouched_rows(void **state)
{
    (void)state;
    static const char *const rules[] = {"update.rule=restart", "update.rule=budget", "update.rule=classic"};
    for (int i = 0; i < 3; i++) {
        const char *sets[] = {"codebook.restart_every=0", "codebook.usage_halving=1000", rules[i], NULL};
        run r;
        open_run(&r, sets);
        int64_t tokens = r.config.train.units * r.config.train.unit_windows * r.config.model.context;
        for (int s = 0; s < 4; s++) {
            run_picture before = take_picture(&r), after;
            int64_t used = 0, touched = 0, moved = 0;
            run_step(&r);
            after = take_picture(&r);
            for (int64_t row = 0; row < before.rows; row++) {
                int more = after.use[row] - before.use[row];
                assert_true(more >= 0);
                used += more;
                touched += more > 0;
                moved += run_row_moved(&before, &after, row);
                if (more == 0 && run_row_moved(&before, &after, row))
                    fail_msg("%s: row %d moved without use", rules[i], (int)row);
            }
            assert_int_equal(used, tokens);
            assert_true(moved > 0);
            assert_true(run_figure(&r, "codebook", "rows_touched") == (double)touched);
            check_patterns(&after, run_tensor(&r, "codebook.table")->spec.bits);
            run_free_picture(&before), run_free_picture(&after);
        }
        run_close(&r);
    }
}

static void test_restarts(void **state)
{
    (void)state;
    const char *sets[] = {"codebook.restart_every=1", "codebook.usage_halving=1000", NULL};
    run r;
    int64_t all = 0;
    open_run(&r, sets);
    for (int s = 0; s < 3; s++) {
        run_picture before = take_picture(&r), after;
        int64_t used = 0;
        run_step(&r);
        after = take_picture(&r);
        int64_t restarts = (int64_t)run_figure(&r, "codebook", "restarts");
        for (int64_t row = 0; row < before.rows; row++)
            used += after.use[row] - before.use[row];
        // Each row that starts again had no use, and starts with 2.
        assert_int_equal(used,
                         r.config.train.units * r.config.train.unit_windows * r.config.model.context + 2 * restarts);
        assert_true(restarts <= 1 << run_tensor(&r, "codebook.table")->spec.bits);
        check_patterns(&after, run_tensor(&r, "codebook.table")->spec.bits);
        all += restarts;
        run_free_picture(&before), run_free_picture(&after);
    }
    assert_true(all > 0);
    run_close(&r);
}

// Counts saturate, and are halved when it is time.
static void test_usage(void **state)
{
    (void)state;
    const char *sets[] = {"codebook.restart_every=0", "codebook.usage_halving=2", NULL};
    run r;
    open_run(&r, sets);
    int64_t rows = run_tensor(&r, "codebook.table")->spec.rows;
    int16_t *usage = run_copy(&r, run_side(&r, "codebook", "usage")->data, rows * 2);
    for (int64_t row = 0; row < rows; row++)
        usage[row] = TV_VQ_USAGE_MAX;
    TRY(r.backend->copy(run_side(&r, "codebook", "usage")->data, usage, (size_t)rows * sizeof *usage, TV_COPY_TO_DEVICE,
                        NULL));
    free(usage);
    for (int s = 0; s < 2; s++) {
        run_step(&r);
        usage = run_copy(&r, run_side(&r, "codebook", "usage")->data, rows * 2);
        for (int64_t row = 0; row < rows; row++)
            assert_int_equal(usage[row], s == 0 ? TV_VQ_USAGE_MAX : TV_VQ_USAGE_MAX / 2);
        free(usage);
    }
    run_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_untouched_rows), cmocka_unit_test(test_restarts),
                                       cmocka_unit_test(test_usage)};
    const tv_backend *backend;
    if (tv_backend_find(run_backend_name(), &backend) != TV_OK || backend->open(0, 1, 1) != TV_OK) {
        printf("skipped: %s\n", tv_status_message());
        return 77;
    }
    backend->close();
    return cmocka_run_group_tests_name("codebook", tests, NULL, NULL);
}
