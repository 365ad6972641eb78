#include "comm/row_exchange.h"

#include <string.h>

#include "base/hash.h"

// A message to a rank: the record, then the rows for each of its experts.
static void write_message(const tv_row_counts *c, int rank, int64_t *message)
{
    const int64_t *sent = c->sent + rank * c->experts;
    message[0] = c->step;
    message[1] = tv_hash_name(c->layer);
    message[2] = c->unit;
    message[3] = 0;
    for (int64_t e = 0; e < c->experts; e++)
        message[3] += sent[e];
    memcpy(message + TV_ROW_RECORD, sent, (size_t)c->experts * sizeof *sent);
}

static tv_status check_message(const tv_comm *comm, const tv_row_counts *c, int rank, const int64_t *message)
{
    const int64_t *rows = message + TV_ROW_RECORD;
    int64_t sum = 0;
    if (message[0] != c->step || message[1] != (int64_t)tv_hash_name(c->layer))
        return TV_FAIL(TV_COMM,
                       "rank %d sends rows of step %lld and layer %08llx, rank %d is at step %lld in %s (%08x)", rank,
                       (long long)message[0], (unsigned long long)message[1], tv_comm_rank(comm), (long long)c->step,
                       c->layer, tv_hash_name(c->layer));
    if (message[2] != c->expected_units[rank])
        return TV_FAIL(TV_COMM, "%s: rank %d sends rows of unit %lld, but should be at unit %d", c->layer, rank,
                       (long long)message[2], (int)c->expected_units[rank]);
    for (int64_t e = 0; e < c->experts; e++)
        if (rows[e] < 0 || __builtin_add_overflow(sum, rows[e], &sum))
            return TV_FAIL(TV_COMM, "%s: the rows that rank %d announces for expert %lld of rank %d are %lld", c->layer,
                           rank, (long long)e, tv_comm_rank(comm), (long long)rows[e]);
    if (sum != message[3])
        return TV_FAIL(TV_COMM, "%s: the rows that rank %d announces for each expert add up to %lld, it says %lld",
                       c->layer, rank, (long long)sum, (long long)message[3]);
    return TV_OK;
}

tv_status tv_row_exchange_counts(tv_comm *comm, const tv_row_counts *c)
{
    int ranks = tv_comm_size(comm);
    int64_t items = TV_ROW_RECORD + c->experts;
    int64_t *out = c->buffer, *in = c->buffer + ranks * items;
    for (int r = 0; r < ranks; r++)
        write_message(c, r, out + r * items);
    TV_TRY(tv_comm_all_to_all_i64(comm, out, in, items, TV_WIRE_GUARD));
    tv_status st = TV_OK;
    for (int r = 0; r < ranks && st == TV_OK; r++) {
        st = check_message(comm, c, r, in + r * items);
        memcpy(c->received + r * c->experts, in + r * items + TV_ROW_RECORD, (size_t)c->experts * sizeof *in);
    }
    // A rank knows only what was said to itself. One that saw nothing wrong would wait for the rows of one that did, so
    // the verdict needs a round of its own.
    return tv_comm_agree(comm, st);
}
