// The mixture of experts: its memory-bound ops against the copy of a large array, a whole layer, a small one; with several ranks the
// exchange of rows against the library's own all-to-all of as many bytes.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "bench.h"
#include "model/moe.h"

enum { CONTEXT = 16, DIGITS = 3, SLOTS = 2, FLOAT = sizeof(float) };

// A layer's sizes.
typedef struct shape {
    int64_t tokens, width, inner, experts;
} shape;

static shape large_shape(const tv_backend *backend)
{
    return backend->host_memory ? (shape){2048, 128, 192, 4} : (shape){65536, 1024, 2048, 16};
}

// ---- ops -------------------------------------------------------------------------------------------------------------------

static tv_status run_gather(const tv_backend *b, const void *args) { return b->rows_gather(args, NULL); }

static tv_status run_pack(const tv_backend *b, const void *args) { return b->rows_pack(args, NULL); }

static tv_status run_unpack(const tv_backend *b, const void *args) { return b->rows_unpack(args, NULL); }

static tv_status run_combine(const tv_backend *b, const void *args) { return b->moe_combine(args, NULL); }

static tv_status run_combine_backward(const tv_backend *b, const void *args)
{
    return b->moe_combine_backward(args, NULL);
}

// Every pair (t, j) has row (t k + j) 7919 modulo the rows: spread out, each once.
static int32_t *spread(tv_bench_pool *pool, int64_t rows)
{
    int32_t *host = malloc((size_t)rows * sizeof *host), *memory = NULL;
    if (host == NULL) {
        pool->status = TV_FAIL(TV_MEMORY, "no memory for %lld rows", (long long)rows);
        return NULL;
    }
    for (int64_t r = 0; r < rows; r++)
        host[r] = (int32_t)(r * 7919 % rows);
    memory = tv_bench_copy(pool, host, rows * (int64_t)sizeof *host);
    free(host);
    return memory;
}

static tv_status bench_ops(const tv_backend *backend, shape n, double copy_rate, FILE *out)
{
    tv_bench_pool pool = {.backend = backend};
    int64_t rows = n.tokens * SLOTS, wire = tv_wire_row_bytes(n.width, DIGITS);
    int32_t *item = spread(&pool, rows), *expert = tv_bench_zeros(&pool, rows * 4), *fault = tv_bench_zeros(&pool, 4);
    int8_t *q = tv_bench_int8s(&pool, n.tokens * n.width, -13, 13), *row_q = tv_bench_zeros(&pool, rows * n.width);
    float *scale = tv_bench_zeros(&pool, n.tokens * FLOAT), *row_scale = tv_bench_zeros(&pool, rows * FLOAT);
    float *gate = tv_bench_zeros(&pool, rows * FLOAT), *y = tv_bench_floats(&pool, n.tokens * n.width, 1.0f);
    uint8_t *bytes = tv_bench_zeros(&pool, rows * wire);
    tv_rows_gather_args gather = {
        .rows = rows, .cols = n.width, .slots = SLOTS, .item = item, .q = q, .scale = scale, .out_q = row_q};
    gather.out_scale = row_scale;
    tv_rows_pack_args pack = {.rows = rows, .cols = n.width, .slots = SLOTS, .digits = DIGITS, .item = item};
    pack.expert = expert, pack.q = q, pack.scale = scale, pack.bytes = bytes;
    tv_rows_unpack_args unpack = {.rows = rows, .cols = n.width, .digits = DIGITS, .bytes = bytes, .q = row_q};
    unpack.scale = row_scale, unpack.fault = fault;
    tv_moe_combine_args combine = {.tokens = n.tokens, .cols = n.width, .slots = SLOTS, .place = item, .gate = gate};
    combine.q = row_q, combine.scale = row_scale, combine.y = y;
    tv_moe_combine_backward_args back = {.tokens = n.tokens, .cols = n.width, .slots = SLOTS, .place = item};
    back.q = row_q, back.scale = row_scale, back.dy = y, back.grad = gate;
    double token_bytes = (double)(n.tokens * n.width), row_bytes = (double)(rows * n.width);
    const tv_bench_job jobs[] = {
        {"gather", run_gather, &gather, 2 * row_bytes, 0},
        {"pack + gather, 3 digits", run_pack, &pack, row_bytes + (double)(rows * wire), 0},
        {"unpack, 3 digits", run_unpack, &unpack, row_bytes + (double)(rows * wire), 0},
        {"combine", run_combine, &combine, row_bytes + 4 * token_bytes, 0},
        {"combine, backward", run_combine_backward, &back, row_bytes + 4 * row_bytes, 0},
    };
    tv_status st = pool.status;
    for (size_t i = 0; st == TV_OK && i < sizeof jobs / sizeof *jobs; i++) {
        double seconds;
        st = tv_bench_time_job(backend, &jobs[i], &seconds);
        if (st == TV_OK)
            fprintf(out, "  %-44s %10.4f ms %9.1f GB/s %5.0f%% of copy\n", jobs[i].name, 1e3 * seconds,
                    1e-9 * jobs[i].bytes / seconds, 100 * jobs[i].bytes / seconds / copy_rate);
    }
    tv_bench_pool_free(&pool);
    return st;
}

// ---- a layer -----------------------------------------------------------------------------------------------------------------

static tv_status create_layer(tv_part **part) { return tv_moe_create(0, part); }

static tv_status bench_layer(const tv_backend *backend, shape n, FILE *out)
{
    const tv_bench_key keys[] = {{"model.width", n.width},
                                 {"model.context", CONTEXT},
                                 {"moe.experts", n.experts},
                                 {"moe.top_k", SLOTS},
                                 {"moe.width", n.inner},
                                 {"train.units", 1},
                                 {NULL, 0}};
    const tv_bench_part_args args = {keys, create_layer, n.tokens};
    tv_bench_part layer;
    double forward = 0, both = 0;
    tv_status st = tv_bench_part_open(&layer, backend, &args);
    if (st == TV_OK)
        st = tv_bench_part_time(&layer, &forward, &both);
    if (st == TV_OK) {
        // Multiplications and additions of the experts and the shared down projection, thrice: forward, grad-x, votes.
        double work = 2.0 * (double)n.tokens * (double)(SLOTS * 2 * n.inner * n.width + n.inner * n.width);
        fprintf(out,
                "  layer, %lld tokens, D %lld, F %lld, %lld experts, top-%d: forward %.3f ms, with backward %.3f ms, "
                "%.1f TOP/s\n",
                (long long)n.tokens, (long long)n.width, (long long)n.inner, (long long)n.experts, SLOTS, 1e3 * forward,
                1e3 * both, 3e-12 * work / both);
    }
    tv_bench_part_close(&layer);
    return st;
}

static tv_status bench_alone(const tv_backend *backend, FILE *out)
{
    double copy_rate;
    shape n = large_shape(backend);
    TV_TRY(tv_bench_copy_rate(backend, &copy_rate));
    fprintf(out, "mixture of experts of %s; medians of %d rounds; a large array is copied at %.1f GB/s\n",
            backend->describe(), TV_BENCH_ROUNDS, 1e-9 * copy_rate);
    TV_TRY(bench_ops(backend, n, copy_rate, out));
    TV_TRY(bench_layer(backend, n, out));
    return bench_layer(backend, (shape){16, 512, 512, 8}, out);
}

// Rows of as many tokens as the large layer has, to their experts' ranks.
static tv_status bench_ranks(tv_comm *comm, const tv_backend *backend, FILE *out)
{
    shape n = large_shape(backend);
    int64_t rows = n.tokens * SLOTS / tv_comm_size(comm);
    const tv_bench_rows rows_there = {
        .what = "rows of experts", .rows = rows, .there = tv_wire_row_bytes(n.width, DIGITS)};
    return tv_bench_exchange_rows(comm, backend, &rows_there, out);
}

tv_status tv_bench_moe(tv_comm *comm, const tv_backend *backend, FILE *out)
{
    return tv_comm_size(comm) == 1 ? bench_alone(backend, out) : bench_ranks(comm, backend, out);
}
