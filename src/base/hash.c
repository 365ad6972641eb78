#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY // the state's layout, to keep it on the stack
#include <xxhash.h>

enum { SHORT_ROW_BYTES = 1024 }; // rows up to here are hashed in one call from a copy

struct tv_hash_stream {
    XXH3_state_t state;
};

static tv_hash128 from_xxh(XXH128_hash_t hash) { return (tv_hash128){.low = hash.low64, .high = hash.high64}; }

tv_hash128 tv_hash_bytes(const void *data, size_t bytes) { return from_xxh(XXH3_128bits(data, bytes)); }

static void put_u64(unsigned char *to, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        to[i] = (unsigned char)(value >> (8 * i));
}

tv_hash128 tv_hash_row(const void *row, size_t bytes, int64_t global_row)
{
    if (bytes <= SHORT_ROW_BYTES) {
        unsigned char joined[SHORT_ROW_BYTES + 8];
        if (bytes > 0)
            memcpy(joined, row, bytes);
        put_u64(joined + bytes, (uint64_t)global_row);
        return tv_hash_bytes(joined, bytes + 8);
    }
    unsigned char number[8];
    put_u64(number, (uint64_t)global_row);
    XXH3_state_t state;
    XXH3_128bits_reset(&state);
    XXH3_128bits_update(&state, row, bytes);
    XXH3_128bits_update(&state, number, sizeof number);
    return from_xxh(XXH3_128bits_digest(&state));
}

void tv_hash_rows_add(tv_hash128 *sum, const void *data, int64_t rows, size_t row_bytes, int64_t first_row)
{
    const unsigned char *row = data;
    for (int64_t i = 0; i < rows; i++) {
        tv_hash128 hash = tv_hash_row(row, row_bytes, first_row + i);
        sum->low += hash.low;
        sum->high += hash.high;
        if (row_bytes > 0)
            row += row_bytes;
    }
}

int tv_hash_equal(tv_hash128 a, tv_hash128 b) { return a.low == b.low && a.high == b.high; }

void tv_hash_format(tv_hash128 hash, char hex[TV_HASH_HEX])
{
    snprintf(hex, TV_HASH_HEX, "%016llx%016llx", (unsigned long long)hash.high, (unsigned long long)hash.low);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int tv_hash_parse(const char *hex, tv_hash128 *out)
{
    uint64_t half[2] = {0, 0};
    for (int i = 0; i < TV_HASH_HEX - 1; i++) {
        int digit = hex_digit(hex[i]);
        if (digit < 0)
            return -1;
        half[i / 16] = half[i / 16] << 4 | (uint64_t)digit;
    }
    if (hex[TV_HASH_HEX - 1] != '\0')
        return -1;
    *out = (tv_hash128){.low = half[1], .high = half[0]};
    return 0;
}

uint32_t tv_hash_name(const char *name) { return XXH32(name, strlen(name), 0); }

tv_hash_stream *tv_hash_stream_new(void)
{
    // malloc may give 16-byte borders only; the state wants the 64 of its type.
    tv_hash_stream *stream = aligned_alloc(_Alignof(tv_hash_stream), sizeof *stream);
    if (stream)
        XXH3_128bits_reset(&stream->state);
    return stream;
}

void tv_hash_stream_add(tv_hash_stream *stream, const void *data, size_t bytes)
{
    if (bytes > 0)
        XXH3_128bits_update(&stream->state, data, bytes);
}

tv_hash128 tv_hash_stream_value(const tv_hash_stream *stream) { return from_xxh(XXH3_128bits_digest(&stream->state)); }

void tv_hash_stream_free(tv_hash_stream *stream) { free(stream); }
