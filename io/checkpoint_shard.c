// One rank's share of a save: its shard and what the manifest will say of it. Runs on a thread beside training.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "io/checkpoint_internal.h"
#include "io/checkpoint_saving.h"
#include "io/shard_h5.h"

static void add_sums(tv_checkpoint_writer *w)
{
    memset(w->sums, 0, (size_t)w->array_count * sizeof *w->sums);
    for (int64_t i = 0; i < w->block_count; i++) {
        tv_hash128 sum;
        tv_state_hash(&w->blocks[i], 1, &sum);
        w->sums[w->owners[i]].low += sum.low;
        w->sums[w->owners[i]].high += sum.high;
    }
}

// The hashes of what is in memory, taken while the disk is at work: on a thread, or here when there is none.
static void *hash_memory(void *argument)
{
    tv_checkpoint_writer *w = argument;
    add_sums(w);
    for (int64_t i = 0; i < w->block_count; i++)
        w->hashes[i] =
            tv_hash_bytes(w->blocks[i].data, (size_t)(w->blocks[i].count * tv_state_row_bytes(&w->blocks[i])));
    return NULL;
}

static tv_status add_blocks(const tv_checkpoint_writer *w, tv_manifest *part)
{
    int64_t number = 0;
    for (int64_t i = 0; i < w->block_count; i++) {
        const tv_state_array *a = &w->blocks[i];
        number = i > 0 && w->owners[i] == w->owners[i - 1] ? number + 1 : 0;
        if (a->count == 0)
            continue;
        tv_manifest_block block = {.first_row = a->first_row, .rows = a->count, .number = number, .hash = w->hashes[i]};
        TV_TRY(tv_manifest_add_block(part, w->owners[i], block));
    }
    return TV_OK;
}

static tv_status describe(tv_checkpoint_writer *w, const char *name, int64_t bytes, tv_hash128 hash)
{
    tv_manifest part = {0};
    tv_checkpoint_info info = w->info;
    info.config_text = NULL; // rank 0's is enough
    tv_status st = TV_OK;
    TV_TRY_GOTO(st, done, tv_manifest_start(&info, w->arrays, w->array_count, &part));
    TV_TRY_GOTO(st, done, tv_manifest_add_file(&part, name, bytes, hash));
    TV_TRY_GOTO(st, done, add_blocks(w, &part));
    st = tv_manifest_text(&part, &w->text, &w->text_bytes);
done:
    tv_manifest_free(&part);
    return st;
}

tv_status tv_save_write_shard(tv_checkpoint_writer *w)
{
    char name[64], *path = NULL;
    int64_t bytes = 0;
    tv_hash128 hash;
    pthread_t hasher;
    tv_status st = TV_OK;
    if (!w->writes)
        return TV_OK;
    snprintf(name, sizeof name, "shard-%05d-of-%05d.h5", (int)w->index, (int)w->count);
    w->hashes = calloc((size_t)w->block_count + 1, sizeof *w->hashes);
    if (!w->hashes)
        return TV_FAIL(TV_MEMORY, "no memory for the hashes of %s", name);
    TV_TRY_GOTO(st, done, tv_checkpoint_path(w->temporary, name, &path));
    int beside = tv_thread_start(&hasher, hash_memory, w);
    st = tv_shard_write(path, w->blocks, w->block_count, &bytes, &hash);
    if (beside)
        pthread_join(hasher, NULL);
    else
        hash_memory(w);
    if (st == TV_OK)
        st = describe(w, name, bytes, hash);
done:
    free(w->hashes);
    w->hashes = NULL;
    free(path);
    return st;
}
