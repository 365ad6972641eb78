// How much room a save needs.
#include "io/checkpoint.h"
#include "io/checkpoint_internal.h"
#include "io/shard_h5.h"

enum {
    CHUNK_OVERHEAD_BYTES = 64,     // entry in the chunk index, checksum
    BLOCK_OVERHEAD_BYTES = 6144,   // object header, group, link, the block's lines in the manifest
    FILE_OVERHEAD_BYTES = 65536,   // superblock, root group and its index, line in the manifest
    FOLDER_OVERHEAD_BYTES = 262144 // the manifest's head with the config, the list of checksums, the folder itself
};

int64_t tv_checkpoint_size_bound(const tv_state_array *arrays, int64_t count, int64_t writers)
{
    int64_t total = FOLDER_OVERHEAD_BYTES + writers * FILE_OVERHEAD_BYTES;
    for (int64_t i = 0; i < count; i++) {
        const tv_state_array *a = &arrays[i];
        int64_t row_bytes = tv_state_row_bytes(a), data = a->rows * row_bytes;
        int64_t blocks = a->rows < writers ? a->rows : writers, cuts = data / TV_SHARD_CHUNK_BYTES;
        // A block cut into c chunks is stored as if it had up to c - 1 rows more.
        int64_t padding = cuts * (row_bytes < TV_SHARD_CHUNK_BYTES ? row_bytes : TV_SHARD_CHUNK_BYTES);
        total += data + padding + (cuts + blocks) * CHUNK_OVERHEAD_BYTES + blocks * BLOCK_OVERHEAD_BYTES;
    }
    return total;
}

int64_t tv_checkpoint_size_bytes(const tv_state_array *arrays, int64_t count)
{
    int64_t writers = 1; // as many as there are blocks of this rank's size
    for (int64_t i = 0; i < count; i++)
        if (arrays[i].count > 0 && tv_ceil_div(arrays[i].rows, arrays[i].count) > writers)
            writers = tv_ceil_div(arrays[i].rows, arrays[i].count);
    return tv_checkpoint_size_bound(arrays, count, writers);
}
