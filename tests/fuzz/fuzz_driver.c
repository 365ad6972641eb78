// A plain driver for fuzz targets, so that a corpus runs on every build: each file of the folders named as arguments,
// as it is, cut short at many lengths, and with bytes changed by a fixed sequence of random numbers. libFuzzer brings a
// driver of its own.
#include "fuzz_target.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

#define INPUT_BYTES_MAX (1 << 20)
enum { CUTS = 32, MUTANTS = 32, CHANGES_MAX = 4 };

// Hand over a copy of the exact size, so that a read past the end is seen by a sanitizer.
static void run_copy(const uint8_t *data, size_t bytes)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);
    if (!copy)
        return;
    if (bytes)
        memcpy(copy, data, bytes);
    LLVMFuzzerTestOneInput(copy, bytes);
    free(copy);
}

// Change one byte: to any value, to one of the format's own characters, by doubling the byte before it, or in one bit.
static void change(uint8_t *data, size_t bytes, uint64_t random)
{
    static const char marks[] = ":#-[]{}&*!|>'\"%@`,? \n\t\\0";
    size_t at = (size_t)(random >> 16) % bytes;
    switch (random & 3) {
    case 0: data[at] = (uint8_t)(random >> 8); break;
    case 1: data[at] = (uint8_t)marks[(random >> 8 & 0xFF) % (sizeof marks - 1)]; break;
    case 2: data[at] = data[at > 0 ? at - 1 : 0]; break;
    default: data[at] ^= (uint8_t)(1 << (random >> 8 & 7));
    }
}

static void run_variants(const uint8_t *data, size_t bytes)
{
    uint8_t *mutant = malloc(bytes ? bytes : 1);
    if (!mutant)
        return;
    run_copy(data, bytes);
    size_t step = bytes / CUTS + 1;
    for (size_t length = 0; length < bytes; length += step)
        run_copy(data, length);
    for (uint64_t i = 0; bytes > 0 && i < MUTANTS; i++) {
        memcpy(mutant, data, bytes);
        for (uint64_t j = 0; j <= i % CHANGES_MAX; j++)
            change(mutant, bytes, tv_rng64((tv_rng_key){.seed = 1}, i * CHANGES_MAX + j));
        run_copy(mutant, bytes);
    }
    free(mutant);
}

static int run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(INPUT_BYTES_MAX);
    size_t bytes = file && data ? fread(data, 1, INPUT_BYTES_MAX, file) : 0;
    int failed = !file || !data || ferror(file);
    if (failed)
        fprintf(stderr, "%s: cannot be read\n", path);
    else
        run_variants(data, bytes);
    if (file)
        fclose(file);
    free(data);
    return failed;
}

static int is_input(const struct dirent *entry) { return entry->d_name[0] != '.'; }

// Number of inputs run; -1 when the folder or a file cannot be read.
static int run_folder(const char *folder)
{
    struct dirent **names = NULL;
    int count = scandir(folder, &names, is_input, alphasort), failed = 0;
    for (int i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        failed |= run_file(path);
        free(names[i]);
    }
    free(names);
    return failed ? -1 : count;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int count = run_folder(argv[i]);
        if (count <= 0) {
            fprintf(stderr, "%s: no inputs\n", argv[i]);
            return 1;
        }
        printf("%s: %d inputs and their variants\n", argv[i], count);
    }
    return 0;
}
