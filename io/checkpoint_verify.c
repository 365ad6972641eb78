// Is a checkpoint folder what its manifest says?
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/atomic_file.h"
#include "io/checkpoint.h"
#include "io/checkpoint_internal.h"

tv_status tv_checkpoint_path(const char *dir, const char *name, char **out)
{
    if (asprintf(out, "%s/%s", dir, name) < 0) {
        *out = NULL;
        return TV_FAIL(TV_MEMORY, "no memory for the path %s/%s", dir, name);
    }
    return TV_OK;
}

// A regular file that is there; its size.
static tv_status check_regular(const char *path, int64_t *bytes)
{
    struct stat about;
    if (lstat(path, &about) != 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return TV_FAIL(TV_CHECKPOINT, "%s is missing%s", path,
                           strstr(path, TV_MANIFEST_NAME) ? "; a checkpoint is a folder step-NNNNNNNNN of a run" : "");
        return TV_FAIL(TV_IO, "cannot stat %s: %s", path, strerror(errno));
    }
    if (S_ISLNK(about.st_mode))
        return TV_FAIL(TV_CHECKPOINT, "%s is a symbolic link, which is refused", path);
    if (!S_ISREG(about.st_mode))
        return TV_FAIL(TV_CHECKPOINT, "%s is not a regular file", path);
    *bytes = about.st_size;
    return TV_OK;
}

// The first block of each file passes the fail point.
static tv_status block_passes(void *listener, void *data, size_t bytes)
{
    int *first = listener;
    if (!*first)
        return TV_OK;
    *first = 0;
    return tv_io_fault_data(TV_FAULT_LOAD_HASH_POINT, data, bytes);
}

tv_status tv_checkpoint_check_file(const char *dir, const tv_manifest_file *file, int with_hash)
{
    char *path = NULL;
    int64_t bytes = 0;
    int first = 1;
    tv_hash128 hash;
    tv_status st = TV_OK;
    TV_TRY_GOTO(st, done, tv_checkpoint_path(dir, file->name, &path));
    TV_TRY_GOTO(st, done, check_regular(path, &bytes));
    if (bytes == file->bytes && with_hash)
        TV_TRY_GOTO(st, done, tv_file_hash_blocks(path, block_passes, &first, &bytes, &hash));
    if (bytes != file->bytes) {
        st = TV_FAIL(TV_CHECKPOINT, "%s has %" PRId64 " bytes, the manifest says %" PRId64, path, bytes, file->bytes);
        goto done;
    }
    if (with_hash && !tv_hash_equal(hash, file->hash)) {
        char found[TV_HASH_HEX], listed[TV_HASH_HEX];
        tv_hash_format(hash, found);
        tv_hash_format(file->hash, listed);
        st = TV_FAIL(TV_CHECKPOINT, "%s is damaged: its XXH3-128 is %s, the manifest says %s", path, found, listed);
    }
done:
    free(path);
    return st;
}

static tv_status read_small(const char *dir, const char *name, char **data, size_t *bytes)
{
    char *path = NULL;
    int64_t size = 0;
    tv_status st = TV_OK;
    TV_TRY_GOTO(st, done, tv_checkpoint_path(dir, name, &path));
    TV_TRY_GOTO(st, done, check_regular(path, &size));
    TV_TRY_GOTO(st, done, tv_file_read(path, TV_MANIFEST_BYTES_MAX, data, bytes));
done:
    free(path);
    return st;
}

// The list's last line names the manifest. Looking at it first tells a damaged manifest from one that says something
// else.
static tv_status check_manifest_listed(const char *dir, tv_hash128 manifest_hash, const char *list, size_t list_bytes)
{
    char line[TV_HASH_HEX + sizeof TV_MANIFEST_NAME + 4], hex[TV_HASH_HEX];
    tv_hash_format(manifest_hash, hex);
    int length = snprintf(line, sizeof line, "%s  %s\n", hex, TV_MANIFEST_NAME);
    if (list_bytes < (size_t)length || memcmp(list + list_bytes - (size_t)length, line, (size_t)length) != 0)
        return TV_FAIL(TV_CHECKPOINT,
                       "%s/%s or %s is damaged: the XXH3-128 of %s is %s and the last line of the list does not say so",
                       dir, TV_MANIFEST_NAME, TV_CHECKSUMS_NAME, TV_MANIFEST_NAME, hex);
    return TV_OK;
}

static tv_status check_list(const char *dir, const tv_manifest *manifest, tv_hash128 manifest_hash, const char *list,
                            size_t list_bytes)
{
    char *expected = NULL;
    size_t expected_bytes = 0;
    TV_TRY(tv_manifest_checksums(manifest, manifest_hash, &expected, &expected_bytes));
    tv_status st = TV_OK;
    if (list_bytes != expected_bytes || memcmp(list, expected, expected_bytes) != 0) {
        size_t at = 0, line = 1;
        for (; at < list_bytes && at < expected_bytes && list[at] == expected[at]; at++)
            line += list[at] == '\n';
        st = TV_FAIL(TV_CHECKPOINT, "%s/%s is damaged: line %zu is not what %s says", dir, TV_CHECKSUMS_NAME, line,
                     TV_MANIFEST_NAME);
    }
    free(expected);
    return st;
}

tv_status tv_checkpoint_load_manifest(const char *dir, int verify, tv_manifest *out)
{
    char *text = NULL, *list = NULL;
    size_t text_bytes = 0, list_bytes = 0;
    tv_hash128 hash = {0, 0};
    tv_status st = TV_OK;
    *out = (tv_manifest){0};
    TV_TRY_GOTO(st, done, tv_io_fault(TV_FAULT_LOAD_OPEN_POINT));
    TV_TRY_GOTO(st, done, read_small(dir, TV_MANIFEST_NAME, &text, &text_bytes));
    if (verify) {
        hash = tv_hash_bytes(text, text_bytes);
        TV_TRY_GOTO(st, done, read_small(dir, TV_CHECKSUMS_NAME, &list, &list_bytes));
        TV_TRY_GOTO(st, done, check_manifest_listed(dir, hash, list, list_bytes));
    }
    st = tv_manifest_parse(text, text_bytes, out);
    if (st == TV_OK)
        st = tv_manifest_check(out);
    if (st != TV_OK) {
        st = tv_status_context(st, "%s/%s", dir, TV_MANIFEST_NAME);
        goto done;
    }
    if (verify)
        TV_TRY_GOTO(st, done, check_list(dir, out, hash, list, list_bytes));
done:
    if (st != TV_OK)
        tv_manifest_free(out);
    free(list);
    free(text);
    return st;
}

tv_status tv_checkpoint_verify(const char *dir)
{
    tv_manifest manifest;
    TV_TRY(tv_checkpoint_load_manifest(dir, 1, &manifest));
    tv_status st = TV_OK;
    for (int64_t i = 0; i < manifest.file_count && st == TV_OK; i++)
        st = tv_checkpoint_check_file(dir, &manifest.files[i], 1);
    tv_manifest_free(&manifest);
    return st;
}
