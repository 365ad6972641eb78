// Other programs read a checkpoint as docs/checkpoint.md says: h5py the shards, xxhsum the list.
#include "io_fixture.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static char *folder, *dir;

static int make_good(void **state)
{
    (void)state;
    folder = io_folder_new();
    io_save(folder, 1, 1);
    dir = strdup(io_path("%s/step-000000001", folder));
    return dir ? 0 : -1;
}

static int drop_good(void **state)
{
    (void)state;
    free(dir);
    io_folder_free(folder);
    return 0;
}

static int64_t number(json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    return value ? json_integer_value(value) : 0;
}

// Counts from the formulas of the fixture; array `t` holds the trits of `name`, the next one its exponents.
static void check_tensor(json_t *tensor, int t, int64_t rows, int64_t cols, int64_t groups)
{
    int64_t counts[3] = {0}, histogram[256] = {0};
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < cols; c++) {
            int64_t byte = io_state_value(t, r, c / 5, 1);
            for (int64_t k = 0; k < c % 5; k++)
                byte /= 3;
            counts[byte % 3]++;
        }
        for (int64_t g = 0; g < groups; g++)
            histogram[io_state_value(t + 1, r, g, 1) + 128]++;
    }
    assert_non_null(tensor);
    assert_int_equal(number(tensor, "rows"), rows);
    assert_int_equal(number(tensor, "cols"), cols);
    assert_int_equal(number(tensor, "minus"), counts[0]);
    assert_int_equal(number(tensor, "zero"), counts[1]);
    assert_int_equal(number(tensor, "plus"), counts[2]);
    for (int e = -128; e < 128; e++)
        assert_int_equal(number(json_object_get(tensor, "exponents"), io_path("%d", e)), histogram[e + 128]);
}

static void test_h5py(void **state)
{
    (void)state;
    json_error_t error;
    const char *python = getenv("PYTHON");
    FILE *output = popen(io_path("%s '%s' '%s'", python ? python : "/usr/bin/python3", TV_READ_SHARD, dir), "r");
    assert_non_null(output);
    json_t *root = json_loadf(output, 0, &error);
    int status = pclose(output);
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 77 || WEXITSTATUS(status) == 127)) {
        printf("skipped: no Python with h5py\n");
        skip();
    }
    assert_int_equal(status, 0);
    assert_non_null(root);
    json_t *tensors = json_object_get(root, "tensors");
    assert_int_equal(json_object_size(tensors), 2);
    check_tensor(json_object_get(tensors, "embed"), 0, 37, 13, 4);
    check_tensor(json_object_get(tensors, "block.0.attention.q"), 4, 3000, 70, 3);
    json_decref(root);
}

static void test_xxhsum(void **state)
{
    (void)state;
    int status = system(io_path("cd '%s' && xxhsum -c checksums.xxh128 >/dev/null", dir));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
        printf("skipped: xxhsum is not installed\n");
        skip();
    }
    assert_int_equal(status, 0);
    // The list is also what xxhsum writes itself.
    size_t bytes;
    char *list = io_read(io_path("%s/checksums.xxh128", dir), &bytes);
    assert_int_equal(system(io_path("cd '%s' && xxhsum -H128 *.h5 manifest.json >../list", dir)), 0);
    char *theirs = io_read(io_path("%s/list", folder), &bytes);
    assert_string_equal(list, theirs);
    free(theirs);
    free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_h5py), cmocka_unit_test(test_xxhsum)};
    return cmocka_run_group_tests(tests, make_good, drop_good);
}
