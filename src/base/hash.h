// Hashes: XXH3-128 for rows, files and digests; XXH32 for tensor names (libxxhash).
#ifndef TV_BASE_HASH_H
#define TV_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct tv_hash128 {
    uint64_t low, high;
} tv_hash128;

tv_hash128 tv_hash_bytes(const void *data, size_t bytes);
// XXH3-128 of the row's bytes followed by its global row number as 8 little-endian bytes.
tv_hash128 tv_hash_row(const void *row, size_t bytes, int64_t global_row);
// sum += the hashes of rows [first_row, first_row + rows) that lie back to back, each half mod 2^64: order and sharding do not matter.
void tv_hash_rows_add(tv_hash128 *sum, const void *data, int64_t rows, size_t row_bytes, int64_t first_row);
int tv_hash_equal(tv_hash128 a, tv_hash128 b);
#define TV_HASH_HEX 33 // 32 hex digits (XXH's canonical order, high half first) and the terminator
void tv_hash_format(tv_hash128 hash, char hex[TV_HASH_HEX]);
int tv_hash_parse(const char *hex, tv_hash128 *out); // 0 on success, -1 when not 32 hex digits
uint32_t tv_hash_name(const char *name);             // XXH32, seed 0: the tensor id

// A stream hasher for files. tv_hash_stream_new returns NULL when memory is short; free takes NULL.
typedef struct tv_hash_stream tv_hash_stream;
tv_hash_stream *tv_hash_stream_new(void);
void tv_hash_stream_add(tv_hash_stream *stream, const void *data, size_t bytes);
tv_hash128 tv_hash_stream_value(const tv_hash_stream *stream);
void tv_hash_stream_free(tv_hash_stream *stream);

#endif
