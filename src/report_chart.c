// One chart: axes with round ticks, curves, and the marks of checkpoints and restarts.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

// Units of the drawing; the page scales it to the column's width.
enum {
    WIDTH = 420,
    HEIGHT = 272,
    SMALL_WIDTH = 300,
    SMALL_HEIGHT = 190,
    LEFT = 56,
    RIGHT = 14,
    RIGHT_AXIS = 52,
    TOP = 26,
    BOTTOM = 46,
    MARK_APART = 7
};

typedef struct frame {
    double x_low, x_high, y_low, y_high;
    double width, height; // of the plot
    int all_width, all_height, small;
    int64_t outside; // points above or below
} frame;

static double place_x(const frame *f, double x) { return (x - f->x_low) / (f->x_high - f->x_low) * f->width; }
static double place_y(const frame *f, double y) { return (f->y_high - y) / (f->y_high - f->y_low) * f->height; }

static tv_curve *take_curve(tv_chart *chart, const tv_curve *look, int64_t count)
{
    tv_curve *curve = &chart->curves[chart->curve_count];
    *curve = *look;
    curve->count = 0;
    curve->points = malloc((size_t)(count + 1) * sizeof *curve->points);
    if (curve->points)
        chart->curve_count++;
    return curve->points ? curve : NULL;
}

static tv_status smooth(tv_curve *curve)
{
    tv_point *scratch = malloc((size_t)(curve->count + 1) * sizeof *scratch);
    if (scratch == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for a curve of %lld points", (long long)curve->count);
    tv_points_smooth(curve->points, curve->count, scratch);
    free(scratch);
    return TV_OK;
}

static int has_values(const tv_point *points, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!isnan(points[i].y))
            return 1;
    return 0;
}

tv_status tv_chart_add_points(tv_chart *chart, const tv_point *points, int64_t count, const tv_curve *look)
{
    if (!has_values(points, count))
        return TV_OK;
    tv_curve *curve = take_curve(chart, look, count);
    if (curve == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for a curve of %lld points", (long long)count);
    memcpy(curve->points, points, (size_t)count * sizeof *points);
    curve->count = count;
    if (look->style == TV_CURVE_LINE)
        TV_TRY(smooth(curve));
    curve->count = tv_points_thin(curve->points, curve->count);
    return TV_OK;
}

tv_status tv_chart_add_column(tv_chart *chart, const tv_run_metrics *run, int column, const tv_curve *look)
{
    tv_point *points = malloc((size_t)(run->step_count + 1) * sizeof *points);
    if (points == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for a curve of %lld points", (long long)run->step_count);
    for (int64_t i = 0; i < run->step_count; i++)
        points[i] = (tv_point){(double)run->steps[i].step, run->steps[i].values[column]};
    tv_status st = tv_chart_add_points(chart, points, run->step_count, look);
    free(points);
    return st;
}

void tv_chart_free(tv_chart *chart)
{
    for (int i = 0; i < chart->curve_count; i++)
        free(chart->curves[i].points);
    chart->curve_count = 0;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The range of all curves. Of many points the outermost half percent do not count when they would stretch it by more than half.
static tv_status find_range(const tv_chart *chart, frame *f)
{
    int64_t count = 0, room = 1;
    for (int c = 0; c < chart->curve_count; c++)
        room += chart->curves[c].count;
    double *values = malloc((size_t)room * sizeof *values);
    if (values == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for a chart");
    for (int c = 0; c < chart->curve_count; c++)
        for (int64_t i = 0; i < chart->curves[c].count; i++)
            if (!isnan(chart->curves[c].points[i].y))
                values[count++] = chart->curves[c].points[i].y;
    qsort(values, (size_t)count, sizeof *values, ascending);
    int64_t cut = count >= 200 ? count / 200 : 0;
    double low = values[0], high = values[count - 1], inner_low = values[cut], inner_high = values[count - 1 - cut];
    double allowed = 0.5 * (inner_high - inner_low);
    f->y_low = inner_low - low > allowed ? inner_low : low;
    f->y_high = high - inner_high > allowed ? inner_high : high;
    f->outside = 0;
    for (int64_t i = 0; i < count; i++)
        f->outside += values[i] < f->y_low || values[i] > f->y_high;
    free(values);
    return TV_OK;
}

static tv_status find_frame(const tv_chart *chart, const tv_run_metrics *run, frame *f)
{
    TV_TRY(find_range(chart, f));
    if (chart->from_zero && f->y_low > 0)
        f->y_low = 0;
    double room =
        f->y_high - f->y_low > 1e-12 * fabs(f->y_high) ? 0.06 * (f->y_high - f->y_low) : 0.1 * fabs(f->y_high) + 1e-9;
    f->y_high += room;
    if (!(chart->from_zero && f->y_low == 0))
        f->y_low = f->y_low >= 0 && f->y_low < room ? 0 : f->y_low - room;
    double first = (double)run->steps[0].step, last = (double)run->steps[run->step_count - 1].step;
    f->x_low = first - 1 < 0.05 * last ? 0 : first - 1;
    f->x_high = last > f->x_low ? last + 0.015 * (last - f->x_low) : f->x_low + 1; // room for the last marks
    f->small = chart->small;
    f->all_width = f->small ? SMALL_WIDTH : WIDTH;
    f->all_height = f->small ? SMALL_HEIGHT : HEIGHT;
    f->width = f->all_width - LEFT - (chart->right_unit ? RIGHT_AXIS : RIGHT);
    f->height = f->all_height - TOP - BOTTOM;
    return TV_OK;
}

// Seconds of running at a step, between the two steps beside it.
static double elapsed_at(const tv_run_metrics *run, double x)
{
    int64_t low = 0, high = run->step_count - 1;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if ((double)run->steps[middle].step < x)
            low = middle + 1;
        else
            high = middle;
    }
    double x1 = (double)run->steps[low].step, t1 = run->steps[low].values[TV_RUN_ELAPSED];
    double x0 = low ? (double)run->steps[low - 1].step : x1 - 1;
    double t0 = low ? run->steps[low - 1].values[TV_RUN_ELAPSED] : 0;
    double part = (x - x0) / (x1 - x0);
    return t0 + (t1 - t0) * (part < 0 ? 0 : part > 1 ? 1 : part);
}

static void write_x_axis(FILE *out, const frame *f, const tv_run_metrics *run)
{
    char text[24];
    tv_ticks ticks = tv_ticks_find(f->x_low, f->x_high, f->small ? 2 : 4, 1);
    fprintf(out, "<text x=\"%d\" y=\"%d\" class=\"e\">step</text><text x=\"%d\" y=\"%d\" class=\"e\">time</text>\n",
            LEFT - 12, f->all_height - BOTTOM + 18, LEFT - 12, f->all_height - BOTTOM + 36);
    for (int i = 0; i < ticks.count; i++) {
        double value = tv_ticks_at(&ticks, i), x = LEFT + place_x(f, value);
        tv_ticks_format(&ticks, i, text);
        fprintf(out, "<path class=\"tick\" d=\"M%.1f %dv5\"/><text x=\"%.1f\" y=\"%d\" class=\"m\">%s</text>", x,
                f->all_height - BOTTOM, x, f->all_height - BOTTOM + 18, text);
        tv_time_format(elapsed_at(run, value), text);
        fprintf(out, "<text x=\"%.1f\" y=\"%d\" class=\"m\">%s</text>\n", x, f->all_height - BOTTOM + 36,
                value > 0 ? text : "0");
    }
}

static void write_y_axes(FILE *out, const tv_chart *chart, const frame *f)
{
    char text[24];
    tv_ticks ticks = tv_ticks_find(f->y_low, f->y_high, f->small ? 3 : 5, 0);
    fprintf(out, "<text x=\"2\" y=\"14\">%s</text>\n", chart->unit);
    for (int i = 0; i < ticks.count; i++) {
        double y = TOP + place_y(f, tv_ticks_at(&ticks, i));
        tv_ticks_format(&ticks, i, text);
        fprintf(out, "<path class=\"grid\" d=\"M%d %.1fh%.1f\"/><text x=\"%d\" y=\"%.1f\" class=\"e\">%s</text>\n",
                LEFT, y, f->width, LEFT - 6, y + 4.5, text);
    }
    if (chart->right_unit == NULL)
        return;
    double right = LEFT + f->width, factor = chart->right_factor;
    ticks = tv_ticks_find(f->y_low * factor, f->y_high * factor, 5, 0);
    fprintf(out, "<text x=\"%d\" y=\"14\" class=\"e\">%s</text>\n", f->all_width - 2, chart->right_unit);
    for (int i = 0; i < ticks.count; i++) {
        double y = TOP + place_y(f, tv_ticks_at(&ticks, i) / factor);
        tv_ticks_format(&ticks, i, text);
        fprintf(out, "<path class=\"tick\" d=\"M%.1f %.1fh5\"/><text x=\"%.1f\" y=\"%.1f\">%s</text>\n", right, y,
                right + 8, y + 4.5, text);
    }
}

// Restarts as dashed lines over the whole height, checkpoints as triangles on the axis; marks that would touch are drawn once.
static void write_marks(FILE *out, const frame *f, const tv_run_metrics *run)
{
    double before = -MARK_APART;
    for (int64_t i = 0; i < run->start_count; i++) {
        double x = place_x(f, (double)run->starts[i].step);
        if ((i == 0 && run->starts[i].step == 0) || x - before < 1)
            continue;
        before = x;
        fprintf(out, "<path class=\"restart\" d=\"M%.1f 0v%.0f\"/>\n", x, f->height);
    }
    before = -MARK_APART;
    for (int64_t i = 0; i < run->save_count; i++) {
        double x = place_x(f, (double)run->saves[i].step);
        if (x < 0 || x > f->width || x - before < MARK_APART)
            continue;
        before = x;
        fprintf(out, "<path class=\"save\" d=\"M%.1f %.0fl-4 8h8z\"/>\n", x, f->height - 8);
    }
}

static const char *class_of(const tv_curve *curve) { return curve->style == TV_CURVE_FAINT ? "faint" : "line"; }

static void write_line(FILE *out, const frame *f, const tv_curve *curve)
{
    int pen = 0;
    fprintf(out, "<path class=\"%s c%d d%d\" data-curve=\"", class_of(curve), curve->color, curve->dash);
    tv_html_text(out, curve->name);
    fprintf(out, "\" d=\"");
    for (int64_t i = 0; i < curve->count; i++) {
        const tv_point *p = &curve->points[i];
        if (!isnan(p->y))
            fprintf(out, "%c%.1f %.1f", pen ? 'L' : 'M', place_x(f, p->x), place_y(f, p->y));
        pen = !isnan(p->y);
    }
    fprintf(out, "\"/>\n");
}

static void write_points(FILE *out, const frame *f, const tv_curve *curve)
{
    write_line(out, f, curve);
    if (curve->count > 60) // markers would touch
        return;
    for (int64_t i = 0; i < curve->count; i++)
        if (!isnan(curve->points[i].y))
            fprintf(out, "<circle class=\"c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"/>", curve->color,
                    place_x(f, curve->points[i].x), place_y(f, curve->points[i].y));
    fprintf(out, "\n");
}

static void write_legend(FILE *out, const tv_chart *chart)
{
    if (chart->curve_count < 2)
        return;
    fprintf(out, "<span class=\"legend\">");
    for (int i = 0; i < chart->curve_count; i++) {
        const tv_curve *curve = &chart->curves[i];
        fprintf(out, "<span class=\"key\"><svg viewBox=\"0 0 28 10\" aria-hidden=\"true\">");
        fprintf(out, "<path class=\"%s c%d d%d\" d=\"M0 5H28\"/>", class_of(curve), curve->color, curve->dash);
        if (curve->style == TV_CURVE_POINTS)
            fprintf(out, "<circle class=\"c%d\" cx=\"14\" cy=\"5\" r=\"3.5\"/>", curve->color);
        fprintf(out, "</svg>");
        tv_html_text(out, curve->name);
        fprintf(out, "</span> ");
    }
    fprintf(out, "</span>");
}

static void write_figure(FILE *out, const tv_chart *chart, const frame *f, const tv_run_metrics *run)
{
    fprintf(out, "<figure id=\"%s\"><figcaption><b>%s</b>", chart->id, chart->title);
    write_legend(out, chart);
    fprintf(out, "</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s by step\">\n", f->all_width,
            f->all_height, chart->title);
    write_y_axes(out, chart, f);
    write_x_axis(out, f, run);
    fprintf(out, "<svg x=\"%d\" y=\"%d\" width=\"%.0f\" height=\"%.0f\">\n", LEFT, TOP, f->width, f->height); // clips
    for (int i = 0; i < chart->curve_count; i++) {
        if (chart->curves[i].style == TV_CURVE_POINTS)
            write_points(out, f, &chart->curves[i]);
        else
            write_line(out, f, &chart->curves[i]);
    }
    write_marks(out, f, run);
    fprintf(out, "</svg>\n<path class=\"axis\" d=\"M%d %dv%.0fh%.0f\"/>\n</svg>\n", LEFT, TOP, f->height, f->width);
    if (f->outside > 0)
        fprintf(out, "<p class=\"note\">%lld of the drawn points lie%s outside the axis.</p>\n", (long long)f->outside,
                f->outside == 1 ? "s" : "");
    fprintf(out, "</figure>\n");
}

tv_status tv_chart_write(FILE *out, tv_chart *chart, const tv_run_metrics *run)
{
    frame f = {0};
    if (chart->curve_count == 0)
        return TV_OK;
    TV_TRY(find_frame(chart, run, &f));
    write_figure(out, chart, &f, run);
    return TV_OK;
}
