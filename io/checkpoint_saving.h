// What the files of the saving side share; not for others.
#ifndef TV_IO_CHECKPOINT_SAVING_H
#define TV_IO_CHECKPOINT_SAVING_H

#include <pthread.h>
#include <stdatomic.h>

#include "io/checkpoint.h"

typedef enum tv_save_stage { TV_SAVE_IDLE, TV_SAVE_WRITING, TV_SAVE_PUBLISHING } tv_save_stage;

// Everything but the communicators is this rank's own.
struct tv_checkpoint_writer {
    tv_comm *comm;         // all ranks
    tv_comm *group;        // the ranks that write one shard, the first of them for all; NULL: each rank its own
    int64_t index, count;  // of this rank's shard; shards in all
    int writes;            // this rank is the one that writes
    unsigned char *memory; // the state's copy, kept between saves
    size_t memory_bytes;

    // The save on its way.
    tv_save_stage stage;
    int background;
    tv_checkpoint_info info; // config_text is owned
    char *run_dir;
    char *resumed_from;
    int64_t keep;
    tv_state_array *arrays; // [array_count] as given; data NULL where `blocks` has them
    int64_t array_count;
    tv_state_array *blocks; // [block_count] what this rank writes, those of one array together
    int64_t *owners;        // [block_count] their arrays
    int64_t block_count;
    tv_hash128 *hashes; // [block_count] of the blocks' bytes, while the shard is written
    tv_hash128 *sums;   // [array_count] of the row hashes of the blocks
    char *folder;       // where the checkpoint will be
    char *temporary;    // where it grows
    char run_id[48];
    int made;    // rank 0: the temporary folder is there
    int replace; // rank 0: a damaged checkpoint of this step is there
    int present; // an equal checkpoint is there already
    int64_t needed_bytes;
    char *text; // this rank's part of the manifest as JSON
    size_t text_bytes;
    char *texts; // all ranks' parts (rank 0)
    int64_t *text_sizes;

    // Work that runs beside training, or at once.
    tv_status (*work)(tv_checkpoint_writer *writer);
    pthread_t thread;
    int started; // the thread is to be joined
    atomic_int busy;
    tv_status outcome;
    char message[1024];
};

// Collective. Sets group, index, count and writes.
tv_status tv_save_groups_open(tv_checkpoint_writer *writer, int64_t writers);
// Collective. Sets blocks and owners from arrays: this rank's own rows, copied when `copy` is set, or those of its whole group on the rank
// that writes.
tv_status tv_save_take_blocks(tv_checkpoint_writer *writer, int copy);
// Local. The blocks' sums, the shard on disk and its part of the manifest.
tv_status tv_save_write_shard(tv_checkpoint_writer *writer);
// Rank 0. The manifest from all ranks' parts, the rename, then the pruning.
tv_status tv_save_publish(tv_checkpoint_writer *writer);
// Rank 0. Takes the unfinished folder away.
void tv_save_drop(tv_checkpoint_writer *writer);

#endif
