// The per-step guard and the comparison of replicated state.
#include "comm/guard.h"

#include <stdio.h>
#include <string.h>

#include "comm/comm_impl.h"
#include "comm/message.h"

#define NAMED_RANKS 4    // ranks that one message describes; the rest are counted
#define COMPARE_BATCH 64 // entries compared by one exchange
#define COMPARE_ITEMS 4  // int64 of an entry there

_Static_assert(sizeof(tv_guard) == 40, "a guard record has no padding: it travels as bytes");
_Static_assert(sizeof(tv_guard) <= TV_COMM_SCRATCH_BYTES, "a guard record fits its rank's scratch");

// The first 8 hex digits, enough to see which ranks share a value.
static void text_add_hash(tv_message *t, tv_hash128 hash)
{
    char hex[TV_HASH_HEX];
    tv_hash_format(hash, hex);
    tv_message_add(t, "%.8s", hex);
}

static int guard_equal(const tv_guard *a, const tv_guard *b)
{
    return a->step == b->step && a->sequence == b->sequence && tv_hash_equal(a->config, b->config);
}

// How rank `rank` differs from rank 0.
static void describe_rank(tv_message *t, int rank, const tv_guard *theirs, const tv_guard *zero)
{
    const char *join = "";
    tv_message_add(t, "%srank %d ", t->used > 0 ? "; " : "", rank);
    if (theirs->step != zero->step) {
        tv_message_add(t, "is at step %lld, rank 0 at step %lld", (long long)theirs->step, (long long)zero->step);
        join = ", ";
    }
    if (theirs->sequence != zero->sequence) {
        tv_message_add(t, "%shas entered %llu collectives, rank 0 %llu", join, (unsigned long long)theirs->sequence,
                       (unsigned long long)zero->sequence);
        join = ", ";
    }
    if (!tv_hash_equal(theirs->config, zero->config)) {
        tv_message_add(t, "%sruns config ", join);
        text_add_hash(t, theirs->config);
        tv_message_add(t, ", rank 0 config ");
        text_add_hash(t, zero->config);
    }
}

tv_status tv_guard_check(tv_comm *comm, tv_guard *guard)
{
    int size = tv_comm_size(comm);
    tv_guard *records = tv_comm_scratch(comm);
    guard->sequence = tv_comm_sequence(comm);
    records[tv_comm_rank(comm)] = *guard;
    TV_TRY(tv_comm_all_gather_bytes(comm, records, sizeof *records, TV_WIRE_GUARD));
    char bytes[960] = "";
    tv_message t = {bytes, sizeof bytes, 0};
    int drifted = 0;
    uint64_t flags = 0;
    for (int r = 0; r < size; r++) {
        flags |= records[r].flags;
        if (guard_equal(&records[r], &records[0]))
            continue;
        if (++drifted <= NAMED_RANKS)
            describe_rank(&t, r, &records[r], &records[0]);
    }
    if (drifted > NAMED_RANKS)
        tv_message_add(&t, "; and %d more ranks", drifted - NAMED_RANKS);
    if (drifted > 0)
        return TV_FAIL(TV_COMM, "ranks have drifted apart: %s", t.bytes);
    guard->flags = flags;
    return TV_OK;
}

// A message about entry `name`, on which the hashes of the ranks differ. Collective.
static tv_status describe_entry(tv_comm *comm, tv_message *t, const char *name, tv_hash128 mine)
{
    int size = tv_comm_size(comm);
    tv_hash128 *all = tv_comm_scratch(comm);
    all[tv_comm_rank(comm)] = mine;
    TV_TRY(tv_comm_all_gather_bytes(comm, all, sizeof *all, TV_WIRE_GUARD));
    int usual = 0, usual_votes = 0;
    for (int r = 0; r < size; r++) {
        int votes = 0;
        for (int s = 0; s < size; s++)
            votes += tv_hash_equal(all[r], all[s]);
        if (votes > usual_votes)
            usual = r, usual_votes = votes;
    }
    tv_message_add(t, "%s is not the same on all ranks: ", name);
    int named = 0;
    for (int r = 0; r < size; r++) {
        if (tv_hash_equal(all[r], all[usual]) || ++named > NAMED_RANKS)
            continue;
        tv_message_add(t, "%srank %d has ", named > 1 ? ", " : "", r);
        text_add_hash(t, all[r]);
    }
    if (named > NAMED_RANKS)
        tv_message_add(t, ", and %d more ranks differ", named - NAMED_RANKS);
    tv_message_add(t, "; rank %d%s ", usual, usual_votes > 1 ? " and those equal to it have" : " has");
    text_add_hash(t, all[usual]);
    return TV_OK;
}

// max over the ranks of x and of ~x: all ranks hold one x exactly when the second is the complement of the first.
static void compare_put(int64_t *items, uint64_t x)
{
    items[0] = (int64_t)x;
    items[1] = (int64_t)~x;
}

static int compare_equal(const int64_t *items) { return items[0] == ~items[1]; }

static tv_status compare_counts(tv_comm *comm, int64_t count)
{
    int64_t items[2] = {count, ~count};
    TV_TRY(tv_comm_max_i64(comm, items, 2, TV_WIRE_GUARD));
    if (!compare_equal(items))
        return TV_FAIL(TV_COMM, "ranks compare different numbers of entries, from %lld to %lld", (long long)~items[1],
                       (long long)items[0]);
    return TV_OK;
}

tv_status tv_guard_compare(tv_comm *comm, const char *const *names, const tv_hash128 *hashes, int64_t count)
{
    int64_t items[COMPARE_BATCH * COMPARE_ITEMS];
    int64_t first_bad = -1, bad = 0;
    TV_TRY(compare_counts(comm, count));
    for (int64_t first = 0; first < count; first += COMPARE_BATCH) {
        int64_t n = count - first < COMPARE_BATCH ? count - first : COMPARE_BATCH;
        for (int64_t i = 0; i < n; i++) {
            compare_put(items + i * COMPARE_ITEMS, hashes[first + i].low);
            compare_put(items + i * COMPARE_ITEMS + 2, hashes[first + i].high);
        }
        TV_TRY(tv_comm_max_i64(comm, items, n * COMPARE_ITEMS, TV_WIRE_GUARD));
        for (int64_t i = 0; i < n; i++) {
            if (compare_equal(items + i * COMPARE_ITEMS) && compare_equal(items + i * COMPARE_ITEMS + 2))
                continue;
            first_bad = first_bad < 0 ? first + i : first_bad;
            bad++;
        }
    }
    if (bad == 0)
        return TV_OK;
    char bytes[960] = "";
    tv_message t = {bytes, sizeof bytes, 0};
    TV_TRY(describe_entry(comm, &t, names[first_bad], hashes[first_bad]));
    if (bad > 1)
        tv_message_add(&t, "; %lld more entries differ", (long long)(bad - 1));
    return TV_FAIL(TV_COMM, "%s", t.bytes);
}
