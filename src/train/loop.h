// A whole training run: run folder, resume, steps, evaluations, checkpoints, final line.
#ifndef TV_TRAIN_LOOP_H
#define TV_TRAIN_LOOP_H

#include "base/config.h"
#include "base/status.h"
#include "comm/comm.h"
#include "kernels/kernels.h"

typedef struct tv_train_options {
    const char *resume;
    double max_seconds; // since tv_requests_install; 0: no limit
} tv_train_options;

// Collective. resume: "auto" (newest valid checkpoint of the run folder, or a fresh start), "never" (a fresh start; refused when the
// folder holds a checkpoint), or a checkpoint folder. Ends with "final: step=N val_bpb=X digest=HEX" on rank 0.
// TV_STOPPED when a request or the time ended the run after saving.
tv_status tv_train_run(const tv_config *config, const tv_train_options *options, tv_comm *comm,
                       const tv_backend *backend);

#endif
