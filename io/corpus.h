// The training text: one or many raw files, mapped read-only, addressed as windows that never cross a file's border.
#ifndef TV_IO_CORPUS_H
#define TV_IO_CORPUS_H

#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"

typedef struct tv_corpus tv_corpus;

#define TV_CORPUS_HOLD_ALL                                                                                             \
    (-1) // hold_out_bytes: the whole text is held out (a validation file); there are no training windows

// Local. Open `count` files. hold_out_bytes: that many bytes at the end of the last files are left out of training and
// form the validation text (0: none). window_bytes: bytes a window needs (context + 1). Errors (TV_CORPUS) name the
// file and the cure: unreadable, a directory, empty, no file with window_bytes bytes after the hold-out, fewer than
// window_bytes in the hold-out.
tv_status tv_corpus_open(const char *const *paths, int64_t count, int64_t hold_out_bytes, int64_t window_bytes,
                         tv_corpus **out);
void tv_corpus_close(tv_corpus *corpus);

// Local. Number of training window starts: sum over the files of (training bytes - window_bytes + 1).
int64_t tv_corpus_windows(const tv_corpus *corpus);
// Local. The window_bytes bytes of the start with number `index` in [0, tv_corpus_windows). TV_CORPUS when the file has
// changed its size.
tv_status tv_corpus_window(const tv_corpus *corpus, int64_t index, const uint8_t **bytes);
// The same with what lies around it.
typedef struct tv_corpus_span {
    const uint8_t *bytes; // the window
    int64_t position;     // of its first byte in all files, one behind the other, held-out bytes included
    int64_t left;         // bytes from there to the end of the file's part: training or held-out
} tv_corpus_span;
tv_status tv_corpus_window_span(const tv_corpus *corpus, int64_t index, tv_corpus_span *span);
// Local. Checks every file's size and modification time against those at open (call once a step). A file that changed
// or vanished is named (TV_CORPUS); a truncated mapping is never touched after that, so there is no SIGBUS on the usual
// path.
tv_status tv_corpus_check(const tv_corpus *corpus);
// Local. The held-out text: `tv_corpus_held_windows(n)` evenly spaced windows, at most n and without overlap where the
// text is long enough: window i of W starts at floor(i (len - window_bytes) / max(W - 1, 1)). A hold-out over several
// files numbers the starts that cross no border, S of them, one file after the other, and len - window_bytes becomes S
// - 1.
int64_t tv_corpus_held_windows(const tv_corpus *corpus, int64_t wanted);
tv_status tv_corpus_held_window(const tv_corpus *corpus, int64_t index, int64_t windows, const uint8_t **bytes);
tv_status tv_corpus_held_span(const tv_corpus *corpus, int64_t index, int64_t windows, tv_corpus_span *span);
// Local. Total training bytes, held-out bytes; identity: XXH3-128 over each file's size and bytes (of a file
// above 256 MiB 256 evenly spaced MiB, the first and last among them).
int64_t tv_corpus_train_bytes(const tv_corpus *corpus);
int64_t tv_corpus_held_bytes(const tv_corpus *corpus);
tv_hash128 tv_corpus_identity(const tv_corpus *corpus);

#endif
