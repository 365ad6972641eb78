// Tables of n-grams in training, on one rank: only rows that the step's text looks up move, their strength counts the tokens, saturates and
// is halved when it is time; rows are those of the text's own n-grams.
#include "run_fixture.h"

#include <stdlib.h>
#include <string.h>

static void open_run(run *r, const char *const *sets)
{
    run_open(r, "tests/data/invariance-memgram.yaml", sets, "cpu");
}

static int8_t *find_strength(const run *r, const char *leaf)
{
    const tv_side *side = run_side(r, "memgram", leaf);
    assert_non_null(side);
    return side->data;
}

// A loop: gcc's sanitizers take a call of memset for one that may be too long.
static void set_strength(int8_t *strength, int64_t rows, int value)
{
    for (int64_t row = 0; row < rows; row++)
        strength[row] = (int8_t)value;
}

static run_picture take_picture(const run *r, const char *table, const char *strength)
{
    return run_take_picture(r, table, "memgram", strength);
}

// Moved rows are rows that grew stronger.
static void check_step(run *r, const char *table, const char *strength, const char *figure_name)
{
    run_picture before = take_picture(r, table, strength), after;
    int64_t touched = 0, moved = 0;
    memset(find_strength(r, strength), 0, (size_t)before.rows);
    run_step(r);
    after = take_picture(r, table, strength);
    for (int64_t row = 0; row < before.rows; row++) {
        int used = after.use[row] > 0;
        touched += used;
        moved += run_row_moved(&before, &after, row);
        if (!used && run_row_moved(&before, &after, row))
            fail_msg("%s: row %d moved without use", table, (int)row);
    }
    assert_true(moved > 0 && touched < before.rows);
    assert_true(run_figure(r, "memgram", figure_name) == (double)touched);
    run_free_picture(&before), run_free_picture(&after);
}

static void test_untouched_rows(void **state)
{
    (void)state;
    static const char *const rules[] = {"update.rule=restart", "update.rule=budget", "update.rule=classic"};
    for (int i = 0; i < 3; i++) {
        // So many rows that the step's n-grams leave some alone.
        const char *sets[] = {"memgram.rows=20011", "memgram.decay_every=1000", rules[i], NULL};
        run r;
        open_run(&r, sets);
        for (int s = 0; s < 3; s++) {
            check_step(&r, "memgram.struct", "struct_strength", "struct_touched");
            check_step(&r, "memgram.conv", "conv_strength", "conv_touched");
        }
        run_close(&r);
    }
}

// One unit of one window of T bytes looks up T - n + 1 rows of order n.
static void test_counts(void **state)
{
    (void)state;
    const char *sets[] = {"train.units=1",         "train.unit_windows=1", "memgram.rows=1000003",
                          "memgram.orders=[2, 8]", "codebook.rows=0",      NULL};
    run r;
    open_run(&r, sets);
    int64_t tokens = r.config.model.context, rows = r.config.memgram.rows, sum = 0;
    const int8_t *strength = find_strength(&r, "struct_strength");
    run_step(&r);
    for (int64_t row = 0; row < rows; row++)
        sum += strength[row];
    assert_int_equal(sum, tokens - 1 + tokens - 7);
    run_close(&r);
}

// Strength saturates, and is halved when it is time; then nothing else of rows without use changes either.
static void test_decay(void **state)
{
    (void)state;
    const char *sets[] = {"memgram.decay_every=2", "memgram.rows=20011", NULL};
    run r;
    open_run(&r, sets);
    int64_t rows = run_tensor(&r, "memgram.struct")->spec.rows;
    int8_t *strength = find_strength(&r, "struct_strength");
    set_strength(strength, rows, TV_MEMGRAM_STRENGTH_MAX);
    run_step(&r);
    for (int64_t row = 0; row < rows; row++)
        assert_int_equal(strength[row], TV_MEMGRAM_STRENGTH_MAX);
    run_picture before = take_picture(&r, "memgram.struct", "struct_strength"), after;
    set_strength(strength, rows, 61);
    run_step(&r);
    after = take_picture(&r, "memgram.struct", "struct_strength");
    for (int64_t row = 0; row < rows; row++) {
        assert_in_range(strength[row], 30, TV_MEMGRAM_STRENGTH_MAX / 2);
        assert_true(strength[row] > 30 || !run_row_moved(&before, &after, row));
    }
    assert_true(run_figure(&r, "memgram", "struct_used") == 1);
    run_free_picture(&before), run_free_picture(&after);
    run_close(&r);
}

static int bin_of(int strength)
{
    int bin = 0;
    while (strength >> bin > 0)
        bin++;
    return bin;
}

// Strengths are counted when they decay, before they are halved: the bins above 1 are those of the halved ones, moved by one.
static void test_histogram(void **state)
{
    (void)state;
    const char *sets[] = {"memgram.decay_every=2", "memgram.rows=20011", NULL};
    run r;
    open_run(&r, sets);
    int64_t rows = run_tensor(&r, "memgram.struct")->spec.rows, want[TV_MEMGRAM_HEALTH] = {0};
    int8_t *strength = find_strength(&r, "struct_strength");
    run_step(&r);
    assert_int_equal(run_histogram(&r, "memgram", "struct_strength").bins, 0); // not counted yet
    for (int64_t row = 0; row < rows; row++)
        strength[row] = (int8_t)(row % (TV_MEMGRAM_STRENGTH_MAX + 1));
    run_step(&r);
    for (int64_t row = 0; row < rows; row++)
        want[bin_of(strength[row])]++;
    tv_histogram h = run_histogram(&r, "memgram", "struct_strength");
    assert_int_equal(h.bins, TV_MEMGRAM_HEALTH);
    assert_int_equal(h.counts[0] + h.counts[1], want[0]);
    for (int k = 2; k < h.bins; k++)
        assert_int_equal(h.counts[k], want[k - 1]);
    assert_int_equal(run_histogram(&r, "memgram", "conv_strength").bins, TV_MEMGRAM_HEALTH);
    run_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_untouched_rows), cmocka_unit_test(test_counts),
                                       cmocka_unit_test(test_decay), cmocka_unit_test(test_histogram)};
    return cmocka_run_group_tests_name("memgram", tests, NULL, NULL);
}
