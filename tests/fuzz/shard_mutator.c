// How libFuzzer changes a shard: as it likes, and then with right checksums in the superblock and the object headers. Without them HDF5
// refuses nearly every change, and what lies behind is never reached.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

uint32_t H5_checksum_lookup3(const void *key, size_t bytes,
                             uint32_t start); // inside libhdf5; none of its headers has it
size_t LLVMFuzzerMutate(uint8_t *data, size_t bytes, size_t bytes_max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t bytes_max, unsigned seed);

enum { SUPERBLOCK_BYTES = 44, TIMES = 0x20, PHASES = 0x10 };

static void put_checksum(uint8_t *data, size_t begin, size_t end)
{
    uint32_t sum = H5_checksum_lookup3(data + begin, end - begin, 0);
    memcpy(data + end, &sum, sizeof sum);
}

// The object header, version 2, at `begin`: signature, version, flags, times and phases when flagged, the size of its messages in 1 to 8
// bytes, the messages, and the checksum.
static void fix_header(uint8_t *data, size_t bytes, size_t begin)
{
    uint8_t flags = data[begin + 5];
    size_t at = begin + 6 + (flags & TIMES ? 16 : 0) + (flags & PHASES ? 4 : 0), width = (size_t)1 << (flags & 3);
    uint64_t size = 0;
    if (at + width > bytes)
        return;
    memcpy(&size, data + at, width);
    if (size < bytes && at + width + size + sizeof(uint32_t) <= bytes)
        put_checksum(data, begin, at + width + size);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t bytes_max, unsigned seed)
{
    (void)seed;
    bytes = LLVMFuzzerMutate(data, bytes, bytes_max);
    if (bytes >= SUPERBLOCK_BYTES + sizeof(uint32_t))
        put_checksum(data, 0, SUPERBLOCK_BYTES);
    for (size_t i = 0; i + 8 < bytes; i++)
        if (memcmp(data + i, "OHDR", 4) == 0)
            fix_header(data, bytes, i);
    return bytes;
}
