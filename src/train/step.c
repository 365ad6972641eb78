// One training step: micro-iterations over this rank's units, guard, vote exchange, ballot.
#include <math.h>

#include "base/clock.h"
#include "comm/guard.h"
#include "train/sampler.h"
#include "train/trainer.h"

// Time since *mark, which moves to now.
static double lap(double *mark)
{
    double now = tv_clock_seconds(), spent = now - *mark;
    *mark = now;
    return spent;
}

static tv_status load_unit(tv_trainer *trainer, int64_t unit)
{
    const tv_config *config = &trainer->config;
    int64_t windows = config->train.unit_windows, context = config->model.context;
    tv_batch *batch = &trainer->batch;
    for (int64_t w = 0; w < windows; w++) {
        const uint8_t *bytes;
        int64_t start = tv_sample_window((uint32_t)config->train.seed, trainer->step, unit * windows + w,
                                         tv_corpus_windows(trainer->train_text));
        TV_TRY(tv_corpus_window(trainer->train_text, start, &bytes));
        tv_window_tokens(bytes, context, batch->host_ids + w * context, batch->host_targets + w * context);
    }
    size_t size = (size_t)(windows * context) * sizeof(int32_t);
    TV_TRY(trainer->backend->copy(batch->ids, batch->host_ids, size, TV_COPY_TO_DEVICE, NULL));
    return trainer->backend->copy(batch->targets, batch->host_targets, size, TV_COPY_TO_DEVICE, NULL);
}

// Mean loss of the unit: its window sums added in order. NaN and Inf, in the loss or in any operand, name the unit.
static tv_status read_unit_loss(tv_trainer *trainer, int64_t unit)
{
    tv_batch *batch = &trainer->batch;
    int64_t windows = trainer->config.train.unit_windows;
    int32_t fault = 0;
    double sum = 0;
    TV_TRY(trainer->backend->copy(batch->window_loss, trainer->model.window_loss, (size_t)windows * sizeof(float),
                                  TV_COPY_TO_HOST, NULL));
    TV_TRY(trainer->backend->copy(&fault, batch->fault, sizeof fault, TV_COPY_TO_HOST, NULL));
    for (int64_t w = 0; w < windows; w++)
        sum += (double)batch->window_loss[w];
    trainer->unit_loss[unit] = sum / (double)(windows * trainer->config.model.context);
    if (fault || !isfinite(sum))
        return TV_FAIL(TV_NUMERIC, "step %lld, unit %lld: NaN or Inf in %s; nothing of this step was applied",
                       (long long)trainer->step + 1, (long long)unit,
                       isfinite(sum) ? "an activation or gradient" : "the loss");
    return TV_OK;
}

static tv_status run_unit(tv_trainer *trainer, int64_t unit, tv_step_times *times, double *mark)
{
    const tv_config *config = &trainer->config;
    tv_unit work = {
        .backend = trainer->backend,
        .params = &trainer->model.params,
        .tokens = config->train.unit_windows * config->model.context,
        .context = config->model.context,
        .ids = trainer->batch.ids,
        .targets = trainer->batch.targets,
        .training = 1,
        .tau = (float)config->vote.dead_zone,
        .levels = (int)config->vote.levels,
        .seed = (uint32_t)config->train.seed,
        .step = (uint32_t)trainer->step,
        .index = (uint32_t)unit,
        .fault = trainer->batch.fault,
    };
    TV_TRY(load_unit(trainer, unit));
    times->data += lap(mark);
    TV_TRY(tv_model_forward(&trainer->model, &work));
    TV_TRY(trainer->backend->sync(NULL));
    times->forward += lap(mark);
    TV_TRY(tv_model_backward(&trainer->model, &work));
    TV_TRY(read_unit_loss(trainer, unit));
    times->backward += lap(mark);
    trainer->units_run++;
    return TV_OK;
}

static tv_status run_units(tv_trainer *trainer, tv_step_times *times, double *mark)
{
    TV_TRY(tv_corpus_check(trainer->train_text));
    TV_TRY(trainer->backend->zero(trainer->batch.fault, sizeof(int32_t), NULL));
    TV_TRY(tv_params_clear_votes(&trainer->model.params, NULL));
    for (int64_t u = 0; u < trainer->unit_count; u++)
        TV_TRY(run_unit(trainer, trainer->first_unit + u, times, mark));
    return TV_OK;
}

// All ranks prove that they are at the same step and tell of failures and requests. One small exchange when all is well.
static tv_status guard_step(tv_trainer *trainer, tv_status mine, uint64_t *flags)
{
    tv_guard guard = {.step = trainer->step, .config = trainer->config_hash, .flags = *flags};
    if (mine != TV_OK)
        guard.flags |= TV_FLAG_FAILED;
    TV_TRY(tv_guard_check(trainer->comm, &guard));
    *flags = guard.flags;
    return guard.flags & TV_FLAG_FAILED ? tv_comm_agree(trainer->comm, mine) : TV_OK;
}

// Mean of the units' losses, gathered from all ranks and added in unit order.
static tv_status gather_loss(tv_trainer *trainer, double *loss)
{
    int64_t units = trainer->config.train.units;
    TV_TRY(tv_comm_all_gather_bytes(trainer->comm, trainer->unit_loss, (size_t)trainer->unit_count * sizeof(double),
                                    TV_WIRE_METRICS));
    double sum = 0;
    for (int64_t u = 0; u < units; u++)
        sum += trainer->unit_loss[u];
    *loss = sum / (double)units;
    return TV_OK;
}

tv_status tv_trainer_step(tv_trainer *trainer, uint64_t flags, tv_step_report *report)
{
    const tv_config *config = &trainer->config;
    double start = tv_clock_seconds(), mark = start;
    *report = (tv_step_report){.flags = flags};
    tv_status mine = run_units(trainer, &report->times, &mark);
    TV_TRY(guard_step(trainer, mine, &report->flags));
    TV_TRY(gather_loss(trainer, &report->loss));
    TV_TRY(tv_ballot_exchange(&trainer->box));
    report->times.exchange = lap(&mark);
    TV_TRY(tv_ballot_run(&trainer->box, trainer->step, report->loss, &report->ballot));
    TV_TRY(trainer->backend->sync(NULL));
    report->times.ballot = lap(&mark);
    TV_TRY(tv_ballot_share(&trainer->box));
    report->times.exchange += lap(&mark);
    TV_TRY(tv_params_decode(&trainer->model.params, 0, NULL));
    TV_TRY(trainer->backend->sync(NULL));
    report->times.ballot += lap(&mark);
    report->times.total = tv_clock_seconds() - start;
    report->bytes = config->train.units * config->train.unit_windows * config->model.context;
    trainer->bytes_seen += report->bytes;
    report->step = ++trainer->step;
    return TV_OK;
}
