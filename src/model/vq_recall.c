// How often the bucketed search finds the row that is best of all, and how far it is when it does not.
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"
#include "kernels/vq_scale.h"
#include "model/vq.h"

enum { QUERIES_MAX = 256 }; // of a rank's batch: each looks through the whole table

// What one batch needs. Each rank looks through its own rows for the queries of all ranks, in the order of ranks, and all judge alike.
typedef struct oracle {
    int64_t queries; // of all ranks
    int probes;
    // backend memory
    int8_t *q;    // [queries, d]
    float *scale; // [queries]
    int32_t *bucket, *item, *start, *row, *score;
    // host memory
    uint8_t *records;    // [ranks, record_bytes]: int64 queries, float scales, int8 queries
    int8_t *host_q;      // [queries, d]
    float *host_scale;   // [queries]
    int32_t *host_score; // [queries, probes]
    int64_t *best;       // [queries] score of the best row of all
    int64_t *found;      // [queries, probes], the same allocation: scores in the buckets, nearest pattern first
} oracle;

static size_t record_bytes(const tv_vq *vq)
{
    return sizeof(int64_t) + QUERIES_MAX * (sizeof(float) + (size_t)vq->cols);
}

static uint8_t *record_scales(uint8_t *record) { return record + sizeof(int64_t); }
static uint8_t *record_queries(uint8_t *record) { return record_scales(record) + QUERIES_MAX * sizeof(float); }

// Scores of the queries with this rank's rows to the host: of its buckets, or of all as one bucket.
static tv_status search(tv_vq *vq, tv_unit *unit, oracle *o, int whole, int64_t *scores)
{
    const tv_backend *backend = unit->backend;
    tv_vq_table table = tv_param_table(&unit->params->items[vq->table]);
    int bits = whole ? 0 : vq->bits, probes = whole ? 1 : o->probes;
    int64_t first_bucket = whole ? 0 : vq->first_bucket, buckets = whole ? 1 : vq->buckets, pairs = o->queries * probes;
    table.bits = bits;
    tv_vq_probes_args look = {
        .tokens = o->queries, .cols = vq->cols, .bits = bits, .probes = probes, .q = o->q, .bucket = o->bucket};
    TV_TRY(backend->vq.probes(&look, unit->stream));
    tv_vq_plan_args plan = {.tokens = o->queries,
                            .probes = probes,
                            .first_bucket = first_bucket,
                            .buckets = buckets,
                            .bucket = o->bucket,
                            .item = o->item,
                            .start = o->start};
    TV_TRY(backend->vq.plan(&plan, unit->stream));
    tv_vq_search_args args = {.table = table,
                              .tokens = o->queries,
                              .probes = probes,
                              .first_bucket = first_bucket,
                              .buckets = buckets,
                              .q = o->q,
                              .scale = o->scale,
                              .item = o->item,
                              .start = o->start,
                              .row = o->row,
                              .score = o->score};
    TV_TRY(backend->vq.search(&args, unit->stream));
    TV_TRY(backend->copy(o->host_score, o->score, (size_t)pairs * sizeof(int32_t), TV_COPY_TO_HOST, unit->stream));
    for (int64_t i = 0; i < pairs; i++)
        scores[i] = o->host_score[i];
    return TV_OK;
}

// Squared distance from a query to a row, in units of 2^2b / 2^16.
static double distance(const tv_vq *vq, const oracle *o, int64_t t, int base, int64_t score)
{
    double squares = 0, units = (double)tv_vq_scale(o->host_scale[t], base);
    for (int64_t c = 0; c < vq->cols; c++)
        squares += (double)o->host_q[t * vq->cols + c] * (double)o->host_q[t * vq->cols + c];
    return units * units * squares - 256.0 * (double)score;
}

static void judge(tv_vq *vq, const oracle *o, int base)
{
    for (int64_t t = 0; t < o->queries; t++) {
        int64_t best = INT32_MIN;
        double nearest = distance(vq, o, t, base, o->best[t]);
        int step = 0;
        for (int j = 0; j < o->probes; j++) {
            int64_t score = o->found[t * o->probes + j];
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

// The first queries of each rank's batch, to all ranks; then one after the other in host_q and host_scale.
static tv_status gather(tv_vq *vq, tv_unit *unit, oracle *o)
{
    size_t bytes = record_bytes(vq), cols = (size_t)vq->cols;
    uint8_t *own = o->records + (size_t)vq->rank * bytes;
    int64_t mine = unit->tokens < QUERIES_MAX ? unit->tokens : QUERIES_MAX;
    memcpy(own, &mine, sizeof mine);
    TV_TRY(unit->backend->copy(record_scales(own), vq->scale, (size_t)mine * sizeof(float), TV_COPY_TO_HOST,
                               unit->stream));
    TV_TRY(unit->backend->copy(record_queries(own), vq->q, (size_t)mine * cols, TV_COPY_TO_HOST, unit->stream));
    if (vq->ranks > 1)
        TV_TRY(tv_comm_all_gather_bytes(unit->comm, o->records, bytes, TV_WIRE_METRICS));
    o->queries = 0;
    for (int r = 0; r < vq->ranks; r++) {
        uint8_t *record = o->records + (size_t)r * bytes;
        int64_t count;
        memcpy(&count, record, sizeof count);
        memcpy(o->host_scale + o->queries, record_scales(record), (size_t)count * sizeof(float));
        memcpy(o->host_q + o->queries * vq->cols, record_queries(record), (size_t)count * cols);
        o->queries += count;
    }
    TV_TRY(unit->backend->copy(o->scale, o->host_scale, (size_t)o->queries * sizeof(float), TV_COPY_TO_DEVICE,
                               unit->stream));
    return unit->backend->copy(o->q, o->host_q, (size_t)o->queries * cols, TV_COPY_TO_DEVICE, unit->stream);
}

static tv_status run(tv_vq *vq, tv_unit *unit, oracle *o)
{
    TV_TRY(gather(vq, unit, o));
    if (o->queries == 0)
        return TV_OK;
    o->found = o->best + o->queries;
    TV_TRY(search(vq, unit, o, 1, o->best));
    TV_TRY(search(vq, unit, o, 0, o->found));
    if (vq->ranks > 1)
        TV_TRY(tv_comm_max_i64(unit->comm, o->best, o->queries * (1 + o->probes), TV_WIRE_METRICS));
    judge(vq, o, unit->params->items[vq->table].base);
    return TV_OK;
}

static tv_status take_memory(const tv_vq *vq, oracle *o, tv_pool *pool)
{
    int64_t queries = (int64_t)vq->ranks * QUERIES_MAX, pairs = queries * o->probes;
    tv_arena arena;
    tv_arena_init(&arena, "the oracle of a codebook");
    for (int pass = 0; pass < 2; pass++) {
        o->q = tv_arena_take(&arena, queries * vq->cols, 1);
        o->scale = tv_arena_take(&arena, queries, sizeof(float));
        o->bucket = tv_arena_take(&arena, pairs, sizeof(int32_t));
        o->item = tv_arena_take(&arena, pairs, sizeof(int32_t));
        o->start = tv_arena_take(&arena, ((int64_t)1 << vq->bits) + 1, sizeof(int32_t));
        o->row = tv_arena_take(&arena, pairs, sizeof(int32_t));
        o->score = tv_arena_take(&arena, pairs, sizeof(int32_t));
        if (pass == 0)
            TV_TRY(tv_pool_bind(pool, &arena));
    }
    o->records = calloc((size_t)vq->ranks, record_bytes(vq));
    o->host_q = calloc((size_t)(queries * vq->cols), 1);
    o->host_scale = calloc((size_t)queries, sizeof *o->host_scale);
    o->host_score = calloc((size_t)pairs, sizeof *o->host_score);
    o->best = calloc((size_t)(queries + pairs), sizeof *o->best);
    return o->records && o->host_q && o->host_scale && o->host_score && o->best
               ? TV_OK
               : TV_FAIL(TV_MEMORY, "no memory for the oracle of a codebook");
}

tv_status tv_vq_ask_oracle(tv_vq *vq, tv_unit *unit)
{
    oracle o = {.probes = vq->bits < 6 ? 1 << vq->bits : TV_VQ_PROBES_MAX};
    tv_status st = take_memory(vq, &o, &vq->ballots.pool);
    if (st == TV_OK)
        st = run(vq, unit, &o);
    free(o.records);
    free(o.host_q);
    free(o.host_scale);
    free(o.host_score);
    free(o.best);
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
