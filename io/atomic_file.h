// Files that appear whole or not at all, and folders made with care.
#ifndef TV_IO_ATOMIC_FILE_H
#define TV_IO_ATOMIC_FILE_H

#include <stddef.h>

#include "base/hash.h"
#include "base/status.h"

// Local. Write path + ".tmp", fsync, rename over path, fsync the folder. The old file survives any failure.
tv_status tv_file_replace(const char *path, const void *data, size_t bytes);
// Local. Whole file into malloc'd memory with a NUL after it; refuses more than limit bytes.
tv_status tv_file_read(const char *path, size_t limit, char **data, size_t *bytes);
// Local. Size and XXH3-128 of a regular file (a symlink or anything else is refused).
tv_status tv_file_hash(const char *path, int64_t *bytes, tv_hash128 *hash);
// Local. mkdir -p.
tv_status tv_dir_make(const char *path);
// Local. fsync of a folder or file by path.
tv_status tv_path_sync(const char *path);
// Local. Remove a folder of regular files (not recursive beyond one level; symlinks are unlinked, not followed).
tv_status tv_dir_remove(const char *path);

// One run at a time in a run folder: an exclusive lock on dir/lock, freed by the system when the process dies. TV_IO
// with the holder's host and pid when another run holds it.
typedef struct tv_run_lock tv_run_lock;
tv_status tv_run_lock_take(const char *dir, tv_run_lock **out);
void tv_run_lock_free(tv_run_lock *lock);

#endif
