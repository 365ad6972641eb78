// Experts in the parameter table: who holds which matrices, that their initial state and decoded weights are those of the whole, and
// that the ranks' shares make up the state; side state.
#include "model_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/state.h"

enum { EXPERTS = 12, ROWS = 6, COLS = 37, RANKS_MAX = 4 };

// A plain tensor, a stack of experts, and two arrays of side state.
static void open_params(tv_params *params, int rank, int ranks, int places)
{
    tv_tensor_spec plain = {.name = "plain", .part = "test", .rows = 11, .cols = COLS, .scale_type = TV_T16};
    tv_tensor_spec stack = {.name = "stack",
                            .part = "test",
                            .rows = EXPERTS * ROWS,
                            .cols = COLS,
                            .scale_type = TV_T8,
                            .stack = EXPERTS,
                            .placement = TV_PLACE_EXPERT};
    tv_side_spec bias = {
        .name = "part", .part = "bias", .group = "tables", .dtype = TV_I16, .rows = EXPERTS, .cols = 1};
    int64_t index;
    tv_params_init(params, 0);
    TEST_TRY(tv_params_add(params, &plain, &index));
    TEST_TRY(tv_params_add(params, &stack, &index));
    TEST_TRY(tv_params_add_side(params, &bias, &index));
    tv_params_layout_args args = {.backend = fixture_backend("ref"),
                                  .rank = rank,
                                  .ranks = ranks,
                                  .sharded = 1,
                                  .training = 1,
                                  .vote_bits = 8,
                                  .expert_ranks = places};
    TEST_TRY(tv_params_layout(params, &args));
    TEST_TRY(tv_params_initialise(params, 5, 64));
    TEST_TRY(tv_params_decode(params, 1, NULL));
}

// Every split of up to 4 ranks into places.
typedef void split_check(int ranks, int places);

static void on_each_split(split_check *check)
{
    for (int ranks = 1; ranks <= RANKS_MAX; ranks++)
        for (int places = 1; places <= ranks; places++)
            if (ranks % places == 0)
                check(ranks, places);
}

static void check_held(int ranks, int places)
{
    tv_params whole;
    open_params(&whole, 0, 1, 1);
    const tv_param *all = &whole.items[1];
    for (int rank = 0; rank < ranks; rank++) {
        tv_params params;
        open_params(&params, rank, ranks, places);
        const tv_param *p = &params.items[1];
        int64_t held = EXPERTS / places, first = rank % places * held * ROWS;
        // Experts of one place are all on every rank, and their counters split as any tensor's are when the exchange is sharded.
        int64_t own_count = places == 1 ? EXPERTS * ROWS / ranks : held * ROWS;
        int64_t own = places == 1 ? rank * own_count : first;
        assert_int_equal(p->first_row, first);
        assert_int_equal(p->held_rows, held * ROWS);
        assert_int_equal(p->own_first, own);
        assert_int_equal(p->own_count, own_count);
        assert_int_equal(tv_param_matrices(p), held);
        assert_int_equal(tv_param_matrix_rows(p), ROWS);
        assert_ptr_equal(tv_param_T(p, first), p->T);
        // What is held is a piece of the whole tensor, counters and both decoded forms included.
        size_t weights = (size_t)(held * ROWS * COLS), packed = (size_t)(held * ROWS * tv_row_bytes(COLS));
        assert_memory_equal(p->T, tv_param_T(all, first), packed);
        assert_memory_equal(p->E, tv_param_E(all, first), (size_t)(held * ROWS * tv_row_groups(COLS, p->group)));
        assert_memory_equal(p->T_accum, all->T_accum + own * COLS, (size_t)(own_count * COLS));
        assert_memory_equal(p->w8, all->w8 + first * COLS, weights);
        assert_memory_equal(p->w8t, all->w8t + first * COLS, weights);
        tv_params_free(&params);
    }
    tv_params_free(&whole);
}

static void test_held(void **state)
{
    (void)state;
    on_each_split(check_held);
}

// w8t holds one transposed matrix after the other.
static void test_stack(void **state)
{
    (void)state;
    tv_params params;
    open_params(&params, 0, 1, 1);
    const tv_param *p = &params.items[1];
    for (int64_t e = 0; e < EXPERTS; e++)
        for (int64_t r = 0; r < ROWS; r++)
            for (int64_t c = 0; c < COLS; c++)
                assert_int_equal(p->w8t[(e * COLS + c) * ROWS + r], p->w8[(e * ROWS + r) * COLS + c]);
    tv_params_free(&params);
}

static void check_shares(int ranks, int places) { fixture_check_shares(open_params, ranks, places, 1); }

static void test_shares(void **state)
{
    (void)state;
    on_each_split(check_shares);
}

static void test_side(void **state)
{
    (void)state;
    tv_params params;
    tv_state_array *arrays = NULL;
    int64_t count = 0;
    open_params(&params, 0, 1, 1);
    int16_t *bias = params.sides[0].data;
    for (int e = 0; e < EXPERTS; e++) {
        assert_int_equal(bias[e], 0);
        bias[e] = (int16_t)(e - 5);
    }
    TEST_TRY(tv_params_state(&params, 1, NULL, 1, &arrays, &count));
    const tv_state_array *side = &arrays[count - 1];
    assert_string_equal(side->name, "part");
    assert_string_equal(side->part, "bias");
    assert_string_equal(side->group, "tables");
    assert_int_equal(side->dtype, TV_I16);
    assert_int_equal(side->rows, EXPERTS);
    assert_memory_equal(side->data, bias, EXPERTS * sizeof *bias);
    free(arrays);
    tv_params_free(&params);
}

static void refuse(int ranks, int places, tv_status code, const char *message)
{
    tv_params params;
    int64_t index;
    tv_tensor_spec stack = {
        .name = "stack", .part = "test", .rows = 10, .cols = 4, .stack = 5, .placement = TV_PLACE_EXPERT};
    tv_params_layout_args args = {
        .backend = fixture_backend("ref"), .ranks = ranks, .training = 1, .vote_bits = 8, .expert_ranks = places};
    tv_params_init(&params, 0);
    TEST_TRY(tv_params_add(&params, &stack, &index));
    assert_int_equal(tv_params_layout(&params, &args), code);
    assert_non_null(strstr(tv_status_message(), message));
    tv_params_free(&params);
}

static void test_refused(void **state)
{
    (void)state;
    refuse(4, 2, TV_CONFIG, "5");
    refuse(4, 3, TV_CONFIG, "3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_held), cmocka_unit_test(test_stack),
                                       cmocka_unit_test(test_shares), cmocka_unit_test(test_side),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
