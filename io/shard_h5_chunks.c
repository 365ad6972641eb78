// Chunks with their fletcher32 sums, as they lie in the file. They are made here: HDF5's own filter pipeline takes and gives back memory for
// each chunk and sums one word at a time, which together cost as much as the disk.
//
// The sum is that of HDF5's filter: over 16-bit big-endian words, ones' complement, an odd last byte is a high one (H5checksum.c of HDF5;
// Fletcher, IEEE Trans. Comm. 30, 1982).
#include <stdlib.h>

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

uint32_t tv_h5_fletcher32(const void *data, size_t bytes, size_t zeros)
{
    const unsigned char *at = data;
    size_t zero_words = (bytes + zeros + 1) / 2 - (bytes + 1) / 2;
    uint64_t sum1 = 0, sum2 = 0;
    for (; bytes >= 2 * SUM_WORDS; bytes -= 2 * SUM_WORDS, at += 2 * SUM_WORDS)
        add_words(at, SUM_WORDS, &sum1, &sum2);
    add_words(at, (uint32_t)(bytes / 2), &sum1, &sum2);
    if (bytes % 2) {
        sum1 = fold(sum1 + ((uint64_t)at[bytes - 1] << 8));
        sum2 = fold(sum2 + sum1);
    }
    sum2 = fold(sum2 + zero_words * sum1);
    return (uint32_t)(sum2 << 16 | sum1);
}

static void stream_chunk(const tv_h5_chunk *chunk, tv_disk_stream *stream)
{
    uint32_t sum = tv_h5_fletcher32(chunk->rows, chunk->bytes, chunk->padding);
    unsigned char tail[TV_H5_SUM_BYTES];
    for (int i = 0; i < TV_H5_SUM_BYTES; i++)
        tail[i] = (unsigned char)(sum >> (8 * i));
    tv_disk_stream_add(stream, chunk->rows, chunk->bytes);
    tv_disk_stream_add(stream, NULL, chunk->padding);
    tv_disk_stream_add(stream, tail, TV_H5_SUM_BYTES);
}

// HDF5 gives chunks their places one behind the other, but does not promise it.
static int by_address(const void *a, const void *b)
{
    int64_t x = ((const tv_h5_chunk *)a)->address, y = ((const tv_h5_chunk *)b)->address;
    return (x > y) - (x < y);
}

static void stream_between(const tv_h5_image *image, int64_t at, int64_t end, tv_disk_stream *stream)
{
    for (size_t part; at < end; at += (int64_t)part) {
        const unsigned char *data = tv_h5_image_part(image, at, end, &part);
        tv_disk_stream_add(stream, data, part);
    }
}

void tv_h5_stream_image(tv_h5_image *image, tv_disk_stream *stream)
{
    int64_t at = 0;
    if (image->count > 0)
        qsort(image->chunks, (size_t)image->count, sizeof *image->chunks, by_address);
    for (int64_t i = 0; i < image->count; i++) {
        const tv_h5_chunk *chunk = &image->chunks[i];
        stream_between(image, at, chunk->address, stream);
        stream_chunk(chunk, stream);
        at = chunk->address + (int64_t)(chunk->bytes + chunk->padding) + TV_H5_SUM_BYTES;
    }
    stream_between(image, at, image->bytes, stream);
}

tv_status tv_h5_place_chunks(hid_t dataset, const char *path, const tv_state_array *a, int64_t chunk_rows,
                             tv_h5_image *image)
{
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "items are written as they lie in memory");
    int64_t row_bytes = tv_state_row_bytes(a);
    tv_status st = TV_OK;
    for (int64_t row = 0; st == TV_OK && row < a->count; row += chunk_rows) {
        hsize_t offset[2] = {(hsize_t)row, 0};
        int64_t rows = a->count - row < chunk_rows ? a->count - row : chunk_rows;
        const unsigned char *data = (const unsigned char *)a->data + row * row_bytes;
        image->coming = (tv_h5_chunk){
            .rows = data, .bytes = (size_t)(rows * row_bytes), .padding = (size_t)((chunk_rows - rows) * row_bytes)};
        // The image only looks at the place, not at the data.
        if (H5Dwrite_chunk(dataset, H5P_DEFAULT, 0, offset, (size_t)(chunk_rows * row_bytes) + TV_H5_SUM_BYTES, data) <
            0)
            st = tv_h5_fail(TV_IO, path, "cannot place a chunk");
    }
    image->coming.rows = NULL;
    return st;
}
