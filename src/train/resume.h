// From the trainer's state to a checkpoint folder and back.
#ifndef TV_TRAIN_RESUME_H
#define TV_TRAIN_RESUME_H

#include "base/hash.h"
#include "base/status.h"
#include "io/checkpoint.h"
#include "train/trainer.h"

// Local. What a checkpoint says besides its arrays; tv_checkpoint_info_free also after a failure.
tv_status tv_trainer_describe(const tv_trainer *trainer, tv_checkpoint_info *info);
// Local. TV_CHECKPOINT unless the checkpoint was made with this run's config and text.
tv_status tv_trainer_check_origin(const tv_trainer *trainer, const char *dir);
// Collective. Save the state as run_dir/step-N; *digest is the state's.
tv_status tv_trainer_save(tv_trainer *trainer, const char *run_dir, tv_hash128 *digest);
// Collective. Load the whole state from a checkpoint folder; verify: rank 0 hashes its files first (not needed for one that
// tv_checkpoint_newest chose). Refused (TV_CHECKPOINT): another config (the keys that differ are named), another
// corpus, tensors that the model lacks or has more of.
tv_status tv_trainer_load(tv_trainer *trainer, const char *dir, int verify);

// Local. Load T and E of a model that was planned without training from an opened checkpoint, and decode.
struct tv_checkpoint;
tv_status tv_model_load(tv_model *model, struct tv_checkpoint *checkpoint, int full);

#endif
