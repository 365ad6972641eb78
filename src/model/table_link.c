#include "model/table_link.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"
#include "comm/row_exchange.h"

enum { RECORD = 1 };

tv_status tv_table_link_open(tv_table_link *link, const tv_plan *plan, int bits, int64_t most)
{
    const tv_params *params = plan->params;
    int64_t ranks = params->ranks;
    link->ranks = params->ranks;
    link->rank = params->rank;
    link->places = tv_param_places(params, bits);
    link->units_a_rank = plan->training ? plan->config->train.units / ranks : 0;
    link->most = most;
    if (link->host != NULL)
        return TV_OK;
    link->host = calloc((size_t)(4 * ranks + tv_row_counts_buffer(ranks, RECORD)), sizeof *link->host);
    link->expected_units = calloc((size_t)ranks, sizeof *link->expected_units);
    if (link->host == NULL || link->expected_units == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for the counts of a table on %" PRId64 " ranks", ranks);
    link->sent = link->host;
    link->received = link->sent + ranks;
    link->sent_bytes = link->received + ranks;
    link->received_bytes = link->sent_bytes + ranks;
    link->messages = link->received_bytes + ranks;
    return TV_OK;
}

void tv_table_link_close(tv_table_link *link)
{
    free(link->host);
    free(link->expected_units);
    memset(link, 0, sizeof *link);
}

int64_t tv_table_link_address(tv_table_link *link, const tv_tensor_spec *table, const int32_t *rows, int64_t count)
{
    int64_t away = 0;
    memset(link->sent, 0, (size_t)link->ranks * sizeof *link->sent);
    for (int64_t i = 0; i < count; i++) {
        int owner = tv_vq_place_of(table->bits, link->places, tv_vq_bucket_of(table->rows, table->bits, rows[i]));
        link->sent[owner]++;
        away += owner != link->rank;
    }
    return away;
}

tv_status tv_table_link_counts(tv_table_link *link, tv_unit *unit, const char *layer)
{
    int64_t apart = unit->training ? link->units_a_rank : 0; // units of neighbours; an evaluation counts none
    for (int r = 0; r < link->ranks; r++)
        link->expected_units[r] = (int32_t)((int64_t)unit->index + (r - link->rank) * apart);
    tv_row_counts counts = {.experts = RECORD,
                            .step = unit->step,
                            .layer = layer,
                            .unit = (int32_t)unit->index,
                            .expected_units = link->expected_units,
                            .sent = link->sent,
                            .received = link->received,
                            .buffer = link->messages};
    TV_TRY(tv_row_exchange_counts(unit->comm, &counts));
    for (int r = 0; r < link->ranks; r++)
        if (link->received[r] > link->most)
            return TV_FAIL(TV_COMM, "%s: rank %d announces %lld rows, more than the %lld that a unit can have", layer,
                           r, (long long)link->received[r], (long long)link->most);
    return TV_OK;
}

tv_status tv_table_link_travel(tv_table_link *link, tv_unit *unit, int64_t row_bytes, int back)
{
    const int64_t *sent = back ? link->received : link->sent, *received = back ? link->sent : link->received;
    for (int r = 0; r < link->ranks; r++) {
        link->sent_bytes[r] = sent[r] * row_bytes;
        link->received_bytes[r] = received[r] * row_bytes;
        link->wire_bytes += r == link->rank || !unit->training ? 0 : link->sent_bytes[r];
    }
    tv_all_to_all args = {
        .send = link->out, .send_bytes = link->sent_bytes, .recv = link->in, .recv_bytes = link->received_bytes};
    return tv_comm_device_all_to_all_v_bytes(unit->comm, &args, TV_WIRE_TOKENS, unit->stream);
}

int64_t tv_table_link_total(const tv_table_link *link, const int64_t *counts)
{
    int64_t total = 0;
    for (int r = 0; r < link->ranks; r++)
        total += counts[r];
    return total;
}
