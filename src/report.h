// The report of a run: one HTML page with its curves as SVG, without script and without anything from outside.
#ifndef TV_REPORT_H
#define TV_REPORT_H

#include <stdint.h>
#include <stdio.h>

#include "base/config.h"
#include "base/status.h"
#include "io/metrics_read.h"

// ---- text -----------------------------------------------------------------------------------------------------------

// &, <, > and " as entities; control characters as spaces, and bytes that are no UTF-8 as U+FFFD.
void tv_html_text(FILE *out, const char *text);

// ---- scales ---------------------------------------------------------------------------------------------------------

// Round steps between ticks: 1, 2 or 5 times a power of ten.
typedef struct tv_ticks {
    double first, step;
    int count;
} tv_ticks;
// The round values in [low, high], high > low: about `wanted` of them, at most twice as many; whole: the step is at least 1.
tv_ticks tv_ticks_find(double low, double high, int wanted, int whole);
double tv_ticks_at(const tv_ticks *ticks, int i);
// "0.25", "1,500", "20k", "1.5M": as many decimals as the step needs.
void tv_ticks_format(const tv_ticks *ticks, int i, char text[24]);
// "20 ms", "45 s", "12 min", "3.5 h", "2.1 d".
void tv_time_format(double seconds, char text[24]);
// Four digits with k, M, G or T.
void tv_number_format(double value, char text[24]);

typedef struct tv_point {
    double x, y; // y may be NaN: a gap
} tv_point;

// Points that a curve of a page has at most.
#define TV_POINTS_MAX 700
#define TV_SMOOTH_FROM 100
// Centred means over a window of a fiftieth of the points (of fewer than TV_SMOOTH_FROM: none), narrower towards the ends; gaps stay gaps. In place, with `scratch` as large.
void tv_points_smooth(tv_point *points, int64_t count, tv_point *scratch);
// At most TV_POINTS_MAX: of more, the least and the greatest of each of TV_POINTS_MAX / 2 equal stretches of x, in their order. In place;
// returns the new count.
int64_t tv_points_thin(tv_point *points, int64_t count);

// ---- charts ---------------------------------------------------------------------------------------------------------

typedef enum tv_curve_style {
    TV_CURVE_FAINT,  // thin and light: every step
    TV_CURVE_LINE,   // the smoothed line
    TV_CURVE_POINTS, // a marker a point, joined
} tv_curve_style;

typedef struct tv_curve {
    const char *name; // for the legend
    tv_curve_style style;
    int color; // 0 .. 5
    int dash;  // 0 .. 4: whole, or a pattern
    tv_point *points;
    int64_t count;
} tv_curve;

#define TV_CURVES_MAX 8
typedef struct tv_chart {
    const char *id, *title, *unit; // the unit stands above the left axis
    tv_curve curves[TV_CURVES_MAX];
    int curve_count;
    int from_zero; // the left axis begins at 0
    int small;
    const char *right_unit; // NULL: no right axis
    double right_factor;    // right = left * right_factor
} tv_chart;

// Local. Adds the curve of a column of the steps, thinned; nothing when no step has it. TV_MEMORY only.
tv_status tv_chart_add_column(tv_chart *chart, const tv_run_metrics *run, int column, const tv_curve *look);
// Local. Adds a curve of `count` points of the caller's, which are copied.
tv_status tv_chart_add_points(tv_chart *chart, const tv_point *points, int64_t count, const tv_curve *look);
// Local. Writes the figure, or nothing when there is no curve with a value. TV_MEMORY only.
tv_status tv_chart_write(FILE *out, tv_chart *chart, const tv_run_metrics *run);
void tv_chart_free(tv_chart *chart);

// ---- page -----------------------------------------------------------------------------------------------------------

typedef struct tv_report {
    const char *dir;
    tv_run_metrics run;
    char *config_text; // config.yaml, NULL when there is none
    tv_config config;  // has_config: config_text was understood
    int has_config;
} tv_report;

// Local. Bars of the shares of what is not 0, with a line that says how much is; nothing when there is nothing to count
// (report_histogram.c).
void tv_report_write_histogram(FILE *out, const tv_run_histogram *histogram);
// Local. The whole page. TV_MEMORY only.
tv_status tv_report_write(FILE *out, const tv_report *report);
// Local. The charts alone (report_curves.c).
tv_status tv_report_write_charts(FILE *out, const tv_report *report);
// Local. Small charts of what the parts tell of themselves, with their headline; nothing when they tell nothing (report_parts.c).
tv_status tv_report_write_parts(FILE *out, const tv_report *report);

#endif
