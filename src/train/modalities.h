// The features of a batch: which item stands in front of which window's text, and its values on the backend.
//
// A window of the text that holds the position of an item (in its first T of T + 1 bytes; the first such position p counts) becomes, for each
// modality that has an item at p, images first, a mark (IMAGE or AUDIO) and the item's feature positions (PAD), and behind them the text
// from p on, to the end of its file's part at most; then PAD. So what a window holds depends on the window alone, not on ranks. Targets: the
// last feature position has the text's first byte, a byte of text the next one, all others -1.
#ifndef TV_TRAIN_MODALITIES_H
#define TV_TRAIN_MODALITIES_H

#include <stdint.h>

#include "base/config.h"
#include "base/hash.h"
#include "io/corpus.h"
#include "io/features.h"
#include "kernels/kernels.h"
#include "model/part.h"

// Of one modality. Zeros: there are no features.
typedef struct tv_modality_batch {
    tv_features *file; // NULL: none
    int64_t frames, width;
    int64_t count;           // features in the batch
    float *host_rows, *rows; // [windows frames, F] host, backend memory
    int32_t *host_at, *at;   // [windows frames] tokens
} tv_modality_batch;

typedef struct tv_modalities {
    tv_modality_batch of[TV_MODALITIES];
    const tv_backend *backend;
    int64_t context;
    int64_t predicted; // targets of the batch that count
} tv_modalities;

// Local. Opens the config's files, or those of `paths` (NULL, or entries NULL: none), and takes memory for `windows` windows a batch. Positions are below text_bytes.
// Errors: those of tv_features_open, with the config's key. Call tv_modalities_close also after a failure.
typedef struct tv_modalities_args {
    const tv_config *config;
    const tv_backend *backend;
    const char *paths[TV_MODALITIES]; // NULL or "": none
    int64_t text_bytes;
} tv_modalities_args;
tv_status tv_modalities_open(tv_modalities *m, const tv_modalities_args *args);
void tv_modalities_close(tv_modalities *m);
// Local. 1 when some windows have features, so that a batch predicts fewer bytes than it has tokens.
int tv_modalities_any(const tv_modalities *m);
// Local. The text's identity, or with files that of text and features.
tv_hash128 tv_modalities_identity(const tv_modalities *m, tv_hash128 text);

// Local. Before a batch's windows.
void tv_modalities_begin(tv_modalities *m);
// Local. Window `window` of the batch, whose ids and targets (both host, of the whole batch) get its tokens. `span` is the window of the
// text, `origin` what is added to its position. TV_CORPUS: tv_features_read.
typedef struct tv_window_place {
    int64_t window, origin;
    int32_t *ids, *targets;
} tv_window_place;
tv_status tv_modalities_window(tv_modalities *m, const tv_corpus_span *span, const tv_window_place *place);
// Local. A text that goes on behind chosen items: the batch is one window, which begins at ids[0] (host) with the marks and features of
// items[modality] (negative: none; else below tv_features_items). *used is set to their tokens. TV_CORPUS: tv_features_read.
tv_status tv_modalities_head(tv_modalities *m, const int64_t items[TV_MODALITIES], int32_t *ids, int64_t *used);
// Local. The batch's features to the backend, and where the unit finds them.
tv_status tv_modalities_upload(tv_modalities *m);
void tv_modalities_describe(const tv_modalities *m, tv_unit *unit);

#endif
