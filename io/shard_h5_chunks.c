// Chunks with their fletcher32 sums, made here and handed to HDF5 as they lie in the file: its own filter pipeline takes and gives back
// memory for each chunk and sums one word at a time, which together cost as much as the disk.
//
// The sum is that of HDF5's filter: over 16-bit big-endian words, ones' complement, an odd last byte is a high one (H5checksum.c of HDF5;
// Fletcher, IEEE Trans. Comm. 30, 1982).
#include <stdlib.h>
#include <string.h>

#include "io/shard_h5_internal.h"

enum { SUM_WORDS = 256 }; // sum of (SUM_WORDS - i) words stays below 2^32

static uint64_t fold(uint64_t x)
{
    while (x >> 16)
        x = (x & 0xffff) + (x >> 16);
    return x;
}

static void add_words(const unsigned char *data, uint32_t words, uint64_t *sum1, uint64_t *sum2)
{
    uint32_t plain = 0, weighted = 0;
    for (uint32_t i = 0; i < words; i++) {
        uint32_t word = (uint32_t)data[2 * i] << 8 | data[2 * i + 1];
        plain += word;
        weighted += (words - i) * word;
    }
    *sum2 = fold(*sum2 + words * *sum1 + weighted);
    *sum1 = fold(*sum1 + plain);
}

uint32_t tv_h5_fletcher32(const void *data, size_t bytes)
{
    const unsigned char *at = data;
    uint64_t sum1 = 0, sum2 = 0;
    for (; bytes >= 2 * SUM_WORDS; bytes -= 2 * SUM_WORDS, at += 2 * SUM_WORDS)
        add_words(at, SUM_WORDS, &sum1, &sum2);
    add_words(at, (uint32_t)(bytes / 2), &sum1, &sum2);
    if (bytes % 2) {
        sum1 = fold(sum1 + ((uint64_t)at[bytes - 1] << 8));
        sum2 = fold(sum2 + sum1);
    }
    return (uint32_t)(sum2 << 16 | sum1);
}

// One chunk of `bytes` into `chunk`, which has room for its sum; what the array does not fill is 0.
static void make_chunk(unsigned char *chunk, size_t bytes, const unsigned char *rows, size_t row_bytes)
{
    memcpy(chunk, rows, row_bytes);
    memset(chunk + row_bytes, 0, bytes - row_bytes);
    uint32_t sum = tv_h5_fletcher32(chunk, bytes);
    for (int i = 0; i < 4; i++)
        chunk[bytes + (size_t)i] = (unsigned char)(sum >> (8 * i));
}

tv_status tv_h5_write_chunks(hid_t dataset, const char *path, const tv_state_array *a, int64_t chunk_rows)
{
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "items are written as they lie in memory");
    int64_t row_bytes = tv_state_row_bytes(a);
    size_t bytes = (size_t)(chunk_rows * row_bytes);
    unsigned char *chunk = malloc(bytes + 4);
    if (!chunk)
        return TV_FAIL(TV_MEMORY, "no memory for a chunk of %zu bytes of %s", bytes, path);
    tv_status st = TV_OK;
    for (int64_t row = 0; st == TV_OK && row < a->count; row += chunk_rows) {
        hsize_t offset[2] = {(hsize_t)row, 0};
        int64_t rows = a->count - row < chunk_rows ? a->count - row : chunk_rows;
        make_chunk(chunk, bytes, (const unsigned char *)a->data + row * row_bytes, (size_t)(rows * row_bytes));
        if (H5Dwrite_chunk(dataset, H5P_DEFAULT, 0, offset, bytes + 4, chunk) < 0)
            st = tv_h5_fail(TV_IO, path, "cannot write a chunk");
    }
    free(chunk);
    return st;
}
