// The graph of motifs: a hop at once and as its pieces, gather and add both ways.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "bench.h"

enum { COLS = 64, RANK = 8, LIST = 8, WIDTH = 512, FLOAT = sizeof(float), INT = sizeof(int32_t) };

// What all jobs work on. x, m, sum, ... lie between the pieces.
typedef struct graph {
    tv_bench_pool pool;
    int64_t tokens, nodes, sources, edges;
    tv_graph_hop_args hop;
    tv_graph_decode_args decode;
    tv_quantize_rows_args quantize[3]; // x, sum, low
    tv_gemm_args message, update, down, up;
    tv_graph_aggregate_args aggregate;
    tv_graph_scale_args scale;
    tv_graph_gather_args gather;
    tv_graph_gather_backward_args gather_backward;
    tv_graph_aggregate_backward_args aggregate_backward;
} graph;

static tv_status run_hop(const tv_backend *b, const void *args)
{
    return b->graph.hop(&((const graph *)args)->hop, NULL);
}

static tv_status run_hop_eval(const tv_backend *b, const void *args)
{
    tv_graph_hop_args hop = ((const graph *)args)->hop;
    hop.q = NULL;
    return b->graph.hop(&hop, NULL);
}

static tv_status run_pieces(const tv_backend *b, const void *args)
{
    const graph *g = args;
    TV_TRY(b->graph.decode(&g->decode, NULL));
    TV_TRY(b->quantize_rows(&g->quantize[0], NULL));
    TV_TRY(b->gemm(&g->message, NULL));
    TV_TRY(b->graph.aggregate(&g->aggregate, NULL));
    TV_TRY(b->quantize_rows(&g->quantize[1], NULL));
    TV_TRY(b->copy(g->update.y, g->decode.x, (size_t)(g->nodes * COLS * FLOAT), TV_COPY_DEVICE, NULL));
    TV_TRY(b->gemm(&g->update, NULL));
    TV_TRY(b->gemm(&g->down, NULL));
    TV_TRY(b->graph.scale(&g->scale, NULL));
    TV_TRY(b->quantize_rows(&g->quantize[2], NULL));
    return b->gemm(&g->up, NULL);
}

static tv_status run_aggregate(const tv_backend *b, const void *args)
{
    return b->graph.aggregate(&((const graph *)args)->aggregate, NULL);
}

static tv_status run_gather(const tv_backend *b, const void *args)
{
    return b->graph.gather(&((const graph *)args)->gather, NULL);
}

static tv_status run_gather_backward(const tv_backend *b, const void *args)
{
    return b->graph.gather_backward(&((const graph *)args)->gather_backward, NULL);
}

static tv_status run_aggregate_backward(const tv_backend *b, const void *args)
{
    return b->graph.aggregate_backward(&((const graph *)args)->aggregate_backward, NULL);
}

// Host arrays of the edges; every node has LIST of them.
typedef struct edges {
    int32_t *start, *source, *dst, *source_start, *by_source;
    int8_t *attr;
} edges;

static int32_t *ints(graph *g, int64_t count)
{
    int32_t *values = calloc((size_t)count + 1, sizeof *values);
    if (values == NULL && g->pool.status == TV_OK)
        g->pool.status = TV_FAIL(TV_MEMORY, "no memory for %lld edges", (long long)count);
    return values;
}

static void write_edges(const graph *g, edges *e)
{
    tv_rng_key key = {1, TV_RNG_GENERATE, 5, 0};
    for (int64_t v = 0; v <= g->nodes; v++)
        e->start[v] = (int32_t)(v * LIST);
    for (int64_t i = 0; i < g->edges; i++) {
        e->source[i] = (int32_t)(tv_rng64(key, (uint64_t)i) % (uint64_t)g->sources);
        e->dst[i] = (int32_t)(i / LIST);
        e->attr[i] = (int8_t)(i % 5 ? 1 : -1);
        e->source_start[e->source[i] + 2]++;
    }
    for (int64_t u = 0; u < g->sources; u++)
        e->source_start[u + 2] += e->source_start[u + 1];
    for (int64_t i = 0; i < g->edges; i++)
        e->by_source[e->source_start[e->source[i] + 1]++] = (int32_t)i;
}

static void give_edges(graph *g)
{
    edges e = {ints(g, g->nodes + 1),   ints(g, g->edges), ints(g, g->edges),
               ints(g, g->sources + 2), ints(g, g->edges), (int8_t *)ints(g, g->edges)};
    if (g->pool.status == TV_OK) {
        write_edges(g, &e);
        g->hop.start = tv_bench_copy(&g->pool, e.start, (g->nodes + 1) * INT);
        g->hop.source = tv_bench_copy(&g->pool, e.source, g->edges * INT);
        g->hop.attr = tv_bench_copy(&g->pool, e.attr, g->edges);
        g->aggregate_backward.dst = tv_bench_copy(&g->pool, e.dst, g->edges * INT);
        g->aggregate_backward.source_start = tv_bench_copy(&g->pool, e.source_start, (g->sources + 1) * INT);
        g->aggregate_backward.by_source = tv_bench_copy(&g->pool, e.by_source, g->edges * INT);
    }
    free(e.start), free(e.source), free(e.dst), free(e.source_start), free(e.by_source), free(e.attr);
}

// Answers of random rows, as the codebook's owner gives them.
static void give_rows(graph *g)
{
    tv_bench_pool *pool = &g->pool;
    tv_vq_table table = {.rows = g->sources,
                         .held_rows = g->sources,
                         .cols = COLS,
                         .base = -3,
                         .T = tv_bench_zeros(pool, g->sources * tv_row_bytes(COLS)),
                         .E = tv_bench_zeros(pool, g->sources)};
    tv_vq_init_args init = {.table = table, .threshold = 64, .seed = 1, .tensor_id = 2};
    const int32_t *rows = tv_bench_numbers(pool, g->sources);
    if (pool->status == TV_OK) {
        tv_vq_answer_args answer = {.table = table,
                                    .count = g->sources,
                                    .row = rows,
                                    .score = tv_bench_zeros(pool, g->sources * INT),
                                    .bytes = tv_bench_zeros(pool, g->sources * tv_vq_answer_bytes(COLS)),
                                    .fault = tv_bench_zeros(pool, INT)};
        g->hop.bytes = answer.bytes;
        g->hop.base = table.base;
        g->hop.fault = answer.fault;
        if (pool->status == TV_OK)
            pool->status = pool->backend->vq.init(&init, NULL);
        if (pool->status == TV_OK)
            pool->status = pool->backend->vq.answer(&answer, NULL);
    }
}

static void make_hop(graph *g)
{
    tv_bench_pool *pool = &g->pool;
    int64_t S = g->sources, N = g->nodes;
    tv_graph_hop_args *hop = &g->hop;
    hop->sources = S, hop->nodes = N, hop->cols = COLS, hop->rank = RANK;
    hop->message = (tv_graph_layer){tv_bench_int8s(pool, COLS * COLS, -8, 8), -6};
    hop->update = (tv_graph_layer){tv_bench_int8s(pool, COLS * COLS, -8, 8), -6};
    hop->lora_down = (tv_graph_layer){tv_bench_int8s(pool, RANK * COLS, -8, 8), -6};
    hop->lora_up = (tv_graph_layer){tv_bench_int8s(pool, RANK * COLS, -8, 8), -6};
    hop->hop_scale = (tv_graph_layer){tv_bench_int8s(pool, RANK, -8, 8), -3};
    hop->y = tv_bench_zeros(pool, N * COLS * FLOAT);
    hop->q = tv_bench_zeros(pool, S * COLS), hop->scale = tv_bench_zeros(pool, S * FLOAT);
    hop->qa = tv_bench_zeros(pool, N * COLS), hop->scale_a = tv_bench_zeros(pool, N * FLOAT);
    hop->ql = tv_bench_zeros(pool, N * RANK), hop->scale_l = tv_bench_zeros(pool, N * FLOAT);
    hop->work = tv_bench_zeros(pool, tv_graph_hop_work_bytes(S, N, COLS, RANK));
}

static tv_gemm_args product(const tv_graph_layer *w, int64_t m, int64_t n, int64_t reduce)
{
    return (tv_gemm_args){.m = m, .n = n, .reduce = reduce, .b = w->w8, .exponent = w->exponent};
}

static tv_quantize_rows_args digits(const float *x, int64_t rows, int64_t cols, int8_t *q, float *scale, int32_t *fault)
{
    return (tv_quantize_rows_args){
        .rows = rows, .cols = cols, .qmax = 127, .x = x, .q = q, .scale = scale, .fault = fault};
}

// The pieces write where nothing of the hop lies.
static void make_pieces(graph *g)
{
    tv_bench_pool *pool = &g->pool;
    const tv_graph_hop_args *hop = &g->hop;
    int64_t S = g->sources, N = g->nodes;
    float *x = tv_bench_zeros(pool, S * COLS * FLOAT), *m = tv_bench_zeros(pool, S * COLS * FLOAT);
    float *sum = tv_bench_zeros(pool, N * COLS * FLOAT), *low = tv_bench_zeros(pool, N * RANK * FLOAT);
    float *y = tv_bench_zeros(pool, N * COLS * FLOAT);
    int8_t *q = tv_bench_zeros(pool, S * COLS), *qa = tv_bench_zeros(pool, N * COLS),
           *ql = tv_bench_zeros(pool, N * RANK);
    float *s = tv_bench_zeros(pool, S * FLOAT), *sa = tv_bench_zeros(pool, N * FLOAT),
          *sl = tv_bench_zeros(pool, N * FLOAT);
    g->decode = (tv_graph_decode_args){
        .count = S, .cols = COLS, .base = hop->base, .bytes = hop->bytes, .x = x, .fault = hop->fault};
    g->quantize[0] = digits(x, S, COLS, q, s, hop->fault);
    g->quantize[1] = digits(sum, N, COLS, qa, sa, hop->fault);
    g->quantize[2] = digits(low, N, RANK, ql, sl, hop->fault);
    g->message = product(&hop->message, S, COLS, COLS);
    g->message.a = q, g->message.scale = s, g->message.y = m;
    g->aggregate = (tv_graph_aggregate_args){
        .nodes = N, .cols = COLS, .start = hop->start, .source = hop->source, .attr = hop->attr, .m = m, .a = sum};
    g->update = product(&hop->update, N, COLS, COLS);
    g->update.a = qa, g->update.scale = sa, g->update.y = y, g->update.accumulate = 1;
    g->down = product(&hop->lora_down, N, RANK, COLS);
    g->down.a = q, g->down.scale = s, g->down.y = low;
    g->scale = (tv_graph_scale_args){
        .nodes = N, .rank = RANK, .w8 = hop->hop_scale.w8, .exponent = hop->hop_scale.exponent, .l = low, .y = low};
    g->up = product(&hop->lora_up, N, COLS, RANK);
    g->up.a = ql, g->up.scale = sl, g->up.y = y, g->up.accumulate = 1;
    tv_graph_aggregate_backward_args *back = &g->aggregate_backward;
    back->sources = S, back->cols = COLS, back->edges = g->edges, back->source = hop->source, back->attr = hop->attr;
    back->m = m, back->da = tv_bench_floats(pool, N * COLS, 1.0f);
    back->dm = tv_bench_zeros(pool, S * COLS * FLOAT), back->attr_grad = tv_bench_zeros(pool, g->edges * FLOAT);
}

// Tokens of motifs in a scrambled order, four each on average.
static void make_gather(graph *g)
{
    tv_bench_pool *pool = &g->pool;
    int64_t values = g->tokens * WIDTH, at = 0;
    int32_t *slot = ints(g, g->tokens), *order = ints(g, g->tokens), *start = ints(g, g->nodes + 1);
    for (int64_t t = 0; pool->status == TV_OK && t < g->tokens; t++)
        slot[t] = (int32_t)((uint64_t)t * 2654435761u % (uint64_t)g->nodes);
    for (int64_t t = 0; pool->status == TV_OK && t < g->tokens; t++)
        start[slot[t] + 1]++;
    for (int64_t i = 0; pool->status == TV_OK && i < g->nodes; i++) {
        at += start[i + 1];
        start[i + 1] = (int32_t)at;
    }
    for (int64_t t = g->tokens; pool->status == TV_OK && t-- > 0;) // backwards, so that each motif's ascend
        order[--start[slot[t] + 1]] = (int32_t)t;
    for (int64_t i = 0; pool->status == TV_OK && i < g->nodes; i++)
        start[i] = start[i + 1];
    if (pool->status == TV_OK) {
        start[g->nodes] = (int32_t)g->tokens;
        g->gather = (tv_graph_gather_args){.tokens = g->tokens, .width = WIDTH};
        g->gather.slot = tv_bench_copy(pool, slot, g->tokens * INT);
        g->gather.u = tv_bench_floats(pool, g->nodes * WIDTH, 1.0f), g->gather.x = tv_bench_floats(pool, values, 1.0f);
        g->gather_backward = (tv_graph_gather_backward_args){.count = g->nodes, .width = WIDTH};
        g->gather_backward.order = tv_bench_copy(pool, order, g->tokens * INT);
        g->gather_backward.start = tv_bench_copy(pool, start, (g->nodes + 1) * INT);
        g->gather_backward.dx = tv_bench_floats(pool, values, 1.0f);
        g->gather_backward.du = tv_bench_zeros(pool, g->nodes * WIDTH * FLOAT);
    }
    free(slot), free(order), free(start);
}

// A time counts only for the right bits.
static tv_status compare(const graph *g, const tv_backend *b)
{
    size_t bytes = (size_t)(g->nodes * COLS * FLOAT);
    TV_TRY(run_hop(b, g));
    TV_TRY(run_pieces(b, g));
    char *one = malloc(bytes), *other = malloc(bytes);
    tv_status st = one && other ? TV_OK : TV_FAIL(TV_MEMORY, "no memory to compare a hop with its pieces");
    if (st == TV_OK)
        st = b->copy(one, g->hop.y, bytes, TV_COPY_TO_HOST, NULL);
    if (st == TV_OK)
        st = b->copy(other, g->update.y, bytes, TV_COPY_TO_HOST, NULL);
    if (st == TV_OK && memcmp(one, other, bytes) != 0)
        st = TV_FAIL(TV_INTERNAL, "backend %s: a hop at once is not its pieces", b->name);
    free(one), free(other);
    return st;
}

static tv_status time_jobs(const graph *g, const tv_backend *b, FILE *out)
{
    double S = (double)g->sources, N = (double)g->nodes, E = (double)g->edges, M = (double)g->tokens, copy = 0;
    double hop = S * (24 + COLS + 4) + E * 5 + N * (COLS * (4 + 1) + RANK + 12);
    const tv_bench_job jobs[] = {
        {"hop at once", run_hop, g, hop, 0},
        {"the same, evaluation", run_hop_eval, g, S * 24 + E * 5 + N * COLS * FLOAT, 0},
        {"hop in pieces", run_pieces, g, hop, 0},
        {"messages", run_aggregate, g, S * COLS * FLOAT + N * COLS * FLOAT + E * 5, 0},
        {"messages, backward", run_aggregate_backward, g, 2 * E * COLS * FLOAT + S * COLS * FLOAT + E * 13, 0},
        {"gather and add", run_gather, g, M * (2 * WIDTH * FLOAT + 4) + N * WIDTH * FLOAT, 0},
        {"its gradient", run_gather_backward, g, M * (WIDTH * FLOAT + 4) + N * WIDTH * FLOAT, 0},
    };
    TV_TRY(tv_bench_copy_rate(b, &copy));
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        double seconds, rate;
        TV_TRY(tv_bench_time_job(b, &jobs[i], &seconds));
        rate = jobs[i].bytes / seconds;
        fprintf(out, "  %-22s %12.4f ms %9.1f GB/s %4.0f%% of a copy\n", jobs[i].name, 1e3 * seconds, 1e-9 * rate,
                100 * rate / copy);
    }
    return TV_OK;
}

tv_status tv_bench_graph(const tv_backend *backend, FILE *out)
{
    graph g = {.pool = {.backend = backend}, .tokens = backend->host_memory ? 4096 : 65536};
    g.nodes = g.tokens / 4;
    g.sources = 2 * g.nodes;
    g.edges = g.nodes * LIST;
    give_edges(&g);
    give_rows(&g);
    make_hop(&g);
    make_pieces(&g);
    make_gather(&g);
    tv_status st = g.pool.status;
    if (st == TV_OK)
        st = compare(&g, backend);
    if (st == TV_OK) {
        fprintf(out, "graph of %lld motifs of %d, %d edges each from %lld; %lld tokens of %d\n", (long long)g.nodes,
                COLS, LIST, (long long)g.sources, (long long)g.tokens, WIDTH);
        st = time_jobs(&g, backend, out);
    }
    tv_bench_pool_free(&g.pool);
    return st;
}
