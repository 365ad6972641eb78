// A small chart of a histogram: a bar a bin.
#include <math.h>

#include "report.h"

// Units of the drawing, as in small charts of curves.
enum { WIDTH = 300, HEIGHT = 190, LEFT = 12, RIGHT = 12, TOP = 26, BOTTOM = 30 };

static double sum_from(const tv_run_histogram *h, int first)
{
    double sum = 0;
    for (int k = first; k < h->bins; k++)
        sum += h->counts[k];
    return sum;
}

static double greatest_used(const tv_run_histogram *h)
{
    double most = 0;
    for (int k = 1; k < h->bins; k++)
        most = fmax(most, h->counts[k]);
    return most;
}

static void write_words(FILE *out, const tv_run_histogram *h)
{
    char all[24];
    double total = sum_from(h, 0);
    tv_number_format(total, all);
    fprintf(out, "<figcaption><b>");
    for (const char *c = h->name; *c; c++)
        fputc(*c == '_' ? ' ' : *c, out);
    fprintf(out,
            "</b><span class=\"legend\">%s, step %lld: %.3g%% of %s are 0, the others by size</span></figcaption>\n",
            h->part, (long long)h->step, 100 * h->counts[0] / total, all);
}

// Bin k + 1, [2^k, 2^(k+1)), in place k of bins - 1.
static void write_bar(FILE *out, const tv_run_histogram *h, int k, double used, double most)
{
    double step = (double)(WIDTH - LEFT - RIGHT) / (h->bins - 1), count = h->counts[k + 1];
    double x = LEFT + k * step, height = count / most * (HEIGHT - TOP - BOTTOM);
    long long low = 1LL << k, high = 2 * low - 1;
    if (count > 0)
        fprintf(out,
                "<rect class=\"bar\" data-bin=\"%lld\" x=\"%.1f\" y=\"%.2f\" width=\"%.1f\" height=\"%.2f\"/>"
                "<text x=\"%.1f\" y=\"%.1f\" class=\"m t\">%.2g%%</text>",
                low, x + 2, HEIGHT - BOTTOM - height, step - 4, height, x + step / 2, HEIGHT - BOTTOM - height - 4,
                100 * count / used);
    if (high > low)
        fprintf(out, "<text x=\"%.1f\" y=\"%d\" class=\"m t\">%lld-%lld</text>\n", x + step / 2, HEIGHT - BOTTOM + 16,
                low, high);
    else
        fprintf(out, "<text x=\"%.1f\" y=\"%d\" class=\"m t\">%lld</text>\n", x + step / 2, HEIGHT - BOTTOM + 16, low);
}

void tv_report_write_histogram(FILE *out, const tv_run_histogram *h)
{
    double used = sum_from(h, 1), most = greatest_used(h);
    if (!(used > 0))
        return;
    fprintf(out, "<figure id=\"bins-%s-%s\">", h->part, h->name);
    write_words(out, h);
    fprintf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s of %s, by size\">\n", WIDTH, HEIGHT, h->name,
            h->part);
    for (int k = 0; k < h->bins - 1; k++)
        write_bar(out, h, k, used, most);
    fprintf(out, "<path class=\"axis\" d=\"M%d %dH%d\"/>\n</svg>\n</figure>\n", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT);
}
