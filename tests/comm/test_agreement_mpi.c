// tv_comm_agree, the guard and the comparison of hashes: every rank goes wrong in turn, and all ranks must say the
// same.
#include <stdio.h>
#include <string.h>

#include "comm/guard.h"
#include "mpi_fixture.h"

static int ranks(void) { return tv_comm_size(fixture_comm); }

static int my_rank(void) { return tv_comm_rank(fixture_comm); }

static void test_agree_ok(void **state)
{
    (void)state;
    int64_t before = tv_comm_wire_bytes(fixture_comm, TV_WIRE_OTHER);
    assert_ok(tv_comm_agree(fixture_comm, TV_OK));
    assert_int_equal(tv_comm_wire_bytes(fixture_comm, TV_WIRE_OTHER) - before, 24);
}

// One failing rank: it keeps code and message; the others hear of it.
static void agree_one(int failing, tv_status code, tv_status heard)
{
    char expected[64];
    int64_t before = tv_comm_wire_bytes(fixture_comm, TV_WIRE_OTHER);
    uint64_t sequence = tv_comm_sequence(fixture_comm);
    snprintf(expected, sizeof expected, "rank %d: file %d is broken", failing, failing * 11);
    if (my_rank() == failing) {
        assert_status(code, tv_comm_agree(fixture_comm, TV_FAIL(code, "file %d is broken", failing * 11)));
        assert_string_equal(tv_status_message(), expected + strlen("rank 0: "));
    } else {
        assert_status(heard, tv_comm_agree(fixture_comm, TV_OK));
        assert_string_equal(tv_status_message(), expected);
    }
    assert_int_equal(tv_comm_wire_bytes(fixture_comm, TV_WIRE_OTHER) - before, 24 + 1024);
    assert_int_equal(tv_comm_sequence(fixture_comm), sequence + 1);
}

static void test_agree_each_rank_fails(void **state)
{
    (void)state;
    for (int failing = 0; failing < ranks(); failing++) {
        agree_one(failing, TV_IO, TV_REMOTE);
        agree_one(failing, TV_NUMERIC, TV_REMOTE);
        agree_one(failing, TV_CONFIG, TV_CONFIG);
        agree_one(failing, TV_STOPPED, TV_STOPPED);
    }
    assert_ok(tv_comm_agree(fixture_comm, TV_OK));
}

// Ranks first, first + 1 ... fail with different codes; the lower ones hear the first of them.
static void test_agree_several_fail(void **state)
{
    (void)state;
    for (int first = 0; first + 1 < ranks(); first++) {
        tv_status mine = my_rank() < first ? TV_OK : my_rank() % 2 ? TV_STOPPED : TV_CONFIG;
        if (mine != TV_OK) {
            assert_status(mine, tv_comm_agree(fixture_comm, TV_FAIL(mine, "mine")));
            assert_string_equal(tv_status_message(), "mine");
            continue;
        }
        char expected[32];
        snprintf(expected, sizeof expected, "rank %d: mine", first);
        assert_status(TV_REMOTE, tv_comm_agree(fixture_comm, TV_OK));
        assert_string_equal(tv_status_message(), expected);
    }
}

// A message as long as the record allows arrives cut, but whole ranks agree and nothing is overrun.
static void test_agree_long_message(void **state)
{
    (void)state;
    char longest[1100];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    int last = ranks() - 1;
    tv_status mine = my_rank() == last ? TV_FAIL(TV_IO, "%s", longest) : TV_OK;
    assert_status(my_rank() == last ? TV_IO : TV_REMOTE, tv_comm_agree(fixture_comm, mine));
    assert_message("xxxxxxxx");
    assert_int_equal(strlen(tv_status_message()), 1023);
}

static tv_guard guard_at(int64_t step)
{
    return (tv_guard){
        .step = step, .config = {0x1234567890ABCDEFu, 0xFEDCBA0987654321u}, .flags = (uint64_t)1 << my_rank()};
}

static void test_guard_agrees(void **state)
{
    (void)state;
    int64_t before = tv_comm_wire_bytes(fixture_comm, TV_WIRE_GUARD);
    for (int64_t step = 0; step < 3; step++) {
        tv_guard guard = guard_at(step);
        assert_ok(tv_guard_check(fixture_comm, &guard));
        assert_int_equal(guard.flags, ((uint64_t)1 << ranks()) - 1);
    }
    assert_int_equal(tv_comm_wire_bytes(fixture_comm, TV_WIRE_GUARD) - before, 3 * 40 * ranks());
}

static void test_guard_names_step(void **state)
{
    (void)state;
    for (int drifted = 1; drifted < ranks(); drifted++) {
        char expected[128];
        tv_guard guard = guard_at(my_rank() == drifted ? 17 : 18);
        assert_status(TV_COMM, tv_guard_check(fixture_comm, &guard));
        snprintf(expected, sizeof expected, "ranks have drifted apart: rank %d is at step 17, rank 0 at step 18",
                 drifted);
        assert_string_equal(tv_status_message(), expected);
    }
}

// When rank 0 is the one that drifted, all others differ from it.
static void test_guard_names_all_when_zero_drifts(void **state)
{
    (void)state;
    tv_guard guard = guard_at(my_rank() == 0 ? 4 : 5);
    if (ranks() == 1) {
        assert_ok(tv_guard_check(fixture_comm, &guard));
        return;
    }
    assert_status(TV_COMM, tv_guard_check(fixture_comm, &guard));
    for (int r = 1; r < ranks(); r++) {
        char part[64];
        snprintf(part, sizeof part, "rank %d is at step 5, rank 0 at step 4", r);
        assert_message(part);
    }
}

static void test_guard_names_config(void **state)
{
    (void)state;
    for (int drifted = 1; drifted < ranks(); drifted++) {
        char part[64];
        tv_guard guard = guard_at(3);
        guard.config.high ^= my_rank() == drifted;
        assert_status(TV_COMM, tv_guard_check(fixture_comm, &guard));
        snprintf(part, sizeof part, "rank %d runs config ", drifted);
        assert_message(part);
        assert_null(strstr(tv_status_message(), "step"));
    }
}

// A rank that entered one collective more. Its number is set back afterwards: the collectives themselves did match.
static void test_guard_names_sequence(void **state)
{
    (void)state;
    for (int drifted = 1; drifted < ranks(); drifted++) {
        char part[64];
        fixture_comm->sequence += my_rank() == drifted;
        tv_guard guard = guard_at(3);
        assert_status(TV_COMM, tv_guard_check(fixture_comm, &guard));
        snprintf(part, sizeof part, "rank %d has entered %llu collectives, rank 0 %llu", drifted,
                 (unsigned long long)(guard.sequence + (my_rank() != drifted)),
                 (unsigned long long)(guard.sequence - (my_rank() == drifted)));
        assert_message(part);
        fixture_comm->sequence -= my_rank() == drifted;
    }
}

#define ENTRIES 150 // more than two batches

static void compare_setup(const char *names[ENTRIES], char text[ENTRIES][16], tv_hash128 hashes[ENTRIES])
{
    for (int i = 0; i < ENTRIES; i++) {
        snprintf(text[i], 16, "tensor.%d/T", i);
        names[i] = text[i];
        hashes[i] = (tv_hash128){(uint64_t)i * 0x9E3779B97F4A7C15u, ~(uint64_t)i};
    }
}

static void test_compare_equal(void **state)
{
    (void)state;
    const char *names[ENTRIES];
    char text[ENTRIES][16];
    tv_hash128 hashes[ENTRIES];
    compare_setup(names, text, hashes);
    const int64_t counts[] = {0, 1, 64, 65, ENTRIES};
    for (int c = 0; c < 5; c++) {
        int64_t before = tv_comm_wire_bytes(fixture_comm, TV_WIRE_GUARD);
        assert_ok(tv_guard_compare(fixture_comm, names, hashes, counts[c]));
        assert_int_equal(tv_comm_wire_bytes(fixture_comm, TV_WIRE_GUARD) - before, 16 + 32 * counts[c]);
    }
}

// One bit of one entry of one rank, in either half, lowest and highest bit.
static void test_compare_names_entry_and_rank(void **state)
{
    (void)state;
    const char *names[ENTRIES];
    char text[ENTRIES][16];
    tv_hash128 hashes[ENTRIES];
    const int entries[] = {0, 63, 64, ENTRIES - 1};
    for (int drifted = 0; drifted < ranks(); drifted++)
        for (int e = 0; e < 4 && ranks() > 1; e++) {
            char part[64];
            compare_setup(names, text, hashes);
            uint64_t flip = my_rank() == drifted ? (uint64_t)1 << (e % 2 ? 63 : 0) : 0;
            *(e < 2 ? &hashes[entries[e]].low : &hashes[entries[e]].high) ^= flip;
            assert_status(TV_COMM, tv_guard_compare(fixture_comm, names, hashes, ENTRIES));
            snprintf(part, sizeof part, "tensor.%d/T is not the same on all ranks", entries[e]);
            assert_message(part);
            // Of two ranks neither is the majority: the lower one's value counts.
            snprintf(part, sizeof part, "ranks: rank %d has ", ranks() == 2 ? 1 : drifted);
            assert_message(part);
        }
    assert_ok(tv_comm_agree(fixture_comm, TV_OK));
}

static void test_compare_counts(void **state)
{
    (void)state;
    const char *names[ENTRIES];
    char text[ENTRIES][16];
    tv_hash128 hashes[ENTRIES];
    compare_setup(names, text, hashes);
    if (ranks() == 1)
        return;
    assert_status(TV_COMM, tv_guard_compare(fixture_comm, names, hashes, my_rank() == ranks() - 1 ? 3 : 70));
    assert_message("from 3 to 70");
    for (int i = 10; i < 20; i++)
        hashes[i].low ^= my_rank() == 1;
    assert_status(TV_COMM, tv_guard_compare(fixture_comm, names, hashes, ENTRIES));
    assert_message("tensor.10/T");
    assert_message("9 more entries differ");
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agree_ok),
        cmocka_unit_test(test_agree_each_rank_fails),
        cmocka_unit_test(test_agree_several_fail),
        cmocka_unit_test(test_agree_long_message),
        cmocka_unit_test(test_guard_agrees),
        cmocka_unit_test(test_guard_names_step),
        cmocka_unit_test(test_guard_names_all_when_zero_drifts),
        cmocka_unit_test(test_guard_names_config),
        cmocka_unit_test(test_guard_names_sequence),
        cmocka_unit_test(test_compare_equal),
        cmocka_unit_test(test_compare_names_entry_and_rank),
        cmocka_unit_test(test_compare_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv) { return fixture_main(argc, argv, run); }
