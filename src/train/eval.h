// Bits per byte on held-out windows, split over the ranks; the same number for any rank count.
#ifndef TV_TRAIN_EVAL_H
#define TV_TRAIN_EVAL_H

#include <stdint.h>

#include "base/status.h"
#include "comm/comm.h"
#include "io/corpus.h"
#include "model/model.h"
#include "train/trainer.h"

typedef struct tv_eval_args {
    tv_comm *comm;
    const tv_backend *backend;
    tv_model *model;
    tv_batch *batch;
    const tv_corpus *corpus;
    int held;        // 1: the corpus' held-out end; 0: the whole corpus
    int64_t windows; // wanted; fewer are used when the text is short
} tv_eval_args;

typedef struct tv_eval_report {
    int64_t windows, bytes; // evaluated
    double loss;            // nats a byte
    double bpb;             // loss / ln 2
} tv_eval_report;

// Collective. Window w of W starts at floor(w (n - 1) / max(W - 1, 1)) of the n starts; W = min(windows, n / context, at least 1).
// Batches of the plan's windows go to the ranks in turn; per-window losses are gathered and added in window order.
tv_status tv_eval_run(const tv_eval_args *args, tv_eval_report *report);

#endif
