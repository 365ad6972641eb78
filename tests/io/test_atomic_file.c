// Files and folders of io/atomic_file.h, and the run lock.
#include "io_fixture.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/atomic_file.h"

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

static void test_replace(void **state)
{
    const char *path = io_path("%s/file", (char *)*state);
    char *data;
    size_t bytes;
    assert_ok(tv_file_replace(path, "old", 3));
    assert_ok(tv_file_replace(path, "new\0text", 8));
    assert_ok(tv_file_read(path, 8, &data, &bytes));
    assert_int_equal(bytes, 8);
    assert_memory_equal(data, "new\0text", 9);
    free(data);
    assert_int_equal(io_count_entries(*state), 1);
    assert_status(TV_IO, tv_file_replace(io_path("%s/none/file", (char *)*state), "x", 1));
    assert_message("No such file");
}

// In a child: the limit on file sizes stays with the process.
static void test_replace_full(void **state)
{
    const char *path = io_path("%s/file", (char *)*state);
    io_write_text(path, "precious");
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char block[4096] = {0};
        struct rlimit limit = {1000, 1000};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        int seen = tv_file_replace(path, block, sizeof block) == TV_IO && strstr(tv_status_message(), "File too large");
        _exit(seen ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    size_t bytes;
    char *data = io_read(path, &bytes);
    assert_string_equal(data, "precious");
    free(data);
    assert_int_equal(io_count_entries(*state), 1);
}

static void test_read_refuses(void **state)
{
    const char *folder = *state, *path = io_path("%s/file", folder), *link = io_path("%s/link", folder);
    char *data;
    size_t bytes;
    int64_t size;
    tv_hash128 hash;
    io_write_text(path, "twelve bytes");
    assert_status(TV_IO, tv_file_read(path, 11, &data, &bytes));
    assert_message("12 bytes");
    assert_null(data);
    assert_int_equal(symlink(path, link), 0);
    assert_status(TV_IO, tv_file_read(link, 100, &data, &bytes));
    assert_message("symbolic link");
    assert_status(TV_IO, tv_file_hash(link, &size, &hash));
    assert_status(TV_IO, tv_file_hash(folder, &size, &hash));
    assert_message("not a regular file");
    assert_int_equal(mkfifo(io_path("%s/pipe", folder), 0600), 0);
    assert_status(TV_IO, tv_file_hash(io_path("%s/pipe", folder), &size, &hash));
    assert_status(TV_IO, tv_file_hash(io_path("%s/none", folder), &size, &hash));
}

// Against the hash of the same bytes in memory, around the size of a read block.
static void test_hash(void **state)
{
    const char *path = io_path("%s/file", (char *)*state);
    static const size_t sizes[] = {0, 1, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20};
    char *data = malloc(3 << 20);
    assert_non_null(data);
    for (size_t i = 0; i < 3 << 20; i++)
        data[i] = (char)(i * 31 + (i >> 9));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t bytes;
        tv_hash128 hash;
        io_write(path, data, sizes[i]);
        assert_ok(tv_file_hash(path, &bytes, &hash));
        assert_int_equal(bytes, sizes[i]);
        assert_true(tv_hash_equal(hash, tv_hash_bytes(data, sizes[i])));
    }
    free(data);
}

static void test_folders(void **state)
{
    const char *folder = *state, *deep = io_path("%s/a//b/c/", folder);
    struct stat about;
    assert_ok(tv_dir_make(deep));
    assert_ok(tv_dir_make(deep));
    assert_int_equal(stat(io_path("%s/a/b/c", folder), &about), 0);
    assert_true(S_ISDIR(about.st_mode));
    io_write_text(io_path("%s/plain", folder), "x");
    assert_status(TV_IO, tv_dir_make(io_path("%s/plain/b", folder)));
    assert_message("no folder");

    // A symlink inside goes, what it names stays; a folder inside is not entered.
    io_write_text(io_path("%s/a/b/c/file", folder), "x");
    assert_int_equal(symlink(io_path("%s/plain", folder), io_path("%s/a/b/c/link", folder)), 0);
    assert_ok(tv_dir_remove(io_path("%s/a/b/c", folder)));
    assert_false(io_exists(io_path("%s/a/b/c", folder)));
    assert_true(io_exists(io_path("%s/plain", folder)));
    assert_status(TV_IO, tv_dir_remove(io_path("%s/a", folder)));
    assert_true(io_exists(io_path("%s/a/b", folder)));
    assert_int_equal(symlink(io_path("%s/a/b", folder), io_path("%s/way", folder)), 0);
    assert_status(TV_IO, tv_dir_remove(io_path("%s/way", folder)));
    assert_ok(tv_path_sync(folder));
    assert_status(TV_IO, tv_path_sync(io_path("%s/none", folder)));
}

static void test_lock(void **state)
{
    tv_run_lock *lock = NULL, *second = NULL;
    assert_ok(tv_run_lock_take(*state, &lock));
    assert_status(TV_IO, tv_run_lock_take(*state, &second));
    assert_null(second);
    assert_message(io_path("pid %ld", (long)getpid()));
    assert_message("in use by another run (host ");
    tv_run_lock_free(lock);
    assert_ok(tv_run_lock_take(*state, &second));
    tv_run_lock_free(second);
    tv_run_lock_free(NULL);
    assert_status(TV_IO, tv_run_lock_take(io_path("%s/none", (char *)*state), &lock));
}

// A holder that is killed leaves its file but no lock.
static void test_lock_of_dead_process(void **state)
{
    int ready[2];
    char byte;
    tv_run_lock *lock = NULL;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        tv_status st = tv_run_lock_take(*state, &lock);
        if (st != TV_OK || write(ready[1], "x", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_status(TV_IO, tv_run_lock_take(*state, &lock));
    assert_message(io_path("pid %ld)", (long)child));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_ok(tv_run_lock_take(*state, &lock));
    tv_run_lock_free(lock);
    close(ready[0]);
    close(ready[1]);
}

// What is in the lock file is another program's word: control characters do not reach the terminal.
static void test_lock_message_is_clean(void **state)
{
    tv_run_lock *lock = NULL, *second = NULL;
    assert_ok(tv_run_lock_take(*state, &lock));
    io_write_text(io_path("%s/lock", (char *)*state), "\x1b[31mred");
    assert_status(TV_IO, tv_run_lock_take(*state, &second));
    assert_message("?[31mred");
    io_write_text(io_path("%s/lock", (char *)*state), "");
    assert_status(TV_IO, tv_run_lock_take(*state, &second));
    assert_message("an unknown process");
    tv_run_lock_free(lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_replace, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_replace_full, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_read_refuses, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_hash, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_folders, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_lock, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_lock_of_dead_process, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_lock_message_is_clean, make_folder, drop_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
