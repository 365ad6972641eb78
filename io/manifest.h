// manifest.json: what a checkpoint holds and where (docs/checkpoint.md gives the fields).
#ifndef TV_IO_MANIFEST_H
#define TV_IO_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/state.h"
#include "base/status.h"
#include "io/checkpoint.h"

#define TV_MANIFEST_NAME "manifest.json"
#define TV_CHECKSUMS_NAME "checksums.xxh128"
#define TV_MANIFEST_BYTES_MAX ((size_t)1 << 29) // refused above
#define TV_MANIFEST_NAME_MAX 200                // bytes of a file, array, part or group name

typedef struct tv_manifest_file {
    char *name; // in the checkpoint's folder
    int64_t bytes;
    tv_hash128 hash;
} tv_manifest_file;

// Rows [first_row, first_row + rows) of an array, in the dataset /group/name/part of files[file], or in /group/name/part.N when a file
// holds several blocks of an array (N: `number`, 0 for the first).
typedef struct tv_manifest_block {
    int64_t file, first_row, rows, number;
    tv_hash128 hash; // XXH3-128 of the block's bytes
} tv_manifest_block;

typedef struct tv_manifest_cover {
    tv_manifest_block *blocks;
    int64_t count;
} tv_manifest_cover;

typedef struct tv_manifest {
    tv_checkpoint_info info;
    tv_manifest_file *files;
    int64_t file_count;
    tv_state_array *arrays;    // name, part and group are owned; first_row 0, count 0, data NULL
    tv_manifest_cover *covers; // of arrays[i]
    int64_t array_count;
} tv_manifest;

void tv_manifest_free(tv_manifest *manifest);

// Local. *out: a manifest of these arrays without files and blocks. Names are copied; info.config_text is taken. Free
// *out also on failure.
tv_status tv_manifest_start(const tv_checkpoint_info *info, const tv_state_array *arrays, int64_t count,
                            tv_manifest *out);
tv_status tv_manifest_add_file(tv_manifest *manifest, const char *name, int64_t bytes, tv_hash128 hash);
tv_status tv_manifest_add_block(tv_manifest *manifest, int64_t array, tv_manifest_block block);
// Local. Append the files and blocks of `from`, whose arrays must be the same ones in the same order (TV_CHECKPOINT
// names what differs).
tv_status tv_manifest_merge(tv_manifest *into, const tv_manifest *from);

// Local. JSON text, malloc'd, and back. Parsing checks every field's type and range and every name; TV_CHECKPOINT names
// the field. It never reads past text[bytes].
tv_status tv_manifest_text(const tv_manifest *manifest, char **text, size_t *bytes);
tv_status tv_manifest_parse(const char *text, size_t bytes, tv_manifest *out);
// Local. Every row of every array once, no array twice, and no file smaller than the rows it should hold. Sorts the
// blocks by row.
tv_status tv_manifest_check(tv_manifest *manifest);

// Local. What differs in shape, dtype, b, m or G between an array and the manifest's (TV_CHECKPOINT).
tv_status tv_manifest_compare(const tv_state_array *kept, const tv_state_array *wanted);
// Local. TV_CHECKPOINT unless `name` is plain: 1 to TV_MANIFEST_NAME_MAX letters, digits, '.', '_', '-', no '..' and no
// leading '.'.
tv_status tv_manifest_check_name(const char *what, const char *name);
// Local. The text of checksums.xxh128, malloc'd: a line a file in the format of `xxhsum -H128`, the manifest last.
tv_status tv_manifest_checksums(const tv_manifest *manifest, tv_hash128 manifest_hash, char **text, size_t *bytes);

#endif
