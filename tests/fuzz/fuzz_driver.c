// A plain driver for fuzz targets, so that a corpus runs on every build. libFuzzer brings a driver of its own.
//
//   fuzz_NAME [--seconds N] [--seed S] [--last FILE] FOLDER
//
// Runs each file of the folder as it is, cut short at many lengths, and with bytes changed by a fixed sequence of random numbers. Then for N
// seconds: files drawn, spliced and changed, by the sequence of seed S. FILE holds the input that is running: what ended the program is there.
#include "fuzz_target.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"

#define INPUT_BYTES_MAX (1 << 20)
enum { CUTS = 32, MUTANTS = 32, CHANGES_MAX = 4, FILES_MAX = 256 };

typedef struct input {
    uint8_t *data;
    size_t bytes;
} input;

static input inputs[FILES_MAX];
static int input_count;
static int last_file = -1; // descriptor of --last

static void keep_last(const uint8_t *data, size_t bytes)
{
    if (last_file >= 0)
        FUZZ_EXPECT(ftruncate(last_file, 0) == 0 && pwrite(last_file, data, bytes, 0) == (ssize_t)bytes);
}

// Hand over a copy of the exact size, so that a read past the end is seen by a sanitizer.
static void run_copy(const uint8_t *data, size_t bytes)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);
    if (!copy)
        return;
    if (bytes)
        memcpy(copy, data, bytes);
    keep_last(copy, bytes);
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

static int read_input(const char *path, input *in)
{
    FILE *file = fopen(path, "rb");
    in->data = malloc(INPUT_BYTES_MAX);
    in->bytes = file && in->data ? fread(in->data, 1, INPUT_BYTES_MAX, file) : 0;
    int failed = !file || !in->data || ferror(file);
    if (failed)
        fprintf(stderr, "%s: cannot be read\n", path);
    if (file)
        fclose(file);
    return failed;
}

static int is_input(const struct dirent *entry) { return entry->d_name[0] != '.'; }

// Number of inputs; -1 when the folder or a file cannot be read.
static int read_folder(const char *folder)
{
    struct dirent **names = NULL;
    int count = scandir(folder, &names, is_input, alphasort), failed = 0;
    for (int i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        failed |= input_count == FILES_MAX || read_input(path, &inputs[input_count++]);
        free(names[i]);
    }
    free(names);
    return failed ? -1 : count;
}

// The head of one input, the tail of another (or of the same: bytes left out or twice), and some changes.
static void run_drawn(uint8_t *mutant, tv_rng_key key, uint64_t draw)
{
    const input *a = &inputs[tv_rng64(key, 8 * draw) % (uint64_t)input_count];
    const input *b = &inputs[tv_rng64(key, 8 * draw + 1) % (uint64_t)input_count];
    uint64_t random = tv_rng64(key, 8 * draw + 2);
    if (random & 1)
        b = a;
    size_t head = random & 2 ? (random >> 8 & 0xFFFFFF) % (a->bytes + 1) : a->bytes;
    size_t skip = random & 2 ? (random >> 32) % (b->bytes + 1) : b->bytes;
    size_t bytes = head + (b->bytes - skip);
    if (head)
        memcpy(mutant, a->data, head);
    if (b->bytes > skip)
        memcpy(mutant + head, b->data + skip, b->bytes - skip);
    for (uint64_t j = 0; bytes > 0 && j < (random >> 2) % (CHANGES_MAX + 1); j++)
        change(mutant, bytes, tv_rng64(key, 8 * draw + 3 + j));
    run_copy(mutant, bytes);
}

// Number of inputs run in that time.
static uint64_t search(double seconds, uint64_t seed)
{
    uint8_t *mutant = malloc(2 * INPUT_BYTES_MAX);
    double end = tv_clock_seconds() + seconds;
    uint64_t draw = 0;
    for (; mutant && tv_clock_seconds() < end; draw++)
        run_drawn(mutant, (tv_rng_key){.seed = (uint32_t)seed, .purpose = 1}, draw);
    free(mutant);
    return draw;
}

int main(int argc, char **argv)
{
    const char *folder = NULL, *seconds = "0", *seed = "1";
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
            seconds = argv[++i];
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = argv[++i];
        else if (strcmp(argv[i], "--last") == 0 && i + 1 < argc)
            last_file = open(argv[++i], O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        else
            folder = argv[i];
    }
    int count = folder ? read_folder(folder) : 0;
    if (count <= 0) {
        fprintf(stderr, "%s: no inputs\n", folder ? folder : "no folder given");
        return 1;
    }
    for (int i = 0; i < count; i++)
        run_variants(inputs[i].data, inputs[i].bytes);
    uint64_t drawn = search(atof(seconds), strtoull(seed, NULL, 10));
    printf("%s: %d inputs and their variants, %llu random inputs\n", folder, count, (unsigned long long)drawn);
    for (int i = 0; i < input_count; i++)
        free(inputs[i].data);
    return 0;
}
