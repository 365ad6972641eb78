// Files that appear whole or not at all, and folders made with care.
#ifndef TV_IO_ATOMIC_FILE_H
#define TV_IO_ATOMIC_FILE_H

#include <stddef.h>

#include "base/fault.h"
#include "base/hash.h"
#include "base/status.h"

// Local. TV_DISK_FULL for an errno that says that there is no room (ENOSPC, EDQUOT), else TV_IO.
tv_status tv_io_code(int error);
// Local. TV_OK, or the failure that a fail point asks for, with tv_io_code's code.
tv_status tv_io_fault(tv_fault_point point);
// Local. The same at a place where `bytes` of data pass, which the fail point may spoil.
tv_status tv_io_fault_data(tv_fault_point point, void *data, size_t bytes);
// Local. Write path + ".tmp", fsync, rename over path, fsync the folder. The old file survives any failure.
tv_status tv_file_replace(const char *path, const void *data, size_t bytes);
// Local. Whole file into malloc'd memory with a NUL after it; refuses more than limit bytes.
tv_status tv_file_read(const char *path, size_t limit, char **data, size_t *bytes);
// Local. Size and XXH3-128 of a regular file (a symlink or anything else is refused).
tv_status tv_file_hash(const char *path, int64_t *bytes, tv_hash128 *hash);
// Local. The same; each block of bytes, in order, goes through `block` before it is hashed, which may fail.
typedef tv_status (*tv_file_block)(void *listener, void *data, size_t bytes);
tv_status tv_file_hash_blocks(const char *path, tv_file_block block, void *listener, int64_t *bytes, tv_hash128 *hash);
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
