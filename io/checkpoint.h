// Checkpoints: sharded HDF5 files, a manifest and a list of checksums in one folder (docs/checkpoint.md).
//
//   step-000001200/manifest.json, checksums.xxh128, shard-00000-of-00008.h5 ...
//   shard: /tensors/<name>/{T, E, T_accum, E_accum}, one dataset per array and rank block
#ifndef TV_IO_CHECKPOINT_H
#define TV_IO_CHECKPOINT_H

#include <stdint.h>

#include "base/hash.h"
#include "base/state.h"
#include "base/status.h"
#include "comm/comm.h"

#define TV_CHECKPOINT_FORMAT 1

// What a manifest says besides its files.
typedef struct tv_checkpoint_info {
    int64_t step;
    int64_t bytes_seen;
    int64_t seed;
    int64_t units;
    char *config_text; // the resolved config as YAML
    tv_hash128 config_hash;
    tv_hash128 corpus; // identity of the training text
    tv_hash128 digest; // of the whole state
    char program[64];  // program version that wrote it
    int64_t writers;
} tv_checkpoint_info;
void tv_checkpoint_info_free(tv_checkpoint_info *info); // frees what the struct owns

// Collective. Writes run_dir/step-NNNNNNNNN from this rank's blocks. info->digest is computed here. On failure on any
// rank the unfinished folder is removed, everything older is untouched and all ranks return the error. Same step
// already there and valid: replaced only by an equal digest (then it is left alone and the call succeeds), otherwise
// TV_CHECKPOINT.
tv_status tv_checkpoint_save(tv_comm *comm, const char *run_dir, tv_checkpoint_info *info, const tv_state_array *arrays,
                             int64_t count);
// Local (rank 0). Removes all but the `keep` newest checkpoints whose manifest parses; never the newest valid one nor
// `resumed_from` (NULL: none); also removes left-over *.tmp-* folders of dead runs. Failures are warnings.
void tv_checkpoint_prune(const char *run_dir, int64_t keep, const char *resumed_from);

// Local. Full validation of one checkpoint folder: manifest, sizes, hashes of all files, cover. Says what is wrong,
// naming the file and object.
tv_status tv_checkpoint_verify(const char *dir);
// Collective. Newest valid checkpoint of run_dir, chosen by rank 0, broadcast; skipped ones are logged with the reason.
// *dir is malloc'd; NULL when the folder holds no checkpoint (TV_OK). When it holds some and none is usable: TV_CHECKPOINT.
tv_status tv_checkpoint_newest(tv_comm *comm, const char *run_dir, char **dir);

// An opened checkpoint: the manifest in memory, shards opened as rows are read.
typedef struct tv_checkpoint tv_checkpoint;
// Local. verify != 0 hashes every file first (needed for anything but a second look).
tv_status tv_checkpoint_open(const char *dir, int verify, tv_checkpoint **out);
void tv_checkpoint_close(tv_checkpoint *checkpoint);
const tv_checkpoint_info *tv_checkpoint_describe(const tv_checkpoint *checkpoint);
// The arrays it holds (global shape, dtype, b, m, G; first_row 0, count 0, data NULL). The memory belongs to the
// checkpoint.
const tv_state_array *tv_checkpoint_arrays(const tv_checkpoint *checkpoint, int64_t *count);
// Local. Fill array->data with rows [first_row, first_row + count) of (name, part), from whatever shards hold them.
// Shape, dtype, b, m, G must equal the manifest's (TV_CHECKPOINT names what differs). Packed trits above 242 and
// exponents outside the window are refused; each block read whole is compared with its XXH3-128.
tv_status tv_checkpoint_read(tv_checkpoint *checkpoint, const tv_state_array *array);
// Local. Reads every row of every array (with the checks of tv_checkpoint_read) and computes the digest of the state;
// TV_CHECKPOINT when it is not the manifest's. Needs memory for one block.
tv_status tv_checkpoint_digest(tv_checkpoint *checkpoint, tv_hash128 *digest);
// Local. File sizes a save of these arrays will need, all ranks together, in bytes (an upper bound, for the free-space
// check and for audit).
int64_t tv_checkpoint_size_bytes(const tv_state_array *arrays, int64_t count);

#endif
