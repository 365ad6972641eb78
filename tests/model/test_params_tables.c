// Tables in the parameter table: who holds which rows, that nothing but packed state and usage is kept of them, that their initial
// state is that of the whole, and that the ranks' shares make up the state.
#include "model_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "base/state.h"

enum { ROWS = 83, COLS = 37, BITS = 3, RANKS_MAX = 5, ARRAYS = 9 };

static void declare(tv_params *params)
{
    tv_tensor_spec plain = {.name = "plain", .part = "test", .rows = 11, .cols = COLS, .scale_type = TV_T16};
    tv_tensor_spec table = {.name = "table",
                            .part = "test",
                            .rows = ROWS,
                            .cols = COLS,
                            .scale_type = TV_T64,
                            .placement = TV_PLACE_TABLE,
                            .bits = BITS,
                            .pattern_bits = BITS};
    tv_side_spec usage = {.name = "part",
                          .part = "usage",
                          .group = "tables",
                          .dtype = TV_I16,
                          .rows = ROWS,
                          .cols = 1,
                          .placement = TV_PLACE_TABLE,
                          .bits = BITS};
    int64_t index;
    tv_params_init(params, 0);
    TEST_TRY(tv_params_add(params, &plain, &index));
    TEST_TRY(tv_params_add(params, &table, &index));
    TEST_TRY(tv_params_add_side(params, &usage, &index));
}

static void open_params(tv_params *params, int rank, int ranks, int table_ranks)
{
    declare(params);
    tv_params_layout_args args = {.backend = fixture_backend("ref"),
                                  .rank = rank,
                                  .ranks = ranks,
                                  .sharded = 1,
                                  .training = 1,
                                  .vote_bits = 8,
                                  .table_ranks = table_ranks};
    TEST_TRY(tv_params_layout(params, &args));
    TEST_TRY(tv_params_initialise(params, 5, 64));
    TEST_TRY(tv_params_decode(params, 1, NULL));
}

typedef void split_check(int ranks, int table_ranks);

static void on_each_split(split_check *check)
{
    for (int ranks = 1; ranks <= RANKS_MAX; ranks++)
        for (int table_ranks = 0; table_ranks <= ranks; table_ranks++)
            check(ranks, table_ranks);
}

static void check_held(int ranks, int table_ranks)
{
    tv_params whole;
    open_params(&whole, 0, 1, 0);
    const tv_param *all = &whole.items[1];
    int64_t next = 0;
    for (int rank = 0; rank < ranks; rank++) {
        tv_params params;
        open_params(&params, rank, ranks, table_ranks);
        const tv_param *p = &params.items[1];
        const tv_side *usage = &params.sides[0];
        // One block after the other on the first ranks, each a run of whole buckets.
        assert_int_equal(p->first_row, next);
        assert_int_equal(p->held_rows > 0, rank < (table_ranks > 0 ? table_ranks : ranks));
        if (p->held_rows > 0)
            assert_int_equal(p->first_row, tv_vq_bucket_first(ROWS, BITS, tv_vq_bucket_of(ROWS, BITS, p->first_row)));
        assert_int_equal(usage->first_row, p->first_row);
        assert_int_equal(usage->held_rows, p->held_rows);
        next += p->held_rows;
        assert_null(p->w8);
        assert_null(p->w8t);
        assert_null(p->votes);
        assert_int_equal(tv_params_in_lockstep(&params), ranks > 1);
        size_t held = (size_t)p->held_rows;
        assert_memory_equal(p->T, tv_param_T(all, p->first_row), held * (size_t)tv_row_bytes(COLS));
        assert_memory_equal(p->E, tv_param_E(all, p->first_row), held);
        assert_memory_equal(p->T_accum, all->T_accum + p->first_row * COLS, held * COLS);
        tv_params_free(&params);
    }
    assert_int_equal(next, ROWS);
    tv_params_free(&whole);
}

static void test_held(void **state)
{
    (void)state;
    on_each_split(check_held);
}

// What a table adds to a rank's memory is its packed state and usage, and a few bytes between arrays.
static void test_memory(void **state)
{
    (void)state;
    tv_params with;
    const int64_t rows = 1000000, a_row = 13 + 1 + 64 + 1 + 2;
    tv_params_layout_args args = {.ranks = 1, .training = 1, .vote_bits = 8};
    tv_tensor_spec table = {.name = "table",
                            .part = "test",
                            .rows = rows,
                            .cols = 64,
                            .scale_type = TV_T64,
                            .placement = TV_PLACE_TABLE,
                            .bits = 9,
                            .pattern_bits = 9};
    tv_side_spec usage = {.name = "part",
                          .part = "more",
                          .group = "tables",
                          .dtype = TV_I16,
                          .rows = rows,
                          .cols = 1,
                          .placement = TV_PLACE_TABLE,
                          .bits = 9};
    int64_t index;
    tv_params_init(&with, 0);
    TEST_TRY(tv_params_add(&with, &table, &index));
    TEST_TRY(tv_params_add_side(&with, &usage, &index));
    TEST_TRY(tv_params_layout(&with, &args));
    assert_true((int64_t)with.state_bytes >= rows * a_row && (int64_t)with.state_bytes < rows * a_row + 1000);
    assert_int_equal(with.decoded_bytes, 0);
    assert_int_equal(with.vote_bytes, 0);
    tv_params_free(&with);
}

static void check_shares(int ranks, int table_ranks) { fixture_check_shares(open_params, ranks, table_ranks, 0); }

static void test_shares(void **state)
{
    (void)state;
    on_each_split(check_shares);
}

static void refuse_layout(int ranks, int table_ranks, const char *message)
{
    tv_params params;
    tv_params_layout_args args = {.ranks = ranks, .training = 1, .vote_bits = 8, .table_ranks = table_ranks};
    declare(&params);
    assert_int_equal(tv_params_layout(&params, &args), TV_CONFIG);
    assert_string_equal(tv_status_message(), message);
    tv_params_free(&params);
}

static void refuse_table(tv_tensor_spec spec)
{
    tv_params params;
    int64_t index;
    tv_params_init(&params, 0);
    strcpy(spec.name, "table");
    spec.placement = TV_PLACE_TABLE;
    assert_int_equal(tv_params_add(&params, &spec, &index), TV_INTERNAL);
    tv_params_free(&params);
}

static void test_refused(void **state)
{
    (void)state;
    refuse_layout(9, 9,
                  "parallel.table_ranks 9 is more than the 8 buckets of tensor 'table'; take at most as many, or 0");
    refuse_layout(2, 3, "parallel.table_ranks 3 is more than the 2 ranks; start more, or take at most as many, or 0");
    refuse_table((tv_tensor_spec){.rows = 9, .cols = 65, .scale_type = TV_T64});
    refuse_table((tv_tensor_spec){.rows = 9, .cols = 33, .scale_type = TV_T32});
    refuse_table((tv_tensor_spec){.rows = 9, .cols = 3, .scale_type = TV_T64, .bits = 4, .pattern_bits = 4});
    refuse_table((tv_tensor_spec){.rows = 9, .cols = 5, .scale_type = TV_T64, .bits = 4, .pattern_bits = 3});
}

// Side state of a step's windows: consecutive blocks of equal length over the ranks that divide them, some block of every row over others.
static void test_units(void **state)
{
    (void)state;
    const int64_t rows = 12;
    for (int ranks = 1; ranks <= 6; ranks++) {
        int64_t next = 0;
        for (int rank = 0; rank < ranks; rank++) {
            tv_params params;
            tv_side_spec spec = {.name = "part",
                                 .part = "carried",
                                 .group = "part",
                                 .dtype = TV_I16,
                                 .rows = rows,
                                 .cols = 3,
                                 .placement = TV_PLACE_UNITS};
            tv_params_layout_args args = {.rank = rank, .ranks = ranks, .training = 1, .vote_bits = 8};
            int64_t index;
            tv_params_init(&params, 0);
            TEST_TRY(tv_params_add_side(&params, &spec, &index));
            TEST_TRY(tv_params_layout(&params, &args));
            const tv_side *side = &params.sides[index];
            assert_int_equal(side->first_row, next);
            assert_int_equal(side->share_first, side->first_row);
            assert_int_equal(side->share_count, side->held_rows);
            assert_true(rows % ranks != 0 || side->held_rows == rows / ranks);
            next += side->held_rows;
            tv_params_free(&params);
        }
        assert_int_equal(next, rows);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_units), cmocka_unit_test(test_held),
                                       cmocka_unit_test(test_memory), cmocka_unit_test(test_shares),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
