#include "command.h"

#include <string.h>

#include "io/checkpoint.h"
#include "train/resume.h"

tv_status tv_command_config(const char *path, const char *const *sets, int64_t set_count, tv_config *config)
{
    TV_TRY(tv_config_init(config));
    tv_status st = tv_config_read_file(config, path);
    for (int64_t i = 0; st == TV_OK && i < set_count; i++)
        st = tv_config_set(config, sets[i]);
    if (st == TV_OK)
        st = tv_config_check(config);
    if (st != TV_OK)
        tv_config_free(config);
    return st;
}

tv_status tv_command_backend(const char *name, tv_comm *comm, int threads, const tv_backend **backend)
{
    const tv_backend *found = NULL;
    tv_status st = tv_backend_find(name, &found);
    if (st == TV_OK)
        st = found->open(tv_comm_local_rank(comm), tv_comm_local_size(comm), threads);
    if (st == TV_OK)
        *backend = found;
    return tv_comm_agree(comm, st);
}

static tv_status load_local(const char *dir, tv_comm *comm, int64_t windows, tv_loaded *out)
{
    tv_checkpoint *checkpoint = NULL;
    tv_status st;
    TV_TRY_GOTO(st, done, tv_checkpoint_open(dir, tv_comm_rank(comm) == 0, &checkpoint));
    const tv_checkpoint_info *info = tv_checkpoint_describe(checkpoint);
    TV_TRY_GOTO(st, done, tv_config_read_text(&out->config, dir, info->config_text, strlen(info->config_text)));
    out->step = info->step;
    tv_params_layout_args layout = {.backend = out->backend, .rank = 0, .ranks = 1, .vote_bits = 8};
    TV_TRY_GOTO(st, done, tv_model_create(&out->model, &out->config));
    if (windows == 0)
        windows = out->config.train.unit_windows;
    TV_TRY_GOTO(st, done, tv_model_plan(&out->model, &layout, windows * out->config.model.context));
    st = tv_model_load(&out->model, checkpoint, 0);
done:
    tv_checkpoint_close(checkpoint);
    return st;
}

tv_status tv_command_load(const char *dir, tv_comm *comm, int64_t windows, tv_loaded *out)
{
    *out = (tv_loaded){0};
    TV_TRY(tv_config_init(&out->config));
    TV_TRY(tv_command_backend(out->config.run.backend, comm, 0, &out->backend));
    return tv_comm_agree(comm, load_local(dir, comm, windows, out));
}

void tv_command_unload(tv_loaded *loaded)
{
    tv_model_free(&loaded->model);
    tv_config_free(&loaded->config);
    if (loaded->backend)
        loaded->backend->close();
}
