// One rank's trainer: model, communicator, corpus and the buffers of a step.
#ifndef TV_TRAIN_TRAINER_H
#define TV_TRAIN_TRAINER_H

#include <stdint.h>

#include "base/config.h"
#include "base/hash.h"
#include "base/state.h"
#include "comm/comm.h"
#include "io/corpus.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "train/ballot.h"
#include "train/modalities.h"
#include "train/places.h"

// Seconds spent, this rank.
typedef struct tv_step_times {
    double data, forward, backward, exchange, ballot, total;
} tv_step_times;

// What a step did. All fields but `times` are the same on every rank.
typedef struct tv_step_report {
    int64_t step;  // number of the finished step, 1-based
    double loss;   // nats a byte, mean over the step's units in unit order
    int64_t bytes; // bytes predicted in the step
    tv_ballot_report ballot;
    tv_step_times times;
    uint64_t flags; // or of all ranks' request flags
} tv_step_report;

// Requests that ranks raise and all agree on in the step's guard. TIME: the stop is for want of time. SAVING: a thread of some rank still writes its
// shard. TIMES: train/lag.h.
enum {
    TV_FLAG_FAILED = 1,
    TV_FLAG_SAVE = 2,
    TV_FLAG_STOP = 4,
    TV_FLAG_TIME = 16,
    TV_FLAG_TIMES = 1 << 8,
    TV_FLAG_SAVING = 1 << 16
};

// A batch of windows on the backend.
typedef struct tv_batch {
    int32_t *host_ids, *host_targets; // [M]
    int32_t *ids, *targets;           // [M] backend memory
    float *window_loss;               // [windows] host
    int32_t *fault;                   // [1] backend memory
    int64_t windows;                  // largest number of windows
} tv_batch;

typedef struct tv_trainer {
    tv_config config; // values; strings belong to the caller's config
    tv_comm *comm;
    const tv_backend *backend;
    tv_corpus *train_text; // training windows, and the held-out end when data.valid is empty
    tv_corpus *valid_text; // data.valid, or NULL
    tv_modalities modalities;
    tv_hash128 text_identity; // of training text and features
    tv_model model;
    tv_places places;
    tv_ballot_box box;
    tv_batch batch;
    double *unit_loss; // [U]
    tv_hash128 config_hash;
    tv_hash128 guard_hash; // of config_hash and of how votes travel: what ranks must share in a step
    int64_t step;          // steps done
    int64_t bytes_seen;
    int64_t first_unit, unit_count;     // this rank's units of every step
    int64_t unit_tokens;                // of the unit whose forward was the last
    int64_t predicted;                  // targets of this rank's units of the step
    int64_t units_run;                  // since the start of the process
    uint64_t (*requests)(void *source); // this rank's request flags, asked as late as a step can heed them; NULL: none
    void *request_source;
} tv_trainer;

// Collective. Opens the corpora, builds and plans the model, draws the initial state. Every rank returns the same verdict.
tv_status tv_trainer_open(tv_trainer *trainer, const tv_config *config, tv_comm *comm, const tv_backend *backend);
void tv_trainer_close(tv_trainer *trainer);

// Local. What the positions of features (docs/features.md) count before the text that is validated on begins.
int64_t tv_trainer_valid_origin(const tv_trainer *trainer);

// Collective. One step. `flags` are this rank's requests (TV_FLAG_SAVE, TV_FLAG_STOP); the report holds everyone's.
// A NaN or Inf in a unit's loss or operands stops all ranks before the ballot (TV_NUMERIC, the unit named); state is untouched then.
// Any other failure of a rank's own does so too, and the step can be tried again; after TV_COMM none can.
tv_status tv_trainer_step(tv_trainer *trainer, uint64_t flags, tv_step_report *report);

// Collective. Digest of the whole state.
tv_status tv_trainer_digest(tv_trainer *trainer, tv_hash128 *digest);
// Collective. Compares the hashes of all replicated tensors and side state over the ranks, those of experts over their
// replicas, and checks trits and exponents.
tv_status tv_trainer_check_replicas(tv_trainer *trainer);
// Local. The fail point state.flip: the lowest bit of the middle row of the largest tensor's packed trits.
tv_status tv_trainer_spoil(tv_trainer *trainer);

// Local. Batch buffers for `windows` windows of `context` tokens.
tv_status tv_batch_open(tv_batch *batch, const tv_backend *backend, int64_t windows, int64_t context);
void tv_batch_close(tv_batch *batch, const tv_backend *backend);

// Local. Which rank counts divide `units`: "1, 2, 3, 4, 6 or 12".
void tv_rank_counts(int64_t units, char *text, int64_t bytes);
// Local. TV_CONFIG when `ranks` does not divide `units`, naming the counts that do.
tv_status tv_rank_check(int64_t units, int64_t ranks);
// Collective. TV_BACKEND on all ranks when two of them opened the same device.
tv_status tv_rank_devices_check(tv_comm *comm, const tv_backend *backend);

#endif
