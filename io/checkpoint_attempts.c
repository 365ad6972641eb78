// Restarts that failed, counted beside the checkpoints: a state that ends every run is not tried for ever.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "io/atomic_file.h"
#include "io/checkpoint.h"
#include "io/checkpoint_internal.h"

enum { FILE_BYTES_MOST = 1 << 16, NAME_BYTES = 32 };

// The file's text, "" when there is none, malloc'd; NULL after a warning.
static char *read_text(const char *run_dir)
{
    char *path = NULL, *text = NULL;
    size_t bytes;
    if (tv_checkpoint_path(run_dir, "attempts", &path) != TV_OK)
        return NULL;
    if (access(path, F_OK) != 0)
        text = strdup("");
    else if (tv_file_read(path, FILE_BYTES_MOST, &text, &bytes) != TV_OK)
        tv_log_warn("failed restarts are not counted: %s", tv_status_message());
    free(path);
    return text;
}

// The count in the line of `name`, 0 when there is none. What is no such line is passed over.
static int64_t find_count(const char *text, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, name, length) == 0 && line[length] == ' ')
            return strtoll(line + length, NULL, 10);
    return 0;
}

int64_t tv_checkpoint_attempts(const char *run_dir, int64_t step)
{
    char name[NAME_BYTES], *text = read_text(run_dir);
    snprintf(name, sizeof name, "step-%09" PRId64, step);
    int64_t count = text ? find_count(text, name) : 0;
    free(text);
    return count;
}

// The text with the line of `name` set to `count`, into a stream.
static void write_lines(FILE *out, const char *text, const char *name, int64_t count)
{
    size_t length = strlen(name);
    fprintf(out, "%s %" PRId64 "\n", name, count);
    while (*text) {
        size_t line = strcspn(text, "\n");
        if (line > 0 && !(strncmp(text, name, length) == 0 && text[length] == ' '))
            fprintf(out, "%.*s\n", (int)line, text);
        text += line + (text[line] == '\n');
    }
}

static tv_status store(const char *run_dir, const char *text, const char *name, int64_t count)
{
    char *path = NULL, *new_text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&new_text, &bytes);
    if (!out)
        return TV_FAIL(TV_MEMORY, "no memory to count restarts");
    write_lines(out, text, name, count);
    tv_status st = fclose(out) == 0 ? TV_OK : TV_FAIL(TV_MEMORY, "no memory to count restarts");
    if (st == TV_OK)
        st = tv_checkpoint_path(run_dir, "attempts", &path);
    if (st == TV_OK)
        st = tv_file_replace(path, new_text, bytes);
    free(path);
    free(new_text);
    return st;
}

void tv_checkpoint_attempts_raise(const char *run_dir, const char *dir)
{
    const char *slash = strrchr(dir, '/'), *name = slash ? slash + 1 : dir;
    char *text = read_text(run_dir);
    if (text && store(run_dir, text, name, find_count(text, name) + 1) != TV_OK)
        tv_log_warn("this restart is not counted: %s", tv_status_message());
    free(text);
}

void tv_checkpoint_attempts_clear(const char *run_dir)
{
    char *path = NULL;
    if (tv_checkpoint_path(run_dir, "attempts", &path) != TV_OK)
        return;
    if (unlink(path) != 0 && errno != ENOENT)
        tv_log_warn("cannot remove %s: %s", path, strerror(errno));
    free(path);
}
