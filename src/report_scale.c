// Numbers for the eye: ticks, short texts, smoothed and thinned curves.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

tv_ticks tv_ticks_find(double low, double high, int wanted, int whole)
{
    double raw = (high - low) / wanted, power = pow(10, floor(log10(raw))), part = raw / power;
    double step = power * (part < 1.4 ? 1 : part < 3 ? 2 : part < 7 ? 5 : 10);
    if (whole && step < 1)
        step = 1;
    double first = ceil(low / step - 1e-9) * step;
    return (tv_ticks){first, step, (int)floor((high - first) / step + 1e-9) + 1};
}

double tv_ticks_at(const tv_ticks *ticks, int i)
{
    double value = ticks->first + i * ticks->step;
    return fabs(value) < 1e-9 * ticks->step ? 0 : value;
}

static double unit_of(double size, const char **letter)
{
    static const char *const letters[] = {"", "k", "M", "G", "T"};
    int i = 0;
    double unit = 1;
    while (i < 4 && size >= 1000 * unit * (1 - 1e-9)) {
        unit *= 1000;
        i++;
    }
    *letter = letters[i];
    return unit;
}

void tv_ticks_format(const tv_ticks *ticks, int i, char text[24])
{
    const char *letter;
    double last = tv_ticks_at(ticks, ticks->count - 1), first = tv_ticks_at(ticks, 0);
    double unit = unit_of(fmax(fabs(first), fabs(last)), &letter), value = tv_ticks_at(ticks, i);
    double step = ticks->step / unit;
    int decimals = 0;
    while (decimals < 6 && fabs(step - round(step)) > 1e-6 * step) {
        step *= 10;
        decimals++;
    }
    snprintf(text, 24, "%.*f%s", decimals, value / unit, value == 0 ? "" : letter);
    if (value == 0)
        snprintf(text, 24, "0");
}

void tv_time_format(double seconds, char text[24])
{
    if (seconds < 0.9995)
        snprintf(text, 24, "%.0f ms", 1e3 * seconds);
    else if (seconds < 120)
        snprintf(text, 24, seconds < 9.95 ? "%.1f s" : "%.0f s", seconds);
    else if (seconds < 7200)
        snprintf(text, 24, "%.0f min", seconds / 60);
    else if (seconds < 172800)
        snprintf(text, 24, "%.1f h", seconds / 3600);
    else
        snprintf(text, 24, "%.1f d", seconds / 86400);
}

void tv_number_format(double value, char text[24])
{
    const char *letter;
    double unit = unit_of(fabs(value), &letter);
    if (isnan(value))
        snprintf(text, 24, "not known");
    else
        snprintf(text, 24, "%.4g%s%s", value / unit, *letter ? " " : "", letter);
}

void tv_points_smooth(tv_point *points, int64_t count, tv_point *scratch)
{
    int64_t reach = count / TV_SMOOTH_FROM;
    memcpy(scratch, points, (size_t)count * sizeof *points);
    // Sums from the start: sum[i] of the first i values, seen[i] how many they are. Kept in the points that are not read any more.
    double sum = 0, seen = 0;
    for (int64_t i = 0; i < count; i++) {
        double y = scratch[i].y;
        sum += isnan(y) ? 0 : y;
        seen += !isnan(y);
        scratch[i] = (tv_point){sum, seen};
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t half = i < reach ? i : reach;
        half = count - 1 - i < half ? count - 1 - i : half;
        tv_point before = i - half > 0 ? scratch[i - half - 1] : (tv_point){0, 0}, upto = scratch[i + half];
        if (!isnan(points[i].y) && half > 0)
            points[i].y = (upto.x - before.x) / (upto.y - before.y);
    }
}

// Writes the least and the greatest of a stretch at `to`; returns how many that are.
static int64_t keep_extremes(const tv_point *stretch, int64_t count, tv_point *to)
{
    int64_t least = -1, most = -1;
    for (int64_t i = 0; i < count; i++) {
        if (isnan(stretch[i].y))
            continue;
        if (least < 0 || stretch[i].y < stretch[least].y)
            least = i;
        if (most < 0 || stretch[i].y > stretch[most].y)
            most = i;
    }
    if (least < 0)
        return 0;
    tv_point first = stretch[least < most ? least : most], second = stretch[least < most ? most : least];
    to[0] = first;
    if (least == most)
        return 1;
    to[1] = second;
    return 2;
}

int64_t tv_points_thin(tv_point *points, int64_t count)
{
    int64_t kept = 0, begin = 0;
    if (count <= TV_POINTS_MAX)
        return count;
    double low = points[0].x, width = (points[count - 1].x - low) / (TV_POINTS_MAX / 2);
    for (int64_t b = 1; b <= TV_POINTS_MAX / 2; b++) {
        int64_t end = begin;
        while (end < count && (b == TV_POINTS_MAX / 2 || points[end].x < low + (double)b * width))
            end++;
        kept += keep_extremes(points + begin, end - begin, points + kept);
        begin = end;
    }
    return kept;
}
