#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "io/shard_h5.h"
#include "io/shard_h5_internal.h"

// What a shard needs while it is written.
typedef struct writer {
    const char *path;
    tv_h5_image *image;
    hid_t file, group_creation;
} writer;

// Rows of a chunk: as equal as possible, so that the last chunk, which HDF5 stores whole, wastes little.
static hsize_t chunk_rows(const tv_state_array *a)
{
    int64_t chunks = tv_ceil_div(a->count * tv_state_row_bytes(a), TV_SHARD_CHUNK_BYTES);
    if (chunks > a->count)
        chunks = a->count;
    return (hsize_t)tv_ceil_div(a->count, chunks);
}

static hid_t dataset_properties(const tv_state_array *a)
{
    hsize_t chunk[2] = {chunk_rows(a), (hsize_t)a->cols};
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    // No times: equal state gives equal files. No fill: every item is written.
    if (list >= 0 && (H5Pset_chunk(list, 2, chunk) < 0 || H5Pset_fletcher32(list) < 0 ||
                      H5Pset_obj_track_times(list, 0) < 0 || H5Pset_fill_time(list, H5D_FILL_TIME_NEVER) < 0)) {
        H5Pclose(list);
        return H5I_INVALID_HID;
    }
    return list;
}

// Make /group and /group/name where they are missing.
static tv_status make_groups(const writer *w, const tv_state_array *a)
{
    char path[1024];
    for (int depth = 0; depth < 2; depth++) {
        int length = depth == 0 ? snprintf(path, sizeof path, "/%s", a->group)
                                : snprintf(path, sizeof path, "/%s/%s", a->group, a->name);
        if (length >= (int)sizeof path)
            return TV_FAIL(TV_CHECKPOINT, "%s: the name of %s is too long", w->path, a->name);
        htri_t there = H5Lexists(w->file, path, H5P_DEFAULT);
        if (there < 0)
            return tv_h5_fail(TV_IO, w->path, path);
        if (there)
            continue;
        hid_t group = H5Gcreate2(w->file, path, H5P_DEFAULT, w->group_creation, H5P_DEFAULT);
        if (group < 0 || H5Gclose(group) < 0)
            return tv_h5_fail(TV_IO, w->path, path);
    }
    return TV_OK;
}

// number: 0, or N for the dataset part.N.
static tv_status place_array(const writer *w, const tv_state_array *a, int64_t number)
{
    char path[1024];
    hsize_t shape[2] = {(hsize_t)a->count, (hsize_t)a->cols};
    hid_t space = H5I_INVALID_HID, list = H5I_INVALID_HID, dataset = H5I_INVALID_HID;
    TV_TRY(make_groups(w, a));
    int length = snprintf(path, sizeof path, "/%s/%s/%s", a->group, a->name, a->part);
    if (number > 0 && length < (int)sizeof path)
        length += snprintf(path + length, sizeof path - (size_t)length, ".%" PRId64, number);
    if (length >= (int)sizeof path)
        return TV_FAIL(TV_CHECKPOINT, "%s: the name of %s %s is too long", w->path, a->name, a->part);
    tv_status st = TV_OK;
    if ((space = H5Screate_simple(2, shape, NULL)) < 0 || (list = dataset_properties(a)) < 0 ||
        (dataset = H5Dcreate2(w->file, path, tv_h5_file_type(a->dtype), space, H5P_DEFAULT, list, H5P_DEFAULT)) < 0)
        st = tv_h5_fail(TV_IO, w->path, path);
    else
        st = tv_h5_place_chunks(dataset, w->path, a, (int64_t)chunk_rows(a), w->image);
    if (dataset >= 0 && H5Dclose(dataset) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_IO, w->path, path);
    if (list >= 0 && H5Pclose(list) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_IO, w->path, path);
    if (space >= 0 && H5Sclose(space) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_IO, w->path, path);
    return st;
}

static tv_status place_arrays(const writer *w, const tv_state_array *arrays, int64_t count)
{
    int64_t number = 0;
    for (int64_t i = 0; i < count; i++) {
        number = i > 0 && tv_shard_same_dataset(&arrays[i - 1], &arrays[i]) ? number + 1 : 0;
        if (arrays[i].count == 0)
            continue; // a block without rows has no dataset
        TV_TRY(place_array(w, &arrays[i], number));
    }
    return TV_OK;
}

// Headers, groups and chunk indices of these arrays, about.
static hsize_t head_bytes(const tv_state_array *arrays, int64_t count)
{
    int64_t bytes = 2048;
    for (int64_t i = 0; i < count; i++)
        bytes += 1536 + 32 * (arrays[i].count * tv_state_row_bytes(&arrays[i]) / TV_SHARD_CHUNK_BYTES);
    return (hsize_t)bytes;
}

// Times off for the root group too, so that the same rows always give the same bytes.
static tv_status make_image(tv_h5_image *image, const char *path, const tv_state_array *arrays, int64_t count)
{
    writer w = {.path = path, .image = image, .file = H5I_INVALID_HID, .group_creation = H5I_INVALID_HID};
    hid_t access = H5I_INVALID_HID, creation = H5I_INVALID_HID;
    tv_status st = TV_OK;
    // One place for all small things, at the head of the file: a reader finds them together.
    if ((access = tv_h5_image_access(image)) < 0 || H5Pset_meta_block_size(access, head_bytes(arrays, count)) < 0 ||
        H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) < 0 ||
        (creation = H5Pcreate(H5P_FILE_CREATE)) < 0 || H5Pset_obj_track_times(creation, 0) < 0 ||
        (w.group_creation = H5Pcreate(H5P_GROUP_CREATE)) < 0 || H5Pset_obj_track_times(w.group_creation, 0) < 0 ||
        (w.file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access)) < 0)
        st = tv_h5_fail(TV_IO, path, "cannot create the shard");
    if (st == TV_OK)
        st = place_arrays(&w, arrays, count);
    if (w.file >= 0 && H5Fclose(w.file) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_IO, path, "cannot close the shard");
    const hid_t lists[] = {w.group_creation, creation, access};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (lists[i] >= 0 && H5Pclose(lists[i]) < 0 && st == TV_OK)
            st = tv_h5_fail(TV_IO, path, "cannot close a property list");
    return st;
}

int tv_shard_same_dataset(const tv_state_array *a, const tv_state_array *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->part, b->part) == 0;
}

static tv_status write_image(tv_h5_image *image, const char *path, tv_hash128 *hash)
{
    tv_disk_stream *stream = NULL;
    TV_TRY(tv_disk_stream_open(path, image->bytes, &stream));
    tv_h5_stream_image(image, stream);
    tv_status st = tv_disk_stream_finish(stream, hash);
    tv_disk_stream_free(stream);
    return st;
}

tv_status tv_shard_write(const char *path, const tv_state_array *arrays, int64_t count, int64_t *bytes,
                         tv_hash128 *hash)
{
    tv_h5_image image = {0};
    TV_TRY(tv_h5_start());
    tv_status st = make_image(&image, path, arrays, count);
    if (st == TV_OK && image.lost)
        st = TV_FAIL(TV_MEMORY, "no memory for the head of %s", path);
    if (st == TV_OK)
        st = write_image(&image, path, hash);
    *bytes = image.bytes;
    tv_h5_image_free(&image);
    return st;
}
