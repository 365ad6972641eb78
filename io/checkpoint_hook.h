// For tests only: a function called between the steps of a save, so that a test can end the process there.
#ifndef TV_IO_CHECKPOINT_HOOK_H
#define TV_IO_CHECKPOINT_HOOK_H

// NULL by default. The stages, in order: start, folder-made, shard-created, dataset-written (one an array),
// shard-closed, shard-synced, shards-agreed, manifest-written, checksums-written, folder-synced, published,
// parent-synced, latest-written; while pruning: prune-renamed, pruned.
extern void (*tv_checkpoint_save_hook)(const char *stage);

static inline void tv_checkpoint_stage(const char *stage)
{
    if (tv_checkpoint_save_hook)
        tv_checkpoint_save_hook(stage);
}

#endif
