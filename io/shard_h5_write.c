#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io/atomic_file.h"
#include "io/shard_h5.h"
#include "io/shard_h5_internal.h"

// What a shard needs while it is written.
typedef struct writer {
    const char *path;
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
static tv_status write_array(const writer *w, const tv_state_array *a, int64_t number)
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
        st = tv_h5_write_chunks(dataset, w->path, a, (int64_t)chunk_rows(a));
    if (dataset >= 0 && H5Dclose(dataset) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_IO, w->path, path);
    if (list >= 0 && H5Pclose(list) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_IO, w->path, path);
    if (space >= 0 && H5Sclose(space) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_IO, w->path, path);
    return st;
}

static tv_status write_arrays(const writer *w, const tv_h5_sink *sink, const tv_state_array *arrays, int64_t count)
{
    int64_t number = 0;
    for (int64_t i = 0; i < count; i++) {
        number = i > 0 && tv_shard_same_dataset(&arrays[i - 1], &arrays[i]) ? number + 1 : 0;
        if (arrays[i].count == 0)
            continue; // a block without rows has no dataset
        TV_TRY(write_array(w, &arrays[i], number));
        if (sink->error)
            return TV_OK; // the caller reports it; the rest would be lost anyway
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
static tv_status write_file(tv_h5_sink *sink, const char *path, const tv_state_array *arrays, int64_t count)
{
    writer w = {.path = path, .file = H5I_INVALID_HID, .group_creation = H5I_INVALID_HID};
    hid_t access = H5I_INVALID_HID, creation = H5I_INVALID_HID;
    tv_status st = TV_OK;
    // One place for all small things at the head of the file: data lie behind it and are written once.
    if ((access = tv_h5_sink_access(sink)) < 0 || H5Pset_meta_block_size(access, head_bytes(arrays, count)) < 0 ||
        H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) < 0 ||
        (creation = H5Pcreate(H5P_FILE_CREATE)) < 0 || H5Pset_obj_track_times(creation, 0) < 0 ||
        (w.group_creation = H5Pcreate(H5P_GROUP_CREATE)) < 0 || H5Pset_obj_track_times(w.group_creation, 0) < 0 ||
        (w.file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access)) < 0)
        st = tv_h5_fail(TV_IO, path, "cannot create the shard");
    if (st == TV_OK)
        st = write_arrays(&w, sink, arrays, count);
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

static tv_status sync_and_close(tv_h5_sink *sink, const char *path, tv_status st)
{
    if (st == TV_OK && (tv_fault_errno(TV_FAULT_SAVE_FSYNC_POINT) || fsync(sink->fd) != 0))
        st = TV_FAIL(tv_io_code(errno), "cannot sync %s to disk: %s", path, strerror(errno));
    // Advice only: what is read again then comes from the disk. What was read ahead comes from there already, but for what was written
    // once more since.
    if (st == TV_OK && sink->rewritten > 0)
        (void)posix_fadvise(sink->fd, 0, sink->rewritten, POSIX_FADV_DONTNEED);
    if (st == TV_OK)
        (void)posix_fadvise(sink->fd, sink->settled, 0, POSIX_FADV_DONTNEED);
    int failed = tv_fault_errno(TV_FAULT_SAVE_CLOSE_POINT);
    if ((close(sink->fd) != 0 || failed) && st == TV_OK)
        st = TV_FAIL(tv_io_code(failed ? failed : errno), "cannot close %s: %s", path,
                     strerror(failed ? failed : errno));
    return st;
}

tv_status tv_shard_write(const char *path, const tv_state_array *arrays, int64_t count, int64_t *bytes,
                         tv_hash128 *hash)
{
    TV_TRY(tv_h5_start());
    tv_h5_sink sink = {.fd = -1, .shadow = tv_shadow_new()};
    if (!sink.shadow)
        return TV_FAIL(TV_MEMORY, "no memory to write %s", path);
    if (tv_fault_errno(TV_FAULT_SAVE_CREATE_POINT) == 0)
        sink.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (sink.fd < 0) {
        int error = errno;
        tv_shadow_free(sink.shadow);
        return TV_FAIL(tv_io_code(error), "cannot create %s: %s; all ranks must see the run folder on one file system",
                       path, strerror(error));
    }
    tv_status st = write_file(&sink, path, arrays, count);
    if (sink.error)
        st = TV_FAIL(tv_io_code(sink.error), "cannot write %s: %s", path, strerror(sink.error));
    st = sync_and_close(&sink, path, st);
    if (st == TV_OK)
        st = tv_shadow_verify(sink.shadow, path, bytes, hash);
    tv_shadow_free(sink.shadow);
    return st;
}
