// One shard: a serial HDF5 file with a dataset /group/name/part for each array of which it holds rows.
//
// Only io/shard_h5*.c see hdf5.h. The library is not thread-safe: one thread at a time.
#ifndef TV_IO_SHARD_H5_H
#define TV_IO_SHARD_H5_H

#include <stdint.h>

#include "base/hash.h"
#include "base/state.h"
#include "base/status.h"

#define TV_SHARD_CHUNK_BYTES ((int64_t)4 << 20) // larger blocks are cut into equal chunks of about this size

// Local. Creates `path` (it must not exist) with the blocks [first_row, first_row + count) of these arrays (several blocks of one array
// stand next to each other in the list), checks every step, syncs it to disk, reads it again from there and compares it
// with what was written. *bytes and *hash: of the file. A full disk is an ordinary error (TV_DISK_FULL).
tv_status tv_shard_write(const char *path, const tv_state_array *arrays, int64_t count, int64_t *bytes,
                         tv_hash128 *hash);
// Local. Whether two blocks are of the same array.
int tv_shard_same_dataset(const tv_state_array *a, const tv_state_array *b);

typedef struct tv_shard tv_shard;
// Local. Opens a shard for reading (TV_CHECKPOINT when it is none).
tv_status tv_shard_open(const char *path, tv_shard **out);
void tv_shard_close(tv_shard *shard);

// Rows [skip, skip + count) of the dataset of `array`, which must have block_rows rows.
typedef struct tv_shard_rows {
    const tv_state_array *array; // name, part, group, dtype, cols
    int64_t number;              // 0, or N for the dataset part.N
    int64_t block_rows, skip, count;
    void *data;         // count * cols items
    int unchecked;      // 1: all rows, and the caller compares their hash: the fletcher32 sums are not looked at
    int64_t chunk_rows; // from tv_shard_locate
    int64_t *places;    // from tv_shard_locate, to be freed: of the chunks with these rows in the file
} tv_shard_rows;
// Local. Finds the chunks. Refuses (TV_CHECKPOINT, naming the file and object) soft and external links, external storage, virtual datasets,
// any filter but fletcher32, chunks that are not whole rows inside the file, and a type or shape other than the expected one.
tv_status tv_shard_locate(tv_shard *shard, tv_shard_rows *rows);
// Local. Reads the rows from their chunks, without HDF5: on any thread. *hash: XXH3-128 of rows that are `unchecked`, else untouched.
tv_status tv_shard_fetch(const tv_shard *shard, const tv_shard_rows *rows, tv_hash128 *hash);

#endif
