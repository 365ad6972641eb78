// The manifest as JSON text (jansson) and back.
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/manifest.h"

#define DIMENSION_MAX                                                                                                  \
    ((int64_t)1 << 40) // rows or columns: far above any model, and products with 4 bytes stay in range

// ---- writing

static json_t *hash_to_json(tv_hash128 hash)
{
    char hex[TV_HASH_HEX];
    tv_hash_format(hash, hex);
    return json_string(hex);
}

static json_t *files_to_json(const tv_manifest *manifest)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < manifest->file_count; i++) {
        const tv_manifest_file *file = &manifest->files[i];
        if (json_array_append_new(list, json_pack("{s:s, s:I, s:o}", "name", file->name, "bytes",
                                                  (json_int_t)file->bytes, "xxh3", hash_to_json(file->hash))) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

enum { DATASET_BYTES = 3 * (TV_MANIFEST_NAME_MAX + 1) + 24 };

static const char *dataset_path(const tv_state_array *a, int64_t number, char path[DATASET_BYTES])
{
    int length = snprintf(path, DATASET_BYTES, "/%s/%s/%s", a->group, a->name, a->part);
    if (number > 0)
        snprintf(path + length, (size_t)(DATASET_BYTES - length), ".%" PRId64, number);
    return path;
}

static json_t *blocks_to_json(const tv_manifest *manifest, int64_t array)
{
    const tv_state_array *a = &manifest->arrays[array];
    const tv_manifest_cover *cover = &manifest->covers[array];
    json_t *list = json_array();
    for (int64_t i = 0; i < cover->count; i++) {
        const tv_manifest_block *block = &cover->blocks[i];
        char path[DATASET_BYTES];
        json_t *dataset = json_string(dataset_path(a, block->number, path));
        if (json_array_append_new(list,
                                  json_pack("{s:s, s:o, s:I, s:I, s:o}", "file", manifest->files[block->file].name,
                                            "dataset", dataset, "first_row", (json_int_t)block->first_row, "rows",
                                            (json_int_t)block->rows, "xxh3", hash_to_json(block->hash))) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *arrays_to_json(const tv_manifest *manifest)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < manifest->array_count; i++) {
        const tv_state_array *a = &manifest->arrays[i];
        json_t *array =
            json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:i, s:i, s:i, s:o}", "name", a->name, "part", a->part,
                      "group", a->group, "dtype", tv_dtype_name(a->dtype), "rows", (json_int_t)a->rows, "cols",
                      (json_int_t)a->cols, "logical_cols", (json_int_t)a->logical_cols, "b", a->b, "m", a->m, "G",
                      a->scale_group, "blocks", blocks_to_json(manifest, i));
        if (json_array_append_new(list, array) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

tv_status tv_manifest_text(const tv_manifest *manifest, char **text, size_t *bytes)
{
    const tv_checkpoint_info *info = &manifest->info;
    *text = NULL;
    json_t *root = json_pack("{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:s, s:o, s:o}", "format",
                             TV_CHECKPOINT_FORMAT, "program", info->program, "step", (json_int_t)info->step,
                             "bytes_seen", (json_int_t)info->bytes_seen, "seed", (json_int_t)info->seed, "units",
                             (json_int_t)info->units, "writers", (json_int_t)info->writers, "config_hash",
                             hash_to_json(info->config_hash), "corpus", hash_to_json(info->corpus), "digest",
                             hash_to_json(info->digest), "config", info->config_text ? info->config_text : "", "files",
                             files_to_json(manifest), "arrays", arrays_to_json(manifest));
    char *body = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    if (!body)
        return TV_FAIL(TV_CHECKPOINT, "cannot write the manifest as JSON: memory is short or the config is not UTF-8");
    *bytes = strlen(body) + 1;
    char *line = realloc(body, *bytes + 1);
    if (!line) {
        free(body);
        return TV_FAIL(TV_MEMORY, "no memory for a manifest of %zu bytes", *bytes);
    }
    memcpy(line + *bytes - 1, "\n", 2);
    *text = line;
    return TV_OK;
}

// ---- reading

static tv_status need_range(const char *key, int64_t value, int64_t low, int64_t high)
{
    if (value < low || value > high)
        return TV_FAIL(TV_CHECKPOINT, "'%s' is %" PRId64 ", outside %" PRId64 " to %" PRId64, key, value, low, high);
    return TV_OK;
}

static tv_status need_hash(const char *key, const char *hex, tv_hash128 *out)
{
    if (tv_hash_parse(hex, out) != 0)
        return TV_FAIL(TV_CHECKPOINT, "'%s' is not 32 hex digits", key);
    return TV_OK;
}

static tv_status take_copy(const char *text, char **out)
{
    *out = strdup(text);
    return *out ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for a text of the manifest");
}

static tv_status parse_info(json_t *root, tv_checkpoint_info *info)
{
    const char *program, *config, *config_hash, *corpus, *digest;
    json_int_t step, bytes_seen, seed, units, writers;
    json_error_t error;
    if (json_unpack_ex(root, &error, 0, "{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "program", &program,
                       "config", &config, "config_hash", &config_hash, "corpus", &corpus, "digest", &digest, "step",
                       &step, "bytes_seen", &bytes_seen, "seed", &seed, "units", &units, "writers", &writers) != 0)
        return TV_FAIL(TV_CHECKPOINT, "%s", error.text);
    if (strlen(program) >= sizeof info->program)
        return TV_FAIL(TV_CHECKPOINT, "'program' is longer than %zu bytes", sizeof info->program - 1);
    TV_TRY(need_range("step", step, 0, INT64_MAX));
    TV_TRY(need_range("bytes_seen", bytes_seen, 0, INT64_MAX));
    TV_TRY(need_range("units", units, 0, INT64_MAX));
    TV_TRY(need_range("writers", writers, 1, 1 << 20));
    TV_TRY(need_hash("config_hash", config_hash, &info->config_hash));
    TV_TRY(need_hash("corpus", corpus, &info->corpus));
    TV_TRY(need_hash("digest", digest, &info->digest));
    strcpy(info->program, program);
    info->step = step;
    info->bytes_seen = bytes_seen;
    info->seed = seed;
    info->units = units;
    info->writers = writers;
    return take_copy(config, &info->config_text);
}

static tv_status parse_file(json_t *item, tv_manifest *out)
{
    const char *name, *hex;
    json_int_t bytes;
    json_error_t error;
    tv_hash128 hash;
    if (json_unpack_ex(item, &error, 0, "{s:s, s:I, s:s}", "name", &name, "bytes", &bytes, "xxh3", &hex) != 0)
        return TV_FAIL(TV_CHECKPOINT, "%s", error.text);
    TV_TRY(tv_manifest_check_name("file name", name));
    TV_TRY(need_range("bytes", bytes, 0, INT64_MAX));
    TV_TRY(need_hash("xxh3", hex, &hash));
    return tv_manifest_add_file(out, name, bytes, hash);
}

static tv_status parse_dtype(const char *name, tv_dtype *out)
{
    for (int i = 0; i < TV_DTYPE_COUNT; i++)
        if (strcmp(name, tv_dtype_name((tv_dtype)i)) == 0) {
            *out = (tv_dtype)i;
            return TV_OK;
        }
    return TV_FAIL(TV_CHECKPOINT, "'dtype' is '%.40s'; known are uint8, int8, int16 and int32", name);
}

// What the parts of a ternary tensor must satisfy so that their values can be checked when they are read.
static tv_status check_part(const tv_state_array *a)
{
    if (strcmp(a->part, "T") == 0 && (a->dtype != TV_U8 || a->cols != tv_row_bytes(a->logical_cols)))
        return TV_FAIL(TV_CHECKPOINT, "packed trits are uint8 with ceil(%" PRId64 " / 5) columns, not %s with %" PRId64,
                       a->logical_cols, tv_dtype_name(a->dtype), a->cols);
    if (strcmp(a->part, "E") == 0 && (a->dtype != TV_I8 || a->cols != a->logical_cols))
        return TV_FAIL(TV_CHECKPOINT, "exponents are int8 with %" PRId64 " columns, not %s with %" PRId64,
                       a->logical_cols, tv_dtype_name(a->dtype), a->cols);
    return TV_OK;
}

static tv_status parse_array(json_t *item, tv_state_array *a, json_t **blocks)
{
    const char *name, *part, *group, *dtype;
    json_int_t rows, cols, logical_cols, b, m, scale_group;
    json_error_t error;
    if (json_unpack_ex(item, &error, 0, "{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "name", &name,
                       "part", &part, "group", &group, "dtype", &dtype, "rows", &rows, "cols", &cols, "logical_cols",
                       &logical_cols, "b", &b, "m", &m, "G", &scale_group, "blocks", blocks) != 0)
        return TV_FAIL(TV_CHECKPOINT, "%s", error.text);
    TV_TRY(tv_manifest_check_name("name", name));
    TV_TRY(tv_manifest_check_name("part", part));
    TV_TRY(tv_manifest_check_name("group", group));
    TV_TRY(parse_dtype(dtype, &a->dtype));
    TV_TRY(need_range("rows", rows, 0, DIMENSION_MAX));
    TV_TRY(need_range("cols", cols, 1, DIMENSION_MAX));
    TV_TRY(need_range("logical_cols", logical_cols, 0, 5 * DIMENSION_MAX));
    TV_TRY(need_range("b", b, INT8_MIN, INT8_MAX));
    TV_TRY(need_range("m", m, 0, TV_MANTISSA_BITS_MAX));
    TV_TRY(need_range("G", scale_group, 0, 64));
    a->rows = rows;
    a->cols = cols;
    a->logical_cols = logical_cols;
    a->b = (int)b;
    a->m = (int)m;
    a->scale_group = (int)scale_group;
    TV_TRY(take_copy(name, (char **)&a->name));
    TV_TRY(take_copy(part, (char **)&a->part));
    TV_TRY(take_copy(group, (char **)&a->group));
    return check_part(a);
}

// Blocks of an array mostly name files in their order; start looking behind the last one found.
static int64_t find_file(const tv_manifest *manifest, const char *name, int64_t start)
{
    for (int64_t k = 0; k < manifest->file_count; k++) {
        int64_t i = (start + k) % manifest->file_count;
        if (strcmp(manifest->files[i].name, name) == 0)
            return i;
    }
    return -1;
}

static tv_status parse_block(json_t *item, tv_manifest *out, int64_t array)
{
    const tv_state_array *a = &out->arrays[array];
    const tv_manifest_cover *cover = &out->covers[array];
    const char *file, *dataset, *hex;
    char expected[DATASET_BYTES];
    json_int_t first_row, rows;
    json_error_t error;
    tv_manifest_block block;
    if (json_unpack_ex(item, &error, 0, "{s:s, s:s, s:I, s:I, s:s}", "file", &file, "dataset", &dataset, "first_row",
                       &first_row, "rows", &rows, "xxh3", &hex) != 0)
        return TV_FAIL(TV_CHECKPOINT, "%s", error.text);
    TV_TRY(tv_manifest_check_name("file name", file));
    size_t length = strlen(dataset_path(a, 0, expected));
    block.number = strncmp(dataset, expected, length) == 0 && dataset[length] == '.' ? atoll(dataset + length + 1) : 0;
    if (strcmp(dataset, dataset_path(a, block.number, expected)) != 0)
        return TV_FAIL(TV_CHECKPOINT, "the dataset path '%.200s'%s is refused: it must be '%s'", dataset,
                       strstr(dataset, "..") ? " contains '..' and" : "", dataset_path(a, 0, expected));
    block.file = find_file(out, file, cover->count ? cover->blocks[cover->count - 1].file + 1 : 0);
    if (block.file < 0)
        return TV_FAIL(TV_CHECKPOINT, "the file '%.200s' is not in 'files'", file);
    TV_TRY(need_range("first_row", first_row, 0, DIMENSION_MAX));
    TV_TRY(need_range("rows", rows, 1, DIMENSION_MAX));
    TV_TRY(need_hash("xxh3", hex, &block.hash));
    block.first_row = first_row;
    block.rows = rows;
    return tv_manifest_add_block(out, array, block);
}

static tv_status parse_arrays(json_t *list, tv_manifest *out)
{
    size_t count = json_array_size(list);
    out->arrays = calloc(count + 1, sizeof *out->arrays);
    out->covers = calloc(count + 1, sizeof *out->covers);
    if (!out->arrays || !out->covers)
        return TV_FAIL(TV_MEMORY, "no memory for a manifest of %zu arrays", count);
    for (size_t i = 0; i < count; i++) {
        json_t *blocks = NULL;
        out->array_count = (int64_t)i + 1;
        tv_status st = parse_array(json_array_get(list, i), &out->arrays[i], &blocks);
        if (st != TV_OK)
            return tv_status_context(st, "arrays[%zu]", i);
        if (!json_is_array(blocks))
            return TV_FAIL(TV_CHECKPOINT, "arrays[%zu]: 'blocks' is not a list", i);
        for (size_t k = 0; k < json_array_size(blocks); k++)
            if ((st = parse_block(json_array_get(blocks, k), out, (int64_t)i)) != TV_OK)
                return tv_status_context(st, "arrays[%zu] (%s %s), blocks[%zu]", i, out->arrays[i].name,
                                         out->arrays[i].part, k);
    }
    return TV_OK;
}

static tv_status parse_root(json_t *root, tv_manifest *out)
{
    json_t *format = json_object_get(root, "format"), *files = json_object_get(root, "files"),
           *arrays = json_object_get(root, "arrays");
    if (!json_is_integer(format))
        return TV_FAIL(TV_CHECKPOINT, "'format' is missing or not a number");
    if (json_integer_value(format) > TV_CHECKPOINT_FORMAT)
        return TV_FAIL(TV_CHECKPOINT,
                       "written by a newer trivote (format %lld); this one reads format %d: update trivote",
                       (long long)json_integer_value(format), TV_CHECKPOINT_FORMAT);
    if (json_integer_value(format) != TV_CHECKPOINT_FORMAT)
        return TV_FAIL(TV_CHECKPOINT, "format %lld is unknown; this trivote reads format %d",
                       (long long)json_integer_value(format), TV_CHECKPOINT_FORMAT);
    TV_TRY(parse_info(root, &out->info));
    if (!json_is_array(files) || !json_is_array(arrays))
        return TV_FAIL(TV_CHECKPOINT, "'%s' is missing or not a list", json_is_array(files) ? "arrays" : "files");
    for (size_t i = 0; i < json_array_size(files); i++) {
        tv_status st = parse_file(json_array_get(files, i), out);
        if (st != TV_OK)
            return tv_status_context(st, "files[%zu]", i);
    }
    return parse_arrays(arrays, out);
}

tv_status tv_manifest_parse(const char *text, size_t bytes, tv_manifest *out)
{
    json_error_t error;
    *out = (tv_manifest){0};
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return TV_FAIL(TV_CHECKPOINT, "line %d: %s", error.line, error.text);
    tv_status st = json_is_object(root) ? parse_root(root, out) : TV_FAIL(TV_CHECKPOINT, "the text is no JSON object");
    json_decref(root);
    if (st != TV_OK)
        tv_manifest_free(out);
    return st;
}
