#include "manifest_edit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/atomic_file.h"
#include "io_fixture.h"

json_t *edit_load(const char *dir)
{
    json_error_t error;
    json_t *manifest = json_load_file(io_path("%s/manifest.json", dir), 0, &error);
    if (!manifest)
        fail_msg("%s: %s", dir, error.text);
    return manifest;
}

json_t *edit_array(json_t *manifest, const char *name, const char *part)
{
    size_t i;
    json_t *array;
    json_array_foreach(json_object_get(manifest, "arrays"), i, array)
    {
        if (strcmp(json_string_value(json_object_get(array, "name")), name) == 0 &&
            strcmp(json_string_value(json_object_get(array, "part")), part) == 0)
            return array;
    }
    fail_msg("no array %s %s", name, part);
    return NULL;
}

json_t *edit_block(json_t *manifest, const char *name, const char *part, size_t index)
{
    return json_array_get(json_object_get(edit_array(manifest, name, part), "blocks"), index);
}

json_t *edit_hex(tv_hash128 hash)
{
    char hex[TV_HASH_HEX];
    tv_hash_format(hash, hex);
    return json_string(hex);
}

// The list in the order of the manifest, from what the folder holds; written with stdio as xxhsum would print it.
static void write_list(const char *dir, const char *text, size_t bytes, json_t *manifest)
{
    char hex[TV_HASH_HEX];
    FILE *list = fopen(io_path("%s/checksums.xxh128", dir), "w");
    assert_non_null(list);
    for (size_t i = 0; i < json_array_size(json_object_get(manifest, "files")); i++) {
        json_t *file = json_array_get(json_object_get(manifest, "files"), i);
        fprintf(list, "%s  %s\n", json_string_value(json_object_get(file, "xxh3")),
                json_string_value(json_object_get(file, "name")));
    }
    tv_hash_format(tv_hash_bytes(text, bytes), hex);
    fprintf(list, "%s  manifest.json\n", hex);
    assert_int_equal(fclose(list), 0);
}

void edit_store(const char *dir, json_t *manifest)
{
    size_t i;
    json_t *file;
    json_array_foreach(json_object_get(manifest, "files"), i, file)
    {
        int64_t bytes;
        tv_hash128 hash;
        const char *path = io_path("%s/%s", dir, json_string_value(json_object_get(file, "name")));
        if (!io_exists(path) || tv_file_hash(path, &bytes, &hash) != TV_OK)
            continue;
        json_object_set_new(file, "bytes", json_integer(bytes));
        json_object_set_new(file, "xxh3", edit_hex(hash));
    }
    char *text = json_dumps(manifest, JSON_INDENT(1));
    assert_non_null(text);
    io_write_text(io_path("%s/manifest.json", dir), text);
    write_list(dir, text, strlen(text), manifest);
    free(text);
    json_decref(manifest);
}

void edit_store_text(const char *dir, const char *text, size_t bytes)
{
    io_write(io_path("%s/manifest.json", dir), text, bytes);
    write_list(dir, text, bytes, NULL);
}

void edit_rehash(const char *dir) { edit_store(dir, edit_load(dir)); }
