// Rows from every rank to every rank, their counts, and communicators of some of the ranks.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/row_exchange.h"
#include "comm/vote_exchange.h"
#include "mpi_fixture.h"

#define RANKS_MAX 4

static int ranks(void) { return tv_comm_size(fixture_comm); }

static int my_rank(void) { return tv_comm_rank(fixture_comm); }

static uint8_t byte_of(int from, int to, int64_t i) { return (uint8_t)(17 * from + 59 * to + i * 7 + i / 251); }

// Bytes from one rank to another: some pairs have none.
typedef int64_t size_function(int from, int to);

static int64_t mixed_size(int from, int to) { return (from + 2 * to) % 3 == 0 ? 0 : 1000 * from + 37 * to + 1; }

static int64_t to_one_size(int from, int to) { return to == ranks() - 1 ? 5000 + from : 0; }

static int64_t no_size(int from, int to)
{
    (void)from, (void)to;
    return 0;
}

// The sum of the blocks, and one block's size for each rank.
static int64_t fill_sizes(tv_comm *comm, size_function *size, int sending, int64_t *sizes)
{
    int64_t total = 0;
    for (int r = 0; r < tv_comm_size(comm); r++) {
        sizes[r] = sending ? size(tv_comm_rank(comm), r) : size(r, tv_comm_rank(comm));
        total += sizes[r];
    }
    return total;
}

static void swap(tv_comm *comm, size_function *size)
{
    int64_t sent[RANKS_MAX], received[RANKS_MAX], at = 0;
    int64_t out_bytes = fill_sizes(comm, size, 1, sent), in_bytes = fill_sizes(comm, size, 0, received);
    uint8_t *out = malloc((size_t)out_bytes + 1), *in = calloc((size_t)in_bytes + 1, 1);
    assert_non_null(out);
    assert_non_null(in);
    for (int r = 0; r < tv_comm_size(comm); r++)
        for (int64_t i = 0; i < sent[r]; i++)
            out[at++] = byte_of(tv_comm_rank(comm), r, i);
    in[in_bytes] = 0xA5;
    void *from = memory_give(out, out_bytes + 1), *to = memory_give(in, in_bytes + 1);
    int64_t before = tv_comm_wire_bytes(comm, TV_WIRE_TOKENS), own = sent[tv_comm_rank(comm)];
    tv_all_to_all args = {.send = from, .send_bytes = sent, .recv = to, .recv_bytes = received};
    assert_ok(tv_comm_device_all_to_all_v_bytes(comm, &args, TV_WIRE_TOKENS, NULL));
    assert_ok(tv_comm_device_wait(comm, NULL));
    assert_int_equal(tv_comm_wire_bytes(comm, TV_WIRE_TOKENS) - before, out_bytes - own);
    memory_take(from, out, out_bytes + 1);
    memory_take(to, in, in_bytes + 1);
    at = 0;
    for (int r = 0; r < tv_comm_size(comm); r++)
        for (int64_t i = 0; i < received[r]; i++)
            assert_int_equal(in[at++], byte_of(r, tv_comm_rank(comm), i));
    assert_int_equal(in[in_bytes], 0xA5);
    free(out);
    free(in);
}

// One rank with a GPU sends its rows to nobody.
static int moves_nothing(const tv_comm *comm) { return tv_comm_size(comm) == 1 && !fixture_backend->host_memory; }

static void test_blocks(void **state)
{
    (void)state;
    if (moves_nothing(fixture_comm))
        return;
    swap(fixture_comm, mixed_size);
    swap(fixture_comm, to_one_size);
    swap(fixture_comm, no_size);
}

// Blocks longer than one call of the library takes.
static void test_chunks(void **state)
{
    (void)state;
    int64_t keep = fixture_comm->chunk_items;
    if (moves_nothing(fixture_comm))
        return;
    fixture_comm->chunk_items = 100;
    swap(fixture_comm, mixed_size);
    swap(fixture_comm, to_one_size); // rank 0's block is whole chunks
    fixture_comm->chunk_items = keep;
}

static void test_numbers(void **state)
{
    (void)state;
    enum { ITEMS = 5 };
    int64_t out[RANKS_MAX * ITEMS], in[RANKS_MAX * ITEMS] = {0};
    for (int64_t i = 0; i < ranks() * ITEMS; i++)
        out[i] = ((int64_t)my_rank() << 40) + i;
    assert_ok(tv_comm_all_to_all_i64(fixture_comm, out, in, ITEMS, TV_WIRE_OTHER));
    for (int r = 0; r < ranks(); r++)
        for (int64_t i = 0; i < ITEMS; i++)
            assert_int_equal(in[r * ITEMS + i], ((int64_t)r << 40) + my_rank() * ITEMS + i);
    assert_ok(tv_comm_all_to_all_i64(fixture_comm, out, in, 0, TV_WIRE_OTHER));
}

// All splits into groups of neighbours, and into ranks of the same place: rows and votes inside each.
static void test_children(void **state)
{
    (void)state;
    for (int p = 1; p <= ranks(); p++)
        for (int spread = 0; spread < 2; spread++) {
            tv_comm *child = NULL;
            int color = spread ? my_rank() % p : my_rank() / p;
            int64_t before = tv_comm_wire_bytes(fixture_comm, TV_WIRE_VOTES);
            assert_ok(tv_comm_split(fixture_comm, color, my_rank(), &child));
            assert_int_equal(tv_comm_rank(child), spread ? my_rank() / p : my_rank() % p);
            if (!moves_nothing(child) && tv_comm_size(child) <= RANKS_MAX)
                swap(child, mixed_size);
            int8_t host[3] = {(int8_t)(my_rank() + 1), 0, -1}, want = 0;
            for (int r = 0; r < ranks(); r++)
                want = (int8_t)(want + ((spread ? r % p : r / p) == color ? r + 1 : 0));
            void *votes = memory_give(host, sizeof host);
            assert_ok(tv_vote_sum(child, &(tv_votes){votes, 8, 100, 3}, 1, NULL));
            assert_ok(tv_vote_finish(child, NULL));
            memory_take(votes, host, sizeof host);
            assert_int_equal(host[0], want);
            assert_int_equal(host[2], -tv_comm_size(child));
            assert_int_equal(tv_comm_wire_bytes(fixture_comm, TV_WIRE_VOTES) - before, 3);
            tv_comm_close(child);
        }
    assert_ok(tv_comm_barrier(fixture_comm));
}

// A child of a child, its ranks in reverse: all that it moves is counted in both that it came from.
static void test_grandchild(void **state)
{
    (void)state;
    tv_comm *child = NULL, *grandchild = NULL;
    assert_ok(tv_comm_split(fixture_comm, 0, my_rank(), &child));
    assert_ok(tv_comm_split(child, my_rank() / 2, -my_rank(), &grandchild));
    int size = my_rank() / 2 * 2 + 1 < ranks() ? 2 : 1;
    assert_int_equal(tv_comm_size(grandchild), size);
    assert_int_equal(tv_comm_rank(grandchild), size == 1 ? 0 : 1 - my_rank() % 2);
    int64_t before[TV_WIRE_COUNT];
    for (int w = 0; w < TV_WIRE_COUNT; w++)
        before[w] = tv_comm_wire_bytes(fixture_comm, (tv_wire)w) - tv_comm_wire_bytes(grandchild, (tv_wire)w);
    if (!moves_nothing(grandchild))
        swap(grandchild, mixed_size);
    tv_status st = tv_comm_agree(grandchild, tv_comm_rank(grandchild) == 0 ? TV_FAIL(TV_MEMORY, "a failure") : TV_OK);
    assert_true(st != TV_OK);
    for (int w = 0; w < TV_WIRE_COUNT; w++)
        assert_int_equal(tv_comm_wire_bytes(fixture_comm, (tv_wire)w) - before[w],
                         tv_comm_wire_bytes(grandchild, (tv_wire)w));
    tv_comm_close(grandchild);
    tv_comm_close(child);
    assert_ok(tv_comm_barrier(fixture_comm));
}

// One child does not open, since its ranks compute in two kinds of memory: those of the other child hear of it too.
static void test_failed_split(void **state)
{
    (void)state;
    tv_comm *child = NULL;
    const tv_comm_device_ops *keep = fixture_comm->device;
    if (ranks() < 3)
        return;
    if (my_rank() == 0)
        fixture_comm->device = fixture_backend->host_memory ? &tv_comm_self_device_ops : &tv_comm_host_device_ops;
    assert_status(my_rank() < 2 ? TV_COMM : TV_REMOTE, tv_comm_split(fixture_comm, my_rank() / 2, my_rank(), &child));
    assert_message("some ranks compute on a GPU and others do not");
    assert_null(child);
    fixture_comm->device = keep;
    assert_ok(tv_comm_barrier(fixture_comm));
}

// A rank that is broken in a child takes no part in anything any more.
static void test_broken_child(void **state)
{
    (void)state;
    tv_comm *child = NULL;
    assert_ok(tv_comm_split(fixture_comm, 0, my_rank(), &child));
    fixture_comm->broken = 1;
    assert_status(TV_COMM, tv_comm_barrier(child));
    fixture_comm->broken = 0;
    assert_status(TV_COMM, tv_comm_leave(child, TV_FAIL(TV_COMM, "a failure")));
    assert_int_equal(fixture_comm->broken, 1);
    assert_status(TV_COMM, tv_comm_barrier(fixture_comm));
    child->broken = fixture_comm->broken = 0;
    tv_comm_close(child);
}

enum { EXPERTS = 3 };

static int64_t rows_of(int from, int to, int64_t expert) { return (from * 5 + to * 3 + expert) % 4; }

typedef struct counts_test {
    int64_t sent[RANKS_MAX * EXPERTS], received[RANKS_MAX * EXPERTS];
    int64_t buffer[2 * RANKS_MAX * (TV_ROW_RECORD + EXPERTS)];
    int32_t units[RANKS_MAX];
    tv_row_counts counts;
} counts_test;

static void counts_start(counts_test *t)
{
    memset(t, 0, sizeof *t);
    for (int r = 0; r < ranks(); r++) {
        t->units[r] = 10 * r + 2;
        for (int64_t e = 0; e < EXPERTS; e++)
            t->sent[r * EXPERTS + e] = rows_of(my_rank(), r, e);
    }
    t->counts = (tv_row_counts){.experts = EXPERTS,
                                .step = 7,
                                .layer = "block.0.moe",
                                .unit = t->units[my_rank()],
                                .expected_units = t->units,
                                .sent = t->sent,
                                .received = t->received,
                                .buffer = t->buffer};
}

static void test_counts(void **state)
{
    (void)state;
    counts_test t;
    counts_start(&t);
    assert_ok(tv_row_exchange_counts(fixture_comm, &t.counts));
    for (int r = 0; r < ranks(); r++)
        for (int64_t e = 0; e < EXPERTS; e++)
            assert_int_equal(t.received[r * EXPERTS + e], rows_of(r, my_rank(), e));
}

// The last rank is at another place, or lies: every rank hears its name, and all can go on.
static void expect_refusal(counts_test *t, const char *message)
{
    tv_status st = tv_row_exchange_counts(fixture_comm, &t->counts);
    assert_true(st == TV_COMM || st == TV_REMOTE);
    assert_message(message);
    assert_ok(tv_comm_barrier(fixture_comm));
}

static void test_counts_refused(void **state)
{
    (void)state;
    char named[128];
    int last = ranks() - 1;
    counts_test t;
    if (ranks() == 1)
        return;
    counts_start(&t);
    t.counts.step += my_rank() == last;
    if (my_rank() == last) // to the last one it is rank 0 that is elsewhere
        snprintf(named, sizeof named, "rank 0 sends rows of step 7");
    else
        snprintf(named, sizeof named, "rank %d sends rows of step 8", last);
    expect_refusal(&t, named);
    counts_start(&t);
    t.counts.unit += my_rank() == last;
    snprintf(named, sizeof named, "rank %d sends rows of unit %d, but should be at unit %d", last, 10 * last + 3,
             10 * last + 2);
    expect_refusal(&t, named);
    counts_start(&t);
    t.sent[EXPERTS * last] = my_rank() == last ? -1 : t.sent[EXPERTS * last];
    t.sent[0] = my_rank() == last ? -1 : t.sent[0];
    snprintf(named, sizeof named, "the rows that rank %d announces", last);
    expect_refusal(&t, named);
    counts_start(&t);
    t.counts.layer = my_rank() == last ? "block.1.moe" : "block.0.moe";
    tv_status st = tv_row_exchange_counts(fixture_comm, &t.counts);
    assert_true(st == TV_COMM || st == TV_REMOTE);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),       cmocka_unit_test(test_chunks),     cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_children),     cmocka_unit_test(test_grandchild), cmocka_unit_test(test_failed_split),
        cmocka_unit_test(test_broken_child), cmocka_unit_test(test_counts),     cmocka_unit_test(test_counts_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv) { return fixture_main(argc, argv, run); }
