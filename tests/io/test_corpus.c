// The training text: windows, hold-out, refusals, files that change during a run.
#include "io_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/corpus.h"

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

// A file whose byte i is (i + first) mod 251.
static char *make_file(const char *folder, const char *name, int bytes, int first)
{
    char *path = strdup(io_path("%s/%s", folder, name)), *data = malloc((size_t)bytes + 1);
    assert_non_null(path);
    assert_non_null(data);
    for (int i = 0; i < bytes; i++)
        data[i] = (char)((i + first) % 251);
    io_write(path, data, (size_t)bytes);
    free(data);
    return path;
}

// All windows of three files, against positions counted by hand: file by file, never over a border, nothing of the
// hold-out.
static void test_windows(void **state)
{
    enum { WINDOW = 10, HELD = 35 };
    const int sizes[] = {100, 5, 60, 12, 40};
    char *paths[5];
    for (int i = 0; i < 5; i++)
        paths[i] = make_file(*state, io_path("f%d", i), sizes[i], 17 * i);
    tv_corpus *corpus = NULL;
    assert_ok(tv_corpus_open((const char *const *)paths, 5, HELD, WINDOW, &corpus));
    assert_int_equal(tv_corpus_train_bytes(corpus), 217 - HELD);
    assert_int_equal(tv_corpus_held_bytes(corpus), HELD);
    int64_t index = 0;
    for (int i = 0; i < 5; i++)
        for (int start = 0; start + WINDOW <= sizes[i] - (i == 4 ? HELD : 0); start++, index++) {
            const uint8_t *bytes = NULL;
            assert_ok(tv_corpus_window(corpus, index, &bytes));
            for (int k = 0; k < WINDOW; k++)
                assert_int_equal(bytes[k], (start + k + 17 * i) % 251);
        }
    assert_int_equal(tv_corpus_windows(corpus), index);
    const uint8_t *bytes;
    assert_status(TV_INTERNAL, tv_corpus_window(corpus, index, &bytes));
    assert_status(TV_INTERNAL, tv_corpus_window(corpus, -1, &bytes));
    tv_corpus_close(corpus);
    for (int i = 0; i < 5; i++)
        free(paths[i]);
}

// One file: window i of W starts at floor(i (len - window) / max(W - 1, 1)) of the hold-out.
static void test_held_windows(void **state)
{
    char *path = make_file(*state, "f", 1000, 0);
    const char *const paths[] = {path};
    tv_corpus *corpus = NULL;
    assert_ok(tv_corpus_open(paths, 1, 205, 20, &corpus));
    assert_int_equal(tv_corpus_held_windows(corpus, 1000), 10);
    assert_int_equal(tv_corpus_held_windows(corpus, 4), 4);
    assert_int_equal(tv_corpus_held_windows(corpus, 0), 0);
    for (int windows = 1; windows <= 10; windows++)
        for (int i = 0; i < windows; i++) {
            const uint8_t *bytes = NULL;
            int start = 795 + i * (205 - 20) / (windows > 1 ? windows - 1 : 1);
            assert_ok(tv_corpus_held_window(corpus, i, windows, &bytes));
            for (int k = 0; k < 20; k++)
                assert_int_equal(bytes[k], (start + k) % 251);
        }
    const uint8_t *bytes;
    assert_status(TV_INTERNAL, tv_corpus_held_window(corpus, 10, 10, &bytes));
    tv_corpus_close(corpus);
    free(path);
}

// Over three files, of which the middle one is too short for a window: 3 starts in the first, 11 in the last.
static void test_held_windows_over_files(void **state)
{
    char *paths[] = {make_file(*state, "a", 50, 0), make_file(*state, "b", 6, 100), make_file(*state, "c", 20, 200)};
    tv_corpus *corpus = NULL;
    assert_ok(tv_corpus_open((const char *const *)paths, 3, 12 + 6 + 20, 10, &corpus));
    assert_int_equal(tv_corpus_held_windows(corpus, 100), 2);
    for (int i = 0; i < 14; i++) {
        const uint8_t *bytes = NULL;
        assert_ok(tv_corpus_held_window(corpus, i, 14, &bytes));
        for (int k = 0; k < 10; k++)
            assert_int_equal(bytes[k], (i < 3 ? 38 + i + k : 200 + i - 3 + k) % 251);
    }
    tv_corpus_close(corpus);

    assert_ok(tv_corpus_open((const char *const *)paths, 3, TV_CORPUS_HOLD_ALL, 10, &corpus));
    assert_int_equal(tv_corpus_windows(corpus), 0);
    assert_int_equal(tv_corpus_train_bytes(corpus), 0);
    assert_int_equal(tv_corpus_held_bytes(corpus), 76);
    tv_corpus_close(corpus);
    for (int i = 0; i < 3; i++)
        free(paths[i]);
}

static void expect_refused(const char *path, int64_t held, int64_t window, const char *message)
{
    tv_corpus *corpus = NULL;
    assert_status(TV_CORPUS, tv_corpus_open(&path, 1, held, window, &corpus));
    assert_null(corpus);
    assert_message(message);
    if (strcmp(message, "no corpus file is given") != 0)
        assert_message(path);
}

static void test_refused(void **state)
{
    const char *folder = *state;
    char *path = make_file(folder, "f", 100, 0), *empty = make_file(folder, "empty", 0, 0);
    expect_refused(io_path("%s/none", folder), 0, 10, "No such file");
    expect_refused(folder, 0, 10, "is a folder");
    expect_refused(empty, 0, 10, "is empty");
    expect_refused("/dev/null", 0, 10, "not a regular file");
    expect_refused(path, 0, 101, "101 bytes a window needs");
    expect_refused(path, 91, 10, "10 bytes a window needs after 91 bytes are held out");
    expect_refused(path, 9, 10, "do not hold one window of 10 bytes");
    tv_corpus *corpus = NULL;
    assert_status(TV_CORPUS, tv_corpus_open((const char *const[]){path}, 1, 101, 10, &corpus));
    assert_message("101 are to be held out");
    assert_status(TV_CORPUS, tv_corpus_open(NULL, 0, 0, 10, &corpus));
    assert_message("no corpus file is given");
    // The borders that just fit.
    assert_ok(tv_corpus_open((const char *const[]){path}, 1, 0, 100, &corpus));
    assert_int_equal(tv_corpus_windows(corpus), 1);
    tv_corpus_close(corpus);
    assert_ok(tv_corpus_open((const char *const[]){path}, 1, 90, 10, &corpus));
    assert_int_equal(tv_corpus_windows(corpus), 1);
    tv_corpus_close(corpus);
    free(empty);
    free(path);
}

// Each change of a file during the run is named, and no window of a shorter file is handed out.
static void test_changes(void **state)
{
    enum { TRUNCATE, GROW, TOUCH, REPLACE, REMOVE, CHANGES };
    static const char *const messages[CHANGES] = {"had 100 bytes", "had 100 bytes", "was written to", "was replaced",
                                                  "cannot be found"};
    for (int change = 0; change < CHANGES; change++) {
        char *path = make_file(*state, "f", 100, 0), *other = make_file(*state, "g", 100, 0);
        const char *const paths[] = {other, path};
        const uint8_t *bytes;
        const struct timespec past[2] = {{1000, 0}, {1000, 0}};
        tv_corpus *corpus = NULL;
        assert_ok(tv_corpus_open(paths, 2, 0, 10, &corpus));
        assert_ok(tv_corpus_check(corpus));
        switch (change) {
        case TRUNCATE: assert_int_equal(truncate(path, 50), 0); break;
        case GROW: assert_int_equal(truncate(path, 101), 0); break;
        case TOUCH: assert_int_equal(utimensat(AT_FDCWD, path, past, 0), 0); break;
        case REPLACE:
            free(make_file(*state, "new", 100, 0));
            assert_int_equal(rename(io_path("%s/new", (char *)*state), path), 0);
            break;
        default: assert_int_equal(unlink(path), 0);
        }
        assert_status(TV_CORPUS, tv_corpus_check(corpus));
        assert_message(messages[change]);
        assert_message(path);
        if (change == TRUNCATE) {
            assert_status(TV_CORPUS, tv_corpus_window(corpus, tv_corpus_windows(corpus) - 1, &bytes));
            assert_message(path);
        }
        tv_corpus_close(corpus);
        free(other);
        free(path);
    }
    tv_corpus_close(NULL);
}

// The identity sees size, first and last MiB and the order of the files, and nothing else.
static void test_identity(void **state)
{
    enum { BYTES = 3 << 20 };
    char *path = make_file(*state, "f", BYTES, 0), *other = make_file(*state, "g", 1000, 5);
    const char *const files[][2] = {{path, other}, {other, path}};
    tv_hash128 seen[6];
    const int64_t flips[] = {-1, 0, BYTES - 1, BYTES / 2};
    for (int i = 0; i < 6; i++) {
        tv_corpus *corpus = NULL;
        if (i >= 1 && i <= 3)
            io_flip_bit(path, (size_t)flips[i], 0);
        if (i == 5)
            assert_int_equal(truncate(other, 999), 0);
        assert_ok(tv_corpus_open(files[i == 4], 2, 0, 10, &corpus));
        seen[i] = tv_corpus_identity(corpus);
        tv_corpus_close(corpus);
        if (i >= 1 && i <= 3)
            io_flip_bit(path, (size_t)flips[i], 0);
        for (int k = 0; k < i; k++)
            assert_false(tv_hash_equal(seen[i], seen[k]));
    }
    free(other);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_windows, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_held_windows, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_held_windows_over_files, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_refused, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_changes, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(test_identity, make_folder, drop_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
