#include "model/memgram_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "comm/comm.h"
#include "model/linear.h"

enum { INT = sizeof(int32_t) };

tv_status tv_memgram_table_declare(tv_memgram_table *m, const tv_part *part, tv_params *params, const tv_config *config)
{
    const tv_config_memgram *c = &config->memgram;
    char leaf[32];
    m->rows = c->rows;
    m->decay_every = c->decay_every;
    m->by_strength = c->strength;
    m->bits = tv_vq_bits(c->rows, 1, 0);
    m->slots = (int)c->order_count;
    for (int j = 0; j < m->slots; j++)
        m->orders[j] = (int)c->orders[j];
    tv_tensor_spec table = {.rows = c->rows,
                            .cols = TV_MEMGRAM_COLS,
                            .scale_type = TV_T64,
                            .placement = TV_PLACE_TABLE,
                            .bits = m->bits,
                            .zeros = 1};
    tv_side_spec strength = {
        .group = "memgram", .dtype = TV_I8, .rows = c->rows, .cols = 1, .placement = TV_PLACE_TABLE, .bits = m->bits};
    TV_TRY(tv_part_declare(part, params, m->leaf, &table, &m->table));
    m->ballots.table = m->table;
    snprintf(leaf, sizeof leaf, "%s_strength", m->leaf);
    return tv_part_declare_side(part, params, leaf, &strength, &m->strength);
}

tv_status tv_memgram_table_plan(tv_memgram_table *m, tv_plan *plan)
{
    tv_arena *keep = tv_plan_keep(plan), *scratch = &plan->scratch;
    int64_t entries = plan->tokens * m->slots;
    m->pool.backend = m->ballots.pool.backend = plan->params->backend;
    m->order = tv_arena_take(keep, entries, INT);
    m->distinct = tv_arena_take(keep, entries, INT);
    m->slot = tv_arena_take(keep, entries, INT);
    m->start = tv_arena_take(keep, entries + 1, INT);
    m->answers = tv_arena_take(keep, entries * tv_vq_answer_bytes(TV_MEMGRAM_COLS), 1);
    m->row = tv_arena_take(scratch, entries, INT);
    m->score = tv_arena_take(scratch, entries, INT);
    m->found = tv_arena_take(scratch, 1, INT);
    if (plan->training) {
        m->row_grad = tv_arena_take(scratch, entries * TV_MEMGRAM_COLS, sizeof(float));
        m->gt = tv_arena_take(scratch, entries * TV_MEMGRAM_COLS, 1);
        m->sumsq = tv_arena_take(scratch, TV_MEMGRAM_COLS, INT);
        m->votes = tv_arena_take(scratch, entries * tv_vq_vote_bytes(TV_MEMGRAM_COLS), 1);
        m->counts = tv_arena_take(&plan->saved, TV_MEMGRAM_COUNTS, sizeof *m->counts);
    }
    TV_TRY(tv_table_link_open(&m->link, plan, m->bits, entries));
    if (m->host_rows == NULL)
        m->host_rows = calloc((size_t)entries, sizeof *m->host_rows);
    return m->host_rows != NULL ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for %" PRId64 " n-grams of a unit", entries);
}

void tv_memgram_table_free(tv_memgram_table *m)
{
    tv_table_votes_free(&m->ballots);
    tv_pool_free(&m->pool);
    tv_table_link_close(&m->link);
    free(m->host_rows);
    memset(m, 0, sizeof *m);
}

// ---- forward ---------------------------------------------------------------------------------------------------------------

// Answers of this rank's rows; score has room for a number each.
static tv_status answer_rows(const tv_memgram_table *m, tv_unit *unit, tv_vq_answer_args *answer, int32_t *score)
{
    const tv_param *param = &unit->params->items[m->table];
    tv_memgram_strength_args strength = {.count = answer->count,
                                         .first_row = param->first_row,
                                         .held_rows = param->held_rows,
                                         .row = answer->row,
                                         .strength = m->by_strength ? unit->params->sides[m->strength].data : NULL,
                                         .out = score};
    TV_TRY(unit->backend->memgram.strength(&strength, unit->stream));
    answer->table = tv_param_table(param);
    answer->score = score;
    answer->fault = unit->fault;
    return unit->backend->vq.answer(answer, unit->stream);
}

// Row ids to their owners, answers back.
static tv_status ask_owners(tv_memgram_table *m, tv_unit *unit, const char *layer)
{
    tv_table_link *link = &m->link;
    tv_arena arena;
    int32_t *score = NULL;
    TV_TRY(unit->backend->copy(m->host_rows, m->distinct, (size_t)m->count * INT, TV_COPY_TO_HOST, unit->stream));
    int64_t away = tv_table_link_address(link, &unit->params->items[m->table].spec, m->host_rows, m->count);
    m->report.sent_rows += unit->training ? away : 0;
    TV_TRY(tv_fault_status(TV_FAULT_MEMGRAM_ROWS_POINT, TV_BACKEND));
    TV_TRY(tv_table_link_counts(link, unit, layer));
    tv_vq_answer_args answer = {.count = tv_table_link_total(link, link->received)};
    tv_arena_init(&arena, "the rows of n-grams");
    for (int pass = 0; pass < 2; pass++) {
        link->in = tv_arena_take(&arena, answer.count * INT, 1);
        score = tv_arena_take(&arena, answer.count, INT);
        answer.bytes = tv_arena_take(&arena, answer.count * tv_vq_answer_bytes(TV_MEMGRAM_COLS), 1);
        if (pass == 0)
            TV_TRY(tv_pool_bind(&m->pool, &arena));
    }
    link->out = (uint8_t *)m->distinct;
    TV_TRY(tv_table_link_travel(link, unit, INT, 0));
    answer.row = (const int32_t *)link->in;
    TV_TRY(answer_rows(m, unit, &answer, score));
    link->out = answer.bytes;
    link->in = m->answers;
    return tv_table_link_travel(link, unit, tv_vq_answer_bytes(TV_MEMGRAM_COLS), 1);
}

tv_status tv_memgram_table_look_up(tv_memgram_table *m, tv_unit *unit, const int32_t *ids, const char *layer)
{
    const tv_backend *backend = unit->backend;
    int64_t entries = unit->tokens * m->slots;
    int32_t rows = 0;
    tv_memgram_hash_args hash = {.tokens = unit->tokens,
                                 .context = unit->context,
                                 .rows = m->rows,
                                 .slots = m->slots,
                                 .ids = ids,
                                 .row = m->row};
    memcpy(hash.orders, m->orders, sizeof hash.orders);
    TV_TRY(backend->memgram.hash(&hash, unit->stream));
    tv_vq_group_args group = {.entries = entries,
                              .row = m->row,
                              .order = m->order,
                              .distinct = m->distinct,
                              .start = m->start,
                              .count = m->found};
    TV_TRY(backend->vq.group(&group, unit->stream));
    TV_TRY(backend->copy(&rows, m->found, sizeof rows, TV_COPY_TO_HOST, unit->stream));
    m->count = rows;
    tv_memgram_place_args place = {
        .entries = entries, .count = m->count, .row = m->row, .order = m->order, .start = m->start, .slot = m->slot};
    TV_TRY(backend->memgram.place(&place, unit->stream));
    if (m->link.ranks > 1)
        return ask_owners(m, unit, layer);
    tv_vq_answer_args answer = {.count = m->count, .row = m->distinct, .bytes = m->answers};
    return answer_rows(m, unit, &answer, m->score);
}

tv_status tv_memgram_table_mix(const tv_memgram_table *m, tv_unit *unit, const float *z, float *y, int accumulate)
{
    const tv_param *param = &unit->params->items[m->table];
    tv_memgram_mix_args mix = {.tokens = unit->tokens,
                               .cols = TV_MEMGRAM_COLS,
                               .slots = m->slots,
                               .base = param->base,
                               .mantissa_bits = param->mantissa_bits,
                               .accumulate = accumulate,
                               .slot = m->slot,
                               .bytes = m->answers,
                               .z = z,
                               .y = y,
                               .fault = unit->fault};
    return unit->backend->memgram.mix(&mix, unit->stream);
}

// ---- backward --------------------------------------------------------------------------------------------------------------

// The unit's votes, a row each in the order of distinct, from row_grad.
static tv_status make_votes(tv_memgram_table *m, tv_unit *unit)
{
    const tv_backend *backend = unit->backend;
    int64_t entries = unit->tokens * m->slots;
    tv_quantize_channels_args channels = {.tokens = entries,
                                          .channels = TV_MEMGRAM_COLS,
                                          .x = m->row_grad,
                                          .qt = m->gt,
                                          .sumsq = m->sumsq,
                                          .fault = unit->fault};
    TV_TRY(backend->quantize_channels(&channels, unit->stream));
    tv_vq_votes_args votes = {.tokens = entries,
                              .cols = TV_MEMGRAM_COLS,
                              .count = m->count,
                              .gt = m->gt,
                              .order = m->order,
                              .distinct = m->distinct,
                              .start = m->start,
                              .rule = tv_unit_vote_rule(unit, &unit->params->items[m->table]),
                              .bytes = m->votes};
    return backend->vq.votes(&votes, unit->stream);
}

static tv_status send_votes(tv_memgram_table *m, tv_unit *unit, const char *layer)
{
    tv_table_link *link = &m->link;
    int64_t size = tv_vq_vote_bytes(TV_MEMGRAM_COLS);
    tv_arena arena;
    TV_TRY(unit->backend->copy(m->host_rows, m->distinct, (size_t)m->count * INT, TV_COPY_TO_HOST, unit->stream));
    m->report.sent_votes += tv_table_link_address(link, &unit->params->items[m->table].spec, m->host_rows, m->count);
    TV_TRY(tv_table_link_counts(link, unit, layer));
    int64_t came = tv_table_link_total(link, link->received);
    tv_arena_init(&arena, "the votes on n-grams");
    tv_arena_take(&arena, came * size, 1);
    TV_TRY(tv_pool_bind(&m->pool, &arena));
    link->in = tv_arena_take(&arena, came * size, 1);
    link->out = m->votes;
    TV_TRY(tv_table_link_travel(link, unit, size, 0));
    return tv_table_votes_keep(&m->ballots, unit, link->in, came);
}

tv_status tv_memgram_table_backward(tv_memgram_table *m, tv_unit *unit, const tv_memgram_gradient *gradient,
                                    const char *layer)
{
    const tv_param *param = &unit->params->items[m->table];
    tv_memgram_back_args back = {.tokens = unit->tokens,
                                 .cols = TV_MEMGRAM_COLS,
                                 .slots = m->slots,
                                 .base = param->base,
                                 .mantissa_bits = param->mantissa_bits,
                                 .accumulate = gradient->accumulate,
                                 .slot = m->slot,
                                 .bytes = m->answers,
                                 .z = gradient->z,
                                 .dy = gradient->dy,
                                 .row_grad = m->row_grad,
                                 .dz = gradient->dz};
    TV_TRY(unit->backend->memgram.back(&back, unit->stream));
    if (!tv_unit_moves(unit, param))
        return TV_OK;
    TV_TRY(make_votes(m, unit));
    return m->link.ranks > 1 ? send_votes(m, unit, layer) : tv_table_votes_keep(&m->ballots, unit, m->votes, m->count);
}

// ---- step ------------------------------------------------------------------------------------------------------------------

tv_status tv_memgram_table_before_step(tv_memgram_table *m, tv_unit *unit)
{
    m->ballots.count = 0;
    m->link.wire_bytes = m->report.sent_rows = m->report.sent_votes = 0;
    return unit->backend->zero(m->counts, TV_MEMGRAM_COUNTS * sizeof *m->counts, unit->stream);
}

static int decays(const tv_memgram_table *m, int64_t step) { return (step + 1) % m->decay_every == 0; }

// Strengths are counted, for people, when they decay and every few steps between.
static int counts_strength(const tv_memgram_table *m, int64_t step) { return (step + 1) % 16 == 0 || decays(m, step); }

static tv_status move_strength(tv_memgram_table *m, tv_unit *unit)
{
    const tv_side *side = &unit->params->sides[m->strength];
    tv_memgram_raise_args raise = {.count = m->ballots.touched,
                                   .cols = TV_MEMGRAM_COLS,
                                   .first_row = side->first_row,
                                   .order = m->ballots.order,
                                   .distinct = m->ballots.distinct,
                                   .start = m->ballots.start,
                                   .bytes = m->ballots.bytes,
                                   .strength = side->data};
    TV_TRY(unit->backend->memgram.raise(&raise, unit->stream));
    tv_memgram_decay_args decay = {.rows = side->held_rows,
                                   .halve = decays(m, unit->step),
                                   .strength = side->data,
                                   .counts = m->counts + TV_MEMGRAM_COUNTED};
    return counts_strength(m, unit->step) ? unit->backend->memgram.decay(&decay, unit->stream) : TV_OK;
}

// Sums over the ranks of what each did.
static tv_status collect(tv_memgram_table *m, tv_unit *unit)
{
    enum { TOUCHED = TV_MEMGRAM_COUNTS, ROWS, VOTES, WIRE, NUMBERS };
    int64_t n[NUMBERS];
    tv_memgram_report *r = &m->report;
    TV_TRY(unit->backend->copy(n, m->counts, TV_MEMGRAM_COUNTS * sizeof *n, TV_COPY_TO_HOST, unit->stream));
    n[TV_MEMGRAM_DISTINCT] = 0;
    n[TOUCHED] = m->ballots.touched;
    n[ROWS] = r->sent_rows;
    n[VOTES] = r->sent_votes;
    n[WIRE] = m->link.wire_bytes;
    if (m->link.ranks > 1)
        TV_TRY(tv_comm_sum_i64(unit->comm, n, NUMBERS, TV_WIRE_METRICS));
    r->flips = n[TV_MEMGRAM_BALLOT];
    r->moves = n[TV_MEMGRAM_BALLOT + 2];
    r->touched = n[TOUCHED];
    r->sent_rows = n[ROWS];
    r->sent_votes = n[VOTES];
    r->wire_bytes = n[WIRE];
    if (counts_strength(m, unit->step)) {
        r->counted = 1;
        memcpy(r->strengths, n + TV_MEMGRAM_COUNTED, sizeof r->strengths);
        r->used = 1 - (double)n[TV_MEMGRAM_COUNTED] / (double)m->rows;
        r->strong = (double)n[TV_MEMGRAM_COUNTED + TV_MEMGRAM_HEALTH - 1] / (double)m->rows;
    }
    return TV_OK;
}

tv_status tv_memgram_table_after_step(tv_memgram_table *m, tv_unit *unit)
{
    tv_table_ballot ballot = {.distinct = (int32_t *)(m->counts + TV_MEMGRAM_DISTINCT),
                              .stats = m->counts + TV_MEMGRAM_BALLOT};
    TV_TRY(tv_table_votes_ballot(&m->ballots, unit, &ballot));
    TV_TRY(move_strength(m, unit));
    return collect(m, unit);
}
