// What a file should hold after all writes to it, so that what the disk gives back can be compared: a hash of each large extent, a copy of
// each small one. The last write to a byte counts.
#ifndef TV_IO_SHARD_H5_SHADOW_H
#define TV_IO_SHARD_H5_SHADOW_H

#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"

typedef struct tv_shadow tv_shadow;
tv_shadow *tv_shadow_new(void); // NULL when memory is short
void tv_shadow_free(tv_shadow *shadow);
// Local. `bytes` of data are written at `address`.
void tv_shadow_write(tv_shadow *shadow, int64_t address, const void *data, size_t bytes);
// Local. Reads the whole file and compares; its size and XXH3-128. TV_IO names the first place that differs.
tv_status tv_shadow_verify(tv_shadow *shadow, const char *path, int64_t *bytes, tv_hash128 *hash);

#endif
