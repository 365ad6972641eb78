// A file that is written front to back and read again from the disk behind the place of writing, so that what the disk holds is known to
// be what was meant. The bytes do not pass the page cache where the file system can do without it.
#ifndef TV_IO_DISK_STREAM_H
#define TV_IO_DISK_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"

typedef struct tv_disk_stream tv_disk_stream;

// Local. Creates `path` (it must not exist) for a file of `bytes` bytes, at least 1, and takes the room for it.
tv_status tv_disk_stream_open(const char *path, int64_t bytes, tv_disk_stream **out);
// Local. The next bytes of the file; data NULL: zeros. What fails is told by the end.
void tv_disk_stream_add(tv_disk_stream *stream, const void *data, size_t bytes);
// Local. After the last byte: returns when all of them are on the disk, and were compared. *hash: XXH3-128 of the file. TV_DISK_FULL; TV_IO,
// also for other bytes than were written.
tv_status tv_disk_stream_finish(tv_disk_stream *stream, tv_hash128 *hash);
// Local. Ends the work and closes the file, at any time. Takes NULL.
void tv_disk_stream_free(tv_disk_stream *stream);

#endif
