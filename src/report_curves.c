// Which curves a run's report shows.
#include <math.h>
#include <stdlib.h>

#include "report.h"

#define NATS_PER_BIT 0.69314718055994531

typedef tv_status (*fill_chart)(tv_chart *chart, const tv_run_metrics *run);

// Lines have a dash pattern by their place, so that they can be told apart without colours.
static int count_lines(const tv_chart *chart)
{
    int lines = 0;
    for (int i = 0; i < chart->curve_count; i++)
        lines += chart->curves[i].style == TV_CURVE_LINE;
    return lines;
}

static tv_status add(tv_chart *chart, const tv_run_metrics *run, int column, tv_curve_style style, const char *name,
                     int color)
{
    const tv_curve look = {.name = name, .style = style, .color = color, .dash = count_lines(chart) % 5};
    return tv_chart_add_column(chart, run, column, &look);
}

// Every step faintly, and the mean over steps near it, once there are enough of them to make a difference.
static tv_status add_both(tv_chart *chart, const tv_run_metrics *run, int column, int color)
{
    if (run->step_count < TV_SMOOTH_FROM)
        return add(chart, run, column, TV_CURVE_LINE, "each step", color);
    TV_TRY(add(chart, run, column, TV_CURVE_FAINT, "each step", color));
    return add(chart, run, column, TV_CURVE_LINE, "smoothed", color);
}

static tv_status fill_loss(tv_chart *chart, const tv_run_metrics *run)
{
    *chart = (tv_chart){.id = "loss",
                        .title = "Loss",
                        .unit = "bits a byte",
                        .right_unit = "nats a byte",
                        .right_factor = NATS_PER_BIT};
    TV_TRY(add_both(chart, run, TV_RUN_BPB, 0));
    tv_point *points = malloc((size_t)(run->eval_count + 1) * sizeof *points);
    if (points == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for a curve of %lld points", (long long)run->eval_count);
    for (int64_t i = 0; i < run->eval_count; i++)
        points[i] = (tv_point){(double)run->evals[i].step, run->evals[i].bpb};
    tv_status st =
        tv_chart_add_points(chart, points, run->eval_count,
                            &(tv_curve){.name = "held-out text", .style = TV_CURVE_POINTS, .color = 1, .dash = 1});
    free(points);
    return st;
}

static tv_status fill_flips(tv_chart *chart, const tv_run_metrics *run)
{
    *chart = (tv_chart){.id = "flips", .title = "Flips", .unit = "flips a step in a million weights", .from_zero = 1};
    return add_both(chart, run, TV_RUN_FLIPS, 2);
}

static tv_status fill_zeros(tv_chart *chart, const tv_run_metrics *run)
{
    *chart = (tv_chart){.id = "zeros", .title = "Zeros", .unit = "% of the weights"};
    return add_both(chart, run, TV_RUN_ZEROS, 3);
}

static tv_status fill_rate(tv_chart *chart, const tv_run_metrics *run)
{
    *chart = (tv_chart){.id = "throughput", .title = "Throughput", .unit = "bytes a second", .from_zero = 1};
    return add_both(chart, run, TV_RUN_RATE, 0);
}

static tv_status fill_phases(tv_chart *chart, const tv_run_metrics *run)
{
    static const char *const names[] = {"data", "forward", "backward", "exchange", "ballot"};
    static const int colors[] = {5, 0, 1, 3, 2};
    *chart = (tv_chart){.id = "phases", .title = "Time of a step on rank 0", .unit = "ms, smoothed", .from_zero = 1};
    for (int i = 0; i < 5; i++)
        TV_TRY(add(chart, run, TV_RUN_DATA + i, TV_CURVE_LINE, names[i], colors[i]));
    return TV_OK;
}

static tv_status fill_experts(tv_chart *chart, const tv_run_metrics *run)
{
    *chart = (tv_chart){
        .id = "experts", .title = "Expert balance", .unit = "tokens of an expert a step, smoothed", .from_zero = 1};
    TV_TRY(add(chart, run, TV_RUN_TOKENS_MAX, TV_CURVE_LINE, "most", 1));
    TV_TRY(add(chart, run, TV_RUN_TOKENS_MEDIAN, TV_CURVE_LINE, "median", 0));
    return add(chart, run, TV_RUN_TOKENS_MIN, TV_CURVE_LINE, "fewest", 2);
}

static tv_status fill_gates(tv_chart *chart, const tv_run_metrics *run)
{
    static const char *const names[] = {"topic", "reset", "dampen", "fast cell's forget", "slow cell's forget"};
    *chart = (tv_chart){.id = "gates", .title = "Gates of the cells over segments", .unit = "% open", .from_zero = 1};
    for (int i = 0; i < 5; i++)
        TV_TRY(add(chart, run, TV_RUN_TOPIC + i, TV_CURVE_LINE, names[i], i));
    return TV_OK;
}

static tv_status add_tables(tv_chart *chart, const tv_run_metrics *run, int column)
{
    for (int i = 0; i < run->table_count; i++)
        TV_TRY(add(chart, run, column + i, TV_CURVE_LINE, run->tables[i], i));
    return TV_OK;
}

static tv_status fill_rows(tv_chart *chart, const tv_run_metrics *run)
{
    *chart = (tv_chart){.id = "rows", .title = "Code use", .unit = "% of the codebook's rows", .from_zero = 1};
    return add_tables(chart, run, TV_RUN_ROWS_USED);
}

static tv_status fill_entropy(tv_chart *chart, const tv_run_metrics *run)
{
    *chart = (tv_chart){.id = "entropy", .title = "Entropy of the codes", .unit = "bits", .from_zero = 1};
    return add_tables(chart, run, TV_RUN_ENTROPY);
}

static tv_status fill_edges(tv_chart *chart, const tv_run_metrics *run)
{
    *chart = (tv_chart){.id = "edges", .title = "Graph", .unit = "edges between motifs", .from_zero = 1};
    return add(chart, run, TV_RUN_EDGES, TV_CURVE_LINE, "edges", 0);
}

static tv_status fill_scores(tv_chart *chart, const tv_run_metrics *run)
{
    *chart = (tv_chart){.id = "scores", .title = "Score of an edge", .unit = "mean", .from_zero = 1};
    return add(chart, run, TV_RUN_EDGE_SCORE, TV_CURVE_LINE, "score", 1);
}

// One figure of the records between ranks; none of a run of one rank.
static tv_status fill_ranks(tv_chart *chart, const tv_run_metrics *run, int heat)
{
    tv_point *points = malloc((size_t)(run->ranks_count + 1) * sizeof *points);
    if (points == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for a curve of %lld points", (long long)run->ranks_count);
    for (int64_t i = 0; i < run->ranks_count; i++) {
        const tv_run_ranks *r = &run->ranks[i];
        points[i] = (tv_point){(double)r->step, heat ? r->temperature : run->rank_count > 1 ? r->ratio : NAN};
    }
    tv_status st = tv_chart_add_points(chart, points, run->ranks_count,
                                       &(tv_curve){.name = chart->title, .style = TV_CURVE_POINTS, .color = 1});
    free(points);
    return st;
}

static tv_status fill_lag(tv_chart *chart, const tv_run_metrics *run)
{
    *chart = (tv_chart){.id = "lag", .title = "Slowest rank", .unit = "times the median rank"};
    return fill_ranks(chart, run, 0);
}

static tv_status fill_heat(tv_chart *chart, const tv_run_metrics *run)
{
    *chart = (tv_chart){.id = "heat", .title = "Hottest GPU", .unit = "degrees Celsius"};
    return fill_ranks(chart, run, 1);
}

tv_status tv_report_write_charts(FILE *out, const tv_report *report)
{
    static const fill_chart charts[] = {fill_loss, fill_flips,   fill_zeros, fill_rate,   fill_phases, fill_experts,

                                        fill_rows, fill_entropy, fill_edges, fill_scores, fill_gates,  fill_lag,
                                        fill_heat};
    for (size_t i = 0; i < sizeof charts / sizeof *charts; i++) {
        tv_chart chart = {0};
        tv_status st = charts[i](&chart, &report->run);
        if (st == TV_OK)
            st = tv_chart_write(out, &chart, &report->run);
        tv_chart_free(&chart);
        TV_TRY(st);
    }
    return TV_OK;
}
