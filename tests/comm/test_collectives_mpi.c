// Every collective over MPI. Values are functions of rank and index, so that the result is computed without
// communication.
#include <stdlib.h>
#include <string.h>

#include "mpi_fixture.h"

#define MOST_ITEMS 5000
#define REDZONE 64
#define REDZONE_BYTE 0xA5
#define BIG ((int64_t)1 << 40)

// Chunk limits: one item, some that divide nothing, the default.
static const int64_t chunks[] = {1, 7, 1000, TV_COMM_CHUNK_ITEMS};
static const int64_t sizes[] = {0, 1, 2, 3, 64, 1001, MOST_ITEMS};
#define COUNT_OF(a) ((int)(sizeof(a) / sizeof *(a)))

// A small value in [-10, 10] (its sum over 12 ranks fits int8) and a large one.
static int64_t small_value(int rank, int64_t i) { return (rank * 31 + i * 7 + i / 13) % 21 - 10; }

static uint64_t large_value(int rank, int64_t i)
{
    return ((uint64_t)rank + 1) * 0x9E3779B97F4A7C15u + (uint64_t)i * 0xD1B54A32D192ED03u;
}

static unsigned char byte_value(int rank, int64_t i) { return (unsigned char)(large_value(rank, i) >> 40); }

// A buffer of `bytes` with a redzone behind it.
static void *buffer_new(int64_t bytes)
{
    unsigned char *data = malloc((size_t)bytes + REDZONE);
    assert_non_null(data);
    memset(data, REDZONE_BYTE, (size_t)bytes + REDZONE);
    return data;
}

static void buffer_free(void *data, int64_t bytes)
{
    for (int64_t i = bytes; i < bytes + REDZONE; i++)
        assert_int_equal(((unsigned char *)data)[i], REDZONE_BYTE);
    free(data);
}

// Runs `body(count)` for every size and chunk limit.
static void for_sizes(void (*body)(int64_t count))
{
    for (int c = 0; c < COUNT_OF(chunks); c++) {
        fixture_comm->chunk_items = chunks[c];
        for (int s = 0; s < COUNT_OF(sizes); s++)
            if (chunks[c] > 1 || sizes[s] <= 64)
                body(sizes[s]);
    }
    fixture_comm->chunk_items = TV_COMM_CHUNK_ITEMS;
}

static int ranks(void) { return tv_comm_size(fixture_comm); }

static int my_rank(void) { return tv_comm_rank(fixture_comm); }

// Wire bytes of the call must be `bytes` on `what` alone, and it must be one collective.
typedef struct wire_mark {
    int64_t bytes[TV_WIRE_COUNT];
    uint64_t sequence;
} wire_mark;

static wire_mark wire_now(void)
{
    wire_mark m = {.sequence = tv_comm_sequence(fixture_comm)};
    for (int w = 0; w < TV_WIRE_COUNT; w++)
        m.bytes[w] = tv_comm_wire_bytes(fixture_comm, (tv_wire)w);
    return m;
}

static void assert_wire(wire_mark before, tv_wire what, int64_t bytes)
{
    wire_mark now = wire_now();
    assert_int_equal(now.sequence, before.sequence + 1);
    for (int w = 0; w < TV_WIRE_COUNT; w++)
        assert_int_equal(now.bytes[w] - before.bytes[w], w == (int)what ? bytes : 0);
}

// One all-reduce of `type`: start value `give` and expected value `want` are expressions in r (rank), i and sum.
#define FOLD_BODY(name, type, function, what, start, give, combine)                                                    \
    static void name(int64_t count)                                                                                    \
    {                                                                                                                  \
        int64_t bytes = count * (int64_t)sizeof(type);                                                                 \
        type *data = buffer_new(bytes);                                                                                \
        int r = my_rank();                                                                                             \
        for (int64_t i = 0; i < count; i++)                                                                            \
            data[i] = (type)(give);                                                                                    \
        wire_mark before = wire_now();                                                                                 \
        assert_ok(function(fixture_comm, data, count, what));                                                          \
        assert_wire(before, what, bytes);                                                                              \
        for (int64_t i = 0; i < count; i++) {                                                                          \
            type sum = (type)(start);                                                                                  \
            for (r = 0; r < ranks(); r++)                                                                              \
                sum = (type)(combine);                                                                                 \
            assert_true(data[i] == sum);                                                                               \
        }                                                                                                              \
        buffer_free(data, bytes);                                                                                      \
    }

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

FOLD_BODY(sum_i8_body, int8_t, tv_comm_sum_i8, TV_WIRE_VOTES, 0, small_value(r, i), sum + small_value(r, i))
FOLD_BODY(sum_u32_body, uint32_t, tv_comm_sum_u32, TV_WIRE_STATE, 0, large_value(r, i),
          sum + (uint32_t)large_value(r, i))
FOLD_BODY(sum_i64_body, int64_t, tv_comm_sum_i64, TV_WIRE_METRICS, 0, small_value(r, i) * BIG,
          sum + small_value(r, i) * BIG)
FOLD_BODY(sum_u64_body, uint64_t, tv_comm_sum_u64, TV_WIRE_GUARD, 0, large_value(r, i), sum + large_value(r, i))
FOLD_BODY(max_i64_body, int64_t, tv_comm_max_i64, TV_WIRE_OTHER, INT64_MIN, large_value(r, i),
          larger(sum, (int64_t)large_value(r, i)))

static void test_folds(void **state)
{
    (void)state;
    for_sizes(sum_i8_body);
    for_sizes(sum_u32_body);
    for_sizes(sum_i64_body);
    for_sizes(sum_u64_body);
    for_sizes(max_i64_body);
}

// reduce_scatter: item j of the whole buffer; rank r's block starts at r * block.
#define SCATTER_BODY(name, type, function, value)                                                                      \
    static void name(int64_t block)                                                                                    \
    {                                                                                                                  \
        int64_t count = block * ranks(), bytes = count * (int64_t)sizeof(type);                                        \
        type *data = buffer_new(bytes);                                                                                \
        for (int64_t j = 0; j < count; j++)                                                                            \
            data[j] = (type)value(my_rank(), j);                                                                       \
        wire_mark before = wire_now();                                                                                 \
        assert_ok(function(fixture_comm, data, block, TV_WIRE_VOTES));                                                 \
        assert_wire(before, TV_WIRE_VOTES, bytes);                                                                     \
        for (int64_t j = my_rank() * block; j < (my_rank() + 1) * block; j++) {                                        \
            type sum = 0;                                                                                              \
            for (int r = 0; r < ranks(); r++)                                                                          \
                sum = (type)(sum + (type)value(r, j));                                                                 \
            assert_true(data[j] == sum);                                                                               \
        }                                                                                                              \
        buffer_free(data, bytes);                                                                                      \
    }

SCATTER_BODY(scatter_i8_body, int8_t, tv_comm_reduce_scatter_i8, small_value)
SCATTER_BODY(scatter_u32_body, uint32_t, tv_comm_reduce_scatter_u32, large_value)

static void test_reduce_scatter(void **state)
{
    (void)state;
    for_sizes(scatter_i8_body);
    for_sizes(scatter_u32_body);
}

static void all_gather_body(int64_t block)
{
    int64_t bytes = block * ranks();
    unsigned char *data = buffer_new(bytes);
    for (int64_t i = 0; i < block; i++)
        data[my_rank() * block + i] = byte_value(my_rank(), i);
    wire_mark before = wire_now();
    assert_ok(tv_comm_all_gather_bytes(fixture_comm, data, (size_t)block, TV_WIRE_STATE));
    assert_wire(before, TV_WIRE_STATE, bytes);
    for (int r = 0; r < ranks(); r++)
        for (int64_t i = 0; i < block; i++)
            assert_int_equal(data[r * block + i], byte_value(r, i));
    buffer_free(data, bytes);
}

static void test_all_gather(void **state)
{
    (void)state;
    for_sizes(all_gather_body);
}

// Rank `empty` gives nothing, the others blocks of different length (`base` more or less).
static void gather_v_case(int64_t base, int empty)
{
    int64_t bytes[64], total = 0, mine = 0;
    assert_true(ranks() <= COUNT_OF(bytes));
    for (int r = 0; r < ranks(); r++) {
        bytes[r] = r == empty ? 0 : base + r % 3;
        mine = r == my_rank() ? total : mine;
        total += bytes[r];
    }
    unsigned char *data = buffer_new(total);
    for (int64_t i = 0; i < bytes[my_rank()]; i++)
        data[mine + i] = byte_value(my_rank(), i);
    wire_mark before = wire_now();
    assert_ok(tv_comm_all_gather_v_bytes(fixture_comm, data, bytes, TV_WIRE_METRICS));
    assert_wire(before, TV_WIRE_METRICS, total);
    const unsigned char *place = data;
    for (int r = 0; r < ranks(); place += bytes[r], r++)
        for (int64_t i = 0; i < bytes[r]; i++)
            assert_int_equal(place[i], byte_value(r, i));
    buffer_free(data, total);
}

static void gather_v_body(int64_t base)
{
    for (int empty = -1; empty < ranks(); empty++)
        gather_v_case(base, empty);
}

static void test_all_gather_v(void **state)
{
    (void)state;
    for_sizes(gather_v_body);
}

static void broadcast_body(int64_t bytes)
{
    for (int root = 0; root < ranks(); root++) {
        unsigned char *data = buffer_new(bytes);
        for (int64_t i = 0; i < bytes && my_rank() == root; i++)
            data[i] = byte_value(root, i);
        wire_mark before = wire_now();
        assert_ok(tv_comm_broadcast_bytes(fixture_comm, data, (size_t)bytes, root));
        assert_wire(before, TV_WIRE_OTHER, bytes);
        for (int64_t i = 0; i < bytes; i++)
            assert_int_equal(data[i], byte_value(root, i));
        buffer_free(data, bytes);
    }
}

static void test_broadcast(void **state)
{
    (void)state;
    for_sizes(broadcast_body);
    wire_mark before = wire_now();
    assert_ok(tv_comm_barrier(fixture_comm));
    assert_wire(before, TV_WIRE_OTHER, 0);
}

// Wrong arguments, the same on all ranks, are refused before anything moves.
static void test_wrong_arguments(void **state)
{
    (void)state;
    int64_t x = 5, bytes[64] = {0};
    wire_mark before = wire_now();
    assert_status(TV_INTERNAL, tv_comm_sum_i64(fixture_comm, &x, -1, TV_WIRE_OTHER));
    assert_status(TV_INTERNAL, tv_comm_sum_i64(fixture_comm, &x, INT64_MAX, TV_WIRE_OTHER));
    assert_status(TV_INTERNAL, tv_comm_sum_i64(fixture_comm, &x, 1, TV_WIRE_COUNT));
    assert_status(TV_INTERNAL, tv_comm_broadcast_bytes(fixture_comm, &x, sizeof x, ranks()));
    assert_status(TV_INTERNAL, tv_comm_broadcast_bytes(fixture_comm, &x, sizeof x, -1));
    bytes[ranks() - 1] = -1;
    assert_status(TV_INTERNAL, tv_comm_all_gather_v_bytes(fixture_comm, &x, bytes, TV_WIRE_OTHER));
    assert_int_equal(tv_comm_sequence(fixture_comm), before.sequence);
    assert_int_equal(x, 5);
    assert_ok(tv_comm_barrier(fixture_comm)); // and the communicator still works
}

// The tests run on one host, so the local place is the whole one.
static void test_places(void **state)
{
    (void)state;
    int64_t sum = my_rank(), most = my_rank();
    assert_ok(tv_comm_sum_i64(fixture_comm, &sum, 1, TV_WIRE_OTHER));
    assert_ok(tv_comm_max_i64(fixture_comm, &most, 1, TV_WIRE_OTHER));
    assert_int_equal(sum, ranks() * (ranks() - 1) / 2);
    assert_int_equal(most, ranks() - 1);
    assert_int_equal(tv_comm_local_size(fixture_comm), ranks());
    assert_int_equal(tv_comm_local_rank(fixture_comm), my_rank());
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),          cmocka_unit_test(test_folds),
        cmocka_unit_test(test_reduce_scatter),  cmocka_unit_test(test_all_gather),
        cmocka_unit_test(test_all_gather_v),    cmocka_unit_test(test_broadcast),
        cmocka_unit_test(test_wrong_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv) { return fixture_main(argc, argv, run); }
