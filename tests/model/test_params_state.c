// The state as arrays: what is listed, that ranks' shares make up the whole, and the way through staging memory.
#include "model_fixture.h"

#include <stdlib.h>
#include <string.h>

static void open_params(tv_params *params, const tv_backend *backend, int rank, int ranks, int sharded)
{
    tv_params_init(params, 0);
    tv_tensor_spec specs[] = {{.name = "a", .part = "test", .rows = 11, .cols = 37, .scale_type = TV_T16},
                              {.name = "n", .part = "test", .rows = 1, .cols = 5, .ones = 1, .frozen = 1},
                              {.name = "b", .part = "test", .rows = 3, .cols = 9, .scale_type = TV_T4}};
    for (size_t i = 0; i < 3; i++) {
        int64_t index;
        TEST_TRY(tv_params_add(params, &specs[i], &index));
    }
    tv_params_layout_args args = {
        .backend = backend, .rank = rank, .ranks = ranks, .sharded = sharded, .training = 1, .vote_bits = 8};
    TEST_TRY(tv_params_layout(params, &args));
    TEST_TRY(tv_params_initialise(params, 3, 64));
}

static tv_hash128 digest_of(const tv_state_array *arrays, int64_t count, tv_hash128 *sums)
{
    tv_hash128 digest;
    TEST_TRY(tv_state_digest(arrays, count, sums, &digest));
    return digest;
}

enum { ARRAYS = 10 };

static void test_list(void **state)
{
    (void)state;
    tv_params params;
    open_params(&params, fixture_backend("ref"), 0, 1, 0);
    tv_state_array *arrays = NULL;
    int64_t count = 0;
    TEST_TRY(tv_params_state(&params, 1, NULL, 1, &arrays, &count));
    assert_int_equal(count, ARRAYS);
    const char *names[] = {"a", "a", "a", "a", "n", "n", "b", "b", "b", "b"};
    const char *parts[] = {"T", "E", "T_accum", "E_accum", "T", "E", "T", "E", "T_accum", "E_accum"};
    const int64_t cols[] = {8, 3, 37, 3, 1, 2, 2, 3, 9, 3}, logical[] = {37, 3, 37, 3, 5, 2, 9, 3, 9, 3};
    for (int i = 0; i < ARRAYS; i++) {
        assert_string_equal(arrays[i].name, names[i]);
        assert_string_equal(arrays[i].part, parts[i]);
        assert_string_equal(arrays[i].group, "tensors");
        assert_int_equal(arrays[i].dtype, strcmp(parts[i], "T") == 0 ? TV_U8 : TV_I8);
        assert_int_equal(arrays[i].cols, cols[i]);
        assert_int_equal(arrays[i].logical_cols, logical[i]);
        assert_int_equal(arrays[i].count, arrays[i].rows);
        assert_int_equal(arrays[i].replicated, 1);
    }
    assert_ptr_equal(arrays[2].data, params.items[0].T_accum);
    assert_int_equal(arrays[6].scale_group, 4);
    assert_int_equal(arrays[6].b, params.items[2].base);
    free(arrays);
    TEST_TRY(tv_params_state(&params, 0, NULL, 1, &arrays, &count));
    assert_int_equal(count, 6);
    free(arrays);
    tv_params_free(&params);
}

// One digest for any number of ranks: the sums of the shares' row hashes add up.
static void test_digest(void **state)
{
    (void)state;
    const tv_backend *backend = fixture_backend("ref");
    tv_hash128 digest[9];
    int runs = 0;
    for (int ranks = 1; ranks <= 4; ranks++) {
        for (int sharded = 0; sharded < 2; sharded++) {
            tv_hash128 sums[ARRAYS] = {{0}}, mine[ARRAYS];
            for (int rank = 0; rank < ranks; rank++) {
                tv_params params;
                open_params(&params, backend, rank, ranks, sharded);
                tv_state_array *arrays = NULL;
                int64_t count = 0;
                TEST_TRY(tv_params_state(&params, 1, NULL, 0, &arrays, &count));
                memset(mine, 0, sizeof mine);
                tv_state_hash(arrays, count, mine);
                for (int64_t i = 0; i < count; i++) {
                    sums[i].low += mine[i].low;
                    sums[i].high += mine[i].high;
                }
                if (rank == ranks - 1) {
                    digest[runs++] = digest_of(arrays, count, sums);
                }
                free(arrays);
                tv_params_free(&params);
            }
            assert_true(tv_hash_equal(digest[0], digest[runs - 1]));
        }
    }
}

// ref with memory that counts as a device's: everything goes through staging.
static tv_backend device_like(void)
{
    tv_backend device = *fixture_backend("ref");
    device.host_memory = 0;
    return device;
}

static void check_round_trip(int rank, int ranks, int sharded)
{
    tv_backend device = device_like();
    tv_params from, whole, to;
    open_params(&from, &device, rank, ranks, sharded);
    open_params(&whole, fixture_backend("ref"), 0, 1, 0);
    open_params(&to, &device, rank, ranks, sharded);
    memset(to.state_slab, 0, to.state_bytes);

    // Out: the staged share equals the rows of the whole state.
    size_t bytes = tv_params_state_staging_bytes(&from, 1);
    assert_true(bytes > 0);
    void *staging = aligned_alloc(TV_ARENA_ALIGN, bytes / TV_ARENA_ALIGN * TV_ARENA_ALIGN + TV_ARENA_ALIGN);
    assert_non_null(staging);
    tv_state_array *share = NULL, *all = NULL, *load = NULL;
    int64_t count = 0, whole_count = 0;
    TEST_TRY(tv_params_state(&from, 1, staging, 1, &share, &count));
    TEST_TRY(tv_params_state(&whole, 1, NULL, 0, &all, &whole_count));
    assert_int_equal(count, whole_count);
    for (int64_t i = 0; i < count; i++) {
        size_t share_bytes = (size_t)(share[i].count * share[i].cols);
        assert_true((char *)share[i].data >= (char *)staging &&
                    (char *)share[i].data + share_bytes <= (char *)staging + bytes);
        assert_memory_equal(share[i].data, (char *)all[i].data + share[i].first_row * share[i].cols, share_bytes);
    }
    free(share);
    free(staging);

    // In: fill what a load asks for from the whole state, and the cleared table holds what `from` holds.
    TEST_TRY(tv_params_state_for_load(&to, 1, &staging, &load, &count));
    assert_non_null(staging);
    for (int64_t i = 0; i < count; i++) {
        assert_true(strstr(load[i].part, "accum") != NULL ||
                    load[i].count == load[i].rows); // every rank reads all of T and E
        memcpy(load[i].data, (char *)all[i].data + load[i].first_row * load[i].cols,
               (size_t)(load[i].count * load[i].cols));
    }
    TEST_TRY(tv_params_state_loaded(&to, load, count, staging));
    assert_int_equal(from.state_bytes, to.state_bytes);
    assert_memory_equal(from.state_slab, to.state_slab, from.state_bytes);
    free(load);
    free(staging);
    free(all);
    tv_params_free(&to);
    tv_params_free(&whole);
    tv_params_free(&from);
}

static int device_copies;

static tv_status counted_copy(void *to, const void *from, size_t bytes, tv_copy_kind kind, void *stream)
{
    device_copies++;
    return fixture_backend("ref")->copy(to, from, bytes, kind, stream);
}

// Side state in host memory goes through staging too, by the host's own copy, and is no part of what lies on the device.
static void test_host_side(void **state)
{
    (void)state;
    enum { ROWS = 4, COLS = 7 };
    tv_side_spec spec = {
        .name = "s", .part = "used", .group = "test", .dtype = TV_I32, .rows = ROWS, .cols = COLS, .host = 1};
    tv_tensor_spec tensor = {.name = "a", .part = "test", .rows = 11, .cols = 37, .scale_type = TV_T16, .frozen = 1};
    tv_backend device = device_like();
    tv_params tables[2];
    int64_t index, count;
    tv_state_array *arrays = NULL;
    void *staging = NULL;
    device.copy = counted_copy;
    for (int i = 0; i < 2; i++) {
        tv_params_init(&tables[i], 0);
        TEST_TRY(tv_params_add(&tables[i], &tensor, &index));
        TEST_TRY(tv_params_add_side(&tables[i], &spec, &index));
        tv_params_layout_args args = {.backend = &device, .ranks = 1, .vote_bits = 8};
        TEST_TRY(tv_params_layout(&tables[i], &args));
        TEST_TRY(tv_params_initialise(&tables[i], 3, 64));
        assert_true(tables[i].host_bytes >= ROWS * COLS * sizeof(int32_t));
    }
    int32_t *data = tables[0].sides[0].data;
    for (int i = 0; i < ROWS * COLS; i++) {
        assert_int_equal(data[i], 0);
        data[i] = 1000 - 37 * i;
    }
    size_t bytes = tv_params_state_staging_bytes(&tables[0], 1);
    void *out = aligned_alloc(TV_ARENA_ALIGN, bytes / TV_ARENA_ALIGN * TV_ARENA_ALIGN + TV_ARENA_ALIGN);
    assert_non_null(out);
    device_copies = 0;
    TEST_TRY(tv_params_state(&tables[0], 1, out, 1, &arrays, &count));
    assert_int_equal(count, 3); // T, E, used
    assert_int_equal(device_copies, 2);
    assert_ptr_not_equal(arrays[2].data, data); // a save reads it while training goes on
    assert_memory_equal(arrays[2].data, data, ROWS * COLS * sizeof *data);
    free(arrays);
    TEST_TRY(tv_params_state_for_load(&tables[1], 1, &staging, &arrays, &count));
    memcpy(staging, out, bytes);
    TEST_TRY(tv_params_state_loaded(&tables[1], arrays, count, staging));
    assert_int_equal(device_copies, 4);
    assert_memory_equal(tables[1].sides[0].data, data, ROWS * COLS * sizeof *data);
    free(arrays);
    free(staging);
    free(out);
    for (int i = 0; i < 2; i++)
        tv_params_free(&tables[i]);
}

static void test_staging(void **state)
{
    (void)state;
    check_round_trip(0, 1, 0);
    check_round_trip(1, 3, 0);
    check_round_trip(2, 3, 1);
    check_round_trip(3, 4, 1); // a rank without rows of the smaller tensors
}

// With a host backend a load writes straight into the table.
static void test_load_host(void **state)
{
    (void)state;
    tv_params params;
    open_params(&params, fixture_backend("ref"), 1, 2, 1);
    void *staging = &params;
    tv_state_array *arrays = NULL;
    int64_t count = 0;
    TEST_TRY(tv_params_state_for_load(&params, 1, &staging, &arrays, &count));
    assert_null(staging);
    assert_ptr_equal(arrays[0].data, params.items[0].T);
    assert_int_equal(arrays[0].count, 11);
    assert_ptr_equal(arrays[2].data, params.items[0].T_accum);
    assert_int_equal(arrays[2].first_row, 6);
    assert_int_equal(arrays[2].count, 5);
    assert_int_equal(arrays[2].replicated, 0);
    TEST_TRY(tv_params_state_loaded(&params, arrays, count, staging));
    free(arrays);
    tv_params_free(&params);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_list), cmocka_unit_test(test_digest),
                                       cmocka_unit_test(test_staging), cmocka_unit_test(test_host_side),
                                       cmocka_unit_test(test_load_host)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
