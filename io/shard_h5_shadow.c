#include "io/shard_h5_shadow.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io/atomic_file.h"

enum { COPY_BYTES_MOST = 64 << 10 }; // larger extents are kept as hashes

typedef struct extent {
    int64_t address, bytes;
    tv_hash128 hash;     // of a large one
    unsigned char *copy; // of a small one
} extent;

struct tv_shadow {
    extent *items;
    int64_t count, room;
    int lost;    // memory ran short
    int dropped; // a large extent was cut, so that not all bytes are known
    // while the file is read again
    tv_hash_stream *stream;
    int64_t at;   // bytes read so far
    int64_t next; // first extent that is not yet compared
    const char *path;
};

tv_shadow *tv_shadow_new(void) { return calloc(1, sizeof(tv_shadow)); }

void tv_shadow_free(tv_shadow *shadow)
{
    if (!shadow)
        return;
    for (int64_t i = 0; i < shadow->count; i++)
        free(shadow->items[i].copy);
    free(shadow->items);
    tv_hash_stream_free(shadow->stream);
    free(shadow);
}

static void add(tv_shadow *shadow, extent one)
{
    if (shadow->count == shadow->room) {
        int64_t room = shadow->room ? 2 * shadow->room : 64;
        extent *grown = realloc(shadow->items, (size_t)room * sizeof *grown);
        if (!grown) {
            shadow->lost = 1;
            free(one.copy);
            return;
        }
        shadow->items = grown;
        shadow->room = room;
    }
    shadow->items[shadow->count++] = one;
}

static void add_copy(tv_shadow *shadow, int64_t address, const void *data, int64_t bytes)
{
    extent one = {.address = address, .bytes = bytes, .copy = malloc((size_t)bytes)};
    if (!one.copy) {
        shadow->lost = 1;
        return;
    }
    memcpy(one.copy, data, (size_t)bytes);
    add(shadow, one);
}

// Takes [address, end) out of what was noted. HDF5 writes large extents once; one that is cut all the same is dropped: its rest is
// covered by the checksums inside the file alone.
static void cut(tv_shadow *shadow, int64_t address, int64_t end)
{
    for (int64_t i = shadow->count - 1; i >= 0; i--) {
        extent old = shadow->items[i];
        if (old.address >= end || old.address + old.bytes <= address)
            continue;
        shadow->items[i] = shadow->items[--shadow->count];
        shadow->dropped = shadow->dropped || !old.copy;
        if (old.copy && old.address < address)
            add_copy(shadow, old.address, old.copy, address - old.address);
        if (old.copy && old.address + old.bytes > end)
            add_copy(shadow, end, old.copy + (end - old.address), old.address + old.bytes - end);
        free(old.copy);
    }
}

void tv_shadow_write(tv_shadow *shadow, int64_t address, const void *data, size_t bytes)
{
    if (bytes == 0)
        return;
    cut(shadow, address, address + (int64_t)bytes);
    if (bytes <= COPY_BYTES_MOST)
        add_copy(shadow, address, data, (int64_t)bytes);
    else
        add(shadow, (extent){.address = address, .bytes = (int64_t)bytes, .hash = tv_hash_bytes(data, bytes)});
}

static int by_address(const void *a, const void *b)
{
    int64_t x = ((const extent *)a)->address, y = ((const extent *)b)->address;
    return (x > y) - (x < y);
}

static tv_status fail_at(const tv_shadow *shadow, const extent *e)
{
    return TV_FAIL(TV_IO,
                   "%s: the disk gave back other bytes than were written, somewhere in %" PRId64 " bytes from %" PRId64
                   "; check the disk",
                   shadow->path, e->bytes, e->address);
}

// The part of an extent that lies in this block of the file; `from` is its place in the extent.
static tv_status compare_part(tv_shadow *shadow, const extent *e, int64_t from, const unsigned char *data,
                              int64_t bytes)
{
    if (e->copy)
        return memcmp(e->copy + from, data, (size_t)bytes) == 0 ? TV_OK : fail_at(shadow, e);
    if (from == 0) {
        tv_hash_stream_free(shadow->stream);
        shadow->stream = tv_hash_stream_new();
        if (!shadow->stream)
            return TV_FAIL(TV_MEMORY, "no memory to hash %s", shadow->path);
    }
    tv_hash_stream_add(shadow->stream, data, (size_t)bytes);
    if (from + bytes == e->bytes && !tv_hash_equal(tv_hash_stream_value(shadow->stream), e->hash))
        return fail_at(shadow, e);
    return TV_OK;
}

// Bytes [from, to) of the file, which nobody wrote: a hole.
static tv_status compare_hole(const tv_shadow *shadow, const unsigned char *data, int64_t from, int64_t to)
{
    for (int64_t i = 0; !shadow->dropped && i < to - from; i++)
        if (data[i] != 0)
            return fail_at(shadow, &(extent){.address = from, .bytes = to - from});
    return TV_OK;
}

static tv_status compare_block(void *listener, void *data, size_t bytes)
{
    tv_shadow *shadow = listener;
    TV_TRY(tv_io_fault_data(TV_FAULT_SAVE_REREAD_POINT, data, bytes));
    const unsigned char *block = data;
    int64_t start = shadow->at, end = start + (int64_t)bytes, done = start;
    shadow->at = end;
    while (shadow->next < shadow->count && shadow->items[shadow->next].address < end) {
        const extent *e = &shadow->items[shadow->next];
        int64_t low = e->address > start ? e->address : start, high = e->address + e->bytes;
        int64_t part = (high < end ? high : end) - low;
        TV_TRY(compare_hole(shadow, block + (done - start), done, low));
        TV_TRY(compare_part(shadow, e, low - e->address, block + (low - start), part));
        done = low + part;
        if (high > end)
            break;
        shadow->next++;
    }
    return compare_hole(shadow, block + (done - start), done, end);
}

tv_status tv_shadow_verify(tv_shadow *shadow, const char *path, int64_t *bytes, tv_hash128 *hash)
{
    if (shadow->lost)
        return TV_FAIL(TV_MEMORY, "no memory to remember what was written to %s", path);
    if (shadow->count)
        qsort(shadow->items, (size_t)shadow->count, sizeof *shadow->items, by_address);
    shadow->at = shadow->next = 0;
    shadow->path = path;
    TV_TRY(tv_file_hash_blocks(path, compare_block, shadow, bytes, hash));
    if (shadow->next < shadow->count)
        return TV_FAIL(TV_IO, "%s: the disk gave back %" PRId64 " bytes, fewer than were written", path, *bytes);
    return TV_OK;
}
