// Files of sizes around those of pieces, given in parts of any size; streams that end early.
#include "io_fixture.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "base/fault.h"
#include "io/atomic_file.h"
#include "io/disk_stream.h"

enum { PIECE = 4 << 20, MOST = 9 * PIECE }; // more pieces than wait for the disk at a time

static char *folder;
static unsigned char *data;

static int open_folder(void **state)
{
    (void)state;
    folder = io_folder_new();
    data = malloc(MOST);
    uint32_t x = 1;
    for (size_t i = 0; data && i < MOST; i++) {
        x = x * 1664525 + 1013904223;
        data[i] = (unsigned char)(x >> 24);
    }
    return data ? 0 : -1;
}

static int close_folder(void **state)
{
    (void)state;
    free(data);
    io_folder_free(folder);
    return 0;
}

static void check_file(const char *path, size_t bytes, size_t part)
{
    tv_disk_stream *stream = NULL;
    tv_hash128 hash, again;
    int64_t size;
    assert_ok(tv_disk_stream_open(path, (int64_t)bytes, &stream));
    for (size_t at = 0; at < bytes; at += part)
        tv_disk_stream_add(stream, data + at, bytes - at < part ? bytes - at : part);
    assert_ok(tv_disk_stream_finish(stream, &hash));
    tv_disk_stream_free(stream);
    assert_true(tv_hash_equal(hash, tv_hash_bytes(data, bytes)));
    assert_ok(tv_file_hash(path, &size, &again));
    assert_int_equal(size, bytes);
    assert_true(tv_hash_equal(hash, again));
}

static void check_sizes(const char *place)
{
    static const size_t sizes[] = {1, 4095, 4096, 4097, PIECE - 1, PIECE, PIECE + 1, MOST - 5};
    static const size_t parts[] = {1000, PIECE, MOST};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t j = 0; j < sizeof parts / sizeof *parts; j++)
            check_file(io_path("%s/size-%zu-%zu", place, i, j), sizes[i], parts[j]);
}

static void test_sizes(void **state)
{
    (void)state;
    check_sizes(folder);
}

// A file system that has neither O_DIRECT nor a way to take room beforehand. What is mounted is seen by this process only.
static void test_ramfs(void **state)
{
    (void)state;
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", folder, "ramfs", 0, NULL) != 0) {
        printf("skipped: no ramfs can be mounted here: %s\n", strerror(errno));
        skip();
    }
    check_sizes(folder);
    assert_int_equal(umount(folder), 0);
}

static void test_zeros(void **state)
{
    (void)state;
    enum { BYTES = PIECE + 100 };
    tv_disk_stream *stream = NULL;
    tv_hash128 hash;
    size_t bytes;
    const char *path = io_path("%s/zeros", folder);
    assert_ok(tv_disk_stream_open(path, BYTES, &stream));
    tv_disk_stream_add(stream, data, 10);
    tv_disk_stream_add(stream, NULL, BYTES - 20);
    tv_disk_stream_add(stream, data, 10);
    assert_ok(tv_disk_stream_finish(stream, &hash));
    tv_disk_stream_free(stream);
    char *back = io_read(path, &bytes);
    assert_int_equal(bytes, BYTES);
    assert_memory_equal(back, data, 10);
    assert_memory_equal(back + BYTES - 10, data, 10);
    for (size_t i = 10; i < BYTES - 10; i++)
        assert_int_equal(back[i], 0);
    free(back);
}

static void test_early_ends(void **state)
{
    (void)state;
    tv_disk_stream *stream = NULL;
    tv_hash128 hash;
    assert_ok(tv_disk_stream_open(io_path("%s/left", folder), MOST, &stream));
    tv_disk_stream_add(stream, data, PIECE + 7);
    tv_disk_stream_free(stream); // does not wait for the rest
    assert_ok(tv_disk_stream_open(io_path("%s/short", folder), MOST, &stream));
    tv_disk_stream_add(stream, data, PIECE + 7);
    assert_status(TV_INTERNAL, tv_disk_stream_finish(stream, &hash));
    assert_message("fewer bytes came than were announced");
    tv_disk_stream_free(stream);
    assert_status(TV_IO, tv_disk_stream_open(io_path("%s/short", folder), 1, &stream));
    assert_message("File exists");
    assert_null(stream);
    tv_disk_stream_free(NULL);
}

// After a failure the rest of the bytes is taken and forgotten.
static void test_failure(void **state)
{
    (void)state;
    tv_disk_stream *stream = NULL;
    tv_hash128 hash;
    setenv("TV_FAULT", "save.write:hit=2:errno=EIO", 1);
    assert_ok(tv_fault_open(0));
    assert_ok(tv_disk_stream_open(io_path("%s/broken", folder), MOST, &stream));
    tv_disk_stream_add(stream, data, MOST);
    assert_status(TV_IO, tv_disk_stream_finish(stream, &hash));
    assert_message("Input/output error");
    tv_disk_stream_free(stream);
    setenv("TV_FAULT", "", 1);
    assert_ok(tv_fault_open(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes), cmocka_unit_test(test_zeros),
                                       cmocka_unit_test(test_early_ends), cmocka_unit_test(test_failure),
                                       cmocka_unit_test(test_ramfs)};
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
