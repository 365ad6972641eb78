#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/shard_h5.h"
#include "io/shard_h5_internal.h"

struct tv_shard {
    hid_t file;
    char *path;
    tv_h5_source *source;
};

static tv_status open_source(const char *path, tv_h5_source *source)
{
    struct stat about;
    source->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (source->fd < 0 || fstat(source->fd, &about) != 0)
        return TV_FAIL(TV_CHECKPOINT, "%s: cannot open the shard: %s", path, strerror(errno));
    source->bytes = about.st_size;
    return TV_OK;
}

tv_status tv_shard_open(const char *path, tv_shard **out)
{
    *out = NULL;
    TV_TRY(tv_h5_start());
    tv_shard *shard = calloc(1, sizeof *shard);
    if (!shard || !(shard->path = strdup(path)) || !(shard->source = calloc(1, sizeof *shard->source))) {
        free(shard ? shard->path : NULL);
        free(shard);
        return TV_FAIL(TV_MEMORY, "no memory to open %s", path);
    }
    shard->file = H5I_INVALID_HID;
    tv_status st = open_source(path, shard->source);
    if (st != TV_OK) {
        tv_shard_close(shard);
        return st;
    }
    hid_t access = tv_h5_source_access(shard->source);
    // Strong: closing the file closes whatever an error left open in it.
    if (access < 0 || H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) < 0 ||
        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) < 0 || (shard->file = H5Fopen(path, H5F_ACC_RDONLY, access)) < 0)
        st = tv_h5_fail(TV_CHECKPOINT, path, "cannot open the shard");
    if (access >= 0 && H5Pclose(access) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_CHECKPOINT, path, "cannot close a property list");
    if (st == TV_OK)
        *out = shard;
    else
        tv_shard_close(shard);
    return st;
}

void tv_shard_close(tv_shard *shard)
{
    if (!shard)
        return;
    if (shard->file >= 0)
        (void)H5Fclose(shard->file); // read-only: nothing is lost when it fails
    if (shard->source->fd >= 0)
        close(shard->source->fd);
    shard->source->fd = -1;
    // A file so damaged that the library cannot close it stays open in there: what it points at stays, too.
    if (!shard->source->held)
        free(shard->source);
    free(shard->path);
    free(shard);
}

// The link of one component of the path must be a hard one; it is looked at, not followed.
static tv_status check_link(const tv_shard *shard, const char *path)
{
    H5L_info_t info;
    htri_t there = H5Lexists(shard->file, path, H5P_DEFAULT);
    if (there < 0 || (there && H5Lget_info(shard->file, path, &info, H5P_DEFAULT) < 0))
        return tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    if (!there)
        return TV_FAIL(TV_CHECKPOINT, "%s: %s is missing", shard->path, path);
    switch (info.type) {
    case H5L_TYPE_HARD: return TV_OK;
    case H5L_TYPE_SOFT: return TV_FAIL(TV_CHECKPOINT, "%s: %s is a soft link, which is refused", shard->path, path);
    case H5L_TYPE_EXTERNAL:
        return TV_FAIL(TV_CHECKPOINT, "%s: %s is an external link, which is refused", shard->path, path);
    default: return TV_FAIL(TV_CHECKPOINT, "%s: %s is a user-defined link, which is refused", shard->path, path);
    }
}

static tv_status open_dataset(tv_shard *shard, const tv_shard_rows *rows, char *path, size_t path_bytes, hid_t *dataset)
{
    const tv_state_array *a = rows->array;
    char part[256];
    const char *parts[] = {a->group, a->name, part};
    if (rows->number == 0)
        snprintf(part, sizeof part, "%s", a->part);
    else
        snprintf(part, sizeof part, "%s.%" PRId64, a->part, rows->number);
    size_t length = 0;
    for (int i = 0; i < 3; i++) {
        length += (size_t)snprintf(path + length, path_bytes - length, "/%s", parts[i]);
        if (length >= path_bytes)
            return TV_FAIL(TV_CHECKPOINT, "%s: the name of %s %s is too long", shard->path, a->name, a->part);
        TV_TRY(check_link(shard, path));
    }
    shard->source->raw_refused = 0;
    *dataset = H5Oopen(shard->file, path, H5P_DEFAULT);
    if (*dataset < 0 && shard->source->raw_refused)
        return TV_FAIL(TV_CHECKPOINT,
                       "%s: %s is a virtual dataset, which is refused, or has something else in a global heap",
                       shard->path, path);
    if (*dataset < 0)
        return tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    if (H5Iget_type(*dataset) != H5I_DATASET)
        return TV_FAIL(TV_CHECKPOINT, "%s: %s is no dataset", shard->path, path);
    return TV_OK;
}

// Storage: chunks inside this file, with fletcher32 and nothing else.
static tv_status check_storage(const tv_shard *shard, const char *path, hid_t dataset)
{
    hid_t list = H5Dget_create_plist(dataset);
    if (list < 0)
        return tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    tv_status st = TV_OK;
    H5D_layout_t layout = H5Pget_layout(list);
    int external = layout == H5D_CONTIGUOUS ? H5Pget_external_count(list) : 0;
    int filters = H5Pget_nfilters(list);
    if (layout < 0 || external < 0 || filters < 0)
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    else if (layout == H5D_VIRTUAL)
        st = TV_FAIL(TV_CHECKPOINT, "%s: %s is a virtual dataset, which is refused", shard->path, path);
    else if (external > 0)
        st = TV_FAIL(TV_CHECKPOINT, "%s: %s lies in external storage, which is refused", shard->path, path);
    for (int i = 0; st == TV_OK && i < filters; i++) {
        unsigned flags = 0, config = 0;
        size_t values = 0;
        H5Z_filter_t filter = H5Pget_filter2(list, (unsigned)i, &flags, &values, NULL, 0, NULL, &config);
        if (filter < 0)
            st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
        else if (filter != H5Z_FILTER_FLETCHER32)
            st = TV_FAIL(TV_CHECKPOINT, "%s: %s uses filter %d; only fletcher32 is allowed", shard->path, path,
                         (int)filter);
    }
    if (st == TV_OK && (layout != H5D_CHUNKED || filters != 1))
        st = TV_FAIL(TV_CHECKPOINT, "%s: %s is not stored in chunks with one fletcher32 filter", shard->path, path);
    if (H5Pclose(list) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    return st;
}

static tv_status check_type(const tv_shard *shard, const char *path, hid_t dataset, tv_dtype dtype)
{
    hid_t type = H5Dget_type(dataset);
    if (type < 0)
        return tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    tv_status st = TV_OK;
    htri_t equal = H5Tequal(type, tv_h5_file_type(dtype));
    if (equal < 0)
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    else if (!equal)
        st = TV_FAIL(TV_CHECKPOINT, "%s: the type of %s is not %s as the manifest says", shard->path, path,
                     tv_dtype_name(dtype));
    if (H5Tclose(type) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    return st;
}

static tv_status check_shape(const tv_shard *shard, const char *path, hid_t space, const tv_shard_rows *rows)
{
    hsize_t shape[H5S_MAX_RANK] = {0};
    int rank = H5Sget_simple_extent_ndims(space);
    if (rank < 0 || H5Sget_simple_extent_dims(space, shape, NULL) < 0)
        return tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    if (rank != 2 || shape[0] != (hsize_t)rows->block_rows || shape[1] != (hsize_t)rows->array->cols)
        return TV_FAIL(TV_CHECKPOINT, "%s: the shape of %s is not [%" PRId64 ", %" PRId64 "] as the manifest says",
                       shard->path, path, rows->block_rows, rows->array->cols);
    return TV_OK;
}

// No chunk is larger than the dataset: the library takes memory for a whole one.
static tv_status check_chunks(const tv_shard *shard, const char *path, hid_t dataset, const tv_shard_rows *rows)
{
    hsize_t chunk[2] = {0};
    hid_t list = H5Dget_create_plist(dataset);
    tv_status st = TV_OK;
    if (list < 0 || H5Pget_chunk(list, 2, chunk) != 2)
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    else if (chunk[0] > (hsize_t)rows->block_rows || chunk[1] > (hsize_t)rows->array->cols)
        st = TV_FAIL(TV_CHECKPOINT, "%s: the chunks of %s are larger than all of it, which is refused", shard->path,
                     path);
    if (list >= 0 && H5Pclose(list) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    return st;
}

static tv_status read_rows(const tv_shard *shard, const char *path, hid_t dataset, const tv_shard_rows *rows)
{
    hsize_t start[2] = {(hsize_t)rows->skip, 0}, count[2] = {(hsize_t)rows->count, (hsize_t)rows->array->cols};
    hid_t space = H5Dget_space(dataset), memory = H5I_INVALID_HID, transfer = H5Pcreate(H5P_DATASET_XFER);
    tv_status st = TV_OK;
    if (space < 0 || transfer < 0 || (rows->unchecked && H5Pset_edc_check(transfer, H5Z_DISABLE_EDC) < 0))
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    if (st == TV_OK)
        st = check_shape(shard, path, space, rows);
    if (st == TV_OK)
        st = check_chunks(shard, path, dataset, rows);
    if (st == TV_OK &&
        ((memory = H5Screate_simple(2, count, NULL)) < 0 ||
         H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ||
         H5Dread(dataset, tv_h5_memory_type(rows->array->dtype), memory, space, transfer, rows->data) < 0))
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    if (transfer >= 0 && H5Pclose(transfer) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    if (memory >= 0 && H5Sclose(memory) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    if (space >= 0 && H5Sclose(space) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    return st;
}

tv_status tv_shard_read(tv_shard *shard, const tv_shard_rows *rows)
{
    char path[1024];
    hid_t dataset = H5I_INVALID_HID;
    tv_status st = open_dataset(shard, rows, path, sizeof path, &dataset);
    if (st == TV_OK)
        st = check_storage(shard, path, dataset);
    if (st == TV_OK)
        st = check_type(shard, path, dataset, rows->array->dtype);
    shard->source->raw_allowed = st == TV_OK;
    if (st == TV_OK)
        st = read_rows(shard, path, dataset, rows);
    shard->source->raw_allowed = 0;
    if (dataset >= 0 && H5Oclose(dataset) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    return st;
}
