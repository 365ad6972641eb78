// How often the bucketed search finds the row that is best of all, and how far it is when it does not.
#include <stdlib.h>
#include <string.h>

#include "model/vq.h"

enum { QUERIES_MAX = 256 }; // of a batch: each looks through the whole table

// What one batch needs, backend memory but for `host`.
typedef struct oracle {
    int64_t queries;
    int probes;
    int32_t *bucket, *item, *start, *row, *score;
    int32_t *best;  // [queries] host: score of the best row of all
    int32_t *found; // [queries, probes] host: scores in the buckets, nearest pattern first
    int8_t *q;      // [queries, d] host
    float *scale;   // [queries] host
} oracle;

// Scores of the queries in the buckets of a table cut by `bits`, to the host.
static tv_status search(tv_vq *vq, tv_unit *unit, oracle *o, int bits, int probes, int32_t *scores)
{
    const tv_backend *backend = unit->backend;
    tv_vq_table table = tv_param_table(&unit->params->items[vq->table]);
    table.bits = bits;
    tv_vq_probes_args look = {
        .tokens = o->queries, .cols = vq->cols, .bits = bits, .probes = probes, .q = vq->q, .bucket = o->bucket};
    TV_TRY(backend->vq.probes(&look, unit->stream));
    tv_vq_plan_args plan = {.tokens = o->queries,
                            .probes = probes,
                            .buckets = (int64_t)1 << bits,
                            .bucket = o->bucket,
                            .item = o->item,
                            .start = o->start};
    TV_TRY(backend->vq.plan(&plan, unit->stream));
    tv_vq_search_args args = {.table = table,
                              .tokens = o->queries,
                              .probes = probes,
                              .buckets = (int64_t)1 << bits,
                              .q = vq->q,
                              .scale = vq->scale,
                              .item = o->item,
                              .start = o->start,
                              .row = o->row,
                              .score = o->score};
    TV_TRY(backend->vq.search(&args, unit->stream));
    return backend->copy(scores, o->score, (size_t)(o->queries * probes) * sizeof *scores, TV_COPY_TO_HOST,
                         unit->stream);
}

// Squared distance from a query to a row, in units of 2^2b / 2^16.
static double distance(const tv_vq *vq, const oracle *o, int64_t t, int base, int32_t score)
{
    double squares = 0, units = (double)o->scale[t];
    for (int64_t c = 0; c < vq->cols; c++)
        squares += (double)o->q[t * vq->cols + c] * (double)o->q[t * vq->cols + c];
    for (int e = base; e < 8; e++)
        units *= 2;
    for (int e = 8; e < base; e++)
        units /= 2;
    units = units < 1 ? 1 : units > 1023 ? 1023 : units;
    return units * units * squares - 256.0 * (double)score;
}

static void judge(tv_vq *vq, const oracle *o, int base)
{
    for (int64_t t = 0; t < o->queries; t++) {
        int32_t best = INT32_MIN;
        double nearest = distance(vq, o, t, base, o->best[t]);
        int step = 0;
        for (int j = 0; j < o->probes; j++) {
            int32_t score = o->found[t * o->probes + j];
            best = score > best ? score : best;
            if (j + 1 != 1 << step)
                continue;
            vq->recall.hits[step] += best == o->best[t];
            vq->recall.excess[step] += nearest > 0 ? distance(vq, o, t, base, best) / nearest - 1 : 0;
            step++;
        }
    }
    vq->recall.queries += o->queries;
}

static tv_status run(tv_vq *vq, tv_unit *unit, oracle *o)
{
    int base = unit->params->items[vq->table].base;
    TV_TRY(unit->backend->copy(o->q, vq->q, (size_t)(o->queries * vq->cols), TV_COPY_TO_HOST, unit->stream));
    TV_TRY(unit->backend->copy(o->scale, vq->scale, (size_t)o->queries * sizeof(float), TV_COPY_TO_HOST, unit->stream));
    TV_TRY(search(vq, unit, o, 0, 1, o->best));
    TV_TRY(search(vq, unit, o, vq->bits, o->probes, o->found));
    judge(vq, o, base);
    return TV_OK;
}

static tv_status take_memory(const tv_vq *vq, oracle *o, tv_pool *pool)
{
    int64_t pairs = o->queries * o->probes;
    tv_arena arena;
    tv_arena_init(&arena, "the oracle of a codebook");
    for (int pass = 0; pass < 2; pass++) {
        o->bucket = tv_arena_take(&arena, pairs, sizeof(int32_t));
        o->item = tv_arena_take(&arena, pairs, sizeof(int32_t));
        o->start = tv_arena_take(&arena, ((int64_t)1 << vq->bits) + 1, sizeof(int32_t));
        o->row = tv_arena_take(&arena, pairs, sizeof(int32_t));
        o->score = tv_arena_take(&arena, pairs, sizeof(int32_t));
        if (pass == 0)
            TV_TRY(tv_pool_bind(pool, &arena));
    }
    o->best = calloc((size_t)o->queries, sizeof *o->best);
    o->found = calloc((size_t)pairs, sizeof *o->found);
    o->q = calloc((size_t)(o->queries * vq->cols), 1);
    o->scale = calloc((size_t)o->queries, sizeof *o->scale);
    return o->best != NULL && o->found != NULL && o->q != NULL && o->scale != NULL
               ? TV_OK
               : TV_FAIL(TV_MEMORY, "no memory for the oracle of a codebook");
}

tv_status tv_vq_ask_oracle(tv_vq *vq, tv_unit *unit)
{
    oracle o = {.queries = unit->tokens < QUERIES_MAX ? unit->tokens : QUERIES_MAX,
                .probes = vq->bits < 6 ? 1 << vq->bits : TV_VQ_PROBES_MAX};
    if (o.queries == 0)
        return TV_OK;
    tv_status st = take_memory(vq, &o, &vq->ballots.pool);
    if (st == TV_OK)
        st = run(vq, unit, &o);
    free(o.best);
    free(o.found);
    free(o.q);
    free(o.scale);
    return st;
}

void tv_vq_tell_recall(const tv_vq *vq, tv_figures *figures)
{
    static const char *const hits[] = {"recall_1",  "recall_2",  "recall_4", "recall_8",
                                       "recall_16", "recall_32", "recall_64"};
    static const char *const excess[] = {"excess_1",  "excess_2",  "excess_4", "excess_8",
                                         "excess_16", "excess_32", "excess_64"};
    double queries = (double)vq->recall.queries;
    for (int i = 0; i < TV_VQ_RECALLS && i <= vq->bits; i++) {
        tv_figures_add(figures, hits[i], (double)vq->recall.hits[i] / queries);
        tv_figures_add(figures, excess[i], vq->recall.excess[i] / queries);
    }
}
