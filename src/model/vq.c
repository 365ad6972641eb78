#include "model/vq.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

tv_status tv_vq_declare(tv_vq *vq, const tv_part *part, tv_params *params, const tv_config *config, int64_t rows)
{
    const tv_config_codebook *c = &config->codebook;
    memset(vq, 0, sizeof *vq);
    vq->part = part;
    vq->rows = rows;
    vq->cols = c->width;
    vq->bits = tv_vq_bits(rows, c->bucket_rows, c->exact_rows);
    vq->probes = (int)c->probes;
    if (vq->bits < 6 && vq->probes > 1 << vq->bits)
        vq->probes = 1 << vq->bits;
    vq->beta = (float)c->beta;
    vq->weight = (float)config->loss.commitment_weight;
    vq->usage_halving = c->usage_halving;
    vq->restart_every = c->restart_every;
    if (vq->bits > vq->cols)
        return TV_FAIL(TV_CONFIG,
                       "%s: %" PRId64 " rows in buckets of codebook.bucket_rows %" PRId64
                       " need a pattern of %d trits, but codebook.width is %" PRId64
                       "; take larger buckets or a wider row",
                       part->name, rows, c->bucket_rows, vq->bits, vq->cols);
    tv_tensor_spec table = {.rows = rows,
                            .cols = vq->cols,
                            .scale_type = TV_T64,
                            .placement = TV_PLACE_TABLE,
                            .bits = vq->bits,
                            .pattern_bits = vq->bits};
    tv_side_spec usage = {
        .group = "tables", .dtype = TV_I16, .rows = rows, .cols = 1, .placement = TV_PLACE_TABLE, .bits = vq->bits};
    TV_TRY(tv_part_declare(part, params, "table", &table, &vq->table));
    return tv_part_declare_side(part, params, "usage", &usage, &vq->usage);
}

void tv_vq_take_found(const tv_vq *vq, tv_vq_found *found, tv_arena *arena, int64_t count)
{
    int64_t pairs = count * vq->probes;
    found->count = count;
    found->q = tv_arena_take(arena, count * vq->cols, 1);
    found->scale = tv_arena_take(arena, count, sizeof(float));
    found->unit = tv_arena_take(arena, count, sizeof(int32_t));
    found->bucket = tv_arena_take(arena, pairs, sizeof(int32_t));
    found->item = tv_arena_take(arena, pairs, sizeof(int32_t));
    found->start = tv_arena_take(arena, vq->buckets + 1, sizeof(int32_t));
    found->row = tv_arena_take(arena, pairs, sizeof(int32_t));
    found->score = tv_arena_take(arena, pairs, sizeof(int32_t));
    found->best_row = tv_arena_take(arena, count, sizeof(int32_t));
    found->best_score = tv_arena_take(arena, count, sizeof(int32_t));
    found->answers = tv_arena_take(arena, count * tv_vq_answer_bytes(vq->cols), 1);
}

static void take_training(tv_vq *vq, tv_plan *plan)
{
    int64_t tokens = plan->tokens;
    tv_arena *scratch = &plan->scratch;
    vq->row_grad = tv_arena_take(scratch, tokens * vq->cols, sizeof(float));
    vq->distance = tv_arena_take(scratch, tokens, sizeof(float));
    vq->window_distance = tv_arena_take(scratch, tokens, sizeof(float));
    vq->gt = tv_arena_take(scratch, tokens * vq->cols, 1);
    vq->sumsq = tv_arena_take(scratch, vq->cols, sizeof(int32_t));
    vq->order = tv_arena_take(scratch, tokens, sizeof(int32_t));
    vq->distinct = tv_arena_take(scratch, tokens, sizeof(int32_t));
    vq->start = tv_arena_take(scratch, tokens + 1, sizeof(int32_t));
    vq->votes = tv_arena_take(scratch, tokens * tv_vq_vote_bytes(vq->cols), 1);
    vq->far = tv_arena_take(&plan->saved, vq->buckets, sizeof *vq->far);
    vq->counts = tv_arena_take(&plan->saved, TV_VQ_COUNTS, sizeof *vq->counts);
}

static tv_status allocate_host(tv_vq *vq, const tv_plan *plan)
{
    if (vq->host_rows != NULL)
        return TV_OK;
    vq->host_rows = calloc((size_t)plan->tokens, sizeof *vq->host_rows);
    vq->host_distance = calloc((size_t)plan->tokens, sizeof *vq->host_distance);
    vq->unit_commitment = calloc((size_t)(vq->units_a_rank * vq->ranks + 1), sizeof *vq->unit_commitment);
    if (vq->host_rows == NULL || vq->host_distance == NULL || vq->unit_commitment == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for the rows of a codebook's unit of %" PRId64 " tokens", plan->tokens);
    return TV_OK;
}

tv_status tv_vq_plan(tv_vq *vq, tv_plan *plan)
{
    const tv_params *params = plan->params;
    tv_arena *keep = tv_plan_keep(plan), *scratch = &plan->scratch;
    int64_t tokens = plan->tokens, buckets = (int64_t)1 << vq->bits;
    vq->ranks = params->ranks;
    vq->rank = params->rank;
    vq->places = tv_param_places(params, vq->bits);
    vq->units_a_rank = plan->training ? plan->config->train.units / params->ranks : 0;
    vq->first_bucket = vq->rank < vq->places ? tv_vq_place_first(vq->bits, vq->places, vq->rank) : buckets;
    vq->buckets =
        (vq->rank < vq->places ? tv_vq_place_first(vq->bits, vq->places, vq->rank + 1) : buckets) - vq->first_bucket;
    vq->pool.backend = vq->ballots.pool.backend = params->backend;
    vq->ballots.table = vq->table;
    vq->q = tv_arena_take(keep, tokens * vq->cols, 1);
    vq->scale = tv_arena_take(keep, tokens, sizeof(float));
    // A later part may read the rows.
    vq->w8 = tv_arena_take(&plan->saved, tokens * vq->cols, 1);
    vq->row_scale = tv_arena_take(&plan->saved, tokens, sizeof(float));
    vq->row = tv_arena_take(&plan->saved, tokens, sizeof(int32_t));
    vq->tokens = tokens;
    vq->from = tv_arena_take(scratch, tokens, sizeof(int32_t));
    if (vq->ranks == 1) {
        tv_vq_take_found(vq, &vq->found, scratch, tokens);
        vq->answer_row = tv_arena_take(scratch, tokens, sizeof(int32_t));
        vq->answer_score = tv_arena_take(scratch, tokens, sizeof(int32_t));
    } else {
        vq->bucket = tv_arena_take(scratch, tokens * vq->probes, sizeof(int32_t));
        vq->item = tv_arena_take(scratch, tokens * vq->places, sizeof(int32_t));
        vq->index = tv_arena_take(scratch, tokens * vq->places, sizeof(int32_t));
        vq->place_counts = tv_arena_take(scratch, vq->places, sizeof(int64_t));
    }
    if (plan->training)
        take_training(vq, plan);
    TV_TRY(tv_table_link_open(&vq->link, plan, vq->bits, tokens));
    return allocate_host(vq, plan);
}

void tv_vq_free(tv_vq *vq)
{
    tv_table_votes_free(&vq->ballots);
    tv_pool_free(&vq->pool);
    tv_table_link_close(&vq->link);
    free(vq->host_rows);
    free(vq->host_distance);
    free(vq->unit_commitment);
    memset(vq, 0, sizeof *vq);
}

int tv_vq_restarts_in(const tv_vq *vq, int64_t step)
{
    return vq->restart_every > 0 && (step + 1) % vq->restart_every == 0;
}

void tv_vq_tell(const tv_vq *vq, tv_figures *figures)
{
    const tv_vq_report *r = &vq->report;
    if (vq->recall.queries > 0) {
        tv_vq_tell_recall(vq, figures);
        return;
    }
    tv_figures_add(figures, "commitment", r->commitment);
    tv_figures_add(figures, "rows_touched", (double)r->touched);
    tv_figures_add(figures, "flips", (double)r->flips);
    tv_figures_add(figures, "exponent_moves", (double)r->moves);
    tv_figures_add(figures, "restarts", (double)r->restarts);
    tv_figures_add(figures, "rows_used", r->rows_used);
    tv_figures_add(figures, "entropy_bits", r->entropy);
    tv_figures_add(figures, "queries_sent", (double)r->sent_queries);
    tv_figures_add(figures, "votes_sent", (double)r->sent_votes);
    tv_figures_add(figures, "wire_bytes", (double)r->wire_bytes);
}
