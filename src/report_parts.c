// Small charts of what the parts tell of themselves: a chart a figure, a curve a part.
#include <stdlib.h>
#include <string.h>

#include "report.h"

// Figures with a chart of their own among the curves.
static int is_shown(const char *name)
{
    static const char *const names[] = {"rows_used",  "entropy_bits", "tokens_min",  "tokens_median",
                                        "tokens_max", "edges",        "mean_score",  "topic",
                                        "reset",      "dampen",       "forget_fast", "forget_slow"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0)
            return 1;
    return 0;
}

// Such as rows to other ranks of a run of one rank.
static int is_zero(const tv_run_figure *figure)
{
    for (int64_t i = 0; i < figure->count; i++)
        if (figure->told[i].sum != 0)
            return 0;
    return 1;
}

static tv_status add_figure(tv_chart *chart, const tv_run_figure *figure)
{
    tv_curve look = {
        .name = figure->part, .style = TV_CURVE_LINE, .color = chart->curve_count % 6, .dash = chart->curve_count % 5};
    tv_point *points = malloc((size_t)(figure->count + 1) * sizeof *points);
    if (points == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for a curve of %lld points", (long long)figure->count);
    for (int64_t i = 0; i < figure->count; i++)
        points[i] = (tv_point){(double)figure->told[i].step, figure->told[i].sum / (double)figure->told[i].parts};
    tv_status st =
        chart->curve_count < TV_CURVES_MAX ? tv_chart_add_points(chart, points, figure->count, &look) : TV_OK;
    free(points);
    return st;
}

// The chart of figure `first` and those of its name behind it; nothing when one of its name stands before it.
static tv_status write_chart(FILE *out, const tv_run_metrics *run, int64_t first)
{
    const char *name = run->figures[first].name;
    char id[sizeof run->figures->name + 8], title[sizeof run->figures->name];
    tv_chart chart = {.id = id, .title = title, .unit = "smoothed", .from_zero = 1, .small = 1};
    for (int64_t i = 0; i < first; i++)
        if (strcmp(run->figures[i].name, name) == 0 && !is_zero(&run->figures[i]))
            return TV_OK;
    snprintf(id, sizeof id, "part-%s", name);
    snprintf(title, sizeof title, "%s", name);
    for (char *c = title; *c; c++)
        *c = *c == '_' ? ' ' : *c;
    tv_status st = TV_OK;
    for (int64_t i = first; st == TV_OK && i < run->figure_count; i++)
        if (strcmp(run->figures[i].name, name) == 0 && !is_zero(&run->figures[i]))
            st = add_figure(&chart, &run->figures[i]);
    if (chart.curve_count == 1)
        chart.unit = chart.curves[0].name; // there is no legend
    if (st == TV_OK)
        st = tv_chart_write(out, &chart, run);
    tv_chart_free(&chart);
    return st;
}

tv_status tv_report_write_parts(FILE *out, const tv_report *report)
{
    const tv_run_metrics *run = &report->run;
    int any = 0;
    for (int64_t i = 0; i < run->figure_count; i++) {
        if (is_shown(run->figures[i].name) || is_zero(&run->figures[i]))
            continue;
        if (!any++)
            fprintf(out, "<h2>Parts</h2>\n<p class=\"note\">What parts tell of each step; parts of all blocks as their "
                         "mean. Shares are between 0 and 1. What is 0 in every step is left out.</p>\n<div "
                         "class=\"charts small\">\n");
        TV_TRY(write_chart(out, run, i));
    }
    for (int i = 0; any && i < run->histogram_count; i++)
        tv_report_write_histogram(out, &run->histograms[i]);
    if (any)
        fprintf(out, "</div>\n");
    return TV_OK;
}
