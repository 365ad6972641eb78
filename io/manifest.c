// The manifest in memory: building, merging, checking.
#include "io/manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tv_manifest_free(tv_manifest *manifest)
{
    if (!manifest)
        return;
    for (int64_t i = 0; i < manifest->file_count; i++)
        free(manifest->files[i].name);
    for (int64_t i = 0; i < manifest->array_count; i++) {
        free((char *)manifest->arrays[i].name);
        free((char *)manifest->arrays[i].part);
        free((char *)manifest->arrays[i].group);
        free(manifest->covers[i].blocks);
    }
    free(manifest->files);
    free(manifest->arrays);
    free(manifest->covers);
    tv_checkpoint_info_free(&manifest->info);
    memset(manifest, 0, sizeof *manifest);
}

void tv_checkpoint_info_free(tv_checkpoint_info *info)
{
    if (!info)
        return;
    free(info->config_text);
    info->config_text = NULL;
}

tv_status tv_manifest_check_name(const char *what, const char *name)
{
    size_t length = strlen(name);
    if (strchr(name, '/') || strstr(name, ".."))
        return TV_FAIL(TV_CHECKPOINT, "the %s '%.200s' contains '/' or '..', which is refused", what, name);
    if (length < 1 || length > TV_MANIFEST_NAME_MAX || name[0] == '.')
        return TV_FAIL(TV_CHECKPOINT, "the %s '%.200s' is empty, longer than %d bytes or starts with '.'", what, name,
                       TV_MANIFEST_NAME_MAX);
    for (const char *c = name; *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", *c))
            return TV_FAIL(TV_CHECKPOINT,
                           "the %s '%.200s' holds a character other than letters, digits, '.', '_' and '-'", what,
                           name);
    return TV_OK;
}

tv_status tv_manifest_start(const tv_checkpoint_info *info, const tv_state_array *arrays, int64_t count,
                            tv_manifest *out)
{
    *out = (tv_manifest){.info = *info};
    out->arrays = calloc((size_t)count + 1, sizeof *out->arrays);
    out->covers = calloc((size_t)count + 1, sizeof *out->covers);
    if (!out->arrays || !out->covers)
        return TV_FAIL(TV_MEMORY, "no memory for a manifest of %" PRId64 " arrays", count);
    for (int64_t i = 0; i < count; i++) {
        tv_state_array *a = &out->arrays[i];
        out->array_count = i + 1;
        *a = arrays[i];
        a->first_row = a->count = 0;
        a->data = NULL;
        a->replicated = 0;
        a->name = strdup(arrays[i].name);
        a->part = strdup(arrays[i].part);
        a->group = strdup(arrays[i].group);
        if (!a->name || !a->part || !a->group)
            return TV_FAIL(TV_MEMORY, "no memory for a manifest of %" PRId64 " arrays", count);
    }
    return TV_OK;
}

// Room for one more item behind `count`; capacity is the next power of two.
static void *grow(void *items, int64_t count, size_t item_bytes)
{
    if (count & (count - 1))
        return items;
    return realloc(items, (size_t)(count ? 2 * count : 1) * item_bytes);
}

tv_status tv_manifest_add_file(tv_manifest *manifest, const char *name, int64_t bytes, tv_hash128 hash)
{
    tv_manifest_file *files = grow(manifest->files, manifest->file_count, sizeof *files);
    char *copy = strdup(name);
    if (files)
        manifest->files = files;
    if (!files || !copy) {
        free(copy);
        return TV_FAIL(TV_MEMORY, "no memory for a manifest of %" PRId64 " files", manifest->file_count + 1);
    }
    manifest->files[manifest->file_count++] = (tv_manifest_file){.name = copy, .bytes = bytes, .hash = hash};
    return TV_OK;
}

tv_status tv_manifest_add_block(tv_manifest *manifest, int64_t array, tv_manifest_block block)
{
    tv_manifest_cover *cover = &manifest->covers[array];
    tv_manifest_block *blocks = grow(cover->blocks, cover->count, sizeof *blocks);
    if (!blocks)
        return TV_FAIL(TV_MEMORY, "no memory for %" PRId64 " blocks of %s %s", cover->count + 1,
                       manifest->arrays[array].name, manifest->arrays[array].part);
    cover->blocks = blocks;
    cover->blocks[cover->count++] = block;
    return TV_OK;
}

tv_status tv_manifest_compare(const tv_state_array *kept, const tv_state_array *wanted)
{
    const char *name = kept->name, *part = kept->part;
    if (kept->dtype != wanted->dtype)
        return TV_FAIL(TV_CHECKPOINT, "%s %s is %s in the checkpoint and %s here", name, part,
                       tv_dtype_name(kept->dtype), tv_dtype_name(wanted->dtype));
    const struct {
        const char *what;
        int64_t kept, wanted;
    } fields[] = {
        {"rows", kept->rows, wanted->rows},
        {"columns", kept->cols, wanted->cols},
        {"logical columns", kept->logical_cols, wanted->logical_cols},
        {"base exponent b", kept->b, wanted->b},
        {"mantissa bits m", kept->m, wanted->m},
        {"group size G", kept->scale_group, wanted->scale_group},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].kept != fields[i].wanted)
            return TV_FAIL(TV_CHECKPOINT, "%s %s: %s is %" PRId64 " in the checkpoint and %" PRId64 " here", name, part,
                           fields[i].what, fields[i].kept, fields[i].wanted);
    return TV_OK;
}

tv_status tv_manifest_merge(tv_manifest *into, const tv_manifest *from)
{
    if (into->array_count != from->array_count)
        return TV_FAIL(TV_CHECKPOINT, "%" PRId64 " arrays here and %" PRId64 " in %s", into->array_count,
                       from->array_count, from->file_count ? from->files[0].name : "another shard");
    int64_t first_file = into->file_count;
    for (int64_t i = 0; i < from->file_count; i++)
        TV_TRY(tv_manifest_add_file(into, from->files[i].name, from->files[i].bytes, from->files[i].hash));
    for (int64_t i = 0; i < from->array_count; i++) {
        const tv_state_array *a = &into->arrays[i], *b = &from->arrays[i];
        if (strcmp(a->name, b->name) || strcmp(a->part, b->part) || strcmp(a->group, b->group))
            return TV_FAIL(TV_CHECKPOINT, "array %" PRId64 " is %s/%s/%s on one rank and %s/%s/%s on another", i,
                           a->group, a->name, a->part, b->group, b->name, b->part);
        TV_TRY(tv_manifest_compare(a, b));
        for (int64_t k = 0; k < from->covers[i].count; k++) {
            tv_manifest_block block = from->covers[i].blocks[k];
            block.file += first_file;
            TV_TRY(tv_manifest_add_block(into, i, block));
        }
    }
    return TV_OK;
}

static int compare_rows(const void *a, const void *b)
{
    const tv_manifest_block *x = a, *y = b;
    return (x->first_row > y->first_row) - (x->first_row < y->first_row);
}

// Each row once: the sorted blocks follow each other without a gap or an overlap.
static tv_status check_cover(const tv_state_array *a, tv_manifest_cover *cover)
{
    int64_t next = 0;
    if (cover->count)
        qsort(cover->blocks, (size_t)cover->count, sizeof *cover->blocks, compare_rows);
    for (int64_t i = 0; i < cover->count; i++) {
        const tv_manifest_block *block = &cover->blocks[i];
        if (block->first_row > a->rows || block->rows > a->rows - block->first_row)
            return TV_FAIL(TV_CHECKPOINT,
                           "%s %s: a block of %" PRId64 " rows at row %" PRId64 " passes the %" PRId64 " rows", a->name,
                           a->part, block->rows, block->first_row, a->rows);
        if (block->first_row > next)
            return TV_FAIL(TV_CHECKPOINT, "%s %s: rows %" PRId64 " to %" PRId64 " are missing", a->name, a->part, next,
                           block->first_row - 1);
        if (block->first_row < next)
            return TV_FAIL(TV_CHECKPOINT, "%s %s: row %" PRId64 " is there twice", a->name, a->part, block->first_row);
        next = block->first_row + block->rows;
    }
    if (next < a->rows)
        return TV_FAIL(TV_CHECKPOINT, "%s %s: rows %" PRId64 " to %" PRId64 " are missing", a->name, a->part, next,
                       a->rows - 1);
    return TV_OK;
}

typedef struct named {
    const char *a, *b;
} named;

static int compare_names(const void *a, const void *b)
{
    const named *x = a, *y = b;
    int order = strcmp(x->a, y->a);
    return order ? order : strcmp(x->b, y->b);
}

static tv_status check_unique(const char *what, named *names, int64_t count)
{
    if (count)
        qsort(names, (size_t)count, sizeof *names, compare_names);
    for (int64_t i = 1; i < count; i++)
        if (compare_names(&names[i - 1], &names[i]) == 0)
            return TV_FAIL(TV_CHECKPOINT, "the %s %s %s is listed twice", what, names[i].a, names[i].b);
    return TV_OK;
}

// Rows are stored as they are, so a file holds at least their bytes: absurd shapes end here, before any memory is asked
// for.
static tv_status check_file_sizes(const tv_manifest *manifest, int64_t *needed)
{
    for (int64_t i = 0; i < manifest->array_count; i++) {
        const tv_state_array *a = &manifest->arrays[i];
        for (int64_t k = 0; k < manifest->covers[i].count; k++) {
            const tv_manifest_block *block = &manifest->covers[i].blocks[k];
            const tv_manifest_file *file = &manifest->files[block->file];
            int64_t bytes;
            if (__builtin_mul_overflow(block->rows, tv_state_row_bytes(a), &bytes) ||
                __builtin_add_overflow(needed[block->file], bytes, &needed[block->file]) ||
                needed[block->file] > file->bytes)
                return TV_FAIL(TV_CHECKPOINT, "%s has %" PRId64 " bytes, too few for the rows listed in it (at %s %s)",
                               file->name, file->bytes, a->name, a->part);
        }
    }
    return TV_OK;
}

tv_status tv_manifest_check(tv_manifest *manifest)
{
    int64_t most = manifest->file_count > manifest->array_count ? manifest->file_count : manifest->array_count;
    named *names = calloc((size_t)most + 1, sizeof *names);
    int64_t *needed = calloc((size_t)most + 1, sizeof *needed);
    tv_status st = TV_OK;
    if (!names || !needed) {
        st = TV_FAIL(TV_MEMORY, "no memory to check a manifest of %" PRId64 " entries", most);
        goto done;
    }
    for (int64_t i = 0; i < manifest->file_count; i++)
        names[i] = (named){manifest->files[i].name, ""};
    TV_TRY_GOTO(st, done, check_unique("file", names, manifest->file_count));
    for (int64_t i = 0; i < manifest->array_count; i++)
        names[i] = (named){manifest->arrays[i].name, manifest->arrays[i].part};
    TV_TRY_GOTO(st, done, check_unique("array", names, manifest->array_count));
    for (int64_t i = 0; i < manifest->array_count; i++)
        TV_TRY_GOTO(st, done, check_cover(&manifest->arrays[i], &manifest->covers[i]));
    TV_TRY_GOTO(st, done, check_file_sizes(manifest, needed));
done:
    free(needed);
    free(names);
    return st;
}

tv_status tv_manifest_checksums(const tv_manifest *manifest, tv_hash128 manifest_hash, char **text, size_t *bytes)
{
    char hex[TV_HASH_HEX];
    *text = NULL;
    *bytes = 0;
    FILE *out = open_memstream(text, bytes);
    if (!out)
        return TV_FAIL(TV_MEMORY, "no memory for %s", TV_CHECKSUMS_NAME);
    for (int64_t i = 0; i < manifest->file_count; i++) {
        tv_hash_format(manifest->files[i].hash, hex);
        fprintf(out, "%s  %s\n", hex, manifest->files[i].name);
    }
    tv_hash_format(manifest_hash, hex);
    fprintf(out, "%s  %s\n", hex, TV_MANIFEST_NAME);
    int failed = ferror(out);
    if (fclose(out) != 0 || failed) {
        free(*text);
        *text = NULL;
        return TV_FAIL(TV_MEMORY, "no memory for %s", TV_CHECKSUMS_NAME);
    }
    return TV_OK;
}
