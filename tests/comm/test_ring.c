// comm/ring.h and comm/hang_rank.h: the last collectives are kept, and a report is read back as it was written.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "comm/comm_impl.h"
#include "comm/hang_rank.h"

static char folder[] = "/tmp/test_ring_XXXXXX";

static void enter(int64_t bytes)
{
    tv_ring_enter(&(tv_ring_entry){
        .op = TV_OP_SUM_I8, .wire = TV_WIRE_VOTES, .bytes = bytes, .sequence = bytes + 7, .color = -1});
}

static void test_last_entries(void **state)
{
    (void)state;
    tv_ring_entry entries[TV_RING_ENTRIES];
    for (int i = 0; i < 100; i++) {
        enter(i);
        if (i < 99)
            tv_ring_leave();
    }
    assert_int_equal(tv_ring_read(entries), TV_RING_ENTRIES);
    for (int i = 0; i < TV_RING_ENTRIES; i++) {
        assert_int_equal(entries[i].number, i + 100 - TV_RING_ENTRIES + 1);
        assert_int_equal(entries[i].bytes, i + 100 - TV_RING_ENTRIES);
        assert_int_equal(entries[i].left == 0, i == TV_RING_ENTRIES - 1);
        assert_true(i == 0 || entries[i].entered >= entries[i - 1].left);
    }
    assert_int_equal(tv_board_mine()->last.number, 100);
}

// Every collective leaves what it entered, also one of no items, and children tell their colour.
static void test_collectives(void **state)
{
    (void)state;
    tv_comm *comm = NULL, *child = NULL;
    tv_ring_entry entries[TV_RING_ENTRIES];
    int8_t votes[8] = {0};
    assert_int_equal(tv_comm_open_self(&comm), TV_OK);
    assert_int_equal(tv_comm_split(comm, 5, 0, &child), TV_OK);
    assert_int_equal(tv_comm_sum_i8(comm, votes, 0, TV_WIRE_VOTES), TV_OK);
    assert_int_equal(tv_comm_reduce_scatter_i8(child, votes, 8, TV_WIRE_VOTES), TV_OK);
    assert_int_equal(tv_comm_agree(comm, TV_OK), TV_OK);
    int last = tv_ring_read(entries) - 1;
    assert_int_equal(entries[last].op, TV_OP_AGREE);
    assert_int_equal(entries[last].color, -1);
    assert_int_equal(entries[last - 1].op, TV_OP_REDUCE_SCATTER_I8);
    assert_int_equal(entries[last - 1].color, 5);
    assert_int_equal(entries[last - 2].op, TV_OP_SUM_I8);
    for (int i = last - 2; i <= last; i++)
        assert_true(entries[i].left >= entries[i].entered);
    tv_comm_close(child);
    tv_comm_close(comm);
}

// Rank 1 writes, rank 0 on another host reads.
static void read_back(tv_hang_rank *out, uint64_t id)
{
    const tv_hang_run writer = {.folder = folder, .id = 0x123456789ABCDEF0u}, reader = {.folder = folder, .id = id};
    tv_board_place(1, 3);
    tv_watch_mark(TV_PHASE_BALLOT, 17);
    assert_int_equal(tv_hang_rank_write(&writer, TV_HANG_COLLECTIVE, 3.5), 1);
    tv_board_place(0, 3);
    tv_hang_rank_read(&reader, 1, out);
}

static void test_report(void **state)
{
    (void)state;
    tv_hang_rank r;
    enter(1000);
    read_back(&r, 0x123456789ABCDEF0u);
    assert_true(r.known && r.reported == TV_HANG_COLLECTIVE && r.inside);
    assert_int_equal(r.last.number, tv_board_mine()->last.number);
    assert_int_equal(r.last.sequence, 1007);
    assert_int_equal(r.last.op, TV_OP_SUM_I8);
    assert_int_equal(r.last.wire, TV_WIRE_VOTES);
    assert_int_equal(r.last.bytes, 1000);
    assert_int_equal(r.last.color, -1);
    assert_int_equal(r.step, 17);
    assert_int_equal(r.phase, TV_PHASE_BALLOT);
    assert_true(r.entered >= 0 && r.entered < 60 && r.marked >= 0 && r.marked < 60 && r.left < 0);
    tv_ring_leave();
    read_back(&r, 0x123456789ABCDEF0u);
    assert_true(r.known && !r.inside && r.left >= 0 && r.left < 60);
    read_back(&r, 1); // the report of an earlier run
    assert_false(r.known);
    tv_hang_rank_read(&(tv_hang_run){.folder = folder}, 2, &r);
    assert_false(r.known);
    assert_int_equal(tv_hang_rank_write(&(tv_hang_run){.folder = "/nowhere/at/all"}, TV_HANG_COLLECTIVE, 1), 0);
    assert_int_equal(tv_hang_rank_write(&(tv_hang_run){.folder = ""}, TV_HANG_COLLECTIVE, 1), 0);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    char path[128];
    (void)state;
    snprintf(path, sizeof path, "%s/hang-rank-00001.json", folder);
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_last_entries),
        cmocka_unit_test(test_collectives),
        cmocka_unit_test(test_report),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
