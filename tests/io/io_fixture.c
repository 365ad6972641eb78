#include "io_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *io_folder_new(void)
{
    const char *place = getenv("TMPDIR");
    char *folder = NULL;
    assert_true(asprintf(&folder, "%s/trivote-io-XXXXXX", place && *place ? place : "/tmp") > 0);
    assert_non_null(mkdtemp(folder));
    return folder;
}

static int remove_entry(const char *path, const struct stat *about, int type, struct FTW *where)
{
    (void)about, (void)type, (void)where;
    return remove(path);
}

void io_folder_free(char *folder)
{
    if (folder)
        nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(folder);
}

const char *io_path(const char *format, ...)
{
    static char buffers[8][1024];
    static int next;
    char *buffer = buffers[next++ % 8];
    va_list args;
    va_start(args, format);
    vsnprintf(buffer, sizeof buffers[0], format, args);
    va_end(args);
    return buffer;
}

char *io_read(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s: %s", path, strerror(errno));
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    rewind(file);
    char *data = malloc((size_t)size + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)size, file), size);
    data[size] = '\0';
    fclose(file);
    *bytes = (size_t)size;
    return data;
}

void io_write(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        fail_msg("%s: %s", path, strerror(errno));
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

void io_write_text(const char *path, const char *text) { io_write(path, text, strlen(text)); }

void io_flip_bit(const char *path, size_t byte, int bit)
{
    size_t bytes;
    char *data = io_read(path, &bytes);
    assert_in_range(byte, 0, bytes - 1);
    data[byte] = (char)(data[byte] ^ (1 << bit));
    io_write(path, data, bytes);
    free(data);
}

int io_exists(const char *path)
{
    struct stat about;
    return lstat(path, &about) == 0;
}

// Calls `each` (may be NULL) for the entries of a folder; their number.
static int walk(const char *folder, void (*each)(const char *folder, const char *name, const char *to), const char *to)
{
    int count = 0;
    DIR *open = opendir(folder);
    if (!open)
        fail_msg("%s: %s", folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(open));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        count++;
        if (each)
            each(folder, entry->d_name, to);
    }
    closedir(open);
    return count;
}

int io_count_entries(const char *folder) { return walk(folder, NULL, NULL); }

static void copy_entry(const char *folder, const char *name, const char *to)
{
    size_t bytes;
    char *data = io_read(io_path("%s/%s", folder, name), &bytes);
    io_write(io_path("%s/%s", to, name), data, bytes);
    free(data);
}

void io_copy_folder(const char *from, const char *to)
{
    assert_int_equal(mkdir(to, 0755), 0);
    walk(from, copy_entry, to);
}

void io_expect(tv_status got, tv_status expected, const char *file, int line)
{
    if (got == expected)
        return;
    print_error("%s instead of %s: %s (%s)\n", tv_status_name(got), tv_status_name(expected), tv_status_message(),
                tv_status_place());
    _fail(file, line);
}

void io_expect_message(const char *part, const char *file, int line)
{
    if (strstr(tv_status_message(), part))
        return;
    print_error("'%s' is not in the message '%s'\n", part, tv_status_message());
    _fail(file, line);
}
