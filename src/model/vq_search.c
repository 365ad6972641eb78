// Queries to the buckets' holders, and rows back.
#include <string.h>

#include "model/vq.h"

enum { DIGITS = 5 };

// The best row of this rank's buckets for each query; far: also the buckets' farthest queries.
static tv_status search_own(tv_vq *vq, tv_unit *unit, tv_vq_found *found, int want_far)
{
    const tv_backend *backend = unit->backend;
    const tv_param *param = &unit->params->items[vq->table];
    tv_vq_plan_args plan = {.tokens = found->count,
                            .probes = vq->probes,
                            .first_bucket = vq->first_bucket,
                            .buckets = vq->buckets,
                            .bucket = found->bucket,
                            .item = found->item,
                            .start = found->start};
    TV_TRY(backend->vq.plan(&plan, unit->stream));
    tv_vq_search_args search = {.table = tv_param_table(param),
                                .tokens = found->count,
                                .probes = vq->probes,
                                .first_bucket = vq->first_bucket,
                                .buckets = vq->buckets,
                                .q = found->q,
                                .scale = found->scale,
                                .item = found->item,
                                .start = found->start,
                                .row = found->row,
                                .score = found->score};
    TV_TRY(backend->vq.search(&search, unit->stream));
    if (!want_far)
        return TV_OK;
    tv_vq_farthest_args far = {.tokens = found->count,
                               .cols = vq->cols,
                               .probes = vq->probes,
                               .base = param->base,
                               .buckets = vq->buckets,
                               .q = found->q,
                               .scale = found->scale,
                               .unit = found->unit,
                               .item = found->item,
                               .start = found->start,
                               .row = found->row,
                               .score = found->score,
                               .far = vq->far};
    return backend->vq.farthest(&far, unit->stream);
}

tv_status tv_vq_find(tv_vq *vq, tv_unit *unit, tv_vq_found *found, int want_far)
{
    const tv_backend *backend = unit->backend;
    tv_vq_probes_args probes = {.tokens = found->count,
                                .cols = vq->cols,
                                .bits = vq->bits,
                                .probes = vq->probes,
                                .q = found->q,
                                .bucket = found->bucket};
    TV_TRY(backend->vq.probes(&probes, unit->stream));
    TV_TRY(search_own(vq, unit, found, want_far));
    tv_vq_best_args best = {.tokens = found->count,
                            .slots = vq->probes,
                            .row = found->row,
                            .score = found->score,
                            .best_row = found->best_row,
                            .best_score = found->best_score};
    TV_TRY(backend->vq.best(&best, unit->stream));
    tv_vq_answer_args answer = {.table = tv_param_table(&unit->params->items[vq->table]),
                                .count = found->count,
                                .row = found->best_row,
                                .score = found->best_score,
                                .bytes = found->answers,
                                .fault = unit->fault};
    return backend->vq.answer(&answer, unit->stream);
}

// The unit of each query that came, source by source; the host's memory holds those of one.
static tv_status name_units(tv_vq *vq, tv_unit *unit, tv_vq_found *found)
{
    int64_t first = 0;
    for (int r = 0; r < vq->ranks; r++) {
        int32_t number = vq->ranks > 1 ? vq->link.expected_units[r] : (int32_t)unit->index;
        int64_t left = vq->ranks > 1 ? vq->link.received[r] : found->count;
        for (int64_t i = 0; i < left; i++)
            vq->host_rows[i] = number;
        TV_TRY(unit->backend->copy(found->unit + first, vq->host_rows, (size_t)left * sizeof(int32_t),
                                   TV_COPY_TO_DEVICE, unit->stream));
        first += left;
    }
    return TV_OK;
}

// The answers that came, `count` of them, become rows. index: where each place's answer to a token lies; NULL: the t-th.
static tv_status choose_rows(tv_vq *vq, tv_unit *unit, const uint8_t *answers, int64_t count, const int32_t *index)
{
    const tv_backend *backend = unit->backend;
    const tv_param *param = &unit->params->items[vq->table];
    tv_vq_answer_unpack_args unpack = {.count = count,
                                       .cols = vq->cols,
                                       .rows = vq->rows,
                                       .base = param->base,
                                       .mantissa_bits = param->mantissa_bits,
                                       .bytes = answers,
                                       .row = vq->answer_row,
                                       .score = vq->answer_score,
                                       .fault = unit->fault};
    TV_TRY(backend->vq.answer_unpack(&unpack, unit->stream));
    tv_vq_best_args best = {.tokens = unit->tokens,
                            .slots = index != NULL ? vq->places : 1,
                            .index = index,
                            .row = vq->answer_row,
                            .score = vq->answer_score,
                            .best_row = vq->row,
                            .best_from = vq->from};
    TV_TRY(backend->vq.best(&best, unit->stream));
    tv_vq_rows_args rows = {.tokens = unit->tokens,
                            .cols = vq->cols,
                            .base = param->base,
                            .mantissa_bits = param->mantissa_bits,
                            .from = vq->from,
                            .bytes = answers,
                            .w8 = vq->w8,
                            .scale = vq->row_scale,
                            .fault = unit->fault};
    return backend->vq.rows(&rows, unit->stream);
}

static tv_status find_here(tv_vq *vq, tv_unit *unit, int want_far)
{
    tv_vq_found found = vq->found;
    found.count = unit->tokens;
    found.q = vq->q;
    found.scale = vq->scale;
    if (want_far)
        TV_TRY(name_units(vq, unit, &found));
    TV_TRY(tv_vq_find(vq, unit, &found, want_far));
    return choose_rows(vq, unit, found.answers, unit->tokens, NULL);
}

// Which places each query goes to, and how many rows go and come.
static tv_status address_queries(tv_vq *vq, tv_unit *unit)
{
    const tv_backend *backend = unit->backend;
    tv_vq_probes_args probes = {.tokens = unit->tokens,
                                .cols = vq->cols,
                                .bits = vq->bits,
                                .probes = vq->probes,
                                .q = vq->q,
                                .bucket = vq->bucket};
    TV_TRY(backend->vq.probes(&probes, unit->stream));
    tv_vq_send_args send = {.tokens = unit->tokens,
                            .bits = vq->bits,
                            .probes = vq->probes,
                            .places = vq->places,
                            .bucket = vq->bucket,
                            .item = vq->item,
                            .index = vq->index,
                            .counts = vq->place_counts};
    TV_TRY(backend->vq.send(&send, unit->stream));
    memset(vq->link.sent, 0, (size_t)vq->ranks * sizeof *vq->link.sent);
    TV_TRY(backend->copy(vq->link.sent, vq->place_counts, (size_t)vq->places * sizeof *vq->link.sent, TV_COPY_TO_HOST,
                         unit->stream));
    for (int r = 0; r < vq->ranks && unit->training; r++)
        vq->report.sent_queries += r == vq->rank ? 0 : vq->link.sent[r];
    return tv_table_link_counts(&vq->link, unit, vq->part->name);
}

// Buffers for what goes out, what comes in, and the search; either side of an exchange may be the longer one.
static tv_status bind_buffers(tv_vq *vq, tv_vq_found *found)
{
    int64_t out = tv_table_link_total(&vq->link, vq->link.sent), in = tv_table_link_total(&vq->link, vq->link.received);
    int64_t most = out > in ? out : in;
    tv_arena arena;
    tv_arena_init(&arena, "the queries of a codebook");
    for (int pass = 0; pass < 2; pass++) {
        tv_vq_take_found(vq, found, &arena, in);
        vq->link.out = tv_arena_take(&arena, most * tv_wire_row_bytes(vq->cols, DIGITS), 1);
        vq->link.in = tv_arena_take(&arena, most * tv_wire_row_bytes(vq->cols, DIGITS), 1);
        vq->answer_row = tv_arena_take(&arena, out, sizeof(int32_t));
        vq->answer_score = tv_arena_take(&arena, out, sizeof(int32_t));
        if (pass == 0)
            TV_TRY(tv_pool_bind(&vq->pool, &arena));
    }
    return TV_OK;
}

static tv_status find_elsewhere(tv_vq *vq, tv_unit *unit, int want_far)
{
    const tv_backend *backend = unit->backend;
    tv_vq_found found;
    TV_TRY(address_queries(vq, unit));
    TV_TRY(bind_buffers(vq, &found));
    tv_rows_pack_args pack = {.rows = tv_table_link_total(&vq->link, vq->link.sent),
                              .cols = vq->cols,
                              .slots = 1,
                              .digits = DIGITS,
                              .unit = (int32_t)unit->index,
                              .item = vq->item,
                              .q = vq->q,
                              .scale = vq->scale,
                              .bytes = vq->link.out};
    TV_TRY(backend->rows_pack(&pack, unit->stream));
    TV_TRY(tv_table_link_travel(&vq->link, unit, tv_wire_row_bytes(vq->cols, DIGITS), 0));
    tv_rows_unpack_args unpack = {.rows = found.count,
                                  .cols = vq->cols,
                                  .digits = DIGITS,
                                  .bytes = vq->link.in,
                                  .q = found.q,
                                  .scale = found.scale,
                                  .fault = unit->fault};
    TV_TRY(backend->rows_unpack(&unpack, unit->stream));
    if (want_far)
        TV_TRY(name_units(vq, unit, &found));
    TV_TRY(tv_vq_find(vq, unit, &found, want_far));
    uint8_t *home = vq->link.in;
    vq->link.out = found.answers;
    TV_TRY(tv_table_link_travel(&vq->link, unit, tv_vq_answer_bytes(vq->cols), 1));
    return choose_rows(vq, unit, home, tv_table_link_total(&vq->link, vq->link.sent), vq->index);
}

tv_status tv_vq_forward(tv_vq *vq, tv_unit *unit, const float *z)
{
    int want_far = unit->training && tv_vq_restarts_in(vq, unit->step);
    tv_quantize_rows_args quantize = {.rows = unit->tokens,
                                      .cols = vq->cols,
                                      .qmax = TV_VQ_QMAX,
                                      .x = z,
                                      .q = vq->q,
                                      .scale = vq->scale,
                                      .fault = unit->fault};
    TV_TRY(unit->backend->quantize_rows(&quantize, unit->stream));
    if (unit->oracle)
        TV_TRY(tv_vq_ask_oracle(vq, unit));
    return vq->ranks == 1 ? find_here(vq, unit, want_far) : find_elsewhere(vq, unit, want_far);
}
