// Checkpoints by several ranks: test_checkpoint_mpi <write | read | fail | writers> <folder> <ranks>
//
// write: R ranks save into folder/writers-R. read: R ranks read what 1 to 4 writers left. fail: one rank fails, all
// must return. writers: who writes, and threads.
#include "io_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"

enum { SALT = 5, STEP = 40, WRITERS_MAX = 4 };

static tv_comm *comm;
static const char *folder;
static int rank, ranks;

static tv_status save(const char *run, int64_t step, int salt)
{
    io_state s;
    tv_checkpoint_info info = io_info(step);
    io_state_make(&s, rank, ranks, salt);
    tv_status st = tv_checkpoint_save(comm, run, &info, s.arrays, IO_ARRAYS);
    if (st == TV_OK) {
        assert_true(tv_hash_equal(info.digest, io_state_digest(salt)));
        assert_int_equal(info.writers, ranks);
    }
    io_state_free(&s);
    return st;
}

// Rank 0 removes what an earlier test left, once nobody looks at it any more.
static void clean(const char *run)
{
    assert_ok(tv_comm_barrier(comm));
    if (rank == 0 && io_exists(run))
        io_folder_free(strdup(run));
    assert_ok(tv_comm_barrier(comm));
}

static void test_write(void **state)
{
    (void)state;
    char run[512];
    snprintf(run, sizeof run, "%s/writers-%d", folder, ranks);
    clean(run);
    assert_ok(save(run, STEP, SALT));
    assert_ok(tv_comm_barrier(comm));
    assert_ok(tv_checkpoint_verify(io_path("%s/step-%09d", run, STEP)));
    for (int i = 0; i < ranks; i++)
        assert_true(io_exists(io_path("%s/step-%09d/shard-%05d-of-%05d.h5", run, STEP, i, ranks)));
    assert_int_equal(io_count_entries(io_path("%s/step-%09d", run, STEP)), ranks + 2);
    assert_ok(save(run, STEP, SALT)); // the same state again is fine, on all ranks
}

static void test_read(void **state)
{
    (void)state;
    for (int writers = 1; writers <= WRITERS_MAX; writers++) {
        char run[512], *dir = NULL;
        tv_checkpoint *checkpoint = NULL;
        tv_hash128 digest;
        snprintf(run, sizeof run, "%s/writers-%d", folder, writers);
        assert_ok(tv_checkpoint_newest(comm, run, &dir));
        if (!dir)
            fail_msg("no checkpoint in %s", run);
        assert_string_equal(dir, io_path("%s/step-%09d", run, STEP));
        assert_ok(tv_checkpoint_open(dir, rank == ranks - 1, &checkpoint));
        assert_int_equal(tv_checkpoint_describe(checkpoint)->writers, writers);
        assert_string_equal(tv_checkpoint_describe(checkpoint)->config_text, io_info(STEP).config_text);
        assert_true(tv_hash_equal(tv_checkpoint_describe(checkpoint)->digest, io_state_digest(SALT)));
        io_state_check(checkpoint, rank, ranks, SALT);
        assert_ok(tv_checkpoint_digest(checkpoint, &digest));
        assert_true(tv_hash_equal(digest, io_state_digest(SALT)));
        tv_checkpoint_close(checkpoint);
        free(dir);
    }
    char *dir = NULL;
    assert_ok(tv_checkpoint_newest(comm, io_path("%s/absent", folder), &dir));
    assert_null(dir);
}

static void check_untouched(const char *run)
{
    assert_ok(tv_comm_barrier(comm));
    assert_int_equal(io_count_entries(run), 2); // step 1 and latest
    assert_ok(tv_checkpoint_verify(io_path("%s/step-000000001", run)));
    assert_ok(tv_comm_barrier(comm));
}

static void expect_all_failed(tv_status st, int failing, const char *message)
{
    assert_int_equal(st, rank == failing ? TV_IO : TV_REMOTE);
    assert_message(message);
    if (rank != failing)
        assert_message(io_path("rank %d: ", failing));
}

// Each rank in turn has no room for its shard; then all save.
static void test_one_rank_full(void **state)
{
    (void)state;
    char run[512];
    snprintf(run, sizeof run, "%s/fail-%d", folder, ranks);
    clean(run);
    assert_ok(save(run, 1, 1));
    signal(SIGXFSZ, SIG_IGN);
    for (int failing = 0; failing < ranks; failing++) {
        struct rlimit limit, small;
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
        small = limit;
        small.rlim_cur = 3000;
        if (rank == failing)
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        tv_status st = save(run, 2, 2);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        expect_all_failed(st, failing, "File too large");
        check_untouched(run);
    }
    assert_ok(save(run, 2, 2));
    assert_ok(tv_checkpoint_verify(io_path("%s/step-000000002", run)));
}

// Ranks that do not agree on the arrays, or leave rows out, publish nothing.
static void test_ranks_disagree(void **state)
{
    (void)state;
    char run[512];
    snprintf(run, sizeof run, "%s/fail-%d", folder, ranks);
    clean(run);
    assert_ok(save(run, 1, 1));
    io_state s;
    tv_checkpoint_info info = io_info(2);
    static const char *const messages[] = {"base exponent b is -9 in the checkpoint and -8 here", "are missing",
                                           "array 0 is tensors/embed/T on one rank and tensors/other/T on another"};
    for (int i = 0; i < 3; i++) {
        io_state_make(&s, rank, ranks, 2);
        if (rank == ranks - 1) {
            if (i == 0)
                s.arrays[0].b = -8;
            else if (i == 1)
                s.arrays[0].count--;
            else
                s.arrays[0].name = "other";
        }
        tv_status st = tv_checkpoint_save(comm, run, &info, s.arrays, IO_ARRAYS);
        assert_int_equal(st, rank == 0 ? TV_CHECKPOINT : TV_REMOTE);
        assert_message(messages[i]);
        check_untouched(run);
        io_state_free(&s);
    }
    // Another state under the same step's name: refused on all ranks.
    assert_int_equal(save(run, 1, 2), rank == 0 ? TV_CHECKPOINT : TV_REMOTE);
    assert_message("holds another state");
    check_untouched(run);
}

// The rows of rank `rank` in the order of the ranks, or against it, so that a writer's rows do not follow each other.
static void make_rows(io_state *s, int backwards)
{
    io_state_make(s, backwards ? ranks - 1 - rank : rank, ranks, SALT);
}

static void save_by(const char *run, int64_t writers, int backwards)
{
    io_state s;
    tv_checkpoint_writer *writer = NULL;
    tv_save_report report;
    tv_checkpoint_info info = io_info(STEP);
    assert_ok(tv_checkpoint_writer_open(comm, writers, &writer));
    make_rows(&s, backwards);
    tv_save_args args = {
        .run_dir = run, .info = &info, .arrays = s.arrays, .count = IO_ARRAYS, .background = 1, .keep = 1};
    assert_ok(tv_checkpoint_save_start(writer, &args));
    for (int i = 0; i < IO_ARRAYS; i++) // training goes on: what was taken is a copy
        memset(s.arrays[i].data, 0x55, (size_t)(s.arrays[i].count * tv_state_row_bytes(&s.arrays[i])));
    assert_true(tv_checkpoint_save_pending(writer));
    assert_ok(tv_checkpoint_save_advance(writer, &report));
    assert_false(report.done);
    assert_ok(tv_checkpoint_save_advance(writer, &report));
    assert_true(report.done);
    assert_int_equal(report.step, STEP);
    assert_true(tv_hash_equal(report.digest, io_state_digest(SALT)));
    assert_false(tv_checkpoint_save_pending(writer));
    // Once more: it is there already.
    io_state_free(&s);
    make_rows(&s, backwards);
    assert_ok(tv_checkpoint_save_start(writer, &args));
    assert_ok(tv_checkpoint_save_finish(writer, &report));
    assert_true(report.done);
    tv_checkpoint_writer_close(writer);
    io_state_free(&s);
}

static int expected_writers(int64_t writers)
{
    if (writers == TV_WRITERS_NODE)
        return 1; // the ranks of a test share a host
    return writers == TV_WRITERS_RANK || writers > ranks ? ranks : (int)writers;
}

// Each choice of writers, on a thread: the same digest, so many files, and any rank reads any rows.
static void test_writers(void **state)
{
    (void)state;
    static const int64_t choices[] = {TV_WRITERS_RANK, TV_WRITERS_NODE, 1, 2, 3, 100};
    char run[512];
    for (size_t i = 0; i < 2 * sizeof choices / sizeof *choices; i++) {
        int64_t writers = choices[i / 2];
        tv_checkpoint *checkpoint = NULL;
        tv_hash128 digest;
        snprintf(run, sizeof run, "%s/groups-%d", folder, ranks);
        clean(run);
        save_by(run, writers, (int)(i % 2));
        assert_ok(tv_comm_barrier(comm));
        assert_int_equal(io_count_entries(io_path("%s/step-%09d", run, STEP)), expected_writers(writers) + 2);
        assert_ok(tv_checkpoint_open(io_path("%s/step-%09d", run, STEP), 1, &checkpoint));
        assert_int_equal(tv_checkpoint_describe(checkpoint)->writers, expected_writers(writers));
        assert_ok(tv_checkpoint_digest(checkpoint, &digest));
        assert_true(tv_hash_equal(digest, io_state_digest(SALT)));
        io_state_check(checkpoint, rank, ranks, SALT);
        tv_checkpoint_close(checkpoint);
        assert_ok(tv_comm_barrier(comm));
    }
}

// A fail point on one rank's thread: all ranks hear of it at the next step of the save, and the writer can be used again.
static void test_thread_fails(void **state)
{
    (void)state;
    char run[512];
    tv_checkpoint_writer *writer = NULL;
    snprintf(run, sizeof run, "%s/thread-%d", folder, ranks);
    clean(run);
    assert_ok(save(run, 1, 1));
    assert_ok(tv_checkpoint_writer_open(comm, TV_WRITERS_RANK, &writer));
    static const char *const points[] = {"save.create", "save.write",  "save.close",
                                         "save.fsync",  "save.reread", "save.agree"};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        io_state s;
        tv_save_report report;
        tv_checkpoint_info info = io_info(2);
        io_state_make(&s, rank, ranks, 2);
        tv_save_args args = {.run_dir = run, .info = &info, .arrays = s.arrays, .count = IO_ARRAYS, .background = 1};
        setenv("TV_FAULT", io_path("%s:rank=%d:errno=%s", points[i], ranks - 1, i % 2 ? "EIO" : "ENOSPC"), 1);
        assert_ok(tv_fault_open(rank));
        assert_ok(tv_checkpoint_save_start(writer, &args));
        tv_status st = tv_checkpoint_save_finish(writer, &report);
        tv_status own = i % 2 ? TV_IO : TV_DISK_FULL;
        assert_int_equal(st, rank == ranks - 1 || own == TV_DISK_FULL ? own : TV_REMOTE);
        assert_false(report.done);
        assert_false(tv_checkpoint_save_pending(writer));
        check_untouched(run);
        io_state_free(&s);
    }
    setenv("TV_FAULT", "", 1);
    assert_ok(tv_fault_open(rank));
    tv_checkpoint_writer_close(writer);
    assert_ok(save(run, 2, 2));
}

int main(int argc, char **argv)
{
    if (tv_comm_open(&argc, &argv, &comm) != TV_OK) {
        fprintf(stderr, "%s\n", tv_status_message());
        return 1;
    }
    rank = tv_comm_rank(comm);
    ranks = tv_comm_size(comm);
    if (argc != 4 || atoi(argv[3]) != ranks) {
        fprintf(stderr, "usage: test_checkpoint_mpi <write | read | fail | writers> <folder> <ranks>, started on that "
                        "many ranks\n");
        return 2;
    }
    folder = argv[2];
    tv_log_init(rank, ranks, TV_LOG_ERROR);
    const struct CMUnitTest write[] = {cmocka_unit_test(test_write)};
    const struct CMUnitTest read[] = {cmocka_unit_test(test_read)};
    const struct CMUnitTest fail[] = {cmocka_unit_test(test_one_rank_full), cmocka_unit_test(test_ranks_disagree)};
    const struct CMUnitTest writers[] = {cmocka_unit_test(test_writers), cmocka_unit_test(test_thread_fails)};
    int failed = strcmp(argv[1], "write") == 0     ? cmocka_run_group_tests(write, NULL, NULL)
                 : strcmp(argv[1], "read") == 0    ? cmocka_run_group_tests(read, NULL, NULL)
                 : strcmp(argv[1], "writers") == 0 ? cmocka_run_group_tests(writers, NULL, NULL)
                                                   : cmocka_run_group_tests(fail, NULL, NULL);
    tv_comm_close(comm);
    return failed != 0;
}
