// When a run's state goes to disk: beside training or at once, what happens when the last save is not done or the disk is full.
#ifndef TV_TRAIN_SAVER_H
#define TV_TRAIN_SAVER_H

#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"
#include "io/checkpoint.h"
#include "train/metrics.h"
#include "train/requests.h"
#include "train/trainer.h"

typedef struct tv_saver {
    tv_trainer *trainer;
    tv_metrics *metrics;
    const char *run_dir;
    const char *resumed_from; // checkpoint folder, NULL for a fresh start
    tv_requests *requests;    // who may ask the run to stop while it waits for room; NULL: nobody
    tv_checkpoint_writer *writer;
    void *staging;      // host copy of a device's state, kept between saves
    int64_t saved_step; // of the newest checkpoint written or resumed from, -1 when none
    int64_t begun_step; // of the last save begun, -1 when none
    tv_hash128 saved_digest;
    double begun, blocked; // clock at the start of the pending save; seconds that training stood still for it
} tv_saver;

// Collective. Before the trainer is opened, so that rows travel in host memory.
tv_status tv_saver_open(tv_saver *saver, tv_comm *comm, const tv_config *config);
// Collective, once the trainer's model is there and metrics are open. Takes the memory for an async save.
tv_status tv_saver_attach(tv_saver *saver, tv_trainer *trainer, tv_metrics *metrics, const char *run_dir);
// Collective. A save that is pending is left unfinished.
void tv_saver_close(tv_saver *saver);

// Local. This rank's flag for the next step: TV_FLAG_SAVING while its thread is at work, else 0.
uint64_t tv_saver_flags(const tv_saver *saver);
// Collective, after a step. flags: of the step's report. Moves a pending save on when no rank was at work on it.
tv_status tv_saver_poll(tv_saver *saver, uint64_t flags);
// Collective. The state of this step, by cadence or, with `asked` set, on request, which never is left out. No room or a broken disk costs the
// checkpoint, not the run, unless checkpoint.on_disk_full says otherwise; any other failure is returned, the same way on all ranks.
tv_status tv_saver_save(tv_saver *saver, int asked);
// Collective. What is pending, then the state of this step, both done when it returns. Every failure but a full disk with
// checkpoint.on_disk_full=pause is returned.
tv_status tv_saver_finish(tv_saver *saver);
// Collective, on the way out of a run that failed with the same verdict on all ranks: what is pending is finished.
void tv_saver_rescue(tv_saver *saver);

#endif
