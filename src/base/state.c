#include "base/state.h"

#include <stdlib.h>
#include <string.h>

enum { RECORD_FIXED_BYTES = 2 * 8 + 4 * 4 + 2 * 8 };

typedef struct digest_entry {
    const tv_state_array *array;
    tv_hash128 sum;
} digest_entry;

void tv_state_hash(const tv_state_array *arrays, int64_t count, tv_hash128 *sums)
{
    for (int64_t i = 0; i < count; i++) {
        const tv_state_array *a = &arrays[i];
        sums[i] = (tv_hash128){0, 0};
        tv_hash_rows_add(&sums[i], a->data, a->count, (size_t)tv_state_row_bytes(a), a->first_row);
    }
}

static int compare_entries(const void *left, const void *right)
{
    const tv_state_array *a = ((const digest_entry *)left)->array, *b = ((const digest_entry *)right)->array;
    int order = strcmp(a->name, b->name);
    return order ? order : strcmp(a->part, b->part);
}

static unsigned char *put_little_endian(unsigned char *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        *to++ = (unsigned char)(value >> (8 * i));
    return to;
}

static void add_record(tv_hash_stream *stream, const digest_entry *entry)
{
    const tv_state_array *a = entry->array;
    unsigned char record[RECORD_FIXED_BYTES], *at = record;
    at = put_little_endian(at, (uint64_t)a->rows, 8);
    at = put_little_endian(at, (uint64_t)a->cols, 8);
    at = put_little_endian(at, (uint32_t)a->dtype, 4);
    at = put_little_endian(at, (uint32_t)a->b, 4);
    at = put_little_endian(at, (uint32_t)a->m, 4);
    at = put_little_endian(at, (uint32_t)a->scale_group, 4);
    at = put_little_endian(at, entry->sum.low, 8);
    put_little_endian(at, entry->sum.high, 8);
    tv_hash_stream_add(stream, a->name, strlen(a->name) + 1);
    tv_hash_stream_add(stream, a->part, strlen(a->part) + 1);
    tv_hash_stream_add(stream, record, sizeof record);
}

tv_status tv_state_digest(const tv_state_array *arrays, int64_t count, const tv_hash128 *sums, tv_hash128 *digest)
{
    tv_status st = TV_OK;
    tv_hash_stream *stream = tv_hash_stream_new();
    digest_entry *entries = malloc((size_t)(count > 0 ? count : 1) * sizeof *entries);
    if (!stream || !entries) {
        st = TV_FAIL(TV_MEMORY, "no memory to sort %lld state arrays for the digest", (long long)count);
        goto done;
    }
    for (int64_t i = 0; i < count; i++)
        entries[i] = (digest_entry){&arrays[i], sums[i]};
    qsort(entries, (size_t)count, sizeof *entries, compare_entries);
    for (int64_t i = 0; i < count; i++)
        add_record(stream, &entries[i]);
    *digest = tv_hash_stream_value(stream);
done:
    free(entries);
    tv_hash_stream_free(stream);
    return st;
}
