// A codebook's ops: initial state, the bucketed search, the look through all rows, and from a unit's tokens to moved rows.
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

enum { WIDTH = 64, BUCKET_ROWS = 1024, PROBES = 8, DIGITS = 5, FLOAT = sizeof(float), INT = sizeof(int32_t) };

// What all jobs work on.
typedef struct codebook {
    tv_bench_pool pool;
    tv_vq_table table;
    int64_t tokens, oracle_tokens, buckets;
    tv_vq_init_args init;
    tv_vq_probes_args probes;
    tv_vq_plan_args plan, plan_all;
    tv_vq_search_args search, search_all;
    tv_quantize_channels_args channels;
    tv_vq_group_args group;
    tv_vq_votes_args votes;
    tv_vq_ballot_args ballot;
} codebook;

static tv_status run_init(const tv_backend *b, const void *args)
{
    return b->vq.init(&((const codebook *)args)->init, NULL);
}

static tv_status run_plan(const tv_backend *b, const void *args)
{
    const codebook *c = args;
    TV_TRY(b->vq.probes(&c->probes, NULL));
    return b->vq.plan(&c->plan, NULL);
}

static tv_status run_search(const tv_backend *b, const void *args)
{
    TV_TRY(run_plan(b, args));
    return b->vq.search(&((const codebook *)args)->search, NULL);
}

static tv_status run_oracle(const tv_backend *b, const void *args)
{
    const codebook *c = args;
    TV_TRY(b->vq.plan(&c->plan_all, NULL));
    return b->vq.search(&c->search_all, NULL);
}

static tv_status run_votes(const tv_backend *b, const void *args)
{
    const codebook *c = args;
    TV_TRY(b->quantize_channels(&c->channels, NULL));
    TV_TRY(b->vq.group(&c->group, NULL));
    return b->vq.votes(&c->votes, NULL);
}

static tv_status run_ballot(const tv_backend *b, const void *args)
{
    return b->vq.ballot(&((const codebook *)args)->ballot, NULL);
}

static void make_table(codebook *c, int64_t rows)
{
    tv_bench_pool *pool = &c->pool;
    c->table = (tv_vq_table){.rows = rows,
                             .held_rows = rows,
                             .cols = WIDTH,
                             .bits = tv_vq_bits(rows, BUCKET_ROWS, 0),
                             .base = -3,
                             .T = tv_bench_zeros(pool, rows * tv_row_bytes(WIDTH)),
                             .E = tv_bench_zeros(pool, rows),
                             .T_accum = tv_bench_zeros(pool, rows * WIDTH),
                             .E_accum = tv_bench_zeros(pool, rows)};
    c->init = (tv_vq_init_args){.table = c->table, .threshold = 64, .seed = 1, .tensor_id = 2};
    c->buckets = (int64_t)1 << c->table.bits;
}

// 2^-7 .. 2^-6: of queries up to about 1.
static float *make_scales(tv_bench_pool *pool, int64_t tokens)
{
    float *host = malloc((size_t)tokens * sizeof *host);
    if (host == NULL) {
        pool->status = TV_FAIL(TV_MEMORY, "no memory for %lld scales", (long long)tokens);
        return NULL;
    }
    for (int64_t t = 0; t < tokens; t++)
        host[t] = 0x1p-7f + 0x1p-17f * (float)(t % 1024);
    float *scales = tv_bench_copy(pool, host, tokens * FLOAT);
    free(host);
    return scales;
}

static void make_search(codebook *c)
{
    tv_bench_pool *pool = &c->pool;
    int64_t pairs = c->tokens * PROBES;
    int8_t *q = tv_bench_int8s(pool, c->tokens * WIDTH, -TV_VQ_QMAX, TV_VQ_QMAX);
    float *scale = make_scales(pool, c->tokens);
    int32_t *bucket = tv_bench_zeros(pool, pairs * INT), *item = tv_bench_zeros(pool, pairs * INT);
    int32_t *start = tv_bench_zeros(pool, (c->buckets + 1) * INT), *whole = tv_bench_zeros(pool, c->tokens * INT);
    c->probes = (tv_vq_probes_args){
        .tokens = c->tokens, .cols = WIDTH, .bits = c->table.bits, .probes = PROBES, .q = q, .bucket = bucket};
    c->plan = (tv_vq_plan_args){.tokens = c->tokens, .probes = PROBES, .buckets = c->buckets};
    c->plan.bucket = bucket, c->plan.item = item, c->plan.start = start;
    c->search = (tv_vq_search_args){.table = c->table, .tokens = c->tokens, .probes = PROBES, .buckets = c->buckets};
    c->search.q = q, c->search.scale = scale, c->search.item = item, c->search.start = start;
    c->search.row = tv_bench_zeros(pool, pairs * INT), c->search.score = tv_bench_zeros(pool, pairs * INT);
    c->plan_all = (tv_vq_plan_args){.tokens = c->oracle_tokens, .probes = 1, .buckets = 1};
    c->plan_all.bucket = whole, c->plan_all.item = item, c->plan_all.start = start;
    c->search_all = c->search;
    c->search_all.table.bits = 0;
    c->search_all.tokens = c->oracle_tokens;
    c->search_all.probes = 1;
    c->search_all.buckets = 1;
}

static void make_votes(codebook *c)
{
    tv_bench_pool *pool = &c->pool;
    int64_t tokens = c->tokens;
    int32_t *row = malloc((size_t)tokens * sizeof *row);
    int8_t *gt = tv_bench_zeros(pool, tokens * WIDTH);
    if (row == NULL) {
        pool->status = TV_FAIL(TV_MEMORY, "no memory for %lld rows", (long long)tokens);
        return;
    }
    for (int64_t t = 0; t < tokens; t++) // two tokens a row, spread out
        row[t] = (int32_t)(t / 2 * 104729 % c->table.rows);
    c->channels = (tv_quantize_channels_args){.tokens = tokens, .channels = WIDTH, .qt = gt};
    c->channels.x = tv_bench_floats(pool, tokens * WIDTH, 1.0f);
    c->channels.sumsq = tv_bench_zeros(pool, WIDTH * INT), c->channels.fault = tv_bench_zeros(pool, INT);
    c->group = (tv_vq_group_args){.entries = tokens, .row = tv_bench_copy(pool, row, tokens * INT)};
    c->group.order = tv_bench_zeros(pool, tokens * INT), c->group.distinct = tv_bench_zeros(pool, tokens * INT);
    c->group.start = tv_bench_zeros(pool, (tokens + 1) * INT), c->group.count = tv_bench_zeros(pool, INT);
    c->votes = (tv_vq_votes_args){.tokens = tokens, .cols = WIDTH, .bits = c->table.bits, .gt = gt};
    c->votes.order = c->group.order, c->votes.distinct = c->group.distinct, c->votes.start = c->group.start;
    c->votes.rule = (tv_vote_rule){.tau = 0.5f, .levels = 1, .vote_bits = 8};
    c->votes.bytes = tv_bench_zeros(pool, tokens * tv_vq_vote_bytes(WIDTH));
    c->ballot = (tv_vq_ballot_args){.table = c->table, .bytes = c->votes.bytes, .units = 1, .quorum = 1};
    c->ballot.distinct = c->group.distinct;
    c->ballot.usage = tv_bench_zeros(pool, c->table.rows * 2), c->ballot.stats = tv_bench_zeros(pool, 3 * 8);
    c->ballot.threshold = 64, c->ballot.eta_q = 8 << 16, c->ballot.exponent_threshold = 8;
    free(row);
}

// The distinct rows of the unit; then one vote a row, as the owner has them.
static tv_status prepare(codebook *c, const tv_backend *backend)
{
    int32_t rows = 0;
    TV_TRY(run_init(backend, c));
    TV_TRY(backend->vq.group(&c->group, NULL));
    TV_TRY(backend->copy(&rows, c->group.count, sizeof rows, TV_COPY_TO_HOST, NULL));
    c->votes.count = c->ballot.count = rows;
    TV_TRY(run_votes(backend, c));
    c->ballot.start = c->ballot.order = tv_bench_numbers(&c->pool, rows + 1);
    return c->pool.status;
}

static tv_status time_jobs(codebook *c, const tv_backend *backend, FILE *out)
{
    double rows = (double)c->table.rows, tokens = (double)c->tokens, a_row = 2.0 * WIDTH;
    double touched = (double)c->ballot.count;
    const tv_bench_job jobs[] = {
        {"initial state", run_init, c, rows * (13 + 1 + WIDTH + 1), 0},
        {"buckets of 8 probes", run_plan, c, tokens * (WIDTH + PROBES * 2 * INT), 0},
        {"search, 8 probes", run_search, c, tokens * PROBES * BUCKET_ROWS * 14,
         tokens * PROBES * rows / (double)c->buckets * a_row},
        {"all rows", run_oracle, c, rows * 14, (double)c->oracle_tokens * rows * a_row},
        {"votes of a unit", run_votes, c, tokens * WIDTH * 5, 0},
        {"ballot of its rows", run_ballot, c, touched * (2 * (13 + 1 + WIDTH + 1) + 72), 0},
    };
    const double queries[] = {0, tokens, tokens, (double)c->oracle_tokens, tokens, 0};
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        double seconds;
        TV_TRY(tv_bench_time_job(backend, &jobs[i], &seconds));
        fprintf(out, "  %-22s %8.0f tokens %12.4f ms", jobs[i].name, queries[i], 1e3 * seconds);
        if (jobs[i].operations > 0)
            fprintf(out, " %9.1f Gop/s\n", 1e-9 * jobs[i].operations / seconds);
        else
            fprintf(out, " %9.1f GB/s\n", 1e-9 * jobs[i].bytes / seconds);
    }
    return TV_OK;
}

static tv_status bench_alone(const tv_backend *backend, const tv_config *config, FILE *out)
{
    int64_t rows = backend->host_memory ? 1000000 : 10000000;
    if (config->codebook.rows > 0)
        rows = config->codebook.rows;
    if (rows < PROBES * BUCKET_ROWS)
        return TV_FAIL(TV_CONFIG,
                       "codebook.rows=%lld: the benchmark looks into %d buckets of %d rows; take at least %d rows",
                       (long long)rows, PROBES, BUCKET_ROWS, PROBES * BUCKET_ROWS);
    codebook c = {.pool = {.backend = backend},
                  .tokens = backend->host_memory ? 4096 : 65536,
                  .oracle_tokens = backend->host_memory ? 64 : 65536};
    make_table(&c, rows);
    make_search(&c);
    make_votes(&c);
    tv_status st = c.pool.status;
    if (st == TV_OK)
        st = prepare(&c, backend);
    if (st == TV_OK) {
        fprintf(out, "codebook of %lld x %d, %lld buckets, %lld rows in a unit\n", (long long)rows, WIDTH,
                (long long)c.buckets, (long long)c.ballot.count);
        st = time_jobs(&c, backend, out);
    }
    tv_bench_pool_free(&c.pool);
    return st;
}

// Each of a unit's queries to each rank: what 8 probes come to, less the ranks that a query does not ask.
static tv_status bench_ranks(tv_comm *comm, const tv_backend *backend, FILE *out)
{
    const tv_bench_rows rows = {.what = "queries and answers of a codebook",
                                .rows = backend->host_memory ? 4096 : 65536,
                                .there = tv_wire_row_bytes(WIDTH, DIGITS),
                                .back = tv_vq_answer_bytes(WIDTH)};
    return tv_bench_exchange_rows(comm, backend, &rows, out);
}

tv_status tv_bench_codebook(tv_comm *comm, const tv_backend *backend, const tv_config *config, FILE *out)
{
    return tv_comm_size(comm) == 1 ? bench_alone(backend, config, out) : bench_ranks(comm, backend, out);
}
