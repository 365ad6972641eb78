#include "io/features.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "io/file_identity.h"
#include "io/shard_h5_internal.h"

// Where a dataset lies in the file.
typedef struct place {
    int rank;
    hsize_t shape[3];
    int64_t item_bytes; // of one number
    int64_t offset, bytes;
} place;

struct tv_features {
    char *path;
    struct stat about;    // at open
    tv_h5_source *source; // its descriptor serves all reads
    place values, index;
    int64_t frames, width, items;
    int64_t *entries, entry_count; // [n, 2] position, item
    uint8_t *buffer;               // of one item, or a piece
    tv_hash128 identity;
};

static tv_status open_descriptor(tv_features *f)
{
    f->source->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (f->source->fd < 0 || fstat(f->source->fd, &f->about) != 0)
        return TV_FAIL(TV_CORPUS, "cannot open the features %s: %s", f->path, strerror(errno));
    if (!S_ISREG(f->about.st_mode))
        return TV_FAIL(TV_CORPUS, "the features %s are not a regular file", f->path);
    f->source->bytes = f->about.st_size;
    return TV_OK;
}

// Files of HDF5's first format have no checksums over what tells of datasets, and the library believes it: damage there ends in crashes.
static tv_status check_format(const tv_features *f)
{
    static const uint8_t signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    uint8_t head[9] = {0};
    if (pread(f->source->fd, head, sizeof head, 0) != (ssize_t)sizeof head ||
        memcmp(head, signature, sizeof signature) != 0)
        return TV_FAIL(TV_CORPUS, "the features %s are no HDF5 file", f->path);
    if (head[8] < 2)
        return TV_FAIL(TV_CORPUS,
                       "%s: HDF5's first file format, which has no checksums; write it with h5py.File(..., \"w\", "
                       "libver=(\"v110\", \"v110\"))",
                       f->path);
    return TV_OK;
}

// *item_bytes of float16, float32 or int64; 0 for any other type.
static int64_t known_type(hid_t type, int floats)
{
    int64_t bytes = 0;
    hid_t half = H5Tcopy(H5T_IEEE_F32LE);
    if (!floats)
        bytes = H5Tequal(type, H5T_STD_I64LE) > 0 ? 8 : 0;
    else if (H5Tequal(type, H5T_IEEE_F32LE) > 0)
        bytes = 4;
    else if (half >= 0 && H5Tset_fields(half, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(half, 2) >= 0 &&
             H5Tset_ebias(half, 15) >= 0 && H5Tequal(type, half) > 0)
        bytes = 2;
    if (half >= 0)
        (void)H5Tclose(half);
    return bytes;
}

static tv_status open_dataset(const tv_features *f, hid_t file, const char *name, hid_t *dataset)
{
    char words[40];
    snprintf(words, sizeof words, "the dataset '%s'", name);
    TV_TRY(tv_h5_check_link(TV_CORPUS, f->path, file, name, words));
    *dataset = H5Oopen(file, name, H5P_DEFAULT);
    if (*dataset < 0 || H5Iget_type(*dataset) != H5I_DATASET) {
        H5Eclear2(H5E_DEFAULT);
        return TV_FAIL(TV_CORPUS, "%s: '%s' is no dataset that can be read", f->path, name);
    }
    return TV_OK;
}

static tv_status find_shape(const tv_features *f, hid_t dataset, const char *name, place *p)
{
    hid_t space = H5Dget_space(dataset);
    int rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    if (rank == p->rank)
        (void)H5Sget_simple_extent_dims(space, p->shape, NULL);
    if (space >= 0)
        (void)H5Sclose(space);
    if (rank != p->rank)
        return TV_FAIL(TV_CORPUS, "%s: '%s' has %d dimensions in place of %d", f->path, name, rank, p->rank);
    p->bytes = p->item_bytes;
    for (int i = 0; i < p->rank; i++) {
        if (p->shape[i] == 0)
            return TV_FAIL(TV_CORPUS, "%s: '%s' is empty", f->path, name);
        if (p->shape[i] > (hsize_t)(INT64_MAX / p->bytes))
            return TV_FAIL(TV_CORPUS, "%s: '%s' claims more values than a file can hold", f->path, name);
        p->bytes *= (int64_t)p->shape[i];
    }
    return TV_OK;
}

// Contiguous, without filters, and all of it in the file.
static tv_status find_values(const tv_features *f, hid_t dataset, const char *name, place *p)
{
    hid_t how = H5Dget_create_plist(dataset);
    int plain = how >= 0 && H5Pget_layout(how) == H5D_CONTIGUOUS && H5Pget_external_count(how) == 0;
    if (how >= 0)
        (void)H5Pclose(how);
    if (!plain)
        return TV_FAIL(TV_CORPUS,
                       "%s: '%s' is chunked, compressed or external; write it contiguous (h5py without chunks and "
                       "compression)",
                       f->path, name);
    haddr_t offset = H5Dget_offset(dataset);
    if (offset == HADDR_UNDEF)
        return TV_FAIL(TV_CORPUS, "%s: '%s' was never written; export the features again", f->path, name);
    if (offset > (haddr_t)f->source->bytes || p->bytes > f->source->bytes - (int64_t)offset)
        return TV_FAIL(TV_CORPUS,
                       "%s: '%s' ends behind the file's end, so items are missing; export the features again", f->path,
                       name);
    p->offset = (int64_t)offset;
    return TV_OK;
}

static tv_status find_place(const tv_features *f, hid_t file, const char *name, int floats, place *p)
{
    hid_t dataset = H5I_INVALID_HID;
    tv_status st;
    TV_TRY_GOTO(st, done, open_dataset(f, file, name, &dataset));
    hid_t type = H5Dget_type(dataset);
    p->item_bytes = type < 0 ? 0 : known_type(type, floats);
    if (type >= 0)
        (void)H5Tclose(type);
    if (p->item_bytes == 0) {
        st = TV_FAIL(TV_CORPUS, "%s: the values of '%s' are not %s", f->path, name,
                     floats ? "float16 or float32 (IEEE, little-endian)" : "int64 (little-endian)");
        goto done;
    }
    TV_TRY_GOTO(st, done, find_shape(f, dataset, name, p));
    st = find_values(f, dataset, name, p);
done:
    if (dataset >= 0)
        (void)H5Oclose(dataset);
    return st;
}

// HDF5 has the file open only here.
static tv_status find_places(tv_features *f)
{
    hid_t file = H5I_INVALID_HID, access = tv_h5_source_access(f->source);
    if (access >= 0) {
        if (H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0) // closes whatever an error left open
            file = H5Fopen(f->path, H5F_ACC_RDONLY, access);
        (void)H5Pclose(access);
    }
    if (file < 0)
        return tv_h5_fail(TV_CORPUS, f->path, "cannot open the features");
    f->values.rank = 3;
    f->index.rank = 2;
    tv_status st = find_place(f, file, "features", 1, &f->values);
    if (st == TV_OK)
        st = find_place(f, file, "index", 0, &f->index);
    (void)H5Fclose(file); // read-only: nothing is lost when it fails
    return st;
}

static tv_status read_at(const tv_features *f, void *to, int64_t offset, int64_t bytes)
{
    if (tv_fault_errno(TV_FAULT_FEATURES_READ_POINT) || tv_h5_source_read(f->source, to, bytes, offset) < 0)
        return TV_FAIL(TV_CORPUS, "cannot read the features %s: %s", f->path, strerror(errno));
    return TV_OK;
}

static tv_status check_shape(tv_features *f, const tv_features_want *want)
{
    f->items = (int64_t)f->values.shape[0];
    f->frames = (int64_t)f->values.shape[1];
    f->width = (int64_t)f->values.shape[2];
    if (f->width != want->width)
        return TV_FAIL(TV_CORPUS, "%s: features of %" PRId64 " values (F), but %s is %" PRId64, f->path, f->width,
                       want->width_key, want->width);
    if (f->frames != want->frames)
        return TV_FAIL(TV_CORPUS, "%s: items of %" PRId64 " frames, but %s is %" PRId64, f->path, f->frames,
                       want->frames_key, want->frames);
    if (f->index.shape[1] != 2)
        return TV_FAIL(TV_CORPUS, "%s: 'index' has rows of %" PRId64 " numbers in place of 2 (position, item)", f->path,
                       (int64_t)f->index.shape[1]);
    return TV_OK;
}

static tv_status read_index(tv_features *f, int64_t text_bytes)
{
    f->entry_count = (int64_t)f->index.shape[0];
    f->entries = malloc((size_t)f->index.bytes);
    if (!f->entries)
        return TV_FAIL(TV_MEMORY, "no memory for the index of %s", f->path);
    TV_TRY(read_at(f, f->entries, f->index.offset, f->index.bytes));
    for (int64_t i = 0; i < f->entry_count; i++) {
        int64_t position = f->entries[2 * i], item = f->entries[2 * i + 1], before = i ? f->entries[2 * i - 2] : -1;
        if (item < 0 || item >= f->items)
            return TV_FAIL(TV_CORPUS,
                           "%s: index %" PRId64 " names item %" PRId64 ", past the end of the %" PRId64 " items",
                           f->path, i, item, f->items);
        if (position <= before)
            return TV_FAIL(TV_CORPUS,
                           "%s: index %" PRId64 " has position %" PRId64 " behind %" PRId64
                           ", but positions ascend; sort the index, and name each position once",
                           f->path, i, position, before);
        if (position >= text_bytes)
            return TV_FAIL(TV_CORPUS,
                           "%s: index %" PRId64 " has position %" PRId64 ", past the end of the text's %" PRId64
                           " bytes",
                           f->path, i, position, text_bytes);
    }
    return TV_OK;
}

static tv_status identify(tv_features *f)
{
    const int64_t about[] = {f->items, f->frames, f->width, f->values.item_bytes, f->entry_count};
    int64_t pieces = tv_identity_pieces(f->values.bytes);
    tv_hash_stream *stream = tv_hash_stream_new();
    if (!stream)
        return TV_FAIL(TV_MEMORY, "no memory to hash %s", f->path);
    tv_hash_stream_add(stream, about, sizeof about);
    tv_hash_stream_add(stream, f->entries, (size_t)f->index.bytes);
    tv_status st = TV_OK;
    for (int64_t i = 0; st == TV_OK && i < pieces; i++) {
        tv_identity_piece piece = tv_identity_piece_at(f->values.bytes, i);
        st = read_at(f, f->buffer, f->values.offset + piece.offset, piece.bytes);
        tv_hash_stream_add(stream, f->buffer, st == TV_OK ? (size_t)piece.bytes : 0);
    }
    f->identity = tv_hash_stream_value(stream);
    tv_hash_stream_free(stream);
    return st;
}

static tv_status open_all(tv_features *f, const tv_features_want *want)
{
    TV_TRY(open_descriptor(f));
    TV_TRY(check_format(f));
    TV_TRY(tv_h5_start());
    TV_TRY(find_places(f));
    TV_TRY(check_shape(f, want));
    int64_t item = f->frames * f->width * f->values.item_bytes;
    f->buffer = malloc((size_t)(item > TV_IDENTITY_PIECE_BYTES ? item : TV_IDENTITY_PIECE_BYTES));
    if (!f->buffer)
        return TV_FAIL(TV_MEMORY, "no memory to read %s", f->path);
    TV_TRY(read_index(f, want->text_bytes));
    return identify(f);
}

tv_status tv_features_open(const char *path, const tv_features_want *want, tv_features **out)
{
    *out = NULL;
    tv_features *f = calloc(1, sizeof *f);
    if (!f || !(f->path = strdup(path)) || !(f->source = calloc(1, sizeof *f->source))) {
        free(f ? f->path : NULL);
        free(f);
        return TV_FAIL(TV_MEMORY, "no memory to open %s", path);
    }
    f->source->fd = -1;
    tv_status st = open_all(f, want);
    if (st == TV_OK)
        *out = f;
    else
        tv_features_close(f);
    return st;
}

void tv_features_close(tv_features *f)
{
    if (!f)
        return;
    tv_h5_source_free(f->source);
    free(f->buffer);
    free(f->entries);
    free(f->path);
    free(f);
}

int64_t tv_features_items(const tv_features *f) { return f->items; }

int tv_features_next(const tv_features *f, int64_t from, int64_t *position, int64_t *item)
{
    int64_t low = 0, high = f->entry_count; // the first entry that is not below lies in [low, high]
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (f->entries[2 * middle] < from)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == f->entry_count)
        return 0;
    *position = f->entries[2 * low];
    *item = f->entries[2 * low + 1];
    return 1;
}

// The float of an IEEE half: exact.
static float from_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half >> 15) << 31, exponent = half >> 10 & 31, fraction = half & 1023, bits;
    float value;
    if (exponent == 0) {
        value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    bits = sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | fraction << 13;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static tv_status check_unchanged(const tv_features *f)
{
    struct stat now;
    if (fstat(f->source->fd, &now) == 0 && now.st_size == f->about.st_size && tv_same_time(&now, &f->about))
        return TV_OK;
    return TV_FAIL(TV_CORPUS, "the features %s were written to during the run; restore the file and resume", f->path);
}

tv_status tv_features_read(tv_features *f, int64_t item, float *out)
{
    int64_t count = f->frames * f->width, bytes = count * f->values.item_bytes;
    if (item < 0 || item >= f->items)
        return TV_FAIL(TV_INTERNAL, "item %" PRId64 " of %" PRId64, item, f->items);
    TV_TRY(check_unchanged(f));
    TV_TRY(read_at(f, f->buffer, f->values.offset + item * bytes, bytes));
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *from = f->buffer + i * f->values.item_bytes;
        uint32_t bits = from[0] | (uint32_t)from[1] << 8;
        if (f->values.item_bytes == 4) {
            bits |= (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
            memcpy(&out[i], &bits, sizeof bits);
        } else {
            out[i] = from_half((uint16_t)bits);
        }
        memcpy(&bits, &out[i], sizeof bits);
        if ((bits & 0x7F800000u) == 0x7F800000u)
            return TV_FAIL(TV_CORPUS,
                           "%s: item %" PRId64 ", frame %" PRId64
                           " holds NaN or Inf; export it again, or take it out of the index",
                           f->path, item, i / f->width);
    }
    return TV_OK;
}

tv_hash128 tv_features_identity(const tv_features *f) { return f->identity; }
