// The ops that move the most memory in a step, besides the products, at the sizes of large models: against the copy of a large array,
// timed in the same run.
#include <string.h>

#include "base/tensor.h"
#include "bench.h"

enum { CONTEXT = 256, HEAD = 64, GROUP = 32, FLOAT = sizeof(float) };

static tv_status bench_job(const tv_backend *backend, const tv_bench_job *j, double copy_rate, FILE *out)
{
    double seconds;
    TV_TRY(tv_bench_time_job(backend, j, &seconds));
    fprintf(out, "  %-38s %10.4f %9.1f %6.0f%%", j->name, 1e3 * seconds, 1e-9 * j->bytes / seconds,
            100 * j->bytes / seconds / copy_rate);
    if (j->operations > 0)
        fprintf(out, " %9.3f", 1e-12 * j->operations / seconds);
    fprintf(out, "\n");
    return TV_OK;
}

static tv_status begin_table(const tv_backend *backend, const char *what, double *copy_rate, FILE *out)
{
    TV_TRY(tv_bench_copy_rate(backend, copy_rate));
    fprintf(out, "%s of %s; medians of %d rounds\n", what, backend->describe(), TV_BENCH_ROUNDS);
    fprintf(out, "  a large array is copied at %.1f GB/s, read and written, which is the 100%% below\n",
            1e-9 * *copy_rate);
    fprintf(out, "  %-38s %10s %9s %7s %9s\n", "", "ms", "GB/s", "of copy", "TOP/s");
    return TV_OK;
}

static tv_status run_decode(const tv_backend *b, const void *args) { return b->decode(args, NULL); }

tv_status tv_bench_decode(const tv_backend *backend, FILE *out)
{
    tv_bench_pool pool = {.backend = backend};
    int64_t rows = backend->host_memory ? 2048 : 16384,
            cols = backend->host_memory ? 2048 : 6112; // of the large one 1.001e8 weights
    int64_t packed = rows * tv_row_bytes(cols), groups = rows * tv_row_groups(cols, GROUP);
    char name[64];
    double copy_rate;
    TV_TRY(begin_table(backend, "decode", &copy_rate, out));
    tv_decode_args args = {.rows = rows, .cols = cols, .group = GROUP};
    args.T = (const uint8_t *)tv_bench_int8s(&pool, packed, 0, 121); // any bytes up to 242 are trits
    args.E = tv_bench_int8s(&pool, groups, 0, 6);
    args.w8 = tv_bench_zeros(&pool, rows * cols);
    tv_decode_args both = args;
    both.w8t = tv_bench_zeros(&pool, rows * cols);
    double read = (double)(packed + groups), weights = (double)(rows * cols);
    snprintf(name, sizeof name, "w8, %lld x %lld", (long long)rows, (long long)cols);
    tv_bench_job one = {name, run_decode, &args, read + weights, 0},
                 two = {"w8 and its transpose", run_decode, &both, read + 2 * weights, 0};
    tv_status st = pool.status;
    if (st == TV_OK)
        st = bench_job(backend, &one, copy_rate, out);
    if (st == TV_OK)
        st = bench_job(backend, &two, copy_rate, out);
    tv_bench_pool_free(&pool);
    return st;
}

static tv_status run_rows(const tv_backend *b, const void *args) { return b->quantize_rows(args, NULL); }

static tv_status run_rows2(const tv_backend *b, const void *args) { return b->quantize_rows2(args, NULL); }

static tv_status run_channels(const tv_backend *b, const void *args) { return b->quantize_channels(args, NULL); }

static tv_status run_channels2(const tv_backend *b, const void *args) { return b->quantize_channels2(args, NULL); }

// Tokens and width of a benchmark's arrays.
typedef struct size {
    int64_t tokens, width;
} size;

static tv_status quantise_at(const tv_backend *backend, size n, double copy_rate, FILE *out)
{
    tv_bench_pool pool = {.backend = backend};
    int64_t items = n.tokens * n.width;
    float *x = tv_bench_floats(&pool, items, 2.0f), *scale = tv_bench_zeros(&pool, n.tokens * FLOAT);
    int8_t *q = tv_bench_zeros(&pool, items), *low = tv_bench_zeros(&pool, items);
    void *squares = tv_bench_zeros(&pool, n.width * (int64_t)sizeof(int64_t));
    int32_t *fault = tv_bench_zeros(&pool, sizeof *fault);
    tv_quantize_rows_args rows = {
        .rows = n.tokens, .cols = n.width, .qmax = 127, .x = x, .q = q, .scale = scale, .fault = fault};
    tv_quantize_rows2_args rows2 = {
        .rows = n.tokens, .cols = n.width, .x = x, .hi = q, .lo = low, .scale = scale, .fault = fault};
    tv_quantize_channels_args channels = {
        .tokens = n.tokens, .channels = n.width, .x = x, .qt = low, .sumsq = squares, .fault = fault};
    tv_quantize_channels2_args channels2 = {
        .tokens = n.tokens, .channels = n.width, .x = x, .hi = q, .lo = low, .sumsq = squares, .fault = fault};
    tv_quantize_channels_args saved = channels;
    saved.x = NULL, saved.q = q, saved.scale = scale;
    double values = (double)items;
    const tv_bench_job jobs[] = {
        {"rows", run_rows, &rows, 5 * values, 0},
        {"channels of saved rows, transposed", run_channels, &saved, 2 * values, 0},
        {"channels, transposed", run_channels, &channels, 5 * values, 0},
        {"rows in two digits", run_rows2, &rows2, 6 * values, 0},
        {"channels in two digits, transposed", run_channels2, &channels2, 6 * values, 0},
    };
    tv_status st = pool.status;
    fprintf(out, "  %lld tokens, width %lld:\n", (long long)n.tokens, (long long)n.width);
    for (size_t i = 0; st == TV_OK && i < sizeof jobs / sizeof *jobs; i++)
        st = bench_job(backend, &jobs[i], copy_rate, out);
    tv_bench_pool_free(&pool);
    return st;
}

// What `run` does at the sizes that suit the backend's memory.
static tv_status at_sizes(const tv_backend *backend, const char *what,
                          tv_status (*run)(const tv_backend *, size, double, FILE *), FILE *out)
{
    double copy_rate;
    TV_TRY(begin_table(backend, what, &copy_rate, out));
    if (backend->host_memory)
        return run(backend, (size){2048, 512}, copy_rate, out);
    TV_TRY(run(backend, (size){16384, 512}, copy_rate, out));
    return run(backend, (size){65536, 4096}, copy_rate, out);
}

tv_status tv_bench_quantise(const tv_backend *backend, FILE *out)
{
    return at_sizes(backend, "quantise", quantise_at, out);
}

static tv_status run_attention(const tv_backend *b, const void *args) { return b->attention(args, NULL); }

static tv_status run_attention_backward(const tv_backend *b, const void *args)
{
    return b->attention_backward(args, NULL);
}

// Positive floats: scales, maxima and sums of exponentials.
static float *constant(tv_bench_pool *pool, int64_t count, float value)
{
    float *array = tv_bench_zeros(pool, count * FLOAT);
    if (array != NULL)
        pool->status = pool->backend->fill(&(tv_fill_args){.count = count, .value = value, .y = array}, NULL);
    return array;
}

static tv_status attention_at(const tv_backend *backend, size n, double copy_rate, FILE *out)
{
    tv_bench_pool pool = {.backend = backend};
    int64_t items = n.tokens * n.width, heads = n.width / HEAD, scales = n.tokens * heads;
    int8_t *q = tv_bench_int8s(&pool, items, -127, 127), *k = tv_bench_int8s(&pool, items, -127, 127);
    int8_t *v = tv_bench_int8s(&pool, items, -127, 127), *g = tv_bench_int8s(&pool, items, -127, 127);
    float *scale = constant(&pool, scales, 0.01f), *top = constant(&pool, scales, 0),
          *norm = constant(&pool, scales, 1);
    float *dq = tv_bench_zeros(&pool, items * FLOAT), *dk = tv_bench_zeros(&pool, items * FLOAT);
    float *dv = tv_bench_zeros(&pool, items * FLOAT);
    tv_attention_args forward = {n.tokens, heads, HEAD, CONTEXT, q, k, v, scale, scale, scale, dq, top, norm};
    tv_attention_backward_args backward = {n.tokens, heads, HEAD,  CONTEXT, q,    k,  v,  g, scale,
                                           scale,    scale, scale, top,     norm, dq, dk, dv};
    // Token i of a window sees i + 1: on average (CONTEXT + 1) / 2 pairs, each a multiplication and an addition a channel and product.
    double values = (double)items, product = values * (CONTEXT + 1);
    const tv_bench_job jobs[] = {
        {"forward: 2 products", run_attention, &forward, 7 * values, 2 * product},
        {"backward: 5 products", run_attention_backward, &backward, 16 * values, 5 * product},
    };
    tv_status st = pool.status;
    fprintf(out, "  %lld tokens, %lld heads of %d, context %d:\n", (long long)n.tokens, (long long)heads, HEAD,
            CONTEXT);
    for (size_t i = 0; st == TV_OK && i < sizeof jobs / sizeof *jobs; i++)
        st = bench_job(backend, &jobs[i], copy_rate, out);
    tv_bench_pool_free(&pool);
    return st;
}

tv_status tv_bench_attention(const tv_backend *backend, FILE *out)
{
    return at_sizes(backend, "attention", attention_at, out);
}
