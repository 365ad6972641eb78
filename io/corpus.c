#include "io/corpus.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "io/file_identity.h"

typedef struct corpus_file {
    char *path;
    int fd;
    struct stat about; // at open
    const uint8_t *bytes;
    int64_t train_bytes;              // the front part
    int64_t held_bytes;               // the rest
    int64_t first_window, first_held; // number of the file's first start among all starts
    int64_t position;                 // of its first byte among those of all files
} corpus_file;

struct tv_corpus {
    corpus_file *files;
    int64_t count;
    int64_t window_bytes;
    int64_t windows, held_starts;
    int64_t train_bytes, held_bytes;
    tv_hash128 identity;
};

// Starts of windows within a piece of text.
static int64_t starts_of(int64_t bytes, int64_t window_bytes)
{
    return bytes < window_bytes ? 0 : bytes - window_bytes + 1;
}

static tv_status open_file(corpus_file *file, const char *path)
{
    file->path = strdup(path);
    if (!file->path)
        return TV_FAIL(TV_MEMORY, "no memory for the path %s", path);
    file->fd = tv_fault_errno(TV_FAULT_CORPUS_OPEN_POINT) ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->fd < 0)
        return TV_FAIL(TV_CORPUS, "cannot open the corpus file %s: %s; check data.train and the file's permissions",
                       path, strerror(errno));
    if (fstat(file->fd, &file->about) != 0)
        return TV_FAIL(TV_CORPUS, "cannot stat the corpus file %s: %s", path, strerror(errno));
    if (S_ISDIR(file->about.st_mode))
        return TV_FAIL(TV_CORPUS, "%s is a folder; name the files in it", path);
    if (!S_ISREG(file->about.st_mode))
        return TV_FAIL(TV_CORPUS, "%s is not a regular file; copy the text into one", path);
    if (file->about.st_size == 0)
        return TV_FAIL(TV_CORPUS, "the corpus file %s is empty; leave it out", path);
    void *map = mmap(NULL, (size_t)file->about.st_size, PROT_READ, MAP_PRIVATE, file->fd, 0);
    if (map == MAP_FAILED)
        return TV_FAIL(TV_CORPUS, "cannot map the corpus file %s: %s", path, strerror(errno));
    file->bytes = map;
    return TV_OK;
}

// Give the hold-out to the last files, from the end, and number the starts.
static tv_status split(tv_corpus *corpus, int64_t hold_out_bytes)
{
    int64_t total = 0, held = hold_out_bytes;
    for (int64_t i = 0; i < corpus->count; i++)
        total += corpus->files[i].about.st_size;
    if (held == TV_CORPUS_HOLD_ALL)
        held = total;
    if (held > total)
        return TV_FAIL(TV_CORPUS,
                       "the corpus has %lld bytes and %lld are to be held out; lower data.valid_bytes or add text",
                       (long long)total, (long long)held);
    corpus->held_bytes = held;
    corpus->train_bytes = total - held;
    for (int64_t i = corpus->count - 1; i >= 0; i--) {
        corpus_file *file = &corpus->files[i];
        file->held_bytes = held < file->about.st_size ? held : file->about.st_size;
        file->train_bytes = file->about.st_size - file->held_bytes;
        held -= file->held_bytes;
    }
    int64_t position = 0;
    for (int64_t i = 0; i < corpus->count; i++) {
        corpus_file *file = &corpus->files[i];
        file->first_window = corpus->windows;
        file->first_held = corpus->held_starts;
        file->position = position;
        position += file->about.st_size;
        corpus->windows += starts_of(file->train_bytes, corpus->window_bytes);
        corpus->held_starts += starts_of(file->held_bytes, corpus->window_bytes);
    }
    const char *last = corpus->files[corpus->count - 1].path;
    if (corpus->windows == 0 && hold_out_bytes != TV_CORPUS_HOLD_ALL)
        return TV_FAIL(
            TV_CORPUS,
            "no corpus file (last: %s) has the %lld bytes a window needs after %lld bytes are held out; add text, "
            "or lower model.context or data.valid_bytes",
            last, (long long)corpus->window_bytes, (long long)hold_out_bytes);
    if (corpus->held_starts == 0 && hold_out_bytes != 0)
        return TV_FAIL(TV_CORPUS,
                       "the %lld bytes held out for validation (end of %s) do not hold one window of %lld bytes; raise "
                       "data.valid_bytes or lower model.context",
                       (long long)corpus->held_bytes, last, (long long)corpus->window_bytes);
    return TV_OK;
}

static void add_content(tv_hash_stream *stream, const uint8_t *bytes, int64_t size)
{
    for (int64_t i = 0; i < tv_identity_pieces(size); i++) {
        tv_identity_piece piece = tv_identity_piece_at(size, i);
        tv_hash_stream_add(stream, bytes + piece.offset, (size_t)piece.bytes);
    }
}

static tv_status identify(tv_corpus *corpus)
{
    tv_hash_stream *stream = tv_hash_stream_new();
    if (!stream)
        return TV_FAIL(TV_MEMORY, "no memory to hash the corpus");
    for (int64_t i = 0; i < corpus->count; i++) {
        const corpus_file *file = &corpus->files[i];
        size_t size = (size_t)file->about.st_size;
        unsigned char number[8];
        for (int k = 0; k < 8; k++)
            number[k] = (unsigned char)((uint64_t)size >> (8 * k));
        tv_hash_stream_add(stream, number, sizeof number);
        add_content(stream, file->bytes, file->about.st_size);
    }
    corpus->identity = tv_hash_stream_value(stream);
    tv_hash_stream_free(stream);
    return TV_OK;
}

tv_status tv_corpus_open(const char *const *paths, int64_t count, int64_t hold_out_bytes, int64_t window_bytes,
                         tv_corpus **out)
{
    *out = NULL;
    if (count < 1)
        return TV_FAIL(TV_CORPUS, "no corpus file is given; name one in data.train");
    if (window_bytes < 1 || hold_out_bytes < TV_CORPUS_HOLD_ALL)
        return TV_FAIL(TV_CORPUS, "a window of %lld bytes and a hold-out of %lld bytes make no sense",
                       (long long)window_bytes, (long long)hold_out_bytes);
    tv_corpus *corpus = calloc(1, sizeof *corpus);
    if (!corpus || !(corpus->files = calloc((size_t)count, sizeof *corpus->files))) {
        free(corpus);
        return TV_FAIL(TV_MEMORY, "no memory for %lld corpus files", (long long)count);
    }
    corpus->count = count;
    corpus->window_bytes = window_bytes;
    for (int64_t i = 0; i < count; i++)
        corpus->files[i].fd = -1;
    tv_status st = TV_OK;
    for (int64_t i = 0; i < count; i++)
        TV_TRY_GOTO(st, done, open_file(&corpus->files[i], paths[i]));
    TV_TRY_GOTO(st, done, split(corpus, hold_out_bytes));
    TV_TRY_GOTO(st, done, tv_corpus_check(corpus)); // a file cut short since its stat would raise SIGBUS below
    TV_TRY_GOTO(st, done, identify(corpus));
    *out = corpus;
    corpus = NULL;
done:
    tv_corpus_close(corpus);
    return st;
}

void tv_corpus_close(tv_corpus *corpus)
{
    if (!corpus)
        return;
    for (int64_t i = 0; i < corpus->count; i++) {
        corpus_file *file = &corpus->files[i];
        if (file->bytes)
            munmap((void *)file->bytes, (size_t)file->about.st_size);
        if (file->fd >= 0)
            close(file->fd);
        free(file->path);
    }
    free(corpus->files);
    free(corpus);
}

// A mapping shorter than its file was must not be read: the pages past the end raise SIGBUS.
static tv_status check_size(const corpus_file *file)
{
    struct stat now;
    if (fstat(file->fd, &now) != 0)
        return TV_FAIL(TV_CORPUS, "cannot stat the corpus file %s: %s", file->path, strerror(errno));
    if (now.st_size != file->about.st_size)
        return TV_FAIL(
            TV_CORPUS,
            "the corpus file %s had %lld bytes when the run opened it and has %lld now; restore it and resume",
            file->path, (long long)file->about.st_size, (long long)now.st_size);
    return TV_OK;
}

tv_status tv_corpus_check(const tv_corpus *corpus)
{
    for (int64_t i = 0; i < corpus->count; i++) {
        const corpus_file *file = &corpus->files[i];
        struct stat opened, named;
        TV_TRY(check_size(file));
        if (fstat(file->fd, &opened) != 0 || stat(file->path, &named) != 0)
            return TV_FAIL(TV_CORPUS, "the corpus file %s cannot be found any more: %s; restore it and resume",
                           file->path, strerror(errno));
        if (named.st_ino != opened.st_ino || named.st_dev != opened.st_dev)
            return TV_FAIL(TV_CORPUS,
                           "the corpus file %s was replaced by another file during the run; restore it and resume",
                           file->path);
        if (!tv_same_time(&opened, &file->about))
            return TV_FAIL(TV_CORPUS, "the corpus file %s was written to during the run; restore it and resume",
                           file->path);
    }
    return TV_OK;
}

int64_t tv_corpus_windows(const tv_corpus *corpus) { return corpus->windows; }

// Last file whose first start (training or held) is not above `start`; it is the one that has it.
static const corpus_file *find_file(const tv_corpus *corpus, int64_t start, int held)
{
    int64_t low = 0, high = corpus->count;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        const corpus_file *file = &corpus->files[middle];
        if ((held ? file->first_held : file->first_window) <= start)
            low = middle;
        else
            high = middle;
    }
    return &corpus->files[low];
}

static tv_corpus_span span_of(const corpus_file *file, int64_t start, int64_t end)
{
    return (tv_corpus_span){.bytes = file->bytes + start, .position = file->position + start, .left = end - start};
}

tv_status tv_corpus_window_span(const tv_corpus *corpus, int64_t index, tv_corpus_span *span)
{
    if (index < 0 || index >= corpus->windows)
        return TV_FAIL(TV_INTERNAL, "window %lld of a corpus with %lld", (long long)index, (long long)corpus->windows);
    const corpus_file *file = find_file(corpus, index, 0);
    if (tv_fault_errno(TV_FAULT_CORPUS_READ_POINT))
        return TV_FAIL(TV_CORPUS, "cannot read the corpus file %s: %s", file->path, strerror(errno));
    TV_TRY(check_size(file));
    *span = span_of(file, index - file->first_window, file->train_bytes);
    return TV_OK;
}

tv_status tv_corpus_window(const tv_corpus *corpus, int64_t index, const uint8_t **bytes)
{
    tv_corpus_span span;
    TV_TRY(tv_corpus_window_span(corpus, index, &span));
    *bytes = span.bytes;
    return TV_OK;
}

int64_t tv_corpus_held_windows(const tv_corpus *corpus, int64_t wanted)
{
    if (corpus->held_starts == 0 || wanted < 1)
        return 0;
    int64_t apart = (corpus->held_starts - 1) / corpus->window_bytes + 1; // that many fit without overlap
    return wanted < apart ? wanted : apart;
}

tv_status tv_corpus_held_span(const tv_corpus *corpus, int64_t index, int64_t windows, tv_corpus_span *span)
{
    if (index < 0 || index >= windows || corpus->held_starts == 0)
        return TV_FAIL(TV_INTERNAL, "held-out window %lld of %lld in a text with %lld starts", (long long)index,
                       (long long)windows, (long long)corpus->held_starts);
    int64_t gaps = windows > 1 ? windows - 1 : 1;
    int64_t start = (int64_t)((__int128)index * (corpus->held_starts - 1) / gaps);
    const corpus_file *file = find_file(corpus, start, 1);
    TV_TRY(check_size(file));
    *span = span_of(file, file->train_bytes + start - file->first_held, file->about.st_size);
    return TV_OK;
}

tv_status tv_corpus_held_window(const tv_corpus *corpus, int64_t index, int64_t windows, const uint8_t **bytes)
{
    tv_corpus_span span;
    TV_TRY(tv_corpus_held_span(corpus, index, windows, &span));
    *bytes = span.bytes;
    return TV_OK;
}

int64_t tv_corpus_train_bytes(const tv_corpus *corpus) { return corpus->train_bytes; }
int64_t tv_corpus_held_bytes(const tv_corpus *corpus) { return corpus->held_bytes; }
tv_hash128 tv_corpus_identity(const tv_corpus *corpus) { return corpus->identity; }
