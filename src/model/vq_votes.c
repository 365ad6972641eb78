// A unit's votes to the rows' owners, and what a step makes of them.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"
#include "model/linear.h"
#include "model/vq.h"

enum { USAGE_START = 2 }; // of a row that starts again: it lasts two halvings without use

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

static tv_status send_votes(tv_vq *vq, tv_unit *unit, int64_t count)
{
    tv_arena arena;
    TV_TRY(unit->backend->copy(vq->host_rows, vq->distinct, (size_t)count * sizeof(int32_t), TV_COPY_TO_HOST,
                               unit->stream));
    vq->report.sent_votes +=
        tv_table_link_address(&vq->link, &unit->params->items[vq->table].spec, vq->host_rows, count);
    TV_TRY(tv_table_link_counts(&vq->link, unit, vq->part->name));
    int64_t came = tv_table_link_total(&vq->link, vq->link.received);
    tv_arena_init(&arena, "the votes of a codebook");
    tv_arena_take(&arena, came * tv_vq_vote_bytes(vq->cols), 1);
    TV_TRY(tv_pool_bind(&vq->pool, &arena));
    vq->link.in = tv_arena_take(&arena, came * tv_vq_vote_bytes(vq->cols), 1);
    vq->link.out = vq->votes;
    TV_TRY(tv_table_link_travel(&vq->link, unit, tv_vq_vote_bytes(vq->cols), 0));
    return tv_table_votes_keep(&vq->ballots, unit, vq->link.in, came);
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
    return vq->ranks == 1 ? tv_table_votes_keep(&vq->ballots, unit, vq->votes, count) : send_votes(vq, unit, count);
}

tv_status tv_vq_before_step(tv_vq *vq, tv_unit *unit)
{
    vq->ballots.count = 0;
    vq->report.sent_queries = vq->report.sent_votes = vq->link.wire_bytes = 0;
    TV_TRY(unit->backend->zero(vq->counts, TV_VQ_COUNTS * sizeof *vq->counts, unit->stream));
    if (!tv_vq_restarts_in(vq, unit->step))
        return TV_OK;
    return unit->backend->zero(vq->far, (size_t)vq->buckets * sizeof *vq->far, unit->stream);
}

static tv_status run_ballot(tv_vq *vq, tv_unit *unit)
{
    tv_table_ballot ballot = {.usage = unit->params->sides[vq->usage].data,
                              .distinct = (int32_t *)(vq->counts + TV_VQ_DISTINCT),
                              .stats = vq->counts + TV_VQ_BALLOT};
    return tv_table_votes_ballot(&vq->ballots, unit, &ballot);
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
static tv_status collect(tv_vq *vq, tv_unit *unit)
{
    enum { TOUCHED = TV_VQ_COUNTS, QUERIES, VOTES, WIRE, NUMBERS };
    int64_t n[NUMBERS];
    tv_vq_report *r = &vq->report;
    int64_t units = vq->units_a_rank * vq->ranks;
    double sum = 0;
    TV_TRY(unit->backend->copy(n, vq->counts, TV_VQ_COUNTS * sizeof *n, TV_COPY_TO_HOST, unit->stream));
    n[TV_VQ_DISTINCT] = 0;
    n[TOUCHED] = vq->ballots.touched;
    n[QUERIES] = r->sent_queries;
    n[VOTES] = r->sent_votes;
    n[WIRE] = vq->link.wire_bytes;
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
    TV_TRY(run_ballot(vq, unit));
    TV_TRY(restart_rows(vq, unit));
    TV_TRY(age_usage(vq, unit));
    return collect(vq, unit);
}
