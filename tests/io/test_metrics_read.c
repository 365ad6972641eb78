// metrics.jsonl as a run and its accidents leave it.
#include "io_fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/metrics_read.h"

#define STEP(n, time, rest) "{\"event\":\"step\",\"step\":" #n ",\"time\":" #time ",\"bpb\":" rest "}\n"

static int make_folder(void **state)
{
    *state = io_folder_new();
    return 0;
}

static int drop_folder(void **state)
{
    io_folder_free(*state);
    return 0;
}

static tv_status read_text(const char *folder, const char *text, tv_run_metrics *run)
{
    const char *path = io_path("%s/metrics.jsonl", folder);
    io_write_text(path, text);
    return tv_run_metrics_read(path, run);
}

static void test_one_process(void **state)
{
    tv_run_metrics run;
    assert_ok(read_text(
        *state,
        "{\"event\":\"start\",\"step\":0,\"time\":100,\"last_step\":9,\"ranks\":4,\"program\":\"1.2\"}\n"
        "{\"event\":\"step\",\"step\":1,\"time\":102,\"loss\":1.5,\"bpb\":2,\"bytes\":100,\"bytes_seen\":100,"
        "\"flips\":3,\"zeros\":50,\"weights\":200,\"ranks\":4,\"seconds\":{\"total\":2,\"data\":0.5},\"parts\":"
        "{\"block.0.moe\":{\"tokens_min\":3,\"tokens_median\":5,\"tokens_max\":8},"
        "\"block.11.moe\":{\"tokens_min\":2,\"tokens_median\":6,\"tokens_max\":7},"
        "\"codes\":{\"rows_used\":0.25,\"entropy_bits\":6}}}\n" STEP(
            2, 105.5,
            "3") "{\"event\":\"eval\",\"step\":2,\"bpb\":2.5}\n"
                 "{\"event\":\"checkpoint\",\"step\":2,\"time\":106,\"seconds\":0.25,\"digest\":\"ab\"}\n"
                 "{\"event\":\"ranks\",\"step\":2,\"slowest_rank\":3,\"ratio\":1.5,\"gpu\":{\"temperature_c\":70}}\n"
                 "{\"event\":\"of another day\",\"step\":\"x\"}\n\n",
        &run));
    const double *v = run.steps[0].values;
    assert_int_equal(run.step_count, 2);
    assert_true(v[TV_RUN_LOSS] == 1.5 && v[TV_RUN_BPB] == 2 && v[TV_RUN_RATE] == 50 && v[TV_RUN_DATA] == 500);
    assert_true(v[TV_RUN_FLIPS] == 15000 && v[TV_RUN_ZEROS] == 25 && isnan(v[TV_RUN_BALLOT]));
    assert_true(v[TV_RUN_TOKENS_MIN] == 2 && v[TV_RUN_TOKENS_MEDIAN] == 5 && v[TV_RUN_TOKENS_MAX] == 8);
    assert_true(v[TV_RUN_ROWS_USED] == 25 && v[TV_RUN_ENTROPY] == 6 && isnan(v[TV_RUN_ROWS_USED + 1]));
    assert_true(v[TV_RUN_ELAPSED] == 2 && run.steps[1].values[TV_RUN_ELAPSED] == 5.5);
    assert_true(isnan(run.steps[1].values[TV_RUN_LOSS]));
    assert_int_equal(run.figure_count, 5); // the blocks' parts together
    assert_string_equal(run.figures[1].part, "moe");
    assert_string_equal(run.figures[1].name, "tokens_median");
    assert_true(run.figures[1].count == 1 && run.figures[1].told[0].parts == 2 && run.figures[1].told[0].sum == 11);
    assert_string_equal(run.figures[3].part, "codes");
    assert_int_equal(run.table_count, 1);
    assert_string_equal(run.tables[0], "codes");
    assert_true(run.eval_count == 1 && run.evals[0].bpb == 2.5);
    assert_true(run.save_count == 1 && run.saves[0].seconds == 0.25 && strcmp(run.saves[0].digest, "ab") == 0);
    assert_true(run.ranks_count == 1 && run.ranks[0].slowest == 3 && run.ranks[0].temperature == 70);
    assert_true(run.start_count == 1 && run.starts[0].ranks == 4 && run.last_step == 9);
    assert_int_equal(run.skipped_lines, 0);
    tv_run_metrics_free(&run);
}

// Killed in the line of step 4, on again from a checkpoint at 2, two hours later: the pause and what was lost are no time of running.
static void test_restart(void **state)
{
    tv_run_metrics run;
    assert_ok(read_text(
        *state,
        "{\"event\":\"start\",\"step\":0,\"time\":99,\"ranks\":2}\n" STEP(1, 100, "9,\"seconds\":{\"total\":1}")
            STEP(2, 101, "8") "{\"event\":\"checkpoint\",\"step\":2}\n" STEP(
                3, 102, "7") "{\"event\":\"eval\",\"step\":3,\"bpb\":7}\n{\"event\":\"step\",\"st\n"
                             "{\"event\":\"start\",\"step\":2,\"time\":7300,\"ranks\":3}\n" STEP(
                                 3, 7301, "6,\"seconds\":{\"total\":0.5}") STEP(4, 7302, "5"),
        &run));
    assert_int_equal(run.step_count, 4);
    assert_true(run.steps[2].values[TV_RUN_BPB] == 6 && run.steps[3].step == 4);
    assert_true(run.steps[2].values[TV_RUN_ELAPSED] == 2.5 && run.steps[3].values[TV_RUN_ELAPSED] == 3.5);
    assert_int_equal(run.repeated, 1);
    assert_int_equal(run.eval_count, 0); // of the step that was done again
    assert_int_equal(run.save_count, 1);
    assert_true(run.start_count == 2 && run.starts[1].step == 2 && run.starts[1].ranks == 3);
    assert_true(run.skipped_lines == 1 && run.first_skipped == 7);
    tv_run_metrics_free(&run);
}

// Files without records of starts, and a start that got no further.
static void test_going_back(void **state)
{
    tv_run_metrics run;
    assert_ok(read_text(*state, STEP(1, 1, "1") STEP(2, 2, "1") STEP(3, 3, "1") STEP(2, 9, "2"), &run));
    assert_int_equal(run.step_count, 2);
    assert_true(run.start_count == 1 && run.starts[0].step == 1 && isnan(run.starts[0].date));
    assert_int_equal(run.repeated, 2);
    tv_run_metrics_free(&run);
    assert_ok(read_text(*state, STEP(1, 1, "1") STEP(2, 2, "1") "{\"event\":\"start\",\"step\":1,\"time\":5}\n", &run));
    assert_int_equal(run.step_count, 2); // nothing took their place
    tv_run_metrics_free(&run);
}

// Steps done twice, names that no part gives, and more figures than there is room for.
static void test_figures(void **state)
{
    tv_run_metrics run;
    assert_ok(read_text(*state,
                        STEP(1, 1, "1,\"parts\":{\"t\":{\"used\":0.5}}") STEP(2, 2, "1,\"parts\":{\"t\":{\"used\":1}}")
                            STEP(2, 9,
                                 "1,\"parts\":{\"t\":{\"used\":0.25,\"<b>\":1,\"\":2,\"odd\":\"x\",\"far\":1e300},"
                                 "\"block.x\":{\"used\":3},\"a \\\"\":{\"used\":3}}"),
                        &run));
    assert_int_equal(run.figure_count, 4);
    assert_string_equal(run.figures[0].name, "used");
    assert_true(run.figures[0].count == 2 && run.figures[0].told[1].step == 2 && run.figures[0].told[1].sum == 0.25);
    assert_true(run.figures[1].count == 0 && run.figures[2].count == 0); // odd, far
    assert_string_equal(run.figures[3].part, "block.x");
    tv_run_metrics_free(&run);
    char text[8192];
    int used = snprintf(text, sizeof text, "{\"event\":\"step\",\"step\":1,\"parts\":{\"t\":{\"f0\":0");
    for (int i = 1; i < 100; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, ",\"f%d\":%d", i, i);
    snprintf(text + used, sizeof text - (size_t)used, "}}}\n");
    assert_ok(read_text(*state, text, &run));
    assert_int_equal(run.figure_count, TV_RUN_FIGURES_MAX);
    assert_true(run.figures[63].told[0].sum == 63);
    tv_run_metrics_free(&run);
}

static void test_refused(void **state)
{
    tv_run_metrics run;
    assert_status(TV_IO, tv_run_metrics_read(io_path("%s/none", (char *)*state), &run));
    assert_message("No such file");
    assert_status(TV_IO, read_text(*state, "", &run));
    assert_message("holds no step yet");
    assert_status(TV_IO, read_text(*state, "\n[1]\n", &run));
    assert_message("line 2 is no JSON object: another value");
    assert_status(TV_IO, read_text(*state, STEP(1, 1, "1") "{\"event\":\"step\",\"bpb\":1}\n", &run));
    assert_message("metrics.jsonl:2: 'step' is missing");
    assert_status(TV_IO, read_text(*state, STEP(1, 1, "[]"), &run));
    assert_message("metrics.jsonl:1: 'bpb' is no number");
    assert_status(TV_IO, read_text(*state, STEP(1, 1, "1,\"ranks\":1.5"), &run));
    assert_message("'ranks' is no whole number from 0");
}

// Lists are histograms, the last of each name; lists that no part would write are passed over.
static void test_histograms(void **state)
{
    tv_run_metrics run;
    assert_ok(read_text(*state,
                        STEP(1, 1, "1,\"parts\":{\"t\":{\"used\":0.5,\"bins\":[1,2,3],\"<b>\":[1,2]}}")
                            STEP(2, 2, "1,\"parts\":{\"t\":{\"bins\":[4,5],\"one\":[1],\"less\":[1,-1]}}")
                                STEP(3, 3, "1,\"parts\":{\"t\":{\"word\":[1,\"x\"],\"far\":[1e300,1]}}"),
                        &run));
    assert_int_equal(run.histogram_count, 1);
    const tv_run_histogram *h = &run.histograms[0];
    assert_true(strcmp(h->part, "t") == 0 && strcmp(h->name, "bins") == 0 && h->step == 2 && h->bins == 2);
    assert_true(h->counts[0] == 4 && h->counts[1] == 5);
    assert_int_equal(run.figure_count, 1);
    tv_run_metrics_free(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_process, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_restart, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_going_back, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_figures, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_histograms, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_refused, make_folder, drop_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
