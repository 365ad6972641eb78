// Bits per byte on held-out windows, split over the ranks; the same number for any rank count.
#ifndef TV_TRAIN_EVAL_H
#define TV_TRAIN_EVAL_H

#include <stdint.h>

#include "base/status.h"
#include "io/corpus.h"
#include "model/model.h"
#include "train/places.h"
#include "train/trainer.h"

#define TV_LN_2 0.69314718055994530942 // nats a bit

typedef struct tv_eval_args {
    const tv_places *places; // of all ranks, as the model is laid out
    const tv_backend *backend;
    tv_model *model;
    tv_batch *batch;
    const tv_corpus *corpus;           // its held-out text is evaluated
    tv_modalities *modalities;         // opened for the batch's windows, with or without files
    int64_t origin;                    // what their positions count before the corpus begins
    int64_t windows;                   // wanted; fewer are used when the text is short
    int oracle;                        // as in tv_unit; one rank only
    int (*stop_wanted)(void *context); // this rank is to leave; NULL on all ranks: the evaluation runs to its end
    void *context;
} tv_eval_args;

typedef struct tv_eval_report {
    int64_t windows, bytes; // evaluated; bytes: those that were predicted
    double loss;            // nats a byte
    double bpb;             // loss / ln 2
} tv_eval_report;

// Collective. The windows are those of tv_corpus_held_window. Batches of the plan's windows go to the ranks in turn; per-window losses are
// gathered and added in window order. Ranks ask each other before every batch whether one is to leave: then all return TV_STOPPED.
tv_status tv_eval_run(const tv_eval_args *args, tv_eval_report *report);

#endif
