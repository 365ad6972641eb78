// What the .c files of the checkpoint share; not for others.
#ifndef TV_IO_CHECKPOINT_INTERNAL_H
#define TV_IO_CHECKPOINT_INTERNAL_H

#include <stdint.h>

#include "base/status.h"
#include "io/manifest.h"

// Local. "dir/name", malloc'd.
tv_status tv_checkpoint_path(const char *dir, const char *name, char **out);
// Local. Read and parse dir/manifest.json (and check the cover). verify != 0: dir/checksums.xxh128 must list it and
// agree byte by byte.
tv_status tv_checkpoint_load_manifest(const char *dir, int verify, tv_manifest *out);
// Local. A listed file must be a regular file of its exact size; with_hash != 0: and of its hash.
tv_status tv_checkpoint_check_file(const char *dir, const tv_manifest_file *file, int with_hash);
// Local. Steps of the step-* folders of run_dir, highest first (malloc'd; count 0 when run_dir is not there).
tv_status tv_checkpoint_list(const char *run_dir, int64_t **steps, int64_t *count);
// Local. run_dir/step-NNNNNNNNN, malloc'd.
tv_status tv_checkpoint_folder(const char *run_dir, int64_t step, char **out);
// Local. An upper bound of the bytes a save by `writers` ranks needs.
int64_t tv_checkpoint_size_bound(const tv_state_array *arrays, int64_t count, int64_t writers);
// Local. tv_checkpoint_prune; the checkpoint of step `good` (-1: none) is known to be valid and not hashed for it.
void tv_checkpoint_prune_after(const char *run_dir, int64_t keep, const char *resumed_from, int64_t good);
// Local. Restarts that were counted for the checkpoint of this step.
int64_t tv_checkpoint_attempts(const char *run_dir, int64_t step);

#endif
