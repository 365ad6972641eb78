// The self communicator: every collective leaves the data as it is, and counts like the others.
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include <string.h>

#include "comm/comm_impl.h"
#include "comm/guard.h"
#include "comm/vote_exchange.h"

static tv_comm *comm;

static int setup(void **state)
{
    (void)state;
    return tv_comm_open_self(&comm) == TV_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    tv_comm_close(comm);
    comm = NULL;
    return 0;
}

static void test_place(void **state)
{
    (void)state;
    assert_int_equal(tv_comm_rank(comm), 0);
    assert_int_equal(tv_comm_size(comm), 1);
    assert_int_equal(tv_comm_local_rank(comm), 0);
    assert_int_equal(tv_comm_local_size(comm), 1);
    assert_int_equal(tv_comm_sequence(comm), 0);
    for (int w = 0; w < TV_WIRE_COUNT; w++)
        assert_int_equal(tv_comm_wire_bytes(comm, (tv_wire)w), 0);
    tv_comm_close(NULL);
}

static void test_collectives_keep_data(void **state)
{
    (void)state;
    int8_t i8[3] = {-127, 0, 127};
    uint32_t u32[2] = {0, UINT32_MAX};
    int64_t i64[2] = {INT64_MIN, INT64_MAX}, bytes[1] = {16};
    uint64_t u64[2] = {1, UINT64_MAX};
    assert_int_equal(tv_comm_sum_i8(comm, i8, 3, TV_WIRE_VOTES), TV_OK);
    assert_int_equal(tv_comm_reduce_scatter_i8(comm, i8, 3, TV_WIRE_VOTES), TV_OK);
    assert_int_equal(tv_comm_sum_u32(comm, u32, 2, TV_WIRE_STATE), TV_OK);
    assert_int_equal(tv_comm_reduce_scatter_u32(comm, u32, 2, TV_WIRE_STATE), TV_OK);
    assert_int_equal(tv_comm_sum_i64(comm, i64, 2, TV_WIRE_METRICS), TV_OK);
    assert_int_equal(tv_comm_max_i64(comm, i64, 2, TV_WIRE_METRICS), TV_OK);
    assert_int_equal(tv_comm_sum_u64(comm, u64, 2, TV_WIRE_GUARD), TV_OK);
    assert_int_equal(tv_comm_all_gather_bytes(comm, u64, 16, TV_WIRE_GUARD), TV_OK);
    assert_int_equal(tv_comm_all_gather_v_bytes(comm, u64, bytes, TV_WIRE_GUARD), TV_OK);
    assert_int_equal(tv_comm_broadcast_bytes(comm, u64, 16, 0), TV_OK);
    assert_int_equal(tv_comm_barrier(comm), TV_OK);
    assert_true(i8[0] == -127 && i8[1] == 0 && i8[2] == 127);
    assert_true(u32[0] == 0 && u32[1] == UINT32_MAX);
    assert_true(i64[0] == INT64_MIN && i64[1] == INT64_MAX);
    assert_true(u64[0] == 1 && u64[1] == UINT64_MAX);
    const int64_t wire[TV_WIRE_COUNT] = {
        [TV_WIRE_VOTES] = 6, [TV_WIRE_STATE] = 16, [TV_WIRE_METRICS] = 32, [TV_WIRE_GUARD] = 48, [TV_WIRE_OTHER] = 16};
    for (int w = 0; w < TV_WIRE_COUNT; w++)
        assert_int_equal(tv_comm_wire_bytes(comm, (tv_wire)w), wire[w]);
    assert_int_equal(tv_comm_sequence(comm), 11);
}

static void test_agree(void **state)
{
    (void)state;
    assert_int_equal(tv_comm_agree(comm, TV_OK), TV_OK);
    assert_int_equal(tv_comm_agree(comm, TV_FAIL(TV_CORPUS, "no bytes")), TV_CORPUS);
    assert_string_equal(tv_status_message(), "no bytes");
    assert_int_equal(tv_comm_wire_bytes(comm, TV_WIRE_OTHER), 24 + 24 + 1024);
}

// After a failed collective nothing is entered any more; a failed rank still reports its own fault.
static void test_broken(void **state)
{
    (void)state;
    int64_t one = 1;
    comm->broken = 1;
    assert_int_equal(tv_comm_barrier(comm), TV_COMM);
    assert_int_equal(tv_comm_sum_i64(comm, &one, 1, TV_WIRE_OTHER), TV_COMM);
    assert_int_equal(tv_comm_agree(comm, TV_OK), TV_COMM);
    assert_int_equal(tv_comm_agree(comm, TV_FAIL(TV_IO, "disk is full")), TV_IO);
    assert_string_equal(tv_status_message(), "disk is full");
    assert_int_equal(tv_comm_sequence(comm), 0);
}

static void test_votes(void **state)
{
    (void)state;
    _Alignas(4) int16_t wide[6] = {32767, -32767, 0, 1, -1, 12345}, before[6];
    int8_t narrow[3] = {127, -127, 5};
    const tv_votes votes16 = {wide, 16, 32767, 6}, votes8 = {narrow, 8, 127, 3};
    memcpy(before, wide, sizeof wide);
    assert_int_equal(tv_vote_sum(comm, &votes16, 1, NULL), TV_OK);
    assert_memory_equal(wide, before, sizeof wide);
    assert_int_equal(tv_vote_scatter(comm, &votes16, 1, NULL), TV_OK);
    assert_memory_equal(wide, before, sizeof wide);
    assert_int_equal(tv_vote_sum(comm, &votes8, 1, NULL), TV_OK);
    assert_true(narrow[0] == 127 && narrow[1] == -127 && narrow[2] == 5);
    assert_int_equal(tv_comm_wire_bytes(comm, TV_WIRE_VOTES), 12 + 12 + 3);
    assert_int_equal(tv_vote_finish(comm, NULL), TV_OK);
    wide[0] = INT16_MIN;
    assert_int_equal(tv_vote_sum(comm, &votes16, 1, NULL), TV_OK);
    assert_int_equal(tv_vote_finish(comm, NULL), TV_INTERNAL);
    assert_int_equal(tv_comm_barrier(comm), TV_COMM);
    assert_int_equal(tv_comm_device_wait(comm, NULL), TV_COMM);
}

// Alone on a GPU: the calls are counted and check their arguments, and no byte of what the pointers name is touched.
static void test_device_alone(void **state)
{
    (void)state;
    uint32_t *nowhere = (uint32_t *)16;
    const tv_votes votes = {nowhere, 16, 32767, 11};
    assert_int_equal(tv_comm_device_open(comm, 0), TV_OK);
    assert_int_equal(tv_comm_device_open(comm, 0), TV_OK);
    assert_int_equal(tv_comm_device_sum_i8(comm, (int8_t *)nowhere, 100, TV_WIRE_VOTES, NULL), TV_OK);
    assert_int_equal(tv_comm_device_sum_u32(comm, nowhere, 100, TV_WIRE_VOTES, NULL), TV_OK);
    assert_int_equal(tv_comm_device_reduce_scatter_u32(comm, nowhere, 100, TV_WIRE_VOTES, NULL), TV_OK);
    assert_int_equal(tv_comm_device_all_gather_bytes(comm, nowhere, 100, TV_WIRE_STATE, NULL), TV_OK);
    assert_int_equal(tv_vote_sum(comm, &votes, 1, NULL), TV_OK);
    assert_int_equal(tv_vote_finish(comm, NULL), TV_OK);
    assert_int_equal(tv_comm_wire_bytes(comm, TV_WIRE_VOTES), 100 + 400 + 400 + 24);
    assert_int_equal(tv_comm_wire_bytes(comm, TV_WIRE_STATE), 100);
    assert_int_equal(tv_comm_sequence(comm), 2 + 4 + 1);
    assert_int_equal(tv_comm_device_sum_u32(comm, nowhere, -1, TV_WIRE_VOTES, NULL), TV_INTERNAL);
    assert_int_equal(tv_comm_device_open(comm, 1), TV_OK);
    uint32_t one = 1;
    assert_int_equal(tv_comm_device_sum_u32(comm, &one, 1, TV_WIRE_VOTES, NULL), TV_OK);
    assert_int_equal(one, 1);
}

static void test_guard(void **state)
{
    (void)state;
    const char *names[2] = {"a", "b"};
    tv_hash128 hashes[2] = {{1, 2}, {UINT64_MAX, 0}};
    tv_guard guard = {.step = 9, .sequence = 77, .config = {3, 4}, .flags = 5};
    assert_int_equal(tv_comm_barrier(comm), TV_OK);
    assert_int_equal(tv_guard_check(comm, &guard), TV_OK);
    assert_int_equal(guard.sequence, 1); // the barrier
    assert_int_equal(guard.flags, 5);
    assert_int_equal(guard.step, 9);
    assert_int_equal(tv_guard_compare(comm, names, hashes, 2), TV_OK);
    assert_int_equal(tv_comm_wire_bytes(comm, TV_WIRE_GUARD), 40 + 16 + 2 * 32);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_place), TEST(test_collectives_keep_data), TEST(test_agree), TEST(test_broken),
        TEST(test_votes), TEST(test_device_alone),          TEST(test_guard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
