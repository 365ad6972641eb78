// Reading rows of a checkpoint, whatever ranks wrote them.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pack.h"
#include "io/atomic_file.h"
#include "io/checkpoint.h"
#include "io/checkpoint_internal.h"
#include "io/shard_h5.h"

enum { OPEN_SHARDS_MAX = 64 }; // descriptors kept open

struct tv_checkpoint {
    char *dir;
    tv_manifest manifest;
    tv_shard **shards; // of manifest.files[i]; NULL: not open
    int open_shards;
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
    free(checkpoint->dir);
    free(checkpoint);
}

const tv_checkpoint_info *tv_checkpoint_describe(const tv_checkpoint *checkpoint) { return &checkpoint->manifest.info; }

const tv_state_array *tv_checkpoint_arrays(const tv_checkpoint *checkpoint, int64_t *count)
{
    *count = checkpoint->manifest.array_count;
    return checkpoint->manifest.arrays;
}

static tv_status open_shard(tv_checkpoint *checkpoint, int64_t file)
{
    char *path = NULL;
    if (checkpoint->shards[file])
        return TV_OK;
    if (checkpoint->open_shards >= OPEN_SHARDS_MAX)
        close_shards(checkpoint);
    tv_status st = TV_OK;
    TV_TRY_GOTO(st, done, tv_checkpoint_check_file(checkpoint->dir, &checkpoint->manifest.files[file], 0));
    TV_TRY_GOTO(st, done, tv_checkpoint_path(checkpoint->dir, checkpoint->manifest.files[file].name, &path));
    TV_TRY_GOTO(st, done, tv_shard_open(path, &checkpoint->shards[file]));
    checkpoint->open_shards++;
done:
    free(path);
    return st;
}

// rows: global rows [first_row, first_row + count) lie at `data`.
typedef struct piece {
    int64_t first_row, count;
    void *data;
} piece;

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
    for (int64_t i = 0; i < p->count * a->cols; i++)
        if (e[i] < low || e[i] > high)
            return TV_FAIL(TV_CHECKPOINT,
                           "row %" PRId64 ", group %" PRId64 ": the exponent %d is outside its window %d to %d",
                           p->first_row + i / a->cols, i % a->cols, e[i], low, high);
    return TV_OK;
}

// The rows of one block into p->data: from its shard, with the block's hash when it is whole, and with the checks of
// values.
static tv_status read_block(tv_checkpoint *checkpoint, int64_t array, const tv_manifest_block *block, const piece *p)
{
    const tv_state_array *a = &checkpoint->manifest.arrays[array];
    const char *file = checkpoint->manifest.files[block->file].name;
    TV_TRY(open_shard(checkpoint, block->file));
    tv_shard_rows rows = {.array = a,
                          .number = block->number,
                          .unchecked = p->count == block->rows,
                          .block_rows = block->rows,
                          .skip = p->first_row - block->first_row,
                          .count = p->count,
                          .data = p->data};
    TV_TRY(tv_shard_read(checkpoint->shards[block->file], &rows));
    tv_status st = TV_OK;
    TV_TRY(tv_io_fault_data(TV_FAULT_LOAD_READ_POINT, p->data, (size_t)(p->count * tv_state_row_bytes(a))));
    if (p->count == block->rows &&
        !tv_hash_equal(tv_hash_bytes(p->data, (size_t)(p->count * tv_state_row_bytes(a))), block->hash))
        st = TV_FAIL(TV_CHECKPOINT, "the XXH3-128 of rows %" PRId64 " to %" PRId64 " is not the manifest's",
                     p->first_row, p->first_row + p->count - 1);
    else if (strcmp(a->part, "T") == 0)
        st = check_trits(a, p);
    else if (strcmp(a->part, "E") == 0)
        st = check_exponents(a, p);
    return st == TV_OK ? st
                       : tv_status_context(st, "%s/%s: /%s/%s/%s", checkpoint->dir, file, a->group, a->name, a->part);
}

static int64_t find_array(const tv_manifest *manifest, const char *name, const char *part)
{
    for (int64_t i = 0; i < manifest->array_count; i++)
        if (strcmp(manifest->arrays[i].name, name) == 0 && strcmp(manifest->arrays[i].part, part) == 0)
            return i;
    return -1;
}

tv_status tv_checkpoint_read(tv_checkpoint *checkpoint, const tv_state_array *array)
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
        piece p = {low, high - low, (char *)array->data + (low - array->first_row) * row_bytes};
        TV_TRY(read_block(checkpoint, index, block, &p));
    }
    return TV_OK;
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
        piece p = {block->first_row, block->rows, data};
        tv_status st = read_block(checkpoint, index, block, &p);
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
