// A table of n-grams: what a unit looks up, its votes, and their ballot.
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "bench.h"

enum { COLS = 64, SLOTS = 4, WORDS = 4096, CONTEXT = 128, FLOAT = sizeof(float), INT = sizeof(int32_t) };

// What all jobs work on.
typedef struct memgram {
    tv_bench_pool pool;
    tv_vq_table table;
    int64_t tokens, entries;
    tv_memgram_hash_args hash;
    tv_vq_group_args group;
    tv_memgram_place_args place;
    tv_memgram_strength_args strength;
    tv_vq_answer_args answer;
    tv_memgram_mix_args mix;
    tv_memgram_back_args back;
    tv_quantize_channels_args channels;
    tv_vq_votes_args votes;
    tv_vq_ballot_args ballot;
    tv_memgram_raise_args raise;
} memgram;

// As the part does it on one rank, with the number of distinct rows on its way to the host.
static tv_status run_look_up(const tv_backend *b, const void *args)
{
    const memgram *m = args;
    int32_t rows;
    TV_TRY(b->memgram.hash(&m->hash, NULL));
    TV_TRY(b->vq.group(&m->group, NULL));
    TV_TRY(b->copy(&rows, m->group.count, sizeof rows, TV_COPY_TO_HOST, NULL));
    TV_TRY(b->memgram.place(&m->place, NULL));
    TV_TRY(b->memgram.strength(&m->strength, NULL));
    TV_TRY(b->vq.answer(&m->answer, NULL));
    return b->memgram.mix(&m->mix, NULL);
}

static tv_status run_votes(const tv_backend *b, const void *args)
{
    const memgram *m = args;
    TV_TRY(b->memgram.back(&m->back, NULL));
    TV_TRY(b->quantize_channels(&m->channels, NULL));
    return b->vq.votes(&m->votes, NULL);
}

static tv_status run_both(const tv_backend *b, const void *args)
{
    TV_TRY(run_look_up(b, args));
    return run_votes(b, args);
}

static tv_status run_ballot(const tv_backend *b, const void *args)
{
    const memgram *m = args;
    TV_TRY(b->vq.ballot(&m->ballot, NULL));
    return b->memgram.raise(&m->raise, NULL);
}

// Text of made-up words of 2 to 9 letters, some of them far more often than others.
static void write_text(int32_t *ids, int64_t count)
{
    tv_rng_key words = {1, TV_RNG_GENERATE, 1, 0}, letters = {1, TV_RNG_GENERATE, 2, 0};
    int64_t at = 0;
    for (uint64_t n = 0; at < count; n++) {
        double u = (double)tv_rng16(words, n) / 65536;
        uint64_t word = (uint64_t)(WORDS * u * u * u), bits = tv_rng64(letters, word);
        int length = 2 + (int)(bits >> 61);
        for (int i = 0; i < length && at < count; i++, bits >>= 6)
            ids[at++] = 'a' + (int32_t)(bits % 26);
        if (at < count)
            ids[at++] = ' ';
    }
}

static void make_look_up(memgram *m, const int32_t *ids)
{
    tv_bench_pool *pool = &m->pool;
    int64_t entries = m->entries, values = m->tokens * COLS;
    m->hash = (tv_memgram_hash_args){
        .tokens = m->tokens, .context = CONTEXT, .rows = m->table.rows, .slots = SLOTS, .orders = {2, 3, 4, 5}};
    m->hash.ids = tv_bench_copy(pool, ids, m->tokens * INT), m->hash.row = tv_bench_zeros(pool, entries * INT);
    m->group = (tv_vq_group_args){.entries = entries, .row = m->hash.row};
    m->group.order = tv_bench_zeros(pool, entries * INT), m->group.distinct = tv_bench_zeros(pool, entries * INT);
    m->group.start = tv_bench_zeros(pool, (entries + 1) * INT), m->group.count = tv_bench_zeros(pool, INT);
    m->place = (tv_memgram_place_args){.entries = entries, .row = m->hash.row, .order = m->group.order};
    m->place.start = m->group.start, m->place.slot = tv_bench_zeros(pool, entries * INT);
    m->strength = (tv_memgram_strength_args){.held_rows = m->table.rows, .row = m->group.distinct};
    m->strength.strength = tv_bench_zeros(pool, m->table.rows), m->strength.out = tv_bench_zeros(pool, entries * INT);
    m->answer = (tv_vq_answer_args){.table = m->table, .row = m->group.distinct, .score = m->strength.out};
    m->answer.bytes = tv_bench_zeros(pool, entries * tv_vq_answer_bytes(COLS));
    m->answer.fault = tv_bench_zeros(pool, INT);
    m->mix = (tv_memgram_mix_args){.tokens = m->tokens, .cols = COLS, .slots = SLOTS, .base = m->table.base};
    m->mix.slot = m->place.slot, m->mix.bytes = m->answer.bytes, m->mix.fault = m->answer.fault;
    m->mix.z = tv_bench_floats(pool, values, 1.0f), m->mix.y = tv_bench_zeros(pool, values * FLOAT);
}

static void make_votes(memgram *m)
{
    tv_bench_pool *pool = &m->pool;
    int64_t entries = m->entries, values = m->tokens * COLS;
    m->back = (tv_memgram_back_args){.tokens = m->tokens, .cols = COLS, .slots = SLOTS, .base = m->table.base};
    m->back.slot = m->place.slot, m->back.bytes = m->answer.bytes, m->back.z = m->mix.z;
    m->back.dy = tv_bench_floats(pool, values, 1.0f), m->back.dz = tv_bench_zeros(pool, values * FLOAT);
    m->back.row_grad = tv_bench_zeros(pool, entries * COLS * FLOAT);
    m->channels = (tv_quantize_channels_args){.tokens = entries, .channels = COLS, .x = m->back.row_grad};
    m->channels.qt = tv_bench_zeros(pool, entries * COLS), m->channels.sumsq = tv_bench_zeros(pool, COLS * INT);
    m->channels.fault = m->answer.fault;
    m->votes = (tv_vq_votes_args){.tokens = entries, .cols = COLS, .gt = m->channels.qt, .order = m->group.order};
    m->votes.distinct = m->group.distinct, m->votes.start = m->group.start;
    m->votes.rule = (tv_vote_rule){.tau = 0.5f, .levels = 1, .vote_bits = 8};
    m->votes.bytes = tv_bench_zeros(pool, entries * tv_vq_vote_bytes(COLS));
    m->ballot = (tv_vq_ballot_args){.table = m->table, .bytes = m->votes.bytes, .units = 1, .quorum = 1};
    m->ballot.distinct = m->group.distinct, m->ballot.stats = tv_bench_zeros(pool, 3 * 8);
    m->ballot.threshold = 64, m->ballot.eta_q = 8 << 16, m->ballot.exponent_threshold = 8;
    m->raise = (tv_memgram_raise_args){.cols = COLS, .distinct = m->group.distinct, .bytes = m->votes.bytes};
    m->raise.strength = (int8_t *)m->strength.strength;
}

static void make_all(memgram *m, int64_t rows)
{
    tv_bench_pool *pool = &m->pool;
    int32_t *ids = malloc((size_t)m->tokens * sizeof *ids);
    if (ids == NULL) {
        pool->status = TV_FAIL(TV_MEMORY, "no memory for a text of %lld bytes", (long long)m->tokens);
        return;
    }
    write_text(ids, m->tokens);
    m->table = (tv_vq_table){.rows = rows,
                             .held_rows = rows,
                             .cols = COLS,
                             .base = -3,
                             .T = tv_bench_zeros(pool, rows * tv_row_bytes(COLS)),
                             .E = tv_bench_zeros(pool, rows),
                             .T_accum = tv_bench_zeros(pool, rows * COLS),
                             .E_accum = tv_bench_zeros(pool, rows)};
    make_look_up(m, ids);
    make_votes(m);
    free(ids);
}

// The distinct rows of the unit; then one vote a row, as the owner has them.
static tv_status prepare(memgram *m, const tv_backend *backend)
{
    tv_vq_init_args init = {.table = m->table, .threshold = 64, .seed = 1, .tensor_id = 2};
    int32_t rows = 0;
    TV_TRY(backend->vq.init(&init, NULL));
    TV_TRY(run_look_up(backend, m));
    TV_TRY(backend->copy(&rows, m->group.count, sizeof rows, TV_COPY_TO_HOST, NULL));
    m->place.count = m->strength.count = m->answer.count = m->votes.count = m->ballot.count = m->raise.count = rows;
    TV_TRY(run_both(backend, m));
    m->ballot.start = m->ballot.order = m->raise.start = m->raise.order = tv_bench_numbers(&m->pool, rows + 1);
    return m->pool.status;
}

static tv_status time_jobs(memgram *m, const tv_backend *backend, FILE *out)
{
    double entries = (double)m->entries, touched = (double)m->ballot.count, values = (double)m->tokens * COLS;
    double look_up = entries * (4 * 6 + 24) + touched * (14 + 2 * 24) + values * 8;
    double votes = entries * COLS * (4 + 4 + 1 + 1) + values * 12 + touched * 72;
    const tv_bench_job jobs[] = {
        {"look up", run_look_up, m, look_up, 0},
        {"votes of a unit", run_votes, m, votes, 0},
        {"both", run_both, m, look_up + votes, 0},
        {"ballot of its rows", run_ballot, m, touched * (2 * (13 + 1 + COLS + 1 + 1) + 72), 0},
    };
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        double seconds;
        TV_TRY(tv_bench_time_job(backend, &jobs[i], &seconds));
        fprintf(out, "  %-22s %12.4f ms %9.1f GB/s\n", jobs[i].name, 1e3 * seconds, 1e-9 * jobs[i].bytes / seconds);
    }
    return TV_OK;
}

tv_status tv_bench_memgram(const tv_backend *backend, FILE *out)
{
    int64_t rows = backend->host_memory ? 1000000 : 10000000;
    memgram m = {.pool = {.backend = backend}, .tokens = backend->host_memory ? 4096 : 65536};
    m.entries = m.tokens * SLOTS;
    make_all(&m, rows);
    tv_status st = m.pool.status;
    if (st == TV_OK)
        st = prepare(&m, backend);
    if (st == TV_OK) {
        fprintf(out, "n-grams of %lld tokens, %d orders, %lld rows of %d, %lld of them in a unit\n",
                (long long)m.tokens, SLOTS, (long long)rows, COLS, (long long)m.ballot.count);
        st = time_jobs(&m, backend, out);
    }
    tv_bench_pool_free(&m.pool);
    return st;
}
