// The conversation's cells in double, straight from docs/model.md.
#include "model_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model_oracle.h"

static double *new_doubles(int64_t count)
{
    double *values = calloc((size_t)count, sizeof *values);
    assert_non_null(values);
    return values;
}

static double logistic(double x) { return 1 / (1 + exp(-x)); }

// c of one cell element, and h from it; z its four gates, n apart.
static double cell_c(const double *z, int64_t n, double kept)
{
    return logistic(z[n] + 1) * kept + logistic(z[0]) * tanh(z[2 * n]);
}
static double cell_h(const double *z, int64_t n, double c) { return logistic(z[3 * n]) * tanh(c); }

// One segment: z [11n]; h, c [2n] in place.
static void focus_cells(const double *z, int64_t n, double *h, double *c)
{
    for (int64_t i = 0; i < n; i++) {
        double topic = logistic(z[8 * n + i] - 2);
        double keep = (1 - logistic(z[9 * n + i] - 2)) * (1 - logistic(z[10 * n + i] - 2) / 2);
        double kept_h = keep * h[n + i], kept_c = keep * c[n + i];
        c[i] = cell_c(z + i, n, keep * c[i]);
        h[i] = cell_h(z + i, n, c[i]);
        double moved = cell_c(z + 4 * n + i, n, kept_c);
        c[n + i] = kept_c + topic * (moved - kept_c);
        h[n + i] = kept_h + topic * (cell_h(z + 4 * n + i, n, moved) - kept_h);
    }
}

// input [D + 2n] = the segment's mean and boundary, then h.
static void focus_input(const oracle *o, const double *x, int64_t first, const double *h, double *input)
{
    int64_t width = o->config->model.width, segment = o->config->focus.segment, kind = 0;
    const double *boundary = oracle_weights(o, "boundary");
    memset(input, 0, (size_t)width * sizeof *input);
    for (int64_t t = first; t < first + segment; t++) {
        int inside = t % o->config->model.context > 0;
        kind = o->ids[t] == 256 || kind == 1 ? 1 : inside && o->ids[t] == 10 && o->ids[t - 1] == 10 ? 2 : kind;
        for (int64_t c = 0; c < width; c++) {
            input[c] += x[t * width + c] / (double)segment;
        }
    }
    for (int64_t c = 0; c < width; c++) {
        input[c] += boundary[kind * width + c];
    }
    memcpy(input + width, h, (size_t)(2 * o->config->focus.width) * sizeof *h);
}

// y [D] += lin(code_up, row of the slow state): straight through, as in oracle_codebook. place: of the segment among all.
static void add_code(const oracle *one, const double *slow, int64_t place, int fresh, double *y)
{
    int64_t d = one->config->codebook.width;
    int64_t n = one->config->focus.width;
    double *normed = new_doubles(n), square = 0;
    for (int64_t i = 0; i < n; i++) {
        square += slow[i] * slow[i];
    }
    for (int64_t i = 0; i < n; i++) {
        normed[i] = slow[i] / sqrt(square / (double)n + 1e-5) * oracle_weights(one, "norm")[i];
    }
    double *z = oracle_linear(one, "query", normed), *first = one->queries + 1 + place * d;
    if (fresh) {
        memcpy(first, z, (size_t)d * sizeof *z);
    }
    const double *row = oracle_nearest_row(one, first);
    for (int64_t c = 0; c < d; c++) {
        z[c] += row[c] - first[c];
    }
    double *out = oracle_linear(one, "code_up", z);
    for (int64_t c = 0; c < one->config->model.width; c++) {
        y[c] += out[c];
    }
    free(out);
    free(z);
    free(normed);
}

void oracle_focus(const oracle *o, const double *x, double *y)
{
    int64_t width = o->config->model.width, n = o->config->focus.width, context = o->config->model.context;
    int64_t segment = o->config->focus.segment;
    double *input = new_doubles(width + 2 * n), *h = new_doubles(2 * n), *c = new_doubles(2 * n);
    int fresh = o->queries[0] == 0;
    oracle one = *o;
    one.tokens = 1;
    for (int64_t first = 0; first < o->tokens; first += segment) {
        if (first % context == 0) {
            memset(h, 0, (size_t)(2 * n) * sizeof *h);
            memset(c, 0, (size_t)(2 * n) * sizeof *c);
        }
        double *added = oracle_linear(&one, "up", h);
        if (o->config->focus.codebook_rows > 0) {
            add_code(&one, h + n, first / segment, fresh, added);
        }
        for (int64_t i = 0; i < segment * width; i++) {
            y[first * width + i] = x[first * width + i] + added[i % width];
        }
        focus_input(o, x, first, h, input);
        double *z = oracle_linear(&one, "cells", input);
        focus_cells(z, n, h, c);
        free(z);
        free(added);
    }
    o->queries[0] = 1;
    free(c);
    free(h);
    free(input);
}
