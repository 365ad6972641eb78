#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/atomic_file.h"
#include "io/shard_h5.h"
#include "io/shard_h5_internal.h"

enum { HASHED_SLICE = 256 << 10 }; // bytes; fits a core's own cache

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
    tv_h5_source_free(shard->source);
    free(shard->path);
    free(shard);
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
        TV_TRY(tv_h5_check_link(TV_CHECKPOINT, shard->path, shard->file, path, path));
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

static tv_status check_dataset(const tv_shard *shard, const char *path, hid_t dataset, const tv_shard_rows *rows)
{
    TV_TRY(check_storage(shard, path, dataset));
    TV_TRY(check_type(shard, path, dataset, rows->array->dtype));
    hid_t space = H5Dget_space(dataset);
    tv_status st = space >= 0 ? check_shape(shard, path, space, rows) : tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    if (space >= 0 && H5Sclose(space) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    return st;
}

// Chunks are whole rows, and no larger than the dataset: memory is taken for one.
static tv_status find_chunk_rows(const tv_shard *shard, const char *path, hid_t dataset, tv_shard_rows *rows)
{
    hsize_t chunk[2] = {0};
    hid_t list = H5Dget_create_plist(dataset);
    tv_status st = TV_OK;
    if (list < 0 || H5Pget_chunk(list, 2, chunk) != 2)
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    else if (chunk[0] > (hsize_t)rows->block_rows || chunk[1] > (hsize_t)rows->array->cols)
        st = TV_FAIL(TV_CHECKPOINT, "%s: the chunks of %s are larger than all of it, which is refused", shard->path,
                     path);
    else if (chunk[0] < 1 || chunk[1] != (hsize_t)rows->array->cols)
        st = TV_FAIL(TV_CHECKPOINT, "%s: the chunks of %s are not whole rows, which is refused", shard->path, path);
    if (list >= 0 && H5Pclose(list) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    rows->chunk_rows = (int64_t)chunk[0];
    return st;
}

static int64_t first_chunk(const tv_shard_rows *rows) { return rows->skip / rows->chunk_rows; }
static int64_t end_chunk(const tv_shard_rows *rows) { return tv_ceil_div(rows->skip + rows->count, rows->chunk_rows); }

// Of a chunk without its sum.
static int64_t chunk_bytes(const tv_shard_rows *rows) { return rows->chunk_rows * tv_state_row_bytes(rows->array); }

static tv_status find_place(const tv_shard *shard, const char *path, hid_t dataset, const tv_shard_rows *rows,
                            int64_t chunk, int64_t *place)
{
    hsize_t offset[2] = {(hsize_t)(chunk * rows->chunk_rows), 0}, bytes = 0;
    haddr_t address = HADDR_UNDEF;
    unsigned skipped_filters = 0;
    if (H5Dget_chunk_info_by_coord(dataset, offset, &skipped_filters, &address, &bytes) < 0)
        return tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    if (address == HADDR_UNDEF || skipped_filters != 0 || bytes != (hsize_t)chunk_bytes(rows) + TV_H5_SUM_BYTES ||
        address > (haddr_t)shard->source->bytes || bytes > (haddr_t)shard->source->bytes - address)
        return TV_FAIL(TV_CHECKPOINT, "%s: the chunk of %s with row %" PRId64 " is missing, cut or without its sum",
                       shard->path, path, chunk * rows->chunk_rows);
    *place = (int64_t)address;
    return TV_OK;
}

static tv_status find_places(const tv_shard *shard, const char *path, hid_t dataset, tv_shard_rows *rows)
{
    int64_t first = first_chunk(rows), end = end_chunk(rows);
    // Each chunk takes room in the file, so their number is no larger than that.
    if (end - first > shard->source->bytes)
        return TV_FAIL(TV_CHECKPOINT, "%s: %s has more chunks than the file has bytes", shard->path, path);
    rows->places = malloc((size_t)(end - first + 1) * sizeof *rows->places);
    if (!rows->places)
        return TV_FAIL(TV_MEMORY, "no memory for the %" PRId64 " chunks of %s", end - first, path);
    for (int64_t i = first; i < end; i++)
        TV_TRY(find_place(shard, path, dataset, rows, i, &rows->places[i - first]));
    return TV_OK;
}

tv_status tv_shard_locate(tv_shard *shard, tv_shard_rows *rows)
{
    char path[1024];
    hid_t dataset = H5I_INVALID_HID;
    rows->places = NULL;
    tv_status st = open_dataset(shard, rows, path, sizeof path, &dataset);
    if (st == TV_OK)
        st = check_dataset(shard, path, dataset, rows);
    if (st == TV_OK)
        st = find_chunk_rows(shard, path, dataset, rows);
    if (st == TV_OK)
        st = find_places(shard, path, dataset, rows);
    if (dataset >= 0 && H5Oclose(dataset) < 0 && st == TV_OK)
        st = tv_h5_fail(TV_CHECKPOINT, shard->path, path);
    if (st != TV_OK) {
        free(rows->places);
        rows->places = NULL;
    }
    return st;
}

// ---- rows

static tv_status read_bytes(const tv_shard *shard, int64_t place, void *data, int64_t bytes)
{
    if (tv_h5_source_read(shard->source, data, bytes, place) < 0)
        return TV_FAIL(TV_IO, "cannot read %s: %s", shard->path,
                       errno == ENODATA ? "it has become shorter" : strerror(errno));
    return TV_OK;
}

// A chunk into `buffer`, with its sum compared.
static tv_status read_checked(const tv_shard *shard, const tv_shard_rows *rows, int64_t place, unsigned char *buffer)
{
    int64_t bytes = chunk_bytes(rows);
    TV_TRY(read_bytes(shard, place, buffer, bytes + TV_H5_SUM_BYTES));
    if (place == rows->places[0])
        TV_TRY(tv_io_fault_data(TV_FAULT_LOAD_READ_POINT, buffer, (size_t)bytes));
    uint32_t sum = tv_h5_fletcher32(buffer, (size_t)bytes, 0), stored = 0;
    for (int i = TV_H5_SUM_BYTES - 1; i >= 0; i--)
        stored = stored << 8 | buffer[bytes + i];
    if (sum != stored)
        return TV_FAIL(TV_CHECKPOINT, "%s: the fletcher32 sum of a chunk of %s %s is wrong", shard->path,
                       rows->array->name, rows->array->part);
    return TV_OK;
}

// Some rows of a block, chunk by chunk.
static tv_status fetch_checked(const tv_shard *shard, const tv_shard_rows *rows)
{
    int64_t row_bytes = tv_state_row_bytes(rows->array), end = rows->skip + rows->count;
    unsigned char *buffer = malloc((size_t)chunk_bytes(rows) + TV_H5_SUM_BYTES);
    tv_status st = TV_OK;
    if (!buffer)
        return TV_FAIL(TV_MEMORY, "no memory for a chunk of %s", shard->path);
    for (int64_t i = first_chunk(rows); st == TV_OK && i < end_chunk(rows); i++) {
        int64_t first = i * rows->chunk_rows, low = first > rows->skip ? first : rows->skip,
                high = first + rows->chunk_rows < end ? first + rows->chunk_rows : end;
        st = read_checked(shard, rows, rows->places[i - first_chunk(rows)], buffer);
        if (st == TV_OK)
            memcpy((char *)rows->data + (low - rows->skip) * row_bytes, buffer + (low - first) * row_bytes,
                   (size_t)((high - low) * row_bytes));
    }
    free(buffer);
    return st;
}

// All rows of a block, hashed slice by slice while the core's cache still has them.
static tv_status fetch_hashed(const tv_shard *shard, const tv_shard_rows *rows, tv_hash_stream *stream)
{
    int64_t row_bytes = tv_state_row_bytes(rows->array), total = rows->count * row_bytes;
    int64_t most = rows->chunk_rows * row_bytes;
    char *to = rows->data;
    for (int64_t at = 0, slice; at < total; at += slice) {
        int64_t inside = at % most, left = total - at < most - inside ? total - at : most - inside;
        slice = left < HASHED_SLICE ? left : HASHED_SLICE;
        TV_TRY(read_bytes(shard, rows->places[at / most] + inside, to + at, slice));
        if (at == 0)
            TV_TRY(tv_io_fault_data(TV_FAULT_LOAD_READ_POINT, to, (size_t)slice));
        tv_hash_stream_add(stream, to + at, (size_t)slice);
    }
    return TV_OK;
}

tv_status tv_shard_fetch(const tv_shard *shard, const tv_shard_rows *rows, tv_hash128 *hash)
{
    if (!rows->unchecked)
        return fetch_checked(shard, rows);
    tv_hash_stream *stream = tv_hash_stream_new();
    if (!stream)
        return TV_FAIL(TV_MEMORY, "no memory to hash rows of %s", shard->path);
    tv_status st = fetch_hashed(shard, rows, stream);
    *hash = tv_hash_stream_value(stream);
    tv_hash_stream_free(stream);
    return st;
}
