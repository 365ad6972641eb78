// Shards made with the HDF5 library to mislead a reader, with every hash in order.
#include "io_fixture.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "manifest_edit.h"

#define SHARD "shard-00000-of-00001.h5"
#define TRITS "/tensors/embed/T" // uint8 [37, 3]

static char *folder, *good;

static int make_good(void **state)
{
    (void)state;
    folder = io_folder_new();
    io_save(folder, 1, 1);
    good = strdup(io_path("%s/step-000000001", folder));
    return good ? 0 : -1;
}

static int drop_good(void **state)
{
    (void)state;
    free(good);
    io_folder_free(folder);
    return 0;
}

static hid_t open_shard(const char *dir)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    assert_true(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0);
    hid_t file = H5Fopen(io_path("%s/" SHARD, dir), H5F_ACC_RDWR, access);
    assert_true(file >= 0);
    H5Pclose(access);
    return file;
}

// Properties of an ordinary dataset of the shape [rows, cols].
static hid_t ordinary(hsize_t rows, hsize_t cols)
{
    hsize_t chunk[2] = {rows, cols};
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Pset_chunk(list, 2, chunk) >= 0);
    return list;
}

// The trits under another shape, type or storage; the rows' bytes are the right ones where they fit.
static void replace_trits(hid_t file, hid_t type, const hsize_t shape[2], hid_t list)
{
    uint8_t rows[64 * 8] = {0};
    hid_t dataset = H5Dopen2(file, TRITS, H5P_DEFAULT);
    assert_true(dataset >= 0);
    assert_true(H5Dread(dataset, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows) >= 0);
    H5Dclose(dataset);
    assert_true(H5Ldelete(file, TRITS, H5P_DEFAULT) >= 0);
    hid_t space = H5Screate_simple(2, shape, NULL);
    dataset = H5Dcreate2(file, TRITS, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(dataset >= 0);
    if (H5Pget_layout(list) != H5D_VIRTUAL)
        assert_true(H5Dwrite(dataset, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows) >= 0);
    assert_true(H5Dclose(dataset) >= 0);
    H5Sclose(space);
    H5Pclose(list);
}

static const hsize_t right_shape[2] = {37, 3};

static void soft_link(hid_t file)
{
    assert_true(H5Lmove(file, TRITS, file, "/tensors/embed/real", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_soft("/tensors/embed/real", file, TRITS, H5P_DEFAULT, H5P_DEFAULT) >= 0);
}

static void soft_group(hid_t file)
{
    assert_true(H5Lmove(file, "/tensors/embed", file, "/tensors/real", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_soft("/tensors/real", file, "/tensors/embed", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}

static void external_link(hid_t file)
{
    assert_true(H5Ldelete(file, TRITS, H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_external(io_path("%s/" SHARD, good), TRITS, file, TRITS, H5P_DEFAULT, H5P_DEFAULT) >= 0);
}

static void external_group(hid_t file)
{
    assert_true(H5Ldelete(file, "/tensors", H5P_DEFAULT) >= 0);
    assert_true(
        H5Lcreate_external(io_path("%s/" SHARD, good), "/tensors", file, "/tensors", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}

static void user_link(hid_t file)
{
    static const H5L_class_t follow = {
        H5L_LINK_CLASS_T_VERS, (H5L_type_t)99, "test", NULL, NULL, NULL, NULL, NULL, NULL};
    H5L_class_t named = follow;
    named.trav_func = (H5L_traverse_func_t)abort; // never to be called
    assert_true(H5Lregister(&named) >= 0);
    assert_true(H5Ldelete(file, TRITS, H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_ud(file, TRITS, (H5L_type_t)99, NULL, 0, H5P_DEFAULT, H5P_DEFAULT) >= 0);
}

static void external_storage(hid_t file)
{
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Pset_external(list, io_path("%s/outside.raw", folder), 0, 111) >= 0);
    replace_trits(file, H5T_STD_U8LE, right_shape, list);
}

static void virtual_dataset(hid_t file)
{
    hid_t list = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(2, right_shape, NULL);
    assert_true(H5Pset_virtual(list, space, io_path("%s/" SHARD, good), TRITS, space) >= 0);
    H5Sclose(space);
    replace_trits(file, H5T_STD_U8LE, right_shape, list);
}

static void gzip_filter(hid_t file)
{
    hid_t list = ordinary(37, 3);
    assert_true(H5Pset_deflate(list, 6) >= 0);
    assert_true(H5Pset_fletcher32(list) >= 0);
    replace_trits(file, H5T_STD_U8LE, right_shape, list);
}

static void gzip_behind(hid_t file)
{
    hid_t list = ordinary(37, 3);
    assert_true(H5Pset_fletcher32(list) >= 0);
    assert_true(H5Pset_deflate(list, 6) >= 0);
    replace_trits(file, H5T_STD_U8LE, right_shape, list);
}

static void no_filter(hid_t file) { replace_trits(file, H5T_STD_U8LE, right_shape, ordinary(37, 3)); }
static void contiguous(hid_t file) { replace_trits(file, H5T_STD_U8LE, right_shape, H5Pcreate(H5P_DATASET_CREATE)); }

static void wrong_type(hid_t file, hid_t type)
{
    hid_t list = ordinary(37, 3);
    assert_true(H5Pset_fletcher32(list) >= 0);
    replace_trits(file, type, right_shape, list);
}
static void signed_type(hid_t file) { wrong_type(file, H5T_STD_I8LE); }
static void wide_type(hid_t file) { wrong_type(file, H5T_STD_U16LE); }
static void float_type(hid_t file) { wrong_type(file, H5T_IEEE_F32LE); }

static void large_chunks(hid_t file)
{
    static const hsize_t most[2] = {H5S_UNLIMITED, H5S_UNLIMITED};
    hid_t list = ordinary(1 << 14, 1 << 16), space = H5Screate_simple(2, right_shape, most);
    assert_true(H5Pset_fletcher32(list) >= 0);
    assert_true(H5Ldelete(file, TRITS, H5P_DEFAULT) >= 0);
    hid_t dataset = H5Dcreate2(file, TRITS, H5T_STD_U8LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(dataset >= 0 && H5Dclose(dataset) >= 0);
    H5Sclose(space);
    H5Pclose(list);
}

static void narrow_chunks(hid_t file)
{
    hid_t list = ordinary(37, 2);
    assert_true(H5Pset_fletcher32(list) >= 0);
    replace_trits(file, H5T_STD_U8LE, right_shape, list);
}

// A dataset of which no chunk was ever written, and one with a chunk of these bytes, which say that they have no sum (`mask` 1) or are too few.
static void bare_dataset(hid_t file, size_t bytes, uint32_t mask)
{
    static const uint8_t chunk[111 + 4];
    static const hsize_t offset[2];
    hid_t list = ordinary(37, 3), space = H5Screate_simple(2, right_shape, NULL);
    assert_true(H5Pset_fletcher32(list) >= 0);
    assert_true(H5Ldelete(file, TRITS, H5P_DEFAULT) >= 0);
    hid_t dataset = H5Dcreate2(file, TRITS, H5T_STD_U8LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(dataset >= 0);
    assert_true(bytes == 0 || H5Dwrite_chunk(dataset, H5P_DEFAULT, mask, offset, bytes, chunk) >= 0);
    assert_true(H5Dclose(dataset) >= 0);
    H5Sclose(space);
    H5Pclose(list);
}
static void no_chunk(hid_t file) { bare_dataset(file, 0, 0); }
static void chunk_without_sum(hid_t file) { bare_dataset(file, 111, 1); }
static void cut_chunk(hid_t file) { bare_dataset(file, 100, 0); }

static void wrong_shape(hid_t file, hsize_t rows, hsize_t cols)
{
    hsize_t shape[2] = {rows, cols};
    hid_t list = ordinary(rows, cols);
    assert_true(H5Pset_fletcher32(list) >= 0);
    replace_trits(file, H5T_STD_U8LE, shape, list);
}
static void fewer_rows(hid_t file) { wrong_shape(file, 36, 3); }
static void more_rows(hid_t file) { wrong_shape(file, 38, 3); }
static void turned(hid_t file) { wrong_shape(file, 3, 37); }

static void group_instead(hid_t file)
{
    assert_true(H5Ldelete(file, TRITS, H5P_DEFAULT) >= 0);
    hid_t group = H5Gcreate2(file, TRITS, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(group >= 0);
    H5Gclose(group);
}

static void missing(hid_t file) { assert_true(H5Ldelete(file, TRITS, H5P_DEFAULT) >= 0); }

// One more item per file: what the shard says must be what the manifest says.
static const struct {
    const char *name;
    void (*change)(hid_t file);
    const char *message;
} cases[] = {
    {"soft link", soft_link, TRITS " is a soft link, which is refused"},
    {"soft link to a group", soft_group, "/tensors/embed is a soft link, which is refused"},
    {"external link", external_link, TRITS " is an external link, which is refused"},
    {"external link to a group", external_group, "/tensors is an external link, which is refused"},
    {"user-defined link", user_link, TRITS " is a user-defined link, which is refused"},
    {"external storage", external_storage, TRITS " lies in external storage, which is refused"},
    {"virtual dataset", virtual_dataset, TRITS " is a virtual dataset, which is refused"},
    {"gzip", gzip_filter, TRITS " uses filter 1; only fletcher32 is allowed"},
    {"gzip behind fletcher32", gzip_behind, TRITS " uses filter 1; only fletcher32 is allowed"},
    {"no filter", no_filter, TRITS " is not stored in chunks with one fletcher32 filter"},
    {"contiguous", contiguous, TRITS " is not stored in chunks with one fletcher32 filter"},
    {"int8 trits", signed_type, "the type of " TRITS " is not uint8"},
    {"uint16 trits", wide_type, "the type of " TRITS " is not uint8"},
    {"float trits", float_type, "the type of " TRITS " is not uint8"},
    {"large chunks", large_chunks, "the chunks of " TRITS " are larger than all of it"},
    {"narrow chunks", narrow_chunks, "the chunks of " TRITS " are not whole rows"},
    {"no chunk", no_chunk, "the chunk of " TRITS " with row 0 is missing, cut or without its sum"},
    {"a chunk without its sum", chunk_without_sum, "the chunk of " TRITS " with row 0 is missing, cut or without"},
    {"a cut chunk", cut_chunk, "the chunk of " TRITS " with row 0 is missing, cut or without its sum"},
    {"a row less", fewer_rows, "the shape of " TRITS " is not [37, 3]"},
    {"a row more", more_rows, "the shape of " TRITS " is not [37, 3]"},
    {"turned", turned, "the shape of " TRITS " is not [37, 3]"},
    {"group", group_instead, TRITS " is no dataset"},
    {"missing", missing, TRITS " is missing"},
};

static const char *copy_good(void)
{
    static char path[512];
    static int number;
    snprintf(path, sizeof path, "%s/copy-%d", folder, number++);
    io_copy_folder(good, path);
    return path;
}

// All hashes agree, so only the reader of the shard can object; it names the file and the object.
static void expect_refused(const char *name, const char *dir, const char *message)
{
    tv_checkpoint *checkpoint = NULL;
    tv_hash128 digest;
    assert_ok(tv_checkpoint_verify(dir));
    assert_ok(tv_checkpoint_open(dir, 1, &checkpoint));
    tv_status st = tv_checkpoint_digest(checkpoint, &digest);
    if (st != TV_CHECKPOINT)
        fail_msg("%s: %s: %s", name, tv_status_name(st), tv_status_message());
    assert_message(message);
    assert_message(io_path("%s/" SHARD, dir));
    tv_checkpoint_close(checkpoint);
    assert_int_equal(H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_FILE | H5F_OBJ_DATASET | H5F_OBJ_GROUP), 0);
}

static void test_objects(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *dir = copy_good();
        hid_t file = open_shard(dir);
        cases[i].change(file);
        assert_true(H5Fclose(file) >= 0);
        edit_rehash(dir);
        expect_refused(cases[i].name, dir, cases[i].message);
    }
}

// Overwrite one item of a dataset and its block's hash in the manifest: only the check of values is left.
static void poke(const char *dir, const char *name, const char *part, size_t at, int value, int with_block_hash)
{
    uint8_t data[37 * 4];
    hid_t file = open_shard(dir), dataset = H5Dopen2(file, io_path("/tensors/%s/%s", name, part), H5P_DEFAULT);
    assert_true(dataset >= 0);
    hid_t type = H5Dget_type(dataset);
    size_t bytes = (size_t)(37 * (strcmp(part, "T") == 0 ? 3 : 4));
    assert_true(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    data[at] = (uint8_t)value;
    assert_true(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Tclose(type);
    assert_true(H5Dclose(dataset) >= 0);
    assert_true(H5Fclose(file) >= 0);
    json_t *manifest = edit_load(dir);
    if (with_block_hash)
        json_object_set_new(edit_block(manifest, name, part, 0), "xxh3", edit_hex(tv_hash_bytes(data, bytes)));
    edit_store(dir, manifest);
}

static void test_values(void **state)
{
    (void)state;
    const struct {
        const char *name, *part;
        size_t at;
        int value, with_block_hash;
        const char *message;
    } pokes[] = {
        {"trit byte 243", "T", 3 * 5, 243, 1, "row 5, byte 0 is 243: packed trits are at most 242"},
        {"trit byte 255", "T", 3 * 36 + 1, 255, 1, "row 36, byte 1 is 255"},
        {"pad digit 0", "T", 3 * 2 + 2, 0, 1, "row 2, byte 2 is 0: packed trits are at most 242 and end in zeros"},
        {"exponent below", "E", 4 * 7 + 3, -10, 1, "row 7, group 3: the exponent -10 is outside its window -9 to -3"},
        {"exponent above", "E", 0, -2, 1, "row 0, group 0: the exponent -2 is outside its window -9 to -3"},
        {"block hash", "T", 0, 121, 0, "the XXH3-128 of rows 0 to 36 is not the manifest's"},
        {"digest", "T", 0, 121, 1, "the digest of the state is"},
    };
    for (size_t i = 0; i < sizeof pokes / sizeof *pokes; i++) {
        const char *dir = copy_good();
        poke(dir, "embed", pokes[i].part, pokes[i].at, pokes[i].value, pokes[i].with_block_hash);
        if (strcmp(pokes[i].name, "digest") != 0) {
            expect_refused(pokes[i].name, dir, pokes[i].message);
            continue;
        }
        tv_checkpoint *checkpoint = NULL; // good values, but not the state that was saved
        tv_hash128 digest;
        assert_ok(tv_checkpoint_open(dir, 1, &checkpoint));
        assert_status(TV_CHECKPOINT, tv_checkpoint_digest(checkpoint, &digest));
        assert_message(pokes[i].message);
        tv_checkpoint_close(checkpoint);
    }
}

// A file that is no HDF5 at all, and one that ends in the middle, with hashes in order.
static void test_no_shard(void **state)
{
    (void)state;
    const char *dir = copy_good();
    const char *path = io_path("%s/" SHARD, dir);
    size_t bytes;
    char *shard = io_read(path, &bytes);
    assert_true(bytes > 40000);
    // As large as the rows it should hold, or the manifest's own check would object first.
    memset(shard, 'x', bytes);
    io_write(path, shard, bytes);
    free(shard);
    edit_rehash(dir);
    expect_refused("noise", dir, "cannot open the shard: HDF5 says: ");
    assert_int_equal(truncate(path, 30000), 0);
    edit_rehash(dir);
    assert_status(TV_CHECKPOINT, tv_checkpoint_verify(dir));
    assert_message("too few for the rows");
}

// A block that is read in part is compared with the sums of its chunks.
static void test_sums(void **state)
{
    (void)state;
    enum { Q = 4, ROW_BYTES = 14 };
    const char *dir = copy_good(), *path = io_path("%s/" SHARD, dir);
    size_t bytes;
    char *shard = io_read(path, &bytes);
    uint8_t row[ROW_BYTES];
    for (int i = 0; i < ROW_BYTES; i++)
        row[i] = (uint8_t)io_state_value(Q, 0, i, 1);
    const char *rows = memmem(shard, bytes, row, sizeof row);
    assert_non_null(rows);
    io_flip_bit(path, (size_t)(rows - shard) + 2000 * ROW_BYTES, 0);
    free(shard);
    edit_rehash(dir);
    tv_checkpoint *checkpoint = NULL;
    uint8_t data[10 * ROW_BYTES];
    int64_t count;
    assert_ok(tv_checkpoint_open(dir, 1, &checkpoint));
    tv_state_array part = tv_checkpoint_arrays(checkpoint, &count)[Q];
    part.first_row = 7, part.count = 10, part.data = data;
    assert_status(TV_CHECKPOINT, tv_checkpoint_read(checkpoint, &part, 1));
    assert_message("the fletcher32 sum of a chunk of block.0.attention.q T is wrong");
    tv_checkpoint_close(checkpoint);
    dir = copy_good(); // the same rows of a good one
    assert_ok(tv_checkpoint_open(dir, 1, &checkpoint));
    part = tv_checkpoint_arrays(checkpoint, &count)[Q];
    part.first_row = 7, part.count = 10, part.data = data;
    assert_ok(tv_checkpoint_read(checkpoint, &part, 1));
    assert_int_equal(data[13], io_state_value(Q, 7, 13, 1));
    tv_checkpoint_close(checkpoint);
}

int main(void)
{
    H5open();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objects),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_no_shard),
        cmocka_unit_test(test_sums),
    };
    return cmocka_run_group_tests(tests, make_good, drop_good);
}
