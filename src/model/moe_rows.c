#include "model/moe_rows.h"

#include <stdlib.h>
#include <string.h>

#include "comm/row_exchange.h"

int64_t tv_moe_rows_most(const tv_moe_rows *rows, int64_t tokens)
{
    int64_t sparse = tokens * rows->slots, small = tokens < rows->dense_tokens ? tokens : rows->dense_tokens;
    return sparse > small * rows->experts ? sparse : small * rows->experts;
}

// Every segment begins on a border, so each may leave up to a pad unused.
static int64_t columns_of(const tv_moe_rows *rows, int64_t count)
{
    return tv_ceil_div(count, TV_SEGMENT_PAD) * TV_SEGMENT_PAD + rows->experts * TV_SEGMENT_PAD;
}

int64_t tv_moe_columns_most(const tv_moe_rows *rows, int64_t tokens)
{
    return columns_of(rows, tv_moe_rows_most(rows, tokens));
}

void tv_moe_rows_init(tv_moe_rows *rows, const tv_config *config)
{
    memset(rows, 0, sizeof *rows);
    rows->experts = config->moe.experts;
    rows->slots = config->moe.top_k;
    rows->digits = (int)config->moe.wire_digits;
    rows->dense_tokens = config->moe.dense_dispatch_max_tokens;
    rows->ranks = 1;
}

void tv_moe_rows_free(tv_moe_rows *rows)
{
    free(rows->host_segments);
    free(rows->sent);
    free(rows->sent_bytes);
    free(rows->expected_units);
    free(rows->counts_buffer);
    memset(rows, 0, sizeof *rows);
}

static tv_status allocate_host(tv_moe_rows *rows)
{
    size_t ranks = (size_t)rows->ranks, experts = (size_t)rows->experts;
    tv_moe_rows_free(&(tv_moe_rows){.host_segments = rows->host_segments,
                                    .sent = rows->sent,
                                    .sent_bytes = rows->sent_bytes,
                                    .expected_units = rows->expected_units,
                                    .counts_buffer = rows->counts_buffer});
    rows->host_segments = calloc(experts, sizeof *rows->host_segments);
    rows->sent = calloc(2 * experts, sizeof *rows->sent);
    rows->sent_bytes = calloc(2 * ranks, sizeof *rows->sent_bytes);
    rows->expected_units = calloc(ranks, sizeof *rows->expected_units);
    rows->counts_buffer =
        calloc((size_t)tv_row_counts_buffer(rows->ranks, rows->experts / rows->ranks), sizeof *rows->counts_buffer);
    if (rows->host_segments == NULL || rows->sent == NULL || rows->sent_bytes == NULL || rows->expected_units == NULL ||
        rows->counts_buffer == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for the row counts of %zu experts on %zu ranks", experts, ranks);
    rows->received = rows->sent + experts;
    rows->received_bytes = rows->sent_bytes + ranks;
    return TV_OK;
}

tv_status tv_moe_rows_plan(tv_moe_rows *rows, tv_plan *plan)
{
    const tv_params *params = plan->params;
    tv_arena *keep = tv_plan_keep(plan);
    rows->ranks = params->expert_ranks;
    rows->place = params->rank % params->expert_ranks;
    rows->first_expert = (int)(rows->place * (rows->experts / rows->ranks));
    rows->units_a_rank = plan->training ? plan->config->train.units / params->ranks : 0;
    rows->segment_count = rows->experts;
    int64_t pairs = plan->tokens * rows->slots, most = rows->ranks == 1 ? tv_moe_rows_most(rows, plan->tokens) : pairs;
    rows->expert = tv_arena_take(keep, pairs, sizeof(int32_t));
    rows->wanted = tv_arena_take(keep, pairs, sizeof(int32_t));
    rows->gate = tv_arena_take(keep, pairs, sizeof(float));
    rows->item = tv_arena_take(keep, most, sizeof(int32_t));
    rows->home = tv_arena_take(keep, rows->experts, sizeof(tv_segment));
    rows->segments = rows->ranks == 1 ? rows->home : tv_arena_take(keep, rows->experts, sizeof(tv_segment));
    rows->owner_item = rows->ranks == 1 ? rows->item : NULL;
    return allocate_host(rows);
}

void tv_moe_rows_take_wire(tv_moe_rows *rows, tv_arena *arena, int64_t cols)
{
    if (rows->ranks == 1)
        return;
    // Either side may be the sender.
    int64_t most = rows->rows > rows->home_rows ? rows->rows : rows->home_rows;
    rows->out = tv_arena_take(arena, most * tv_wire_row_bytes(cols, rows->digits), 1);
    rows->in = tv_arena_take(arena, most * tv_wire_row_bytes(cols, rows->digits), 1);
}

// Segments of the rows that the sources' counts announce, source by source.
static void build_segments(tv_moe_rows *rows)
{
    int64_t local = rows->experts / rows->ranks, first = 0, padded = 0;
    for (int64_t i = 0; i < rows->experts; i++) {
        int64_t count = rows->received[i];
        rows->host_segments[i] = (tv_segment){.first = first,
                                              .rows = count,
                                              .padded = padded,
                                              .expert = (int32_t)(i % local),
                                              .tokens = (int32_t)count,
                                              .unit = rows->expected_units[i / local]};
        first += count;
        padded += tv_ceil_div(count, TV_SEGMENT_PAD) * TV_SEGMENT_PAD;
    }
    rows->rows = first;
    rows->columns = padded;
}

static tv_status exchange_counts(tv_moe_rows *rows, tv_unit *unit, const char *layer)
{
    const tv_backend *backend = unit->backend;
    size_t segment_bytes = (size_t)rows->experts * sizeof(tv_segment);
    memset(rows->host_segments, 0, segment_bytes);
    if (unit->tokens > 0)
        TV_TRY(backend->copy(rows->host_segments, rows->home, segment_bytes, TV_COPY_TO_HOST, unit->stream));
    for (int64_t e = 0; e < rows->experts; e++) {
        rows->sent[e] = rows->host_segments[e].rows;
        if (unit->training && e / (rows->experts / rows->ranks) != rows->place)
            rows->off_rank += rows->sent[e];
    }
    int64_t apart = unit->training ? rows->units_a_rank : 0; // units of neighbours; an evaluation counts none
    for (int p = 0; p < rows->ranks; p++)
        rows->expected_units[p] = (int32_t)((int64_t)unit->index + (p - rows->place) * apart);
    tv_row_counts counts = {.experts = rows->experts / rows->ranks,
                            .step = unit->step,
                            .layer = layer,
                            .unit = (int32_t)unit->index,
                            .expected_units = rows->expected_units,
                            .sent = rows->sent,
                            .received = rows->received,
                            .buffer = rows->counts_buffer};
    TV_TRY(tv_row_exchange_counts(unit->experts, &counts));
    build_segments(rows);
    return backend->copy(rows->segments, rows->host_segments, segment_bytes, TV_COPY_TO_DEVICE, unit->stream);
}

// The plan of the unit's rows, whose sizes at home become known.
static tv_moe_plan_args plan_home(tv_moe_rows *rows, const tv_unit *unit)
{
    int dense = rows->ranks == 1 && unit->tokens <= rows->dense_tokens;
    rows->pairs += unit->training ? unit->tokens * rows->slots : 0;
    rows->home_rows = unit->tokens * (dense ? rows->experts : rows->slots);
    return (tv_moe_plan_args){.tokens = unit->tokens,
                              .experts = rows->experts,
                              .slots = (int)rows->slots,
                              .dense = dense,
                              .unit = (int32_t)unit->index,
                              .expert = rows->expert,
                              .place = rows->wanted,
                              .item = rows->item,
                              .segments = rows->home,
                              .fault = unit->fault};
}

tv_status tv_moe_rows_plan_unit(tv_moe_rows *rows, tv_unit *unit, const char *layer)
{
    tv_moe_plan_args args = plan_home(rows, unit);
    TV_TRY(unit->backend->moe_plan(&args, unit->stream));
    return exchange_counts(rows, unit, layer);
}

tv_rows_gather_args tv_moe_rows_gather(const tv_moe_rows *rows, const tv_moe_send *send)
{
    return (tv_rows_gather_args){.rows = rows->home_rows,
                                 .cols = send->cols,
                                 .slots = (int)rows->slots,
                                 .item = rows->item,
                                 .q = send->from.q,
                                 .scale = send->from.scale,
                                 .factor = send->factor,
                                 .out_q = send->to.q,
                                 .out_scale = send->to.scale};
}

tv_status tv_moe_rows_place(tv_moe_rows *rows, tv_unit *unit, const tv_moe_send *send)
{
    tv_moe_place_args args = {.plan = plan_home(rows, unit)};
    args.gather = tv_moe_rows_gather(rows, send);
    rows->rows = rows->home_rows;
    rows->segment_count = unit->tokens > 0 ? rows->experts : 0;
    rows->columns = columns_of(rows, rows->rows);
    return tv_moe_place(unit->backend, &args, unit->stream);
}

// The payload of `out` to the ranks whose rows it holds; `back`: from owners to homes.
static tv_status travel(tv_moe_rows *rows, tv_unit *unit, int64_t cols, int back)
{
    int64_t local = rows->experts / rows->ranks, row_bytes = tv_wire_row_bytes(cols, rows->digits);
    const int64_t *sent = back ? rows->received : rows->sent, *received = back ? rows->sent : rows->received;
    for (int p = 0; p < rows->ranks; p++) {
        rows->sent_bytes[p] = rows->received_bytes[p] = 0;
        for (int64_t e = 0; e < local; e++) {
            rows->sent_bytes[p] += sent[p * local + e] * row_bytes;
            rows->received_bytes[p] += received[p * local + e] * row_bytes;
        }
        rows->wire_bytes += p == rows->place ? 0 : rows->sent_bytes[p];
    }
    tv_all_to_all args = {
        .send = rows->out, .send_bytes = rows->sent_bytes, .recv = rows->in, .recv_bytes = rows->received_bytes};
    return tv_comm_device_all_to_all_v_bytes(unit->experts, &args, TV_WIRE_TOKENS, unit->stream);
}

tv_status tv_moe_rows_send(tv_moe_rows *rows, tv_unit *unit, const tv_moe_send *send)
{
    tv_rows_pack_args pack = {.rows = rows->home_rows,
                              .cols = send->cols,
                              .slots = (int)rows->slots,
                              .digits = rows->digits,
                              .unit = (int32_t)unit->index,
                              .item = rows->item,
                              .expert = rows->expert,
                              .q = send->from.q,
                              .scale = send->from.scale,
                              .factor = send->factor,
                              .bytes = rows->out};
    TV_TRY(unit->backend->rows_pack(&pack, unit->stream));
    TV_TRY(travel(rows, unit, send->cols, 0));
    tv_rows_unpack_args unpack = {.rows = rows->rows,
                                  .cols = send->cols,
                                  .digits = rows->digits,
                                  .bytes = rows->in,
                                  .segments = rows->segments,
                                  .segment_count = rows->segment_count,
                                  .first_expert = rows->first_expert,
                                  .q = send->to.q,
                                  .scale = send->to.scale,
                                  .fault = unit->fault};
    return unit->backend->rows_unpack(&unpack, unit->stream);
}

tv_status tv_moe_rows_return(tv_moe_rows *rows, tv_unit *unit, int64_t cols, tv_rows8 from, tv_rows8 *to)
{
    tv_rows_pack_args pack = {.rows = rows->rows,
                              .cols = cols,
                              .digits = rows->digits,
                              .unit = (int32_t)unit->index,
                              .q = from.q,
                              .scale = from.scale,
                              .bytes = rows->out};
    TV_TRY(unit->backend->rows_pack(&pack, unit->stream));
    TV_TRY(travel(rows, unit, cols, 1));
    tv_rows_unpack_args unpack = {.rows = rows->home_rows,
                                  .cols = cols,
                                  .digits = rows->digits,
                                  .bytes = rows->in,
                                  .q = to->q,
                                  .scale = to->scale,
                                  .fault = unit->fault};
    return unit->backend->rows_unpack(&unpack, unit->stream);
}
