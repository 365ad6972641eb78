// The corpus on files of any sizes: it refuses them with a message, or every window lies in one file and shows that
// file's bytes.
//
// Input: number of files, hold-out (2 bytes), window; then for each file its size (2 bytes); the rest is the files'
// text, repeated.
#include "fuzz_target.h"

#include <string.h>

#include "fuzz_folder.h"
#include "io/corpus.h"

enum { FILES_MAX = 4, HEAD_BYTES = 4 + 2 * FILES_MAX, SIZE_MAX_BYTES = 2000 };

typedef struct plan {
    int64_t files, held, window, sizes[FILES_MAX];
    const char *paths[FILES_MAX];
    uint8_t text[FILES_MAX][SIZE_MAX_BYTES];
} plan;

static void make_plan(plan *p, const uint8_t *data, size_t bytes)
{
    static const char *const names[FILES_MAX] = {"a", "b", "c", "d"};
    p->files = 1 + data[0] % FILES_MAX;
    p->held = (data[1] | data[2] << 8) % 4000 - 1;
    p->window = data[3];
    for (int64_t i = 0; i < p->files; i++) {
        p->sizes[i] = (data[4 + 2 * i] | data[5 + 2 * i] << 8) % SIZE_MAX_BYTES;
        for (int64_t k = 0; k < p->sizes[i]; k++)
            p->text[i][k] = (uint8_t)(data[HEAD_BYTES + k % (int64_t)(bytes - HEAD_BYTES)] + i);
        p->paths[i] = fuzz_file(names[i], p->text[i], (size_t)p->sizes[i]);
    }
}

// Training bytes of file i: the hold-out is taken from the end.
static int64_t train_bytes(const plan *p, int64_t i)
{
    int64_t held = p->held;
    for (int64_t k = p->files - 1; k > i; k--)
        held -= p->sizes[k];
    if (p->held == TV_CORPUS_HOLD_ALL)
        return 0;
    return held <= 0 ? p->sizes[i] : held >= p->sizes[i] ? 0 : p->sizes[i] - held;
}

static void check_windows(const plan *p, const tv_corpus *corpus)
{
    int64_t window = 0, held_starts = 0;
    const uint8_t *bytes;
    for (int64_t i = 0; i < p->files; i++) {
        int64_t train = train_bytes(p, i);
        for (int64_t start = 0; start + p->window <= train; start++, window++) {
            FUZZ_EXPECT(tv_corpus_window(corpus, window, &bytes) == TV_OK);
            FUZZ_EXPECT(memcmp(bytes, p->text[i] + start, (size_t)p->window) == 0);
        }
        if (p->sizes[i] - train >= p->window)
            held_starts += p->sizes[i] - train - p->window + 1;
    }
    FUZZ_EXPECT(tv_corpus_windows(corpus) == window);
    FUZZ_EXPECT(tv_corpus_window(corpus, window, &bytes) == TV_INTERNAL);
    FUZZ_EXPECT((tv_corpus_held_windows(corpus, 100) > 0) == (held_starts > 0));
    int64_t index = 0; // with as many windows as starts, window i is start i
    for (int64_t i = 0; i < p->files; i++)
        for (int64_t start = train_bytes(p, i); start + p->window <= p->sizes[i]; start++, index++) {
            FUZZ_EXPECT(tv_corpus_held_window(corpus, index, held_starts, &bytes) == TV_OK);
            FUZZ_EXPECT(memcmp(bytes, p->text[i] + start, (size_t)p->window) == 0);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static plan p;
    tv_corpus *corpus = NULL;
    if (bytes <= HEAD_BYTES)
        return 0;
    make_plan(&p, data, bytes);
    tv_status st = tv_corpus_open(p.paths, p.files, p.held, p.window, &corpus);
    FUZZ_EXPECT(st == TV_OK || (st == TV_CORPUS && !corpus && tv_status_message()[0]));
    if (st == TV_OK) {
        FUZZ_EXPECT(tv_corpus_check(corpus) == TV_OK);
        check_windows(&p, corpus);
    }
    tv_corpus_close(corpus);
    return 0;
}
