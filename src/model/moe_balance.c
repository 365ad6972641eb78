#include "model/moe_balance.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"

enum { PAIRS, OFF_RANK, WIRE_BYTES, EXTRAS };

tv_status tv_moe_balance_plan(tv_moe_balance *b, tv_plan *plan)
{
    b->counts = NULL;
    if (!plan->training)
        return TV_OK;
    b->counts = tv_arena_take(&plan->saved, b->experts, sizeof *b->counts);
    if (b->step_counts != NULL)
        return TV_OK;
    b->step_counts = calloc((size_t)b->experts + EXTRAS, sizeof *b->step_counts);
    b->sorted = calloc((size_t)b->experts, sizeof *b->sorted);
    b->bias = calloc((size_t)b->experts, sizeof *b->bias);
    return b->step_counts != NULL && b->sorted != NULL && b->bias != NULL
               ? TV_OK
               : TV_FAIL(TV_MEMORY, "no memory for the counts of %" PRId64 " experts", b->experts);
}

static void move_biases(tv_moe_balance *b)
{
    int64_t total = 0;
    for (int64_t e = 0; e < b->experts; e++)
        total += b->step_counts[e];
    for (int64_t e = 0; e < b->experts; e++) {
        int64_t share = b->step_counts[e] * b->experts;
        int moved = b->bias[e] + (share < total) - (share > total);
        b->bias[e] = (int16_t)(moved > INT16_MAX ? INT16_MAX : moved < -INT16_MAX ? -INT16_MAX : moved);
    }
}

tv_status tv_moe_balance_start(tv_moe_balance *b, tv_moe_rows *rows, tv_unit *unit)
{
    rows->pairs = rows->off_rank = rows->wire_bytes = 0;
    return unit->backend->zero(b->counts, (size_t)b->experts * sizeof *b->counts, unit->stream);
}

tv_status tv_moe_balance_step(tv_moe_balance *b, const tv_moe_rows *rows, tv_unit *unit)
{
    const tv_backend *backend = unit->backend;
    size_t count_bytes = (size_t)b->experts * sizeof *b->counts, bias_bytes = (size_t)b->experts * sizeof *b->bias;
    void *bias = unit->params->sides[b->side].data;
    TV_TRY(backend->copy(b->step_counts, b->counts, count_bytes, TV_COPY_TO_HOST, unit->stream));
    b->step_counts[b->experts + PAIRS] = rows->pairs;
    b->step_counts[b->experts + OFF_RANK] = rows->off_rank;
    b->step_counts[b->experts + WIRE_BYTES] = rows->wire_bytes;
    if (unit->comm != NULL)
        TV_TRY(tv_comm_sum_i64(unit->comm, b->step_counts, b->experts + EXTRAS, TV_WIRE_METRICS));
    if (!b->moves)
        return TV_OK;
    TV_TRY(backend->copy(b->bias, bias, bias_bytes, TV_COPY_TO_HOST, unit->stream));
    move_biases(b);
    return backend->copy(bias, b->bias, bias_bytes, TV_COPY_TO_DEVICE, unit->stream);
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void tv_moe_balance_tell(const tv_moe_balance *b, tv_figures *figures)
{
    const int64_t *extras = b->step_counts + b->experts;
    memcpy(b->sorted, b->step_counts, (size_t)b->experts * sizeof *b->sorted);
    qsort(b->sorted, (size_t)b->experts, sizeof *b->sorted, ascending);
    tv_figures_add(figures, "tokens_min", (double)b->sorted[0]);
    tv_figures_add(figures, "tokens_median", (double)b->sorted[b->experts / 2]);
    tv_figures_add(figures, "tokens_max", (double)b->sorted[b->experts - 1]);
    tv_figures_add(figures, "off_rank", extras[PAIRS] == 0 ? 0 : (double)extras[OFF_RANK] / (double)extras[PAIRS]);
    tv_figures_add(figures, "wire_bytes", (double)extras[WIRE_BYTES]);
}

void tv_moe_balance_free(tv_moe_balance *b)
{
    free(b->bias);
    free(b->sorted);
    free(b->step_counts);
    memset(b, 0, sizeof *b);
}
