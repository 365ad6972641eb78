// Checkpoints of one writer: round trip, choice of the newest, pruning, equal saves.
#include "io_fixture.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

static int make_folder(void **state)
{
    *state = io_folder_new();
    return 0;
}

static int drop_folder(void **state)
{
    io_folder_free(*state);
    return 0;
}

static char *newest(const char *run_dir)
{
    tv_comm *comm = NULL;
    char *dir = NULL;
    assert_ok(tv_comm_open_self(&comm));
    assert_ok(tv_checkpoint_newest(comm, run_dir, &dir));
    tv_comm_close(comm);
    return dir;
}

static void expect_newest(const char *run_dir, const char *name)
{
    char *dir = newest(run_dir);
    assert_non_null(dir);
    assert_string_equal(dir, io_path("%s/%s", run_dir, name));
    free(dir);
}

static void test_round_trip(void **state)
{
    tv_checkpoint *checkpoint = NULL;
    const tv_checkpoint_info expected = io_info(1200);
    tv_hash128 digest;
    io_save(io_path("%s/deep/run", (char *)*state), 1200, 1);
    char *dir = strdup(io_path("%s/deep/run/step-000001200", (char *)*state));
    assert_ok(tv_checkpoint_verify(dir));
    assert_ok(tv_checkpoint_open(dir, 1, &checkpoint));
    const tv_checkpoint_info *info = tv_checkpoint_describe(checkpoint);
    assert_int_equal(info->step, expected.step);
    assert_int_equal(info->bytes_seen, expected.bytes_seen);
    assert_int_equal(info->seed, expected.seed);
    assert_int_equal(info->units, expected.units);
    assert_int_equal(info->writers, 1);
    assert_string_equal(info->config_text, expected.config_text);
    assert_string_equal(info->program, expected.program);
    assert_true(tv_hash_equal(info->config_hash, expected.config_hash));
    assert_true(tv_hash_equal(info->corpus, expected.corpus));
    assert_true(tv_hash_equal(info->digest, io_state_digest(1)));
    assert_ok(tv_checkpoint_digest(checkpoint, &digest));
    assert_true(tv_hash_equal(digest, io_state_digest(1)));
    // Any way to cut the rows, though one rank wrote them.
    for (int ranks = 1; ranks <= 7; ranks++)
        for (int rank = 0; rank < ranks; rank++)
            io_state_check(checkpoint, rank, ranks, 1);
    tv_checkpoint_close(checkpoint);
    tv_checkpoint_close(NULL);
    free(dir);
    size_t bytes;
    char *latest = io_read(io_path("%s/deep/run/latest", (char *)*state), &bytes);
    assert_string_equal(latest, "step-000001200\n");
    free(latest);
}

// An array larger than a chunk: cut at rows that do not divide it, read whole and in the middle.
static void test_many_chunks(void **state)
{
    enum { ROWS = 10007, COLS = 1000 };
    tv_comm *comm = NULL;
    tv_checkpoint *checkpoint = NULL;
    int16_t *data = malloc((size_t)ROWS * COLS * sizeof *data), *back = calloc((size_t)ROWS * COLS, sizeof *back);
    assert_non_null(data);
    assert_non_null(back);
    for (int64_t i = 0; i < (int64_t)ROWS * COLS; i++)
        data[i] = (int16_t)(i * 40503 >> 3);
    tv_state_array array = {"big", "usage", "tables", TV_I16, ROWS, COLS, COLS, 0, ROWS, data, 0, 0, 0, 0};
    tv_checkpoint_info info = io_info(1);
    assert_ok(tv_comm_open_self(&comm));
    assert_ok(tv_checkpoint_save(comm, *state, &info, &array, 1));
    assert_ok(tv_checkpoint_open(io_path("%s/step-000000001", (char *)*state), 1, &checkpoint));
    array.data = back;
    assert_ok(tv_checkpoint_read(checkpoint, &array, 1));
    assert_memory_equal(data, back, (size_t)ROWS * COLS * sizeof *data);
    array.first_row = 2500, array.count = 5001;
    assert_ok(tv_checkpoint_read(checkpoint, &array, 1));
    assert_memory_equal(data + 2500 * COLS, back, (size_t)5001 * COLS * sizeof *data);
    struct stat about;
    assert_int_equal(stat(io_path("%s/step-000000001/shard-00000-of-00001.h5", (char *)*state), &about), 0);
    assert_true(about.st_size < (off_t)(ROWS * COLS * sizeof *data * 101 / 100));
    tv_checkpoint_close(checkpoint);
    tv_comm_close(comm);
    free(back);
    free(data);
}

// The bound of the free-space check holds, and is no wild guess.
static void test_size(void **state)
{
    io_state s;
    io_state_make(&s, 0, 1, 1);
    int64_t bound = tv_checkpoint_size_bytes(s.arrays, IO_ARRAYS), used = 0, data = 0;
    for (int i = 0; i < IO_ARRAYS; i++)
        data += s.arrays[i].rows * tv_state_row_bytes(&s.arrays[i]);
    io_state_free(&s);
    io_save(*state, 1, 1);
    const char *dir = io_path("%s/step-000000001", (char *)*state);
    DIR *folder = opendir(dir);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct stat about;
        assert_int_equal(stat(io_path("%s/%s", dir, entry->d_name), &about), 0);
        used += about.st_size;
    }
    closedir(folder);
    assert_in_range(used, data, bound);
    assert_true(bound < data + (1 << 20));
    tv_state_array large = {"big", "usage", "tables", TV_I8, 1 << 20, 4096, 4096, 0, 1 << 20, NULL, 0, 0, 0, 0};
    assert_in_range(tv_checkpoint_size_bytes(&large, 1), (int64_t)4 << 30, ((int64_t)4 << 30) / 100 * 102);
}

// Nothing but the state decides the bytes: no times, no addresses.
static void test_equal_saves(void **state)
{
    io_save(io_path("%s/a", (char *)*state), 1, 1);
    sleep(1);
    io_save(io_path("%s/b", (char *)*state), 1, 1);
    static const char *const names[] = {"manifest.json", "checksums.xxh128", "shard-00000-of-00001.h5"};
    for (size_t i = 0; i < 3; i++) {
        size_t bytes, other;
        char *a = io_read(io_path("%s/a/step-000000001/%s", (char *)*state, names[i]), &bytes);
        char *b = io_read(io_path("%s/b/step-000000001/%s", (char *)*state, names[i]), &other);
        assert_int_equal(bytes, other);
        assert_memory_equal(a, b, bytes);
        free(a);
        free(b);
    }
}

static void test_newest(void **state)
{
    const char *run = *state;
    assert_null(newest(run));
    assert_null(newest(io_path("%s/none", run)));
    io_save(run, 5, 1);
    io_save(run, 20, 2);
    io_save(run, 100, 3);
    assert_int_equal(mkdir(io_path("%s/step-000000999.tmp-1-2", run), 0755), 0);
    assert_int_equal(mkdir(io_path("%s/step-000000500", run), 0755), 0);
    io_copy_folder(io_path("%s/step-000000005", run), io_path("%s/step-000000300", run));
    io_write_text(io_path("%s/latest", run), "step-000000005\n"); // only a hint
    expect_newest(run, "step-000000100");
    io_flip_bit(io_path("%s/step-000000100/shard-00000-of-00001.h5", run), 3000, 0);
    expect_newest(run, "step-000000020");
    assert_int_equal(unlink(io_path("%s/step-000000020/manifest.json", run)), 0);
    expect_newest(run, "step-000000005");
    assert_int_equal(unlink(io_path("%s/step-000000005/checksums.xxh128", run)), 0);
    tv_comm *comm = NULL; // some, but none usable: no silent fresh start
    char *dir = NULL;
    assert_ok(tv_comm_open_self(&comm));
    assert_status(TV_CHECKPOINT, tv_checkpoint_newest(comm, run, &dir));
    assert_message("none can be used");
    assert_null(dir);
    tv_comm_close(comm);
}

// Another state of the same step is refused, the same one is left alone, a damaged one is set aside.
static void test_same_step(void **state)
{
    const char *run = *state;
    tv_comm *comm = NULL;
    io_state other;
    tv_checkpoint_info info = io_info(7);
    struct stat before, after;
    assert_ok(tv_comm_open_self(&comm));
    io_save(run, 7, 1);
    char *shard = strdup(io_path("%s/step-000000007/shard-00000-of-00001.h5", run));
    assert_int_equal(stat(shard, &before), 0);
    io_save(run, 7, 1);
    assert_int_equal(stat(shard, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);

    io_state_make(&other, 0, 1, 2);
    assert_status(TV_CHECKPOINT, tv_checkpoint_save(comm, run, &info, other.arrays, IO_ARRAYS));
    assert_message("holds another state");
    assert_ok(tv_checkpoint_verify(io_path("%s/step-000000007", run)));
    assert_int_equal(io_count_entries(run), 2);

    io_flip_bit(shard, 2000, 1);
    assert_ok(tv_checkpoint_save(comm, run, &info, other.arrays, IO_ARRAYS));
    assert_ok(tv_checkpoint_verify(io_path("%s/step-000000007", run)));
    assert_int_equal(io_count_entries(run), 3); // the new one, the one set aside, latest
    io_state_free(&other);
    free(shard);
    tv_comm_close(comm);
}

static void test_prune(void **state)
{
    const char *run = *state;
    for (int step = 1; step <= 6; step++)
        io_save(run, step, step);
    assert_int_equal(mkdir(io_path("%s/step-000000009.tmp-77-88", run), 0755), 0);
    io_write_text(io_path("%s/step-000000009.tmp-77-88/shard-00000-of-00001.h5", run), "half");
    assert_int_equal(mkdir(io_path("%s/step-notes", run), 0755), 0);
    assert_int_equal(mkdir(io_path("%s/step-000000000", run), 0755), 0); // no manifest: not ours to remove
    io_write_text(io_path("%s/step-000000002/thesis.txt", run), "precious");
    tv_checkpoint_prune(run, 2, io_path("%s/./step-000000003", run));
    static const char *const kept[] = {"step-000000006", "step-000000005", "step-000000003", "step-000000002",
                                       "step-000000000", "step-notes",     "latest"};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        assert_true(io_exists(io_path("%s/%s", run, kept[i])));
    assert_int_equal(io_count_entries(run), 7);
    assert_ok(tv_checkpoint_verify(io_path("%s/step-000000003", run)));
}

// The two newest are damaged, so the third, the newest valid one, survives keep = 1 and even keep = 0.
static void test_prune_keeps_valid(void **state)
{
    const char *run = *state;
    for (int step = 1; step <= 4; step++)
        io_save(run, step, step);
    io_flip_bit(io_path("%s/step-000000004/shard-00000-of-00001.h5", run), 1000, 7);
    io_flip_bit(io_path("%s/step-000000003/shard-00000-of-00001.h5", run), 1000, 7);
    tv_checkpoint_prune(run, 1, NULL);
    assert_true(io_exists(io_path("%s/step-000000002", run)));
    assert_false(io_exists(io_path("%s/step-000000001", run)));
    expect_newest(run, "step-000000002");
    tv_checkpoint_prune(run, 0, NULL);
    expect_newest(run, "step-000000002");
}

static void expect_read_fails(tv_checkpoint *checkpoint, tv_state_array array, const char *message)
{
    char memory[64] = {0};
    array.count = 1;
    array.data = memory;
    assert_status(TV_CHECKPOINT, tv_checkpoint_read(checkpoint, &array, 1));
    assert_message(message);
}

// A model of another shape gets a sentence, not the bytes.
static void test_shape_differs(void **state)
{
    tv_checkpoint *checkpoint = NULL;
    io_save(*state, 1, 1);
    assert_ok(tv_checkpoint_open(io_path("%s/step-000000001", (char *)*state), 1, &checkpoint));
    int64_t count;
    const tv_state_array good = tv_checkpoint_arrays(checkpoint, &count)[0];
    tv_state_array a = good;
    a.name = "absent", expect_read_fails(checkpoint, a, "absent T is not in it");
    a = good, a.rows = 38, expect_read_fails(checkpoint, a, "rows is 37 in the checkpoint and 38 here");
    a = good, a.cols = 4, expect_read_fails(checkpoint, a, "columns is 3 in the checkpoint and 4 here");
    a = good, a.logical_cols = 12, expect_read_fails(checkpoint, a, "logical columns is 13");
    a = good, a.b = -8, expect_read_fails(checkpoint, a, "base exponent b is -9");
    a = good, a.m = 1, expect_read_fails(checkpoint, a, "mantissa bits m is 0");
    a = good, a.scale_group = 8, expect_read_fails(checkpoint, a, "group size G is 4");
    a = good, a.dtype = TV_I8, expect_read_fails(checkpoint, a, "is uint8 in the checkpoint and int8 here");
    a = good, a.first_row = 37, a.count = 1;
    assert_status(TV_INTERNAL, tv_checkpoint_read(checkpoint, &a, 1));
    tv_checkpoint_close(checkpoint);
}

// A table of arrays that cannot be saved: names that would leave the folder, blocks outside the array, rows nobody
// holds.
static void test_save_refuses(void **state)
{
    tv_comm *comm = NULL;
    int8_t data[40] = {0};
    assert_ok(tv_comm_open_self(&comm));
    const struct {
        tv_state_array array;
        tv_status status;
        const char *message;
    } cases[] = {
        {{"a/b", "x", "tables", TV_I8, 4, 4, 4, 0, 4, data, 0, 0, 0, 0}, TV_CHECKPOINT, "contains '/' or '..'"},
        {{"a", "..", "tables", TV_I8, 4, 4, 4, 0, 4, data, 0, 0, 0, 0}, TV_CHECKPOINT, "contains '/' or '..'"},
        {{"a", "x", "", TV_I8, 4, 4, 4, 0, 4, data, 0, 0, 0, 0}, TV_CHECKPOINT, "is empty"},
        {{"a b", "x", "tables", TV_I8, 4, 4, 4, 0, 4, data, 0, 0, 0, 0}, TV_CHECKPOINT, "other than letters"},
        {{"a", "x", "tables", TV_I8, 4, 4, 4, 2, 4, data, 0, 0, 0, 0}, TV_INTERNAL, "no block of"},
        {{"a", "x", "tables", TV_I8, 4, 4, 4, 0, 4, NULL, 0, 0, 0, 0}, TV_INTERNAL, "no block of"},
        {{"a", "x", "tables", TV_I8, 4, 4, 4, 1, 3, data, 0, 0, 0, 0}, TV_CHECKPOINT, "rows 0 to 0 are missing"},
        {{"a", "x", "tables", TV_I8, 4, 4, 4, 0, 3, data, 0, 0, 0, 0}, TV_CHECKPOINT, "rows 3 to 3 are missing"},
        {{"a", "T", "tensors", TV_U8, 4, 4, 4, 0, 4, data, 0, 0, 4, 0}, TV_CHECKPOINT, "ceil(4 / 5)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tv_checkpoint_info info = io_info(1);
        assert_status(cases[i].status, tv_checkpoint_save(comm, *state, &info, &cases[i].array, 1));
        assert_message(cases[i].message);
        assert_int_equal(io_count_entries(*state), 0);
    }
    tv_comm_close(comm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_many_chunks, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_size, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_equal_saves, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_newest, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_same_step, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_prune, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_prune_keeps_valid, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_shape_differs, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_save_refuses, make_folder, drop_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
