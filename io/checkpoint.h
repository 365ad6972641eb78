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

// Which ranks write shards: each its own rows, one of each host for all ranks of that host, or so many ranks in all, each for as many
// consecutive ranks.
enum { TV_WRITERS_RANK = 0, TV_WRITERS_NODE = -1 };

// What saves a run's checkpoints, one at a time: who writes, a thread, and memory that is kept between saves.
typedef struct tv_checkpoint_writer tv_checkpoint_writer;
// Collective. writers: one of the above, or a number above 0. Opened before tv_comm_device_open, so that rows travel in host memory.
tv_status tv_checkpoint_writer_open(tv_comm *comm, int64_t writers, tv_checkpoint_writer **out);
// Collective. Waits for this rank's thread; a save that was not finished leaves its unfinished folder. Takes NULL.
void tv_checkpoint_writer_close(tv_checkpoint_writer *writer);
// Local. Takes and touches the memory for a copy of this rank's arrays, so that the first save need not.
tv_status tv_checkpoint_writer_reserve(tv_checkpoint_writer *writer, const tv_state_array *arrays, int64_t count);

typedef struct tv_save_args {
    const char *run_dir;
    const tv_checkpoint_info *info; // digest and writers are filled in
    const tv_state_array *arrays;   // this rank's blocks
    int64_t count;
    int background;           // 1: a thread writes
    int kept;                 // 1: the arrays' data stay as they are until the save is done, so that no copy is needed
    int64_t keep;             // prune down to so many afterwards; 0: no pruning
    const char *resumed_from; // of tv_checkpoint_prune
} tv_save_args;

typedef struct tv_save_report {
    int done; // 1: the checkpoint is there
    int64_t step;
    tv_hash128 digest;
} tv_save_report;

// Collective. Begins run_dir/step-NNNNNNNNN: looks at what is there and at the free space, makes the unfinished folder, copies or gathers
// the rows, and starts the writing; without `background` it is over when the call returns. Names in `arrays` live until the save is done.
// Same step already there and valid: left alone when its digest is equal (the save is done then), otherwise TV_CHECKPOINT. On a failure,
// here or in the steps below, on any rank, all ranks return an error, the unfinished folder is gone, everything older is untouched, and the
// next save can begin. TV_DISK_FULL: no room, with the needed and the free bytes.
tv_status tv_checkpoint_save_start(tv_checkpoint_writer *writer, const tv_save_args *args);
// Local. A save was started and neither done nor given up: the same on all ranks.
int tv_checkpoint_save_pending(const tv_checkpoint_writer *writer);
// Local. This rank's thread is still at work: advance would wait for it.
int tv_checkpoint_save_busy(const tv_checkpoint_writer *writer);
// Collective, while a save is pending. The next step of it: first from the shards to the manifest, then the end, when report->done is set.
tv_status tv_checkpoint_save_advance(tv_checkpoint_writer *writer, tv_save_report *report);
// Collective. All steps that are left; nothing when no save is pending.
tv_status tv_checkpoint_save_finish(tv_checkpoint_writer *writer, tv_save_report *report);
// Collective. A whole save, each rank its own shard; info->digest and info->writers are filled in.
tv_status tv_checkpoint_save(tv_comm *comm, const char *run_dir, tv_checkpoint_info *info, const tv_state_array *arrays,
                             int64_t count);

// Local. Bytes that are free where run_dir lies.
tv_status tv_checkpoint_free_bytes(const char *run_dir, int64_t *bytes);
// Local (rank 0). Removes all but the `keep` newest checkpoints whose manifest parses; never the newest valid one nor
// `resumed_from` (NULL: none); also removes left-over *.tmp-* folders of dead runs. Failures are warnings.
void tv_checkpoint_prune(const char *run_dir, int64_t keep, const char *resumed_from);

// Local. Full validation of one checkpoint folder: manifest, sizes, hashes of all files, cover. Says what is wrong,
// naming the file and object.
tv_status tv_checkpoint_verify(const char *dir);
// Collective. Newest valid checkpoint of run_dir, chosen by rank 0, broadcast; skipped ones are logged with the reason, which may be that
// TV_ATTEMPTS_MOST restarts in a row failed on it. *dir is malloc'd; NULL when the folder holds no checkpoint (TV_OK). When it holds some
// and none is usable: TV_CHECKPOINT.
tv_status tv_checkpoint_newest(tv_comm *comm, const char *run_dir, char **dir);

// Restarts from one checkpoint that did not come far, counted in run_dir/attempts: a line "step-NNNNNNNNN COUNT" each.
#define TV_ATTEMPTS_MOST 3
// Local (rank 0). One restart more from `dir`, a checkpoint of run_dir. What cannot be read or written is a warning.
void tv_checkpoint_attempts_raise(const char *run_dir, const char *dir);
// Local (rank 0). All is well: none counts any more.
void tv_checkpoint_attempts_clear(const char *run_dir);

// An opened checkpoint: the manifest in memory, shards opened as rows are read.
typedef struct tv_checkpoint tv_checkpoint;
// Local. verify != 0 hashes every file first (needed for anything but a second look).
tv_status tv_checkpoint_open(const char *dir, int verify, tv_checkpoint **out);
void tv_checkpoint_close(tv_checkpoint *checkpoint);
const tv_checkpoint_info *tv_checkpoint_describe(const tv_checkpoint *checkpoint);
// The arrays it holds (global shape, dtype, b, m, G; first_row 0, count 0, data NULL). The memory belongs to the
// checkpoint.
const tv_state_array *tv_checkpoint_arrays(const tv_checkpoint *checkpoint, int64_t *count);
// Local. For each of `count` arrays: fill array->data with rows [first_row, first_row + count) of (name, part), from whatever shards hold
// them. Several threads read and check, so many arrays in one call are faster than one by one.
// Shape, dtype, b, m, G must equal the manifest's (TV_CHECKPOINT names what differs). Packed trits above 242 and
// exponents outside the window are refused; each block read whole is compared with its XXH3-128.
tv_status tv_checkpoint_read(tv_checkpoint *checkpoint, const tv_state_array *arrays, int64_t count);
// Local. Reads every row of every array (with the checks of tv_checkpoint_read) and computes the digest of the state;
// TV_CHECKPOINT when it is not the manifest's. Needs memory for one block.
tv_status tv_checkpoint_digest(tv_checkpoint *checkpoint, tv_hash128 *digest);
// Local. File sizes a save of these arrays will need, all ranks together, in bytes (an upper bound, for the free-space
// check and for audit).
int64_t tv_checkpoint_size_bytes(const tv_state_array *arrays, int64_t count);

#endif
