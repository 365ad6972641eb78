#include "train/resume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/atomic_file.h"
#include "io/checkpoint.h"

tv_status tv_trainer_describe(const tv_trainer *trainer, tv_checkpoint_info *info)
{
    *info = (tv_checkpoint_info){
        .step = trainer->step,
        .bytes_seen = trainer->bytes_seen,
        .seed = trainer->config.train.seed,
        .units = trainer->config.train.units,
        .config_hash = trainer->config_hash,
        .corpus = trainer->text_identity,
    };
    snprintf(info->program, sizeof info->program, "trivote %s", TV_VERSION);
    return tv_config_text(&trainer->config, &info->config_text);
}

tv_status tv_trainer_save(tv_trainer *trainer, const char *run_dir, tv_hash128 *digest)
{
    tv_params *params = &trainer->model.params;
    tv_state_array *arrays = NULL;
    void *staging = NULL;
    int64_t count = 0;
    tv_checkpoint_info info;
    tv_status st = tv_trainer_describe(trainer, &info);
    if (st == TV_OK && !trainer->backend->host_memory) {
        staging = malloc(tv_params_state_staging_bytes(params, 1));
        if (!staging)
            st = TV_FAIL(TV_MEMORY, "no memory to stage the state for a checkpoint");
    }
    if (st == TV_OK)
        st = tv_params_state(params, 1, staging, 1, &arrays, &count);
    TV_TRY_GOTO(st, done, tv_comm_agree(trainer->comm, st));
    TV_TRY_GOTO(st, done, tv_checkpoint_save(trainer->comm, run_dir, &info, arrays, count));
    *digest = info.digest;
done:
    free(arrays);
    free(staging);
    tv_checkpoint_info_free(&info);
    return st;
}

// Every tensor of the checkpoint must be one of the model's (the other way round, reading finds out); of its parts an evaluation takes
// only some.
static tv_status check_cover(tv_checkpoint *checkpoint, const tv_state_array *arrays, int64_t count, int full)
{
    int64_t held;
    const tv_state_array *have = tv_checkpoint_arrays(checkpoint, &held);
    for (int64_t i = 0; i < held; i++) {
        int found = 0;
        for (int64_t j = 0; j < count && !found; j++)
            found = strcmp(have[i].name, arrays[j].name) == 0 && (!full || strcmp(have[i].part, arrays[j].part) == 0);
        if (!found)
            return TV_FAIL(TV_CHECKPOINT,
                           "the checkpoint holds %s/%s, which this model does not have; its config differs",
                           have[i].name, have[i].part);
    }
    return TV_OK;
}

tv_status tv_model_load(tv_model *model, struct tv_checkpoint *checkpoint, int full)
{
    tv_state_array *arrays = NULL;
    void *staging = NULL;
    int64_t count = 0;
    tv_status st;
    TV_TRY_GOTO(st, done, tv_params_state_for_load(&model->params, full, &staging, &arrays, &count));
    TV_TRY_GOTO(st, done, check_cover(checkpoint, arrays, count, full));
    TV_TRY_GOTO(st, done, tv_checkpoint_read(checkpoint, arrays, count));
    TV_TRY_GOTO(st, done, tv_params_state_loaded(&model->params, arrays, count, staging));
    TV_TRY_GOTO(st, done, tv_model_loaded(model));
    st = tv_params_decode(&model->params, 1, NULL);
done:
    free(arrays);
    free(staging);
    return st;
}

// The run that made the checkpoint had this one's config and text.
static tv_status check_origin(const tv_trainer *trainer, const tv_checkpoint_info *info, const char *dir)
{
    if (!tv_hash_equal(info->config_hash, trainer->config_hash)) {
        char key[256] = "";
        TV_TRY(tv_config_difference(&trainer->config, info->config_text, key, sizeof key));
        return TV_FAIL(
            TV_CHECKPOINT,
            "%s was made with another config (%s); resume with the same config, or start a new run with another --run",
            dir, key);
    }
    if (!tv_hash_equal(info->corpus, trainer->text_identity))
        return TV_FAIL(
            TV_CHECKPOINT,
            "%s was made with another training text%s than data.train names now; give it that text, or start "
            "a new run with another --run",
            dir, tv_modalities_any(&trainer->modalities) ? " or other features" : "");
    return TV_OK;
}

tv_status tv_trainer_check_origin(const tv_trainer *trainer, const char *dir)
{
    tv_checkpoint *checkpoint = NULL;
    TV_TRY(tv_checkpoint_open(dir, 0, &checkpoint));
    tv_status st = check_origin(trainer, tv_checkpoint_describe(checkpoint), dir);
    tv_checkpoint_close(checkpoint);
    return st;
}

static tv_status load_local(tv_trainer *trainer, const char *dir, int verify)
{
    tv_checkpoint *checkpoint = NULL;
    tv_status st;
    TV_TRY_GOTO(st, done, tv_io_fault(TV_FAULT_RESUME_LOAD_POINT));
    TV_TRY_GOTO(st, done, tv_checkpoint_open(dir, verify && tv_comm_rank(trainer->comm) == 0, &checkpoint));
    const tv_checkpoint_info *info = tv_checkpoint_describe(checkpoint);
    TV_TRY_GOTO(st, done, check_origin(trainer, info, dir));
    TV_TRY_GOTO(st, done, tv_model_load(&trainer->model, checkpoint, 1));
    trainer->step = info->step;
    trainer->bytes_seen = info->bytes_seen;
done:
    tv_checkpoint_close(checkpoint);
    return st;
}

tv_status tv_trainer_load(tv_trainer *trainer, const char *dir, int verify)
{
    return tv_comm_agree(trainer->comm, load_local(trainer, dir, verify));
}
