// The conversation's cells: their ops against the copy of a large array, and the whole part, whose segments run one after the other.
#include <stdio.h>

#include "bench.h"
#include "model/focus.h"

enum { FLOAT = sizeof(float) };

typedef struct shape {
    int64_t windows, context, segment, width, cell;
} shape;

static shape shape_of(const tv_backend *backend)
{
    return backend->host_memory ? (shape){32, 128, 16, 128, 64} : (shape){128, 512, 32, 1024, 256};
}

static tv_status run_gather(const tv_backend *b, const void *args) { return b->focus.gather(args, NULL); }
static tv_status run_scatter(const tv_backend *b, const void *args) { return b->focus.scatter(args, NULL); }
static tv_status run_cell(const tv_backend *b, const void *args) { return b->focus.cell(args, NULL); }
static tv_status run_back(const tv_backend *b, const void *args) { return b->focus.back(args, NULL); }

static tv_status time_ops(const tv_backend *backend, tv_bench_pool *pool, shape n, double copy_rate, FILE *out)
{
    int64_t segments = n.context / n.segment, rows = segments * n.windows, values = n.windows * n.context * n.width;
    float *x = tv_bench_floats(pool, values, 1.0f), *y = tv_bench_floats(pool, rows * n.width, 1.0f);
    float *state = tv_bench_zeros(pool, 6 * n.windows * 2 * n.cell * FLOAT), *h[6];
    float *z = tv_bench_floats(pool, n.windows * TV_FOCUS_GATES * n.cell, 1.0f);
    float *dz = tv_bench_zeros(pool, n.windows * TV_FOCUS_GATES * n.cell * FLOAT);
    TV_TRY(pool->status);
    for (int i = 0; i < 6; i++)
        h[i] = state + i * n.windows * 2 * n.cell;
    const tv_focus_gather_args gather = {n.windows, n.context, n.segment, segments, n.width,
                                         n.width,   16.0f,     x,         NULL,     y};
    const tv_focus_scatter_args scatter = {n.windows, n.context, n.segment, segments, n.width,
                                           n.width,   16.0f,     y,         x,        NULL};
    const tv_focus_cell_args cell = {n.windows, n.cell, 2 * n.cell, z, h[0], h[1], h[2], h[3], h[4], NULL};
    const tv_focus_back_args back = {n.windows, n.cell, 2 * n.cell, 1, z, h[0], h[1], h[2], NULL, h[3], h[4], h[5], dz};
    double stream = (double)values * FLOAT, of_rows = (double)(rows * n.width) * FLOAT;
    double states = (double)(n.windows * n.cell) * FLOAT;
    const tv_bench_job jobs[] = {
        {"sums of segments", run_gather, &gather, stream + of_rows, 0},
        {"added to segments", run_scatter, &scatter, 2 * stream + of_rows, 0},
        {"cells of a segment", run_cell, &cell, states * (TV_FOCUS_GATES + 2 * 5), 0},
        {"their gradient", run_back, &back, states * (2 * TV_FOCUS_GATES + 2 * 8), 0},
    };
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        double seconds;
        TV_TRY(tv_bench_time_job(backend, &jobs[i], &seconds));
        fprintf(out, "  %-22s %10.4f ms %9.1f GB/s %6.1f %% of a copy\n", jobs[i].name, 1e3 * seconds,
                1e-9 * jobs[i].bytes / seconds, 100 * jobs[i].bytes / seconds / copy_rate);
    }
    return TV_OK;
}

static tv_status time_part(const tv_backend *backend, shape n, FILE *out)
{
    const tv_bench_key keys[] = {{"model.width", n.width},     {"model.context", n.context}, {"focus.width", n.cell},
                                 {"focus.segment", n.segment}, {"train.units", 1},           {NULL, 0}};
    const tv_bench_part_args args = {keys, tv_focus_create, n.windows * n.context};
    tv_bench_part part;
    double forward, both;
    tv_status st = tv_bench_part_open(&part, backend, &args);
    if (st == TV_OK)
        st = tv_bench_part_time(&part, &forward, &both);
    if (st == TV_OK)
        fprintf(out, "  part, %lld tokens in %lld segments a window: forward %.3f ms, with backward %.3f ms\n",
                (long long)args.tokens, (long long)(n.context / n.segment), 1e3 * forward, 1e3 * both);
    tv_bench_part_close(&part);
    return st;
}

tv_status tv_bench_focus(const tv_backend *backend, FILE *out)
{
    shape n = shape_of(backend);
    tv_bench_pool pool = {.backend = backend};
    double copy_rate;
    TV_TRY(tv_bench_copy_rate(backend, &copy_rate));
    fprintf(
        out,
        "cells of width %lld over segments of %lld, D %lld, %lld windows of %lld, of %s; a large array is copied at "
        "%.1f GB/s\n",
        (long long)n.cell, (long long)n.segment, (long long)n.width, (long long)n.windows, (long long)n.context,
        backend->describe(), 1e-9 * copy_rate);
    tv_status st = time_ops(backend, &pool, n, copy_rate, out);
    tv_bench_pool_free(&pool);
    return st == TV_OK ? time_part(backend, n, out) : st;
}
