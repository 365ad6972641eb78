// The graph of motifs: a hop in one call beside the ops that define it, edges both ways, and gather and add both ways.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "bench.h"

enum {
    COLS = 64,
    RANK = 16,
    EDGES = 8,
    BASE = -4,
    CODES = 7,
    QMAX = 127,
    FLOAT = sizeof(float),
    INT = sizeof(int32_t)
};

// What all jobs work on.
typedef struct graph {
    tv_bench_pool pool;
    int64_t tokens, motifs, sources, width; // width: of the model
    tv_graph_hop_args hop, keep;            // keep: with what a backward wants
    // the ops of a hop
    tv_graph_decode_args decode;
    tv_quantize_rows_args quantize, quantize_a, quantize_l;
    tv_gemm_args message, update, down, up;
    tv_graph_aggregate_args aggregate;
    tv_graph_scale_args scale;
    tv_graph_aggregate_backward_args backward;
    tv_graph_gather_args gather;
    tv_vq_group_args group;
    tv_graph_gather_backward_args gather_backward;
} graph;

static tv_status run_hop(const tv_backend *b, const void *args)
{
    return b->graph.hop(&((const graph *)args)->hop, NULL);
}

static tv_status run_hop_keep(const tv_backend *b, const void *args)
{
    return b->graph.hop(&((const graph *)args)->keep, NULL);
}

static tv_status run_ops(const tv_backend *b, const void *args)
{
    const graph *g = args;
    TV_TRY(b->graph.decode(&g->decode, NULL));
    TV_TRY(b->quantize_rows(&g->quantize, NULL));
    TV_TRY(b->gemm(&g->message, NULL));
    TV_TRY(b->graph.aggregate(&g->aggregate, NULL));
    TV_TRY(b->quantize_rows(&g->quantize_a, NULL));
    TV_TRY(b->copy(g->update.y, g->decode.x, (size_t)(g->motifs * COLS) * FLOAT, TV_COPY_DEVICE, NULL));
    TV_TRY(b->gemm(&g->update, NULL));
    TV_TRY(b->gemm(&g->down, NULL));
    TV_TRY(b->graph.scale(&g->scale, NULL));
    TV_TRY(b->quantize_rows(&g->quantize_l, NULL));
    return b->gemm(&g->up, NULL);
}

static tv_status run_aggregate(const tv_backend *b, const void *args)
{
    return b->graph.aggregate(&((const graph *)args)->aggregate, NULL);
}

static tv_status run_aggregate_backward(const tv_backend *b, const void *args)
{
    return b->graph.aggregate_backward(&((const graph *)args)->backward, NULL);
}

static tv_status run_gather(const tv_backend *b, const void *args)
{
    return b->graph.gather(&((const graph *)args)->gather, NULL);
}

static tv_status run_gather_backward(const tv_backend *b, const void *args)
{
    return b->graph.gather_backward(&((const graph *)args)->gather_backward, NULL);
}

// Host memory that make_all frees; after a failure NULL.
static void *host_ints(tv_bench_pool *pool, int64_t count)
{
    int32_t *ints = calloc((size_t)count + 1, sizeof *ints);
    if (ints == NULL)
        pool->status = TV_FAIL(TV_MEMORY, "no memory for %lld numbers", (long long)count);
    return ints;
}

static uint8_t *make_answers(tv_bench_pool *pool, int64_t count)
{
    int64_t size = tv_vq_answer_bytes(COLS), packed = (COLS + 4) / 5;
    uint8_t *host = host_ints(pool, count * size / INT), *bytes = NULL;
    tv_rng_key key = {1, TV_RNG_GENERATE, 3, 0};
    for (int64_t i = 0; host != NULL && i < count; i++) {
        int32_t row = (int32_t)i;
        memcpy(host + i * size, &row, sizeof row);
        for (int64_t k = 0; k < packed; k++) // pad digits are 1
            host[i * size + 8 + k] = (uint8_t)(k + 1 == packed ? 120 + tv_rng16(key, (uint64_t)(i * packed + k)) % 3
                                                               : tv_rng16(key, (uint64_t)(i * packed + k)) % 243);
        host[i * size + 8 + packed] = (uint8_t)(int8_t)(BASE + tv_rng16(key, (uint64_t)i) % CODES);
    }
    if (host != NULL)
        bytes = tv_bench_copy(pool, host, count * size);
    free(host);
    return bytes;
}

// EDGES edges into each node from any sources, and the same by source.
static void make_edges(graph *g)
{
    tv_bench_pool *pool = &g->pool;
    int64_t edges = g->motifs * EDGES;
    int32_t *start = host_ints(pool, g->motifs + 1), *source = host_ints(pool, edges), *dst = host_ints(pool, edges);
    int32_t *source_start = host_ints(pool, g->sources + 1), *by_source = host_ints(pool, edges);
    int32_t *next = host_ints(pool, g->sources);
    tv_rng_key key = {1, TV_RNG_GENERATE, 4, 0};
    if (pool->status == TV_OK) {
        for (int64_t e = 0; e < edges; e++) {
            dst[e] = (int32_t)(e / EDGES), start[e / EDGES + 1] = (int32_t)(e / EDGES + 1) * EDGES;
            source[e] = (int32_t)(tv_rng64(key, (uint64_t)e) % (uint64_t)g->sources);
            source_start[source[e] + 1]++;
        }
        for (int64_t u = 0; u < g->sources; u++)
            next[u] = source_start[u], source_start[u + 1] += source_start[u];
        for (int64_t e = 0; e < edges; e++)
            by_source[next[source[e]]++] = (int32_t)e;
        g->hop.start = tv_bench_copy(pool, start, (g->motifs + 1) * INT);
        g->hop.source = tv_bench_copy(pool, source, edges * INT);
        g->backward.dst = tv_bench_copy(pool, dst, edges * INT);
        g->backward.source_start = tv_bench_copy(pool, source_start, (g->sources + 1) * INT);
        g->backward.by_source = tv_bench_copy(pool, by_source, edges * INT);
        g->hop.attr = tv_bench_int8s(pool, edges, -1, 1);
    }
    free(start), free(source), free(dst), free(source_start), free(by_source), free(next);
}

static void make_hop(graph *g)
{
    tv_bench_pool *pool = &g->pool;
    int64_t S = g->sources, N = g->motifs;
    tv_graph_hop_args *a = &g->hop;
    *a = (tv_graph_hop_args){.sources = S, .nodes = N, .cols = COLS, .rank = RANK, .base = BASE};
    a->bytes = make_answers(pool, S);
    make_edges(g);
    a->message = a->update = (tv_graph_layer){tv_bench_int8s(pool, COLS * COLS, -8, 8), -7};
    a->lora_down = (tv_graph_layer){tv_bench_int8s(pool, RANK * COLS, -8, 8), -7};
    a->lora_up = (tv_graph_layer){tv_bench_int8s(pool, COLS * RANK, -8, 8), -7};
    a->hop_scale = (tv_graph_layer){tv_bench_int8s(pool, RANK, -8, 8), -3};
    a->y = tv_bench_zeros(pool, N * COLS * FLOAT), a->fault = tv_bench_zeros(pool, INT);
    a->work = tv_bench_zeros(pool, tv_graph_hop_work_bytes(S, N, COLS, RANK));
    g->keep = *a;
    g->keep.q = tv_bench_zeros(pool, S * COLS), g->keep.scale = tv_bench_zeros(pool, S * FLOAT);
    g->keep.qa = tv_bench_zeros(pool, N * COLS), g->keep.scale_a = tv_bench_zeros(pool, N * FLOAT);
    g->keep.ql = tv_bench_zeros(pool, N * RANK), g->keep.scale_l = tv_bench_zeros(pool, N * FLOAT);
}

static tv_gemm_args product(const tv_graph_layer *layer, int64_t n, int64_t reduce, const tv_quantize_rows_args *from)
{
    return (tv_gemm_args){.m = from->rows,
                          .n = n,
                          .reduce = reduce,
                          .a = from->q,
                          .b = layer->w8,
                          .scale = from->scale,
                          .exponent = layer->exponent};
}

// A hop's ops, on its arrays.
static void make_ops(graph *g)
{
    tv_bench_pool *pool = &g->pool;
    const tv_graph_hop_args *a = &g->keep;
    int64_t S = g->sources, N = g->motifs;
    float *x = tv_bench_zeros(pool, S * COLS * FLOAT), *l = tv_bench_zeros(pool, N * RANK * FLOAT);
    float *m = tv_bench_zeros(pool, S * COLS * FLOAT), *sum = tv_bench_zeros(pool, N * COLS * FLOAT);
    g->decode = (tv_graph_decode_args){.count = S, .cols = COLS, .base = BASE, .bytes = a->bytes, .x = x};
    g->decode.fault = a->fault;
    g->quantize = (tv_quantize_rows_args){S, COLS, QMAX, x, a->q, a->scale, a->fault};
    g->quantize_a = (tv_quantize_rows_args){N, COLS, QMAX, sum, a->qa, a->scale_a, a->fault};
    g->quantize_l = (tv_quantize_rows_args){N, RANK, QMAX, l, a->ql, a->scale_l, a->fault};
    g->message = product(&a->message, COLS, COLS, &g->quantize), g->message.y = m;
    g->update = product(&a->update, COLS, COLS, &g->quantize_a);
    g->down = product(&a->lora_down, RANK, COLS, &g->quantize), g->down.m = N, g->down.y = l;
    g->up = product(&a->lora_up, COLS, RANK, &g->quantize_l);
    g->update.y = g->up.y = a->y, g->update.accumulate = g->up.accumulate = 1;
    g->aggregate = (tv_graph_aggregate_args){N, COLS, a->start, a->source, a->attr, m, sum};
    g->scale = (tv_graph_scale_args){N, RANK, a->hop_scale.w8, a->hop_scale.exponent, l, l};
    g->backward.sources = S, g->backward.cols = COLS, g->backward.edges = N * EDGES;
    g->backward.source = a->source, g->backward.attr = a->attr, g->backward.m = m;
    g->backward.da = tv_bench_floats(pool, N * COLS, 1.0f), g->backward.dm = tv_bench_zeros(pool, S * COLS * FLOAT);
    g->backward.attr_grad = tv_bench_zeros(pool, N * EDGES * FLOAT);
}

// Each motif has a token; the others fall to some far more often than to others.
static void make_tokens(graph *g)
{
    tv_bench_pool *pool = &g->pool;
    int64_t values = g->tokens * g->width * FLOAT;
    int32_t *slot = host_ints(pool, g->tokens);
    tv_rng_key key = {1, TV_RNG_GENERATE, 5, 0};
    for (int64_t t = 0; slot != NULL && t < g->tokens; t++) {
        double u = (double)tv_rng16(key, (uint64_t)t) / 65536;
        slot[t * 104729 % g->tokens] = (int32_t)(t < g->motifs ? t : (int64_t)((double)g->motifs * u * u));
    }
    if (slot == NULL)
        return;
    g->gather = (tv_graph_gather_args){.tokens = g->tokens, .width = g->width};
    g->gather.slot = tv_bench_copy(pool, slot, g->tokens * INT);
    g->gather.u = tv_bench_floats(pool, g->motifs * g->width, 1.0f);
    g->gather.x = tv_bench_floats(pool, g->tokens * g->width, 1.0f);
    g->group = (tv_vq_group_args){.entries = g->tokens, .row = g->gather.slot};
    g->group.order = tv_bench_zeros(pool, g->tokens * INT), g->group.distinct = tv_bench_zeros(pool, g->tokens * INT);
    g->group.start = tv_bench_zeros(pool, (g->tokens + 1) * INT), g->group.count = tv_bench_zeros(pool, INT);
    g->gather_backward = (tv_graph_gather_backward_args){.count = g->motifs, .width = g->width};
    g->gather_backward.order = g->group.order, g->gather_backward.start = g->group.start;
    g->gather_backward.dx = tv_bench_zeros(pool, values);
    g->gather_backward.du = tv_bench_zeros(pool, g->motifs * g->width * FLOAT);
    free(slot);
}

// The hop in one call, as its ops, and the ratio.
static tv_status time_hop(const graph *g, const tv_backend *backend, FILE *out)
{
    const tv_bench_job jobs[] = {{"hop, its ops", run_ops, g, 0, 0},
                                 {"hop, one call", run_hop, g, 0, 0},
                                 {"the same, for a backward", run_hop_keep, g, 0, 0}};
    double seconds[3];
    fprintf(out, "hop of %lld nodes from %lld, %d edges each, width %d, rank %d\n", (long long)g->motifs,
            (long long)g->sources, EDGES, COLS, RANK);
    for (int i = 0; i < 3; i++) {
        TV_TRY(tv_bench_time_job(backend, &jobs[i], &seconds[i]));
        fprintf(out, "  %-26s %12.4f ms %8.2fx\n", jobs[i].name, 1e3 * seconds[i], seconds[0] / seconds[i]);
    }
    return TV_OK;
}

static tv_status time_moves(const graph *g, const tv_backend *backend, FILE *out)
{
    double S = (double)g->sources * COLS * FLOAT, N = (double)g->motifs * COLS * FLOAT;
    double edges = (double)g->motifs * EDGES, tokens = (double)g->tokens * (double)g->width * FLOAT;
    double motifs = (double)g->motifs * (double)g->width * FLOAT, rate;
    const tv_bench_job jobs[] = {
        {"messages into nodes", run_aggregate, g, S + N + edges * 5, 0},
        {"their gradient", run_aggregate_backward, g, 2 * S + N + edges * 21, 0},
        {"gather and add", run_gather, g, 2 * tokens + motifs + (double)g->tokens * INT, 0},
        {"their gradient", run_gather_backward, g, tokens + motifs + (double)g->tokens * INT, 0},
    };
    TV_TRY(tv_bench_copy_rate(backend, &rate));
    fprintf(out, "%lld tokens of width %lld, copies %.1f GB/s\n", (long long)g->tokens, (long long)g->width,
            1e-9 * rate);
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        double seconds;
        TV_TRY(tv_bench_time_job(backend, &jobs[i], &seconds));
        fprintf(out, "  %-26s %12.4f ms %9.1f GB/s %5.0f%%\n", jobs[i].name, 1e3 * seconds,
                1e-9 * jobs[i].bytes / seconds, 100 * jobs[i].bytes / seconds / rate);
    }
    return TV_OK;
}

// `times` as many sources as nodes.
static tv_status time_graph(const tv_backend *backend, int times, FILE *out)
{
    int host = backend->host_memory;
    graph g = {.pool = {.backend = backend}, .tokens = host ? 4096 : 65536, .motifs = host ? 1024 : 16384};
    g.sources = times * g.motifs, g.width = host ? 128 : 1024;
    make_hop(&g);
    make_ops(&g);
    if (times == 1)
        make_tokens(&g);
    tv_status st = g.pool.status;
    if (st == TV_OK)
        st = time_hop(&g, backend, out);
    if (st == TV_OK && times == 1)
        st = backend->vq.group(&g.group, NULL);
    if (st == TV_OK && times == 1)
        st = time_moves(&g, backend, out);
    tv_bench_pool_free(&g.pool);
    return st;
}

tv_status tv_bench_graph(const tv_backend *backend, FILE *out)
{
    if (backend->graph.hop == NULL || backend->vq.group == NULL) {
        fprintf(out, "graph: the backend %s has no graph of motifs yet\n", backend->name);
        return TV_OK;
    }
    TV_TRY(time_graph(backend, 2, out));
    return time_graph(backend, 1, out);
}
