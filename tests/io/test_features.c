// Files of features: places are found, values of both types come back, and what is wrong with a file is told in one sentence.
#include "io_fixture.h"

#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/features.h"

enum { ITEMS = 5, FRAMES = 3, WIDTH = 4, PLACES = 6, TEXT = 100 };

static char *folder;

static int make_folder(void **state)
{
    (void)state;
    folder = io_folder_new();
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    io_folder_free(folder);
    return 0;
}

// ---- making files -----------------------------------------------------------------------------------------------------

// A file with the right values, and what a case makes of it.
typedef struct made {
    hid_t value_type, index_type; // in the file; owned when not H5T_STD_*
    hsize_t values[3], index[2];
    int value_rank, index_rank;
    hid_t list; // creation properties of the values
    float spoil;
    int64_t spoil_at; // of the values; -1: nothing
    int first_format;
    int64_t places[2 * PLACES];
} made;

static hid_t half_type(void)
{
    hid_t half = H5Tcopy(H5T_IEEE_F32LE);
    assert_true(H5Tset_fields(half, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(half, 2) >= 0 && H5Tset_ebias(half, 15) >= 0);
    return half;
}

// Exact in float16.
static float value_of(int64_t item, int64_t frame, int64_t column)
{
    return (float)(item * 16 + frame * 4 + column) * (column % 2 ? -0.25f : 0.0625f);
}

static made plain(void)
{
    static const int64_t places[2 * PLACES] = {0, 4, 7, 0, 8, 1, 30, 1, 64, 3, 99, 2};
    made m = {.value_type = H5T_IEEE_F32LE,
              .index_type = H5T_STD_I64LE,
              .values = {ITEMS, FRAMES, WIDTH},
              .index = {PLACES, 2},
              .value_rank = 3,
              .index_rank = 2,
              .list = H5P_DEFAULT,
              .spoil_at = -1};
    memcpy(m.places, places, sizeof places);
    return m;
}

static void write_dataset(hid_t file, const char *name, hid_t type, int rank, const hsize_t *shape, hid_t list,
                          hid_t memory, const void *data)
{
    hid_t space = H5Screate_simple(rank, shape, NULL);
    hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(dataset >= 0);
    if (data != NULL)
        assert_true(H5Dwrite(dataset, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(dataset);
    H5Sclose(space);
}

static hid_t create_file(const char *path, int first_format)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), file;
    if (!first_format)
        assert_true(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0);
    file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    assert_true(file >= 0);
    H5Pclose(access);
    return file;
}

static const char *write_file(const made *m)
{
    float values[2 * ITEMS * FRAMES * WIDTH] = {0};
    for (int64_t i = 0; i < ITEMS * FRAMES * WIDTH; i++)
        values[i] = i == m->spoil_at ? m->spoil : value_of(i / WIDTH / FRAMES, i / WIDTH % FRAMES, i % WIDTH);
    const char *path = io_path("%s/f.h5", folder);
    hid_t file = create_file(path, m->first_format);
    if (m->value_rank > 0)
        write_dataset(file, "features", m->value_type, m->value_rank, m->values, m->list, H5T_NATIVE_FLOAT, values);
    if (m->index_rank > 0)
        write_dataset(file, "index", m->index_type, m->index_rank, m->index, H5P_DEFAULT, H5T_NATIVE_INT64, m->places);
    assert_true(H5Fclose(file) >= 0);
    return path;
}

static tv_status open_file(const char *path, tv_features **out)
{
    static const tv_features_want want = {.frames = FRAMES,
                                          .width = WIDTH,
                                          .text_bytes = TEXT,
                                          .frames_key = "modality.image_frames",
                                          .width_key = "modality.image_width"};
    return tv_features_open(path, &want, out);
}

// ---- what is right ------------------------------------------------------------------------------------------------------

static void check_values(tv_features *f)
{
    float got[FRAMES * WIDTH];
    for (int64_t item = ITEMS - 1; item >= 0; item--) {
        assert_ok(tv_features_read(f, item, got));
        for (int64_t i = 0; i < FRAMES * WIDTH; i++)
            assert_true(got[i] == value_of(item, i / WIDTH, i % WIDTH));
    }
}

static void test_values(void **state)
{
    (void)state;
    tv_hash128 identity[2];
    for (int half = 0; half < 2; half++) {
        made m = plain();
        tv_features *f;
        m.value_type = half ? half_type() : m.value_type;
        assert_ok(open_file(write_file(&m), &f));
        check_values(f);
        identity[half] = tv_features_identity(f);
        tv_features_close(f);
    }
    assert_false(tv_hash_equal(identity[0], identity[1]));
}

// All values of float16: subnormal, normal, signed zeros.
static void test_halves(void **state)
{
    (void)state;
    static const float values[] = {0x1p-24f, -0x1p-24f, 0x1.ff8p-15f, 0x1p-14f, 65504.0f, -65504.0f, -0.0f, 1.0f};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        float got[FRAMES * WIDTH];
        made m = plain();
        tv_features *f;
        m.value_type = half_type();
        m.spoil_at = 1;
        m.spoil = values[i];
        assert_ok(open_file(write_file(&m), &f));
        assert_ok(tv_features_read(f, 0, got));
        assert_memory_equal(&got[1], &values[i], sizeof values[i]);
        tv_features_close(f);
    }
}

static void test_places(void **state)
{
    (void)state;
    made m = plain();
    tv_features *f;
    assert_ok(open_file(write_file(&m), &f));
    for (int64_t from = 0, next = 0; from <= TEXT; from++) {
        int64_t position, item;
        while (next < PLACES && m.places[2 * next] < from)
            next++;
        assert_int_equal(tv_features_next(f, from, &position, &item), next < PLACES);
        if (next < PLACES)
            assert_true(position == m.places[2 * next] && item == m.places[2 * next + 1]);
    }
    tv_features_close(f);
}

// Another value, place or type is another identity.
static void test_identity(void **state)
{
    (void)state;
    tv_hash128 seen[4];
    for (int i = 0; i < 4; i++) {
        made m = plain();
        tv_features *f;
        m.spoil_at = i == 1 ? ITEMS * FRAMES * WIDTH - 1 : -1;
        m.places[2] = i == 2 ? 6 : 7;
        m.places[3] = i == 3 ? 1 : 0;
        assert_ok(open_file(write_file(&m), &f));
        seen[i] = tv_features_identity(f);
        tv_features_close(f);
        for (int j = 0; j < i; j++)
            assert_false(tv_hash_equal(seen[i], seen[j]));
    }
}

// ---- what is wrong ------------------------------------------------------------------------------------------------------

static void refused(const made *m, const char *part)
{
    tv_features *f;
    assert_status(TV_CORPUS, open_file(write_file(m), &f));
    assert_null(f);
    assert_message("f.h5");
    assert_message(part);
}

static void test_shapes(void **state)
{
    (void)state;
    made m = plain();
    m.values[2] = 8;
    refused(&m, "features of 8 values (F), but modality.image_width is 4");
    m = plain(), m.values[1] = 2;
    refused(&m, "items of 2 frames, but modality.image_frames is 3");
    m = plain(), m.value_rank = 2;
    refused(&m, "'features' has 2 dimensions in place of 3");
    m = plain(), m.value_rank = 0;
    refused(&m, "the dataset 'features' is missing");
    m = plain(), m.index_rank = 0;
    refused(&m, "the dataset 'index' is missing");
    m = plain(), m.index[1] = 1;
    refused(&m, "'index' has rows of 1 numbers in place of 2");
    m = plain(), m.value_type = H5T_IEEE_F64LE;
    refused(&m, "the values of 'features' are not float16 or float32");
    m = plain(), m.value_type = H5T_IEEE_F32BE;
    refused(&m, "the values of 'features' are not float16 or float32");
    m = plain(), m.index_type = H5T_STD_I32LE;
    refused(&m, "the values of 'index' are not int64");
}

static void test_first_format(void **state)
{
    (void)state;
    made m = plain();
    m.first_format = 1;
    refused(&m, "HDF5's first file format, which has no checksums");
}

static void test_chunked(void **state)
{
    (void)state;
    static const hsize_t chunk[3] = {1, FRAMES, WIDTH};
    made m = plain();
    m.list = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Pset_chunk(m.list, 3, chunk) >= 0);
    refused(&m, "'features' is chunked, compressed or external");
    H5Pclose(m.list);
}

static void test_index(void **state)
{
    (void)state;
    made m = plain();
    m.places[5] = ITEMS;
    refused(&m, "index 2 names item 5, past the end of the 5 items");
    m = plain(), m.places[5] = -1;
    refused(&m, "index 2 names item -1");
    m = plain(), m.places[2 * PLACES - 2] = TEXT;
    refused(&m, "index 5 has position 100, past the end of the text's 100 bytes");
    m = plain(), m.places[4] = 7;
    refused(&m, "index 2 has position 7 behind 7");
    m = plain(), m.places[0] = -1;
    refused(&m, "index 0 has position -1");
}

static void test_bad_values(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 6; i++) {
        float got[FRAMES * WIDTH];
        made m = plain();
        tv_features *f;
        m.value_type = i < 3 ? m.value_type : half_type();
        m.spoil = bad[i % 3];
        m.spoil_at = (2 * FRAMES + 1) * WIDTH + 3;
        assert_ok(open_file(write_file(&m), &f));
        assert_ok(tv_features_read(f, 1, got));
        assert_status(TV_CORPUS, tv_features_read(f, 2, got));
        assert_message("f.h5");
        assert_message("item 2");
        assert_message("frame 1");
        tv_features_close(f);
    }
}

// Cut at every 64th byte: never a crash, and no item is taken for one that is not there.
static void test_cut(void **state)
{
    (void)state;
    made m = plain();
    size_t bytes;
    char *whole = io_read(write_file(&m), &bytes);
    for (size_t cut = 0; cut < bytes; cut += 64) {
        tv_features *f;
        io_write(io_path("%s/f.h5", folder), whole, cut);
        assert_status(TV_CORPUS, open_file(io_path("%s/f.h5", folder), &f));
        assert_message("f.h5");
    }
    free(whole);
}

// One flipped bit anywhere: refused, or read to the end.
static void test_flipped(void **state)
{
    (void)state;
    made m = plain();
    size_t bytes;
    char *whole = io_read(write_file(&m), &bytes);
    for (size_t byte = 0; byte < bytes; byte += 3) {
        tv_features *f;
        float got[FRAMES * WIDTH];
        io_write(io_path("%s/f.h5", folder), whole, bytes);
        io_flip_bit(io_path("%s/f.h5", folder), byte, (int)(byte % 8));
        if (open_file(io_path("%s/f.h5", folder), &f) != TV_OK)
            continue;
        for (int64_t item = 0; item < ITEMS; item++)
            (void)tv_features_read(f, item, got);
        tv_features_close(f);
    }
    free(whole);
}

static void test_other_files(void **state)
{
    (void)state;
    tv_features *f;
    assert_status(TV_CORPUS, open_file(io_path("%s/none.h5", folder), &f));
    assert_message("cannot open the features");
    assert_status(TV_CORPUS, open_file(folder, &f));
    assert_message("not a regular file");
    io_write_text(io_path("%s/text.h5", folder), "no features here\n");
    assert_status(TV_CORPUS, open_file(io_path("%s/text.h5", folder), &f));
    assert_message("are no HDF5 file");
}

// A file that grows while it is open is no longer trusted.
static void test_changed(void **state)
{
    (void)state;
    float got[FRAMES * WIDTH];
    made m = plain();
    tv_features *f;
    assert_ok(open_file(write_file(&m), &f));
    assert_ok(tv_features_read(f, 0, got));
    FILE *file = fopen(io_path("%s/f.h5", folder), "ab");
    assert_non_null(file);
    fputc(0, file);
    fclose(file);
    assert_status(TV_CORPUS, tv_features_read(f, 0, got));
    assert_message("were written to during the run");
    tv_features_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),       cmocka_unit_test(test_halves),  cmocka_unit_test(test_places),
        cmocka_unit_test(test_identity),     cmocka_unit_test(test_shapes),  cmocka_unit_test(test_chunked),
        cmocka_unit_test(test_first_format), cmocka_unit_test(test_index),   cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_cut),          cmocka_unit_test(test_flipped), cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_changed)};
    return cmocka_run_group_tests_name("features", tests, make_folder, drop_folder);
}
