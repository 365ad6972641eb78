#include "fuzz_folder.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fuzz_target.h"

enum { FILES_MAX = 8, PATH_BYTES = 512 };

static char folder[PATH_BYTES / 2];
static char paths[FILES_MAX][PATH_BYTES];
static int count;

static void remove_folder(void)
{
    for (int i = 0; i < count; i++)
        unlink(paths[i]);
    rmdir(folder);
}

static const char *path_of(const char *name)
{
    char path[PATH_BYTES];
    if (!folder[0]) {
        const char *place = getenv("TMPDIR");
        snprintf(folder, sizeof folder, "%s/trivote-fuzz-XXXXXX", place && *place ? place : "/tmp");
        FUZZ_EXPECT(mkdtemp(folder) && atexit(remove_folder) == 0);
    }
    snprintf(path, sizeof path, "%s/%s", folder, name);
    for (int i = 0; i < count; i++)
        if (strcmp(paths[i], path) == 0)
            return paths[i];
    FUZZ_EXPECT(count < FILES_MAX);
    return strcpy(paths[count++], path);
}

const char *fuzz_file(const char *name, const void *data, size_t bytes)
{
    const char *path = path_of(name);
    FILE *file = fopen(path, "wb");
    FUZZ_EXPECT(file && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0);
    return path;
}
