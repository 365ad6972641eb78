#include "train/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "train/schedule.h"

void tv_rank_counts(int64_t units, char *text, int64_t bytes)
{
    int64_t used = 0;
    text[0] = 0;
    for (int64_t r = 1; r <= units && used < bytes - 24; r++)
        if (units % r == 0)
            used += snprintf(text + used, (size_t)(bytes - used), "%s%lld",
                             r == 1       ? ""
                             : r == units ? " or "
                                          : ", ",
                             (long long)r);
}

tv_status tv_rank_check(int64_t units, int64_t ranks)
{
    char counts[256];
    if (ranks >= 1 && units % ranks == 0)
        return TV_OK;
    tv_rank_counts(units, counts, sizeof counts);
    return TV_FAIL(TV_CONFIG,
                   "train.units = %lld cannot be shared by %lld ranks; start %s ranks, or change train.units",
                   (long long)units, (long long)ranks, counts);
}

tv_status tv_rank_devices_check(tv_comm *comm, const tv_backend *backend)
{
    static const unsigned char none[TV_DEVICE_ID_BYTES];
    int rank = tv_comm_rank(comm), size = tv_comm_size(comm);
    unsigned char(*ids)[TV_DEVICE_ID_BYTES] = calloc((size_t)size, sizeof *ids);
    tv_status st = tv_comm_agree(comm, ids ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for the ids of %d devices", size));
    if (st == TV_OK && backend->device_id)
        backend->device_id(ids[rank]);
    if (st == TV_OK)
        st = tv_comm_all_gather_bytes(comm, ids, sizeof *ids, TV_WIRE_OTHER);
    for (int a = 0; st == TV_OK && a < size; a++)
        for (int b = a + 1; st == TV_OK && b < size; b++)
            if (memcmp(ids[a], ids[b], sizeof *ids) == 0 && memcmp(ids[a], none, sizeof none) != 0)
                st =
                    TV_FAIL(TV_BACKEND,
                            "ranks %d and %d would share one GPU; start at most one rank a GPU and let each see all of "
                            "them or its own alone, or take run.backend=cpu",
                            a, b);
    free(ids);
    return st;
}

tv_status tv_batch_open(tv_batch *batch, const tv_backend *backend, int64_t windows, int64_t context)
{
    size_t tokens = (size_t)(windows * context);
    void *memory;
    *batch = (tv_batch){.windows = windows};
    batch->host_ids = calloc(tokens, sizeof(int32_t));
    batch->host_targets = calloc(tokens, sizeof(int32_t));
    batch->window_loss = calloc((size_t)windows, sizeof(float));
    if (!batch->host_ids || !batch->host_targets || !batch->window_loss)
        return TV_FAIL(TV_MEMORY, "no memory for a batch of %lld windows", (long long)windows);
    TV_TRY(backend->alloc(tokens * sizeof(int32_t), &memory));
    batch->ids = memory;
    TV_TRY(backend->alloc(tokens * sizeof(int32_t), &memory));
    batch->targets = memory;
    TV_TRY(backend->alloc(sizeof(int32_t), &memory));
    batch->fault = memory;
    return TV_OK;
}

void tv_batch_close(tv_batch *batch, const tv_backend *backend)
{
    free(batch->host_ids);
    free(batch->host_targets);
    free(batch->window_loss);
    if (backend) {
        backend->free(batch->ids);
        backend->free(batch->targets);
        backend->free(batch->fault);
    }
    *batch = (tv_batch){0};
}

static int64_t text_bytes(const tv_corpus *text)
{
    return text ? tv_corpus_train_bytes(text) + tv_corpus_held_bytes(text) : 0;
}

int64_t tv_trainer_valid_origin(const tv_trainer *trainer)
{
    return trainer->valid_text ? text_bytes(trainer->train_text) : 0;
}

static tv_status open_features(tv_trainer *trainer)
{
    const tv_config_data *data = &trainer->config.data;
    tv_modalities_args args = {.config = &trainer->config,
                               .backend = trainer->backend,
                               .paths = {[TV_IMAGE] = data->image_features, [TV_AUDIO] = data->audio_features},
                               .text_bytes = text_bytes(trainer->train_text) + text_bytes(trainer->valid_text)};
    TV_TRY(tv_modalities_open(&trainer->modalities, &args));
    trainer->text_identity = tv_modalities_identity(&trainer->modalities, tv_corpus_identity(trainer->train_text));
    return TV_OK;
}

// The texts: data.valid as a corpus of its own, or the last valid_bytes of the training files.
static tv_status open_texts(tv_trainer *trainer)
{
    const tv_config_data *data = &trainer->config.data;
    int64_t window = trainer->config.model.context + 1;
    int own_valid = data->valid && data->valid[0];
    TV_TRY(tv_corpus_open((const char *const *)data->train, data->train_count, own_valid ? 0 : data->valid_bytes,
                          window, &trainer->train_text));
    if (own_valid) {
        const char *paths[1] = {data->valid};
        TV_TRY(tv_corpus_open(paths, 1, TV_CORPUS_HOLD_ALL, window, &trainer->valid_text));
    }
    return open_features(trainer);
}

static tv_status open_model(tv_trainer *trainer, int expert_ranks)
{
    const tv_config *config = &trainer->config;
    int64_t limit = config->train.units * config->vote.levels;
    tv_params_layout_args layout = {
        .backend = trainer->backend,
        .rank = tv_comm_rank(trainer->comm),
        .ranks = tv_comm_size(trainer->comm),
        .sharded = config->vote.exchange == TV_EXCHANGE_SHARDED,
        .training = 1,
        .vote_bits = limit <= 127 ? 8 : 16,
        .expert_ranks = expert_ranks,
        .table_ranks = (int)config->parallel.table_ranks,
    };
    TV_TRY(tv_model_create(&trainer->model, config));
    TV_TRY(tv_model_plan(&trainer->model, &layout, config->train.unit_windows * config->model.context));
    TV_TRY(
        tv_params_initialise(&trainer->model.params, (uint32_t)config->train.seed, tv_schedule_threshold(config, 0)));
    TV_TRY(tv_params_decode(&trainer->model.params, 1, NULL));
    return tv_batch_open(&trainer->batch, trainer->backend, config->train.unit_windows, config->model.context);
}

// Ranks that sum their votes in other forms or buckets, or over other replicas, would wait for each other for ever.
static tv_hash128 hash_for_guard(const tv_trainer *trainer, int expert_ranks)
{
    const tv_config_vote *vote = &trainer->config.vote;
    const uint64_t all[6] = {trainer->config_hash.low, trainer->config_hash.high,
                             (uint64_t)vote->exchange, (uint64_t)vote->bucket_bytes,
                             (uint64_t)expert_ranks,   (uint64_t)trainer->config.parallel.table_ranks};
    return tv_hash_bytes(all, sizeof all);
}

static tv_status open_local(tv_trainer *trainer, int *expert_ranks)
{
    int64_t ranks = tv_comm_size(trainer->comm), units = trainer->config.train.units;
    TV_TRY(tv_rank_check(units, ranks));
    TV_TRY(tv_config_expert_ranks(&trainer->config, (int)ranks, expert_ranks));
    trainer->unit_count = units / ranks;
    trainer->first_unit = tv_comm_rank(trainer->comm) * trainer->unit_count;
    trainer->unit_loss = calloc((size_t)units, sizeof(double));
    if (!trainer->unit_loss)
        return TV_FAIL(TV_MEMORY, "no memory for the losses of %lld units", (long long)units);
    TV_TRY(tv_config_hash(&trainer->config, &trainer->config_hash));
    trainer->guard_hash = hash_for_guard(trainer, *expert_ranks);
    TV_TRY(open_texts(trainer));
    return open_model(trainer, *expert_ranks);
}

tv_status tv_trainer_open(tv_trainer *trainer, const tv_config *config, tv_comm *comm, const tv_backend *backend)
{
    int expert_ranks = 1;
    *trainer = (tv_trainer){.config = *config, .comm = comm, .backend = backend};
    TV_TRY(tv_comm_agree(comm, open_local(trainer, &expert_ranks)));
    TV_TRY(tv_comm_device_open(comm, backend->host_memory));
    TV_TRY(tv_places_open(&trainer->places, comm, expert_ranks));
    return tv_comm_agree(comm,
                         tv_ballot_box_open(&trainer->box, &trainer->model.params, &trainer->places, &trainer->config));
}

void tv_trainer_close(tv_trainer *trainer)
{
    tv_batch_close(&trainer->batch, trainer->backend);
    tv_ballot_box_close(&trainer->box);
    tv_places_close(&trainer->places);
    tv_model_free(&trainer->model);
    tv_modalities_close(&trainer->modalities);
    tv_corpus_close(trainer->train_text);
    tv_corpus_close(trainer->valid_text);
    free(trainer->unit_loss);
    *trainer = (tv_trainer){0};
}

tv_status tv_trainer_digest(tv_trainer *trainer, tv_hash128 *digest)
{
    tv_params *params = &trainer->model.params;
    tv_state_array *arrays = NULL;
    tv_hash128 *sums = NULL;
    void *staging = NULL;
    int64_t count = 0;
    tv_status st = TV_OK;
    if (!trainer->backend->host_memory) {
        staging = malloc(tv_params_state_staging_bytes(params, 1));
        if (!staging)
            return TV_FAIL(TV_MEMORY, "no memory to stage the state");
    }
    TV_TRY_GOTO(st, done, tv_params_state(params, 1, staging, 1, &arrays, &count));
    sums = calloc((size_t)count, sizeof *sums);
    if (!sums) {
        st = TV_FAIL(TV_MEMORY, "no memory for the hashes of %lld arrays", (long long)count);
        goto done;
    }
    tv_state_hash(arrays, count, sums);
    TV_TRY_GOTO(st, done, tv_comm_sum_u64(trainer->comm, (uint64_t *)sums, 2 * count, TV_WIRE_OTHER));
    st = tv_state_digest(arrays, count, sums, digest);
done:
    free(sums);
    free(arrays);
    free(staging);
    return st;
}
