#include "model/table_votes.h"

static tv_status make_room(tv_table_votes *v, const tv_backend *backend, int64_t size, int64_t more)
{
    int64_t capacity = v->count + more + (v->count + more) / 4;
    void *bytes = NULL, *row = NULL;
    if (v->count + more <= v->capacity)
        return TV_OK;
    TV_TRY(backend->sync(NULL)); // kernels may still use the old memory
    tv_status st = backend->alloc((size_t)(capacity * size), &bytes);
    if (st == TV_OK)
        st = backend->alloc((size_t)capacity * sizeof(int32_t), &row);
    if (st == TV_OK && v->count > 0)
        st = backend->copy(bytes, v->bytes, (size_t)(v->count * size), TV_COPY_DEVICE, NULL);
    if (st == TV_OK && v->count > 0)
        st = backend->copy(row, v->row, (size_t)v->count * sizeof(int32_t), TV_COPY_DEVICE, NULL);
    backend->free(st == TV_OK ? v->bytes : bytes);
    backend->free(st == TV_OK ? v->row : row);
    if (st == TV_OK) {
        v->bytes = bytes;
        v->row = row;
        v->capacity = capacity;
    }
    return st;
}

void tv_table_votes_free(tv_table_votes *votes)
{
    if (votes->pool.backend != NULL) {
        votes->pool.backend->free(votes->bytes);
        votes->pool.backend->free(votes->row);
    }
    tv_pool_free(&votes->pool);
}

tv_status tv_table_votes_keep(tv_table_votes *v, tv_unit *unit, const uint8_t *bytes, int64_t count)
{
    const tv_backend *backend = unit->backend;
    const tv_param *param = &unit->params->items[v->table];
    int64_t size = tv_vq_vote_bytes(param->spec.cols);
    TV_TRY(make_room(v, backend, size, count));
    tv_vq_votes_rows_args rows = {.count = count,
                                  .cols = param->spec.cols,
                                  .first_row = param->first_row,
                                  .held_rows = param->held_rows,
                                  .bytes = bytes,
                                  .row = v->row + v->count,
                                  .fault = unit->fault};
    TV_TRY(backend->vq.votes_rows(&rows, unit->stream));
    TV_TRY(backend->copy(v->bytes + v->count * size, bytes, (size_t)(count * size), TV_COPY_DEVICE, unit->stream));
    v->count += count;
    return TV_OK;
}

static tv_vq_ballot_args describe_ballot(const tv_table_votes *v, const tv_unit *unit, const tv_table_ballot *ballot)
{
    const tv_step_rule *rule = unit->rule;
    const tv_param *param = &unit->params->items[v->table];
    return (tv_vq_ballot_args){.table = tv_param_table(param),
                               .count = v->touched,
                               .order = v->order,
                               .distinct = v->distinct,
                               .start = v->start,
                               .bytes = v->bytes,
                               .usage = ballot->usage,
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
                               .stats = ballot->stats};
}

tv_status tv_table_votes_ballot(tv_table_votes *v, tv_unit *unit, const tv_table_ballot *ballot)
{
    const tv_backend *backend = unit->backend;
    int32_t rows = 0;
    tv_arena arena;
    tv_arena_init(&arena, "the votes of a table's step");
    for (int pass = 0; pass < 2; pass++) {
        v->order = tv_arena_take(&arena, v->count, sizeof(int32_t));
        v->distinct = tv_arena_take(&arena, v->count, sizeof(int32_t));
        v->start = tv_arena_take(&arena, v->count + 1, sizeof(int32_t));
        if (pass == 0)
            TV_TRY(tv_pool_bind(&v->pool, &arena));
    }
    tv_vq_group_args group = {.entries = v->count,
                              .row = v->row,
                              .order = v->order,
                              .distinct = v->distinct,
                              .start = v->start,
                              .count = ballot->distinct};
    TV_TRY(backend->vq.group(&group, unit->stream));
    TV_TRY(backend->copy(&rows, ballot->distinct, sizeof rows, TV_COPY_TO_HOST, unit->stream));
    v->touched = rows;
    tv_vq_ballot_args args = describe_ballot(v, unit, ballot);
    return backend->vq.ballot(&args, unit->stream);
}
