// Reading rows of a checkpoint, whatever ranks wrote them.
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pack.h"
#include "base/thread.h"
#include "io/atomic_file.h"
#include "io/checkpoint.h"
#include "io/checkpoint_internal.h"
#include "io/shard_h5.h"

enum {
    OPEN_SHARDS_MAX = 64, // descriptors kept open
    BLOCKS_MAX = 256,
    THREADS = 4 // that fetch
};

// rows: global rows [first_row, first_row + count) lie at `data`.
typedef struct piece {
    int64_t first_row, count;
    void *data;
} piece;

// A block, or a part of one, whose place in its shard is known.
typedef struct located {
    int64_t array;
    const tv_manifest_block *block;
    piece rows;
    tv_shard_rows in_shard;
} located;

struct tv_checkpoint {
    char *dir;
    tv_manifest manifest;
    tv_shard **shards; // of manifest.files[i]; NULL: not open
    int open_shards;
    located blocks[BLOCKS_MAX]; // still to be fetched
    int block_count;
    atomic_int next; // of them
    pthread_mutex_t lock;
    tv_status outcome; // of fetching them: the first failure
    char message[1024];
};

static void close_shards(tv_checkpoint *checkpoint)
{
    for (int64_t i = 0; checkpoint->shards && i < checkpoint->manifest.file_count; i++) {
        tv_shard_close(checkpoint->shards[i]);
        checkpoint->shards[i] = NULL;
    }
    checkpoint->open_shards = 0;
}

tv_status tv_checkpoint_open(const char *dir, int verify, tv_checkpoint **out)
{
    *out = NULL;
    tv_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    if (!checkpoint || !(checkpoint->dir = strdup(dir))) {
        free(checkpoint);
        return TV_FAIL(TV_MEMORY, "no memory to open %s", dir);
    }
    pthread_mutex_init(&checkpoint->lock, NULL);
    tv_status st = TV_OK;
    TV_TRY_GOTO(st, done, tv_checkpoint_load_manifest(dir, verify, &checkpoint->manifest));
    for (int64_t i = 0; verify && i < checkpoint->manifest.file_count; i++)
        TV_TRY_GOTO(st, done, tv_checkpoint_check_file(dir, &checkpoint->manifest.files[i], 1));
    checkpoint->shards = calloc((size_t)checkpoint->manifest.file_count + 1, sizeof *checkpoint->shards);
    if (!checkpoint->shards) {
        st = TV_FAIL(TV_MEMORY, "no memory for the %" PRId64 " shards of %s", checkpoint->manifest.file_count, dir);
        goto done;
    }
    *out = checkpoint;
    checkpoint = NULL;
done:
    tv_checkpoint_close(checkpoint);
    return st;
}

void tv_checkpoint_close(tv_checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    close_shards(checkpoint);
    free(checkpoint->shards);
    tv_manifest_free(&checkpoint->manifest);
    pthread_mutex_destroy(&checkpoint->lock);
    free(checkpoint->dir);
    free(checkpoint);
}

const tv_checkpoint_info *tv_checkpoint_describe(const tv_checkpoint *checkpoint) { return &checkpoint->manifest.info; }

const tv_state_array *tv_checkpoint_arrays(const tv_checkpoint *checkpoint, int64_t *count)
{
    *count = checkpoint->manifest.array_count;
    return checkpoint->manifest.arrays;
}

static tv_status check_trits(const tv_state_array *a, const piece *p)
{
    for (int64_t r = 0; r < p->count; r++) {
        const uint8_t *row = (const uint8_t *)p->data + r * a->cols;
        int64_t at = tv_pack_find_invalid(row, a->logical_cols);
        if (at >= 0)
            return TV_FAIL(TV_CHECKPOINT,
                           "row %" PRId64 ", byte %" PRId64 " is %d: packed trits are at most %d and end in zeros",
                           p->first_row + r, at, row[at], TV_TRIT_BYTE_MAX);
    }
    return TV_OK;
}

static tv_status check_exponents(const tv_state_array *a, const piece *p)
{
    const int8_t *e = p->data;
    int low = a->b, high = a->b + tv_lattice_codes(a->m) - 1;
    int64_t count = p->count * a->cols;
    int8_t least = INT8_MAX, most = INT8_MIN;
    for (int64_t i = 0; i < count; i++) { // without an early exit, so that it vectorises
        least = e[i] < least ? e[i] : least;
        most = e[i] > most ? e[i] : most;
    }
    for (int64_t i = 0; (least < low || most > high) && i < count; i++)
        if (e[i] < low || e[i] > high)
            return TV_FAIL(TV_CHECKPOINT,
                           "row %" PRId64 ", group %" PRId64 ": the exponent %d is outside its window %d to %d",
                           p->first_row + i / a->cols, i % a->cols, e[i], low, high);
    return TV_OK;
}

static tv_status check_rows(const tv_checkpoint *checkpoint, const located *f, tv_hash128 hash)
{
    const tv_state_array *a = &checkpoint->manifest.arrays[f->array];
    tv_status st = TV_OK;
    if (f->in_shard.unchecked && !tv_hash_equal(hash, f->block->hash))
        st = TV_FAIL(TV_CHECKPOINT, "the XXH3-128 of rows %" PRId64 " to %" PRId64 " is not the manifest's",
                     f->rows.first_row, f->rows.first_row + f->rows.count - 1);
    else if (strcmp(a->part, "T") == 0)
        st = check_trits(a, &f->rows);
    else if (strcmp(a->part, "E") == 0)
        st = check_exponents(a, &f->rows);
    return st == TV_OK ? st
                       : tv_status_context(st, "%s/%s: /%s/%s/%s", checkpoint->dir,
                                           checkpoint->manifest.files[f->block->file].name, a->group, a->name, a->part);
}

// ---- fetching: the part that needs no HDF5, on several threads

static tv_status fetch(const tv_checkpoint *checkpoint, const located *f)
{
    tv_hash128 hash = {0, 0};
    TV_TRY(tv_shard_fetch(checkpoint->shards[f->block->file], &f->in_shard, &hash));
    return check_rows(checkpoint, f, hash);
}

static void *fetch_some(void *argument)
{
    tv_checkpoint *checkpoint = argument;
    for (int i; (i = atomic_fetch_add(&checkpoint->next, 1)) < checkpoint->block_count;) {
        tv_status st = fetch(checkpoint, &checkpoint->blocks[i]);
        if (st == TV_OK)
            continue;
        pthread_mutex_lock(&checkpoint->lock);
        if (checkpoint->outcome == TV_OK) {
            checkpoint->outcome = st;
            snprintf(checkpoint->message, sizeof checkpoint->message, "%s", tv_status_message());
        }
        pthread_mutex_unlock(&checkpoint->lock);
        break;
    }
    return NULL;
}

static void forget_blocks(tv_checkpoint *checkpoint)
{
    for (int i = 0; i < checkpoint->block_count; i++)
        free(checkpoint->blocks[i].in_shard.places);
    checkpoint->block_count = 0;
}

// All that was found.
static tv_status fetch_blocks(tv_checkpoint *checkpoint)
{
    checkpoint->outcome = TV_OK;
    atomic_store(&checkpoint->next, 0);
    tv_thread_share(checkpoint->block_count < THREADS ? checkpoint->block_count : THREADS, fetch_some, checkpoint);
    forget_blocks(checkpoint);
    return checkpoint->outcome == TV_OK ? TV_OK : TV_FAIL(checkpoint->outcome, "%s", checkpoint->message);
}

// ---- finding: HDF5 says where rows are

static tv_status open_shard(tv_checkpoint *checkpoint, int64_t file)
{
    char *path = NULL;
    if (checkpoint->shards[file])
        return TV_OK;
    if (checkpoint->open_shards >= OPEN_SHARDS_MAX) {
        TV_TRY(fetch_blocks(checkpoint));
        close_shards(checkpoint);
    }
    tv_status st = TV_OK;
    TV_TRY_GOTO(st, done, tv_checkpoint_check_file(checkpoint->dir, &checkpoint->manifest.files[file], 0));
    TV_TRY_GOTO(st, done, tv_checkpoint_path(checkpoint->dir, checkpoint->manifest.files[file].name, &path));
    TV_TRY_GOTO(st, done, tv_shard_open(path, &checkpoint->shards[file]));
    checkpoint->open_shards++;
done:
    free(path);
    return st;
}

static tv_status find_block(tv_checkpoint *checkpoint, int64_t array, const tv_manifest_block *block, piece rows)
{
    if (checkpoint->block_count == BLOCKS_MAX)
        TV_TRY(fetch_blocks(checkpoint));
    TV_TRY(open_shard(checkpoint, block->file));
    located *f = &checkpoint->blocks[checkpoint->block_count];
    *f = (located){.array = array, .block = block, .rows = rows};
    f->in_shard = (tv_shard_rows){.array = &checkpoint->manifest.arrays[array],
                                  .number = block->number,
                                  .unchecked = rows.count == block->rows,
                                  .block_rows = block->rows,
                                  .skip = rows.first_row - block->first_row,
                                  .count = rows.count,
                                  .data = rows.data};
    TV_TRY(tv_shard_locate(checkpoint->shards[block->file], &f->in_shard));
    checkpoint->block_count++;
    return TV_OK;
}

static int64_t find_array(const tv_manifest *manifest, const char *name, const char *part)
{
    for (int64_t i = 0; i < manifest->array_count; i++)
        if (strcmp(manifest->arrays[i].name, name) == 0 && strcmp(manifest->arrays[i].part, part) == 0)
            return i;
    return -1;
}

static tv_status find_rows(tv_checkpoint *checkpoint, const tv_state_array *array)
{
    const tv_manifest *manifest = &checkpoint->manifest;
    int64_t index = find_array(manifest, array->name, array->part);
    if (index < 0)
        return TV_FAIL(TV_CHECKPOINT, "%s: %s %s is not in it; was it saved by a model with other parts?",
                       checkpoint->dir, array->name, array->part);
    tv_status st = tv_manifest_compare(&manifest->arrays[index], array);
    if (st != TV_OK)
        return tv_status_context(st, "%s", checkpoint->dir);
    if (array->first_row < 0 || array->count < 0 || array->count > array->rows - array->first_row)
        return TV_FAIL(TV_INTERNAL, "%s %s: rows %" PRId64 " and %" PRId64 " more of %" PRId64, array->name,
                       array->part, array->first_row, array->count, array->rows);
    int64_t end = array->first_row + array->count, row_bytes = tv_state_row_bytes(array);
    for (int64_t i = 0; i < manifest->covers[index].count; i++) {
        const tv_manifest_block *block = &manifest->covers[index].blocks[i];
        int64_t low = block->first_row > array->first_row ? block->first_row : array->first_row;
        int64_t high = block->first_row + block->rows < end ? block->first_row + block->rows : end;
        if (low >= high)
            continue;
        piece rows = {low, high - low, (char *)array->data + (low - array->first_row) * row_bytes};
        TV_TRY(find_block(checkpoint, index, block, rows));
    }
    return TV_OK;
}

tv_status tv_checkpoint_read(tv_checkpoint *checkpoint, const tv_state_array *arrays, int64_t count)
{
    tv_status st = TV_OK;
    for (int64_t i = 0; st == TV_OK && i < count; i++)
        st = find_rows(checkpoint, &arrays[i]);
    if (st == TV_OK)
        st = fetch_blocks(checkpoint);
    forget_blocks(checkpoint);
    return st;
}

// sum += the row hashes of one array, block by block.
static tv_status hash_array(tv_checkpoint *checkpoint, int64_t index, tv_hash128 *sum)
{
    const tv_state_array *a = &checkpoint->manifest.arrays[index];
    const tv_manifest_cover *cover = &checkpoint->manifest.covers[index];
    for (int64_t i = 0; i < cover->count; i++) {
        const tv_manifest_block *block = &cover->blocks[i];
        size_t bytes = (size_t)(block->rows * tv_state_row_bytes(a));
        void *data = malloc(bytes);
        if (!data)
            return TV_FAIL(TV_MEMORY, "no memory for %zu bytes of %s %s", bytes, a->name, a->part);
        tv_status st = find_block(checkpoint, index, block, (piece){block->first_row, block->rows, data});
        if (st == TV_OK)
            st = fetch_blocks(checkpoint);
        if (st == TV_OK)
            tv_hash_rows_add(sum, data, block->rows, (size_t)tv_state_row_bytes(a), block->first_row);
        free(data);
        TV_TRY(st);
    }
    return TV_OK;
}

tv_status tv_checkpoint_digest(tv_checkpoint *checkpoint, tv_hash128 *digest)
{
    const tv_manifest *manifest = &checkpoint->manifest;
    tv_hash128 *sums = calloc((size_t)manifest->array_count + 1, sizeof *sums);
    if (!sums)
        return TV_FAIL(TV_MEMORY, "no memory for the digest of %s", checkpoint->dir);
    tv_status st = TV_OK;
    for (int64_t i = 0; i < manifest->array_count; i++)
        TV_TRY_GOTO(st, done, hash_array(checkpoint, i, &sums[i]));
    TV_TRY_GOTO(st, done, tv_state_digest(manifest->arrays, manifest->array_count, sums, digest));
    if (!tv_hash_equal(*digest, manifest->info.digest)) {
        char found[TV_HASH_HEX], listed[TV_HASH_HEX];
        tv_hash_format(*digest, found);
        tv_hash_format(manifest->info.digest, listed);
        st = TV_FAIL(TV_CHECKPOINT, "%s: the digest of the state is %s, the manifest says %s", checkpoint->dir, found,
                     listed);
    }
done:
    free(sums);
    return st;
}
