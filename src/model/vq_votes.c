// A unit's votes to the rows' owners, and what a step makes of them.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"
#include "model/linear.h"
#include "model/vq.h"

enum { USAGE_START = 2 }; // of a row that starts again: it lasts two halvings without use

static tv_status make_room(tv_vq *vq, const tv_backend *backend, int64_t more)
{
    tv_vq_ballots *b = &vq->ballots;
    int64_t size = tv_vq_vote_bytes(vq->cols), capacity = b->count + more + (b->count + more) / 4;
    void *bytes = NULL, *row = NULL;
    if (b->count + more <= b->capacity)
        return TV_OK;
    TV_TRY(backend->sync(NULL)); // kernels may still use the old memory
    tv_status st = backend->alloc((size_t)(capacity * size), &bytes);
    if (st == TV_OK)
        st = backend->alloc((size_t)capacity * sizeof(int32_t), &row);
    if (st == TV_OK && b->count > 0)
        st = backend->copy(bytes, b->bytes, (size_t)(b->count * size), TV_COPY_DEVICE, NULL);
    if (st == TV_OK && b->count > 0)
        st = backend->copy(row, b->row, (size_t)b->count * sizeof(int32_t), TV_COPY_DEVICE, NULL);
    backend->free(st == TV_OK ? b->bytes : bytes);
    backend->free(st == TV_OK ? b->row : row);
    if (st == TV_OK)
        *b = (tv_vq_ballots){bytes, row, b->count, capacity};
    return st;
}

// `count` votes that came here join the step's.
static tv_status keep_votes(tv_vq *vq, tv_unit *unit, const uint8_t *bytes, int64_t count)
{
    const tv_backend *backend = unit->backend;
    const tv_param *param = &unit->params->items[vq->table];
    int64_t size = tv_vq_vote_bytes(vq->cols);
    if (count == 0)
        return TV_OK;
    TV_TRY(make_room(vq, backend, count));
    tv_vq_votes_rows_args rows = {.count = count,
                                  .cols = vq->cols,
                                  .first_row = param->first_row,
                                  .held_rows = param->held_rows,
                                  .bytes = bytes,
                                  .row = vq->ballots.row + vq->ballots.count,
                                  .fault = unit->fault};
    TV_TRY(backend->vq.votes_rows(&rows, unit->stream));
    TV_TRY(backend->copy(vq->ballots.bytes + vq->ballots.count * size, bytes, (size_t)(count * size), TV_COPY_DEVICE,
                         unit->stream));
    vq->ballots.count += count;
    return TV_OK;
}

// The unit's votes, a row each, in vq->votes; how many.
static tv_status make_votes(tv_vq *vq, tv_unit *unit, int64_t *count)
{
    const tv_backend *backend = unit->backend;
    const tv_param *param = &unit->params->items[vq->table];
    int32_t *distinct = (int32_t *)(vq->counts + TV_VQ_DISTINCT), rows = 0;
    tv_quantize_channels_args channels = {.tokens = unit->tokens,
                                          .channels = vq->cols,
                                          .x = vq->row_grad,
                                          .qt = vq->gt,
                                          .sumsq = vq->sumsq,
                                          .fault = unit->fault};
    TV_TRY(backend->quantize_channels(&channels, unit->stream));
    tv_vq_group_args group = {.entries = unit->tokens,
                              .row = vq->row,
                              .order = vq->order,
                              .distinct = vq->distinct,
                              .start = vq->start,
                              .count = distinct};
    TV_TRY(backend->vq.group(&group, unit->stream));
    TV_TRY(backend->copy(&rows, distinct, sizeof rows, TV_COPY_TO_HOST, unit->stream));
    tv_vq_votes_args votes = {.tokens = unit->tokens,
                              .cols = vq->cols,
                              .count = rows,
                              .bits = vq->bits,
                              .gt = vq->gt,
                              .order = vq->order,
                              .distinct = vq->distinct,
                              .start = vq->start,
                              .rule = tv_unit_vote_rule(unit, param),
                              .bytes = vq->votes};
    *count = rows;
    return backend->vq.votes(&votes, unit->stream);
}

// Rows come in order, so each owner's are neighbours.
static tv_status count_owners(tv_vq *vq, tv_unit *unit, int64_t count)
{
    TV_TRY(unit->backend->copy(vq->host_rows, vq->distinct, (size_t)count * sizeof(int32_t), TV_COPY_TO_HOST,
                               unit->stream));
    memset(vq->sent, 0, (size_t)vq->ranks * sizeof *vq->sent);
    for (int64_t i = 0; i < count; i++) {
        int64_t bucket = tv_vq_bucket_of(vq->rows, vq->bits, vq->host_rows[i]);
        int owner = tv_vq_place_of(vq->bits, vq->places, bucket);
        vq->sent[owner]++;
        vq->report.sent_votes += owner != vq->rank;
    }
    return TV_OK;
}

static tv_status send_votes(tv_vq *vq, tv_unit *unit, int64_t count, const char *layer)
{
    tv_arena arena;
    TV_TRY(count_owners(vq, unit, count));
    TV_TRY(tv_vq_exchange_counts(vq, unit, layer));
    int64_t came = tv_vq_total(vq->received, vq->ranks);
    tv_arena_init(&arena, "the votes of a codebook");
    tv_arena_take(&arena, came * tv_vq_vote_bytes(vq->cols), 1);
    TV_TRY(tv_pool_bind(&vq->pool, &arena));
    vq->in = tv_arena_take(&arena, came * tv_vq_vote_bytes(vq->cols), 1);
    vq->out = vq->votes;
    TV_TRY(tv_vq_travel(vq, unit, tv_vq_vote_bytes(vq->cols), 0));
    return keep_votes(vq, unit, vq->in, came);
}

// Sums over windows, added in order: what a unit's tokens add does not depend on who ran it.
static tv_status add_commitment(tv_vq *vq, tv_unit *unit)
{
    int64_t windows = unit->tokens / unit->context;
    double sum = 0;
    tv_row_sum_args sums = {.rows = windows, .cols = unit->context, .x = vq->distance, .out = vq->window_distance};
    TV_TRY(unit->backend->row_sum(&sums, unit->stream));
    TV_TRY(unit->backend->copy(vq->host_distance, vq->window_distance, (size_t)windows * sizeof(float), TV_COPY_TO_HOST,
                               unit->stream));
    for (int64_t w = 0; w < windows; w++)
        sum += (double)vq->host_distance[w];
    vq->unit_commitment[unit->index] = unit->tokens > 0 ? sum / (double)(unit->tokens * vq->cols) : 0;
    return TV_OK;
}

tv_status tv_vq_backward(tv_vq *vq, tv_unit *unit, const float *g, float *z_grad)
{
    int64_t count = 0;
    const tv_param *param = &unit->params->items[vq->table];
    int committed = (unit->losses_off & vq->part->loss_bit) == 0;
    tv_vq_gradient_args gradient = {.tokens = unit->tokens,
                                    .cols = vq->cols,
                                    .base = param->base,
                                    .beta = vq->beta,
                                    .weight = committed ? vq->weight : 0,
                                    .q = vq->q,
                                    .w8 = vq->w8,
                                    .scale = vq->scale,
                                    .g = g,
                                    .row_grad = vq->row_grad,
                                    .z_grad = z_grad,
                                    .loss = vq->distance};
    TV_TRY(unit->backend->vq.gradient(&gradient, unit->stream));
    if (!tv_unit_moves(unit, param))
        return TV_OK;
    TV_TRY(add_commitment(vq, unit));
    TV_TRY(make_votes(vq, unit, &count));
    return vq->ranks == 1 ? keep_votes(vq, unit, vq->votes, count) : send_votes(vq, unit, count, vq->part->name);
}

tv_status tv_vq_before_step(tv_vq *vq, tv_unit *unit)
{
    vq->ballots.count = 0;
    vq->report.sent_queries = vq->report.sent_votes = vq->report.wire_bytes = 0;
    TV_TRY(unit->backend->zero(vq->counts, TV_VQ_COUNTS * sizeof *vq->counts, unit->stream));
    if (!tv_vq_restarts_in(vq, unit->step))
        return TV_OK;
    return unit->backend->zero(vq->far, (size_t)vq->buckets * sizeof *vq->far, unit->stream);
}

static tv_vq_ballot_args describe_ballot(const tv_vq *vq, const tv_unit *unit)
{
    const tv_step_rule *rule = unit->rule;
    const tv_param *param = &unit->params->items[vq->table];
    return (tv_vq_ballot_args){.table = tv_param_table(param),
                               .bytes = vq->ballots.bytes,
                               .usage = unit->params->sides[vq->usage].data,
                               .rule = rule->rule,
                               .combine = rule->combine,
                               .units = rule->units,
                               .quorum = rule->quorum,
                               .threshold = rule->threshold,
                               .eta_q = rule->eta_q,
                               .classic_step = rule->classic_step,
                               .theta_min = rule->theta_min,
                               .eta_e_q = rule->eta_e_q,
                               .exponent_threshold = rule->exponent_threshold,
                               .seed = unit->seed,
                               .tensor_id = param->id,
                               .step = unit->step,
                               .stats = vq->counts + TV_VQ_BALLOT};
}

static tv_status run_ballot(tv_vq *vq, tv_unit *unit, int64_t *touched)
{
    const tv_backend *backend = unit->backend;
    int64_t votes = vq->ballots.count;
    int32_t *distinct = (int32_t *)(vq->counts + TV_VQ_DISTINCT), rows = 0;
    tv_vq_ballot_args ballot = describe_ballot(vq, unit);
    tv_vq_group_args group = {.entries = votes, .row = vq->ballots.row, .count = distinct};
    tv_arena arena;
    tv_arena_init(&arena, "the votes of a codebook's step");
    for (int pass = 0; pass < 2; pass++) {
        ballot.order = group.order = tv_arena_take(&arena, votes, sizeof(int32_t));
        ballot.distinct = group.distinct = tv_arena_take(&arena, votes, sizeof(int32_t));
        ballot.start = group.start = tv_arena_take(&arena, votes + 1, sizeof(int32_t));
        if (pass == 0)
            TV_TRY(tv_pool_bind(&vq->step_pool, &arena));
    }
    TV_TRY(backend->vq.group(&group, unit->stream));
    TV_TRY(backend->copy(&rows, distinct, sizeof rows, TV_COPY_TO_HOST, unit->stream));
    *touched = ballot.count = rows;
    return backend->vq.ballot(&ballot, unit->stream);
}

static tv_status restart_rows(tv_vq *vq, tv_unit *unit)
{
    const tv_param *param = &unit->params->items[vq->table];
    tv_vq_restart_args args = {.table = tv_param_table(param),
                               .first_bucket = vq->first_bucket,
                               .buckets = vq->buckets,
                               .exponent = param->exponent,
                               .usage_start = USAGE_START,
                               .far = vq->far,
                               .usage = unit->params->sides[vq->usage].data,
                               .restarts = vq->counts + TV_VQ_RESTARTS};
    return tv_vq_restarts_in(vq, unit->step) ? unit->backend->vq.restart(&args, unit->stream) : TV_OK;
}

// Usage is counted, for people, when it is halved and every few steps between.
static int counts_usage(const tv_vq *vq, int64_t step)
{
    return (step + 1) % 16 == 0 || (step + 1) % vq->usage_halving == 0;
}

static tv_status age_usage(tv_vq *vq, tv_unit *unit)
{
    tv_vq_usage_args args = {.rows = unit->params->sides[vq->usage].held_rows,
                             .halve = ((int64_t)unit->step + 1) % vq->usage_halving == 0,
                             .usage = unit->params->sides[vq->usage].data,
                             .counts = vq->counts + TV_VQ_USAGE};
    return counts_usage(vq, unit->step) ? unit->backend->vq.usage(&args, unit->stream) : TV_OK;
}

// Share of the rows that have usage, and bits of entropy of the codes, each row's usage taken as 1.5 2^k when it is in
// [2^k, 2^(k+1)), k > 0.
static void describe_usage(tv_vq *vq, const int64_t *usage)
{
    double bits = 0, all = (double)usage[1];
    for (int k = 0; k < 15; k++) {
        double each = k == 0 ? 1.0 : 1.5 * (double)(1 << k);
        bits += (double)usage[2 + k] * each * log2(each);
    }
    vq->report.rows_used = (double)usage[0] / (double)vq->rows;
    vq->report.entropy = all > 0 ? fmax(0, log2(all) - bits / all) : 0;
}

// Sums over the ranks of what each did.
static tv_status collect(tv_vq *vq, tv_unit *unit, int64_t touched)
{
    enum { TOUCHED = TV_VQ_COUNTS, QUERIES, VOTES, WIRE, NUMBERS };
    int64_t n[NUMBERS];
    tv_vq_report *r = &vq->report;
    int64_t units = vq->units_a_rank * vq->ranks;
    double sum = 0;
    TV_TRY(unit->backend->copy(n, vq->counts, TV_VQ_COUNTS * sizeof *n, TV_COPY_TO_HOST, unit->stream));
    n[TV_VQ_DISTINCT] = 0;
    n[TOUCHED] = touched;
    n[QUERIES] = r->sent_queries;
    n[VOTES] = r->sent_votes;
    n[WIRE] = r->wire_bytes;
    if (vq->ranks > 1) {
        TV_TRY(tv_comm_sum_i64(unit->comm, n, NUMBERS, TV_WIRE_METRICS));
        TV_TRY(tv_comm_all_gather_bytes(unit->comm, vq->unit_commitment,
                                        (size_t)vq->units_a_rank * sizeof *vq->unit_commitment, TV_WIRE_METRICS));
    }
    for (int64_t u = 0; u < units; u++)
        sum += vq->unit_commitment[u];
    r->commitment = sum / (double)units;
    r->flips = n[TV_VQ_BALLOT];
    r->moves = n[TV_VQ_BALLOT + 2];
    r->restarts = n[TV_VQ_RESTARTS];
    r->touched = n[TOUCHED];
    r->sent_queries = n[QUERIES];
    r->sent_votes = n[VOTES];
    r->wire_bytes = n[WIRE];
    if (counts_usage(vq, unit->step))
        describe_usage(vq, n + TV_VQ_USAGE);
    return TV_OK;
}

tv_status tv_vq_after_step(tv_vq *vq, tv_unit *unit)
{
    int64_t touched = 0;
    TV_TRY(run_ballot(vq, unit, &touched));
    TV_TRY(restart_rows(vq, unit));
    TV_TRY(age_usage(vq, unit));
    return collect(vq, unit, touched);
}
