#include "command.h"

#include <string.h>

#include "base/log.h"
#include "io/checkpoint.h"
#include "train/resume.h"
#include "train/trainer.h"

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

static tv_status open_backend(const char *name, tv_comm *comm, int threads, const tv_backend **backend)
{
    const tv_backend *found = NULL;
    TV_TRY(tv_backend_find(name, &found));
    TV_TRY(found->open(tv_comm_local_rank(comm), tv_comm_local_size(comm), threads));
    *backend = found;
    return TV_OK;
}

// The GPUs when every rank has one of its own, else the host for all of them: ranks exchange votes from one kind of memory.
static tv_status open_auto(tv_comm *comm, int threads, const tv_backend **backend)
{
    tv_status st = open_backend("auto", comm, threads, backend);
    uint32_t without = st != TV_OK || (*backend)->host_memory;
    TV_TRY(tv_comm_sum_u32(comm, &without, 1, TV_WIRE_OTHER));
    if (without == 0)
        st = tv_rank_devices_check(comm, *backend);
    if ((without == 0 && st != TV_BACKEND) || (st == TV_OK && (*backend)->host_memory))
        return st;
    if (tv_comm_rank(comm) == 0)
        tv_log_warn("auto takes the CPU, since not every rank can have a GPU%s%s", st == TV_OK ? "" : ": ",
                    st == TV_OK ? "" : tv_status_message());
    if (*backend)
        (*backend)->close();
    *backend = NULL;
    st = open_backend("cpu", comm, threads, backend);
    return st == TV_OK ? st : open_backend("ref", comm, threads, backend);
}

tv_status tv_command_backend(const char *name, tv_comm *comm, int threads, const tv_backend **backend)
{
    *backend = NULL;
    if (strcmp(name, "auto") == 0)
        return tv_comm_agree(comm, open_auto(comm, threads, backend));
    TV_TRY(tv_comm_agree(comm, open_backend(name, comm, threads, backend)));
    tv_status st = tv_rank_devices_check(comm, *backend);
    if (st != TV_OK)
        (*backend)->close();
    return st;
}

// The manifest's config must be one that train would accept, and the one that its hash names.
static tv_status check_config(const char *dir, const tv_checkpoint_info *info, const tv_config *config)
{
    tv_hash128 hash;
    tv_status st = tv_config_check(config);
    if (st != TV_OK)
        return tv_status_context(TV_CHECKPOINT, "%s", dir);
    TV_TRY(tv_config_hash(config, &hash));
    if (!tv_hash_equal(hash, info->config_hash))
        return TV_FAIL(TV_CHECKPOINT, "%s: the config in the manifest is not the one that its hash names", dir);
    return TV_OK;
}

static tv_status load_local(const char *dir, tv_comm *comm, int64_t windows, tv_loaded *out, int *expert_ranks)
{
    tv_checkpoint *checkpoint = NULL;
    tv_status st;
    TV_TRY_GOTO(st, done, tv_checkpoint_open(dir, tv_comm_rank(comm) == 0, &checkpoint));
    const tv_checkpoint_info *info = tv_checkpoint_describe(checkpoint);
    TV_TRY_GOTO(st, done, tv_config_read_text(&out->config, dir, info->config_text, strlen(info->config_text)));
    TV_TRY_GOTO(st, done, check_config(dir, info, &out->config));
    out->step = info->step;
    out->config.parallel.expert_ranks = 0;
    TV_TRY_GOTO(st, done, tv_config_expert_ranks(&out->config, tv_comm_size(comm), expert_ranks));
    tv_params_layout_args layout = {.backend = out->backend,
                                    .rank = tv_comm_rank(comm),
                                    .ranks = tv_comm_size(comm),
                                    .vote_bits = 8,
                                    .expert_ranks = *expert_ranks};
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
    int expert_ranks = 1;
    *out = (tv_loaded){0};
    TV_TRY(tv_config_init(&out->config));
    TV_TRY(tv_command_backend(out->config.run.backend, comm, 0, &out->backend));
    TV_TRY(tv_comm_agree(comm, load_local(dir, comm, windows, out, &expert_ranks)));
    if (tv_params_in_lockstep(
            &out->model.params)) // nothing else of an evaluation lies in the backend's memory when it travels
        TV_TRY(tv_comm_device_open(comm, out->backend->host_memory));
    return tv_places_open(&out->places, comm, expert_ranks);
}

void tv_command_unload(tv_loaded *loaded)
{
    tv_places_close(&loaded->places);
    tv_model_free(&loaded->model);
    tv_config_free(&loaded->config);
    if (loaded->backend)
        loaded->backend->close();
}
