// One training step: this rank's units, the guard before the last one's backward, the vote exchange beside it, ballot.
#include <math.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/fault.h"
#include "comm/guard.h"
#include "comm/watch.h"
#include "train/sampler.h"
#include "train/trainer.h"

// Time since *mark, which moves to now.
static double lap(double *mark)
{
    double now = tv_clock_seconds(), spent = now - *mark;
    *mark = now;
    return spent;
}

// Of a window of this step, counted over all units.
static int64_t window_start(const tv_trainer *trainer, int64_t element)
{
    const tv_config *config = &trainer->config;
    int64_t n = tv_corpus_windows(trainer->train_text);
    if (config->data.order == TV_ORDER_RANDOM)
        return tv_sample_window((uint32_t)config->train.seed, trainer->step, element, n);
    return tv_stream_window(trainer->step, element, config->train.units * config->train.unit_windows,
                            config->model.context, n);
}

static tv_status load_unit(tv_trainer *trainer, int64_t unit)
{
    const tv_config *config = &trainer->config;
    int64_t windows = config->train.unit_windows, context = config->model.context;
    tv_batch *batch = &trainer->batch;
    tv_modalities_begin(&trainer->modalities);
    for (int64_t w = 0; w < windows; w++) {
        tv_corpus_span span;
        const tv_window_place place = {.window = w, .ids = batch->host_ids, .targets = batch->host_targets};
        TV_TRY(tv_corpus_window_span(trainer->train_text, window_start(trainer, unit * windows + w), &span));
        TV_TRY(tv_modalities_window(&trainer->modalities, &span, &place));
    }
    trainer->predicted += trainer->modalities.predicted;
    TV_TRY(tv_modalities_upload(&trainer->modalities));
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
    tv_fault_spoil(TV_FAULT_STEP_GRADIENT_POINT, batch->window_loss, (size_t)windows * sizeof(float));
    for (int64_t w = 0; w < windows; w++)
        sum += (double)batch->window_loss[w];
    trainer->unit_loss[unit] = sum / (double)trainer->modalities.predicted;
    if (fault || !isfinite(sum))
        return TV_FAIL(TV_NUMERIC, "step %lld, unit %lld: NaN or Inf in %s; nothing of this step was applied",
                       (long long)trainer->step + 1, (long long)unit,
                       isfinite(sum) ? "an activation or gradient" : "the loss");
    return TV_OK;
}

// With experts split over ranks, or codebooks, every forward and backward of a group's ranks meets the others': one that failed between
// them goes on with units of no tokens until the guard.
static int in_lockstep(const tv_trainer *trainer) { return tv_params_in_lockstep(&trainer->model.params); }

// The verdict of a forward or backward becomes this rank's. In lockstep a rank that failed inside has lost its place among
// the exchanges, and can only leave.
static tv_status settle(tv_trainer *trainer, tv_status st, tv_status *mine)
{
    if (st == TV_OK)
        return TV_OK;
    if (in_lockstep(trainer)) {
        tv_comm_abandon(trainer->comm);
        return st;
    }
    *mine = st;
    return TV_OK;
}

static tv_unit describe_unit(tv_trainer *trainer, int64_t unit)
{
    const tv_config *config = &trainer->config;
    tv_unit work = {
        .backend = trainer->backend,
        .params = &trainer->model.params,
        .tokens = trainer->unit_tokens,
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
        .timed = (int)config->run.log_parts,
        .comm = trainer->comm,
        .experts = trainer->places.experts,
    };
    if (work.tokens > 0)
        tv_modalities_describe(&trainer->modalities, &work);
    return work;
}

// *mine is this rank's verdict on the step so far, here and below; an error that is returned ends the step at once.
static tv_status forward(tv_trainer *trainer, int64_t unit, tv_status *mine, tv_step_report *report, double *mark)
{
    const tv_config *config = &trainer->config;
    tv_watch_moves();
    if (*mine == TV_OK)
        *mine = load_unit(trainer, unit);
    report->times.data += lap(mark);
    if (*mine != TV_OK && !in_lockstep(trainer))
        return TV_OK;
    trainer->unit_tokens = *mine == TV_OK ? config->train.unit_windows * config->model.context : 0;
    tv_unit work = describe_unit(trainer, unit);
    tv_range_push(trainer->backend, "forward");
    tv_fault_at(TV_FAULT_STEP_FORWARD_POINT);
    tv_status st = tv_model_forward(&trainer->model, &work);
    if (st == TV_OK)
        st = trainer->backend->sync(NULL);
    tv_range_pop(trainer->backend);
    report->times.forward += lap(mark);
    return settle(trainer, st, mine);
}

// The seconds that a backward waits for votes that travel meanwhile: in host memory an exchange is done when it is asked for.
typedef struct exchange_watch {
    tv_trainer *trainer;
    double spent;
} exchange_watch;

static tv_status votes_are_final(void *listener, int64_t first)
{
    exchange_watch *watch = listener;
    double start = tv_clock_seconds();
    tv_range_push(watch->trainer->backend, "exchange");
    tv_status st = tv_ballot_exchange_ready(&watch->trainer->box, first);
    tv_range_pop(watch->trainer->backend);
    if (watch->trainer->backend->host_memory)
        watch->spent += tv_clock_seconds() - start;
    return st;
}

// In the last unit of the step each part's votes travel as soon as the part is done.
static tv_status backward(tv_trainer *trainer, int64_t unit, tv_status *mine, tv_step_report *report, double *mark)
{
    if (*mine != TV_OK && !in_lockstep(trainer))
        return TV_OK;
    tv_unit work = describe_unit(trainer, unit);
    exchange_watch watch = {.trainer = trainer};
    if (unit == trainer->first_unit + trainer->unit_count - 1) {
        work.voted = votes_are_final;
        work.listener = &watch;
    }
    tv_range_push(trainer->backend, "backward");
    tv_status st = settle(trainer, tv_model_backward(&trainer->model, &work), mine);
    if (st == TV_OK && *mine == TV_OK)
        *mine = read_unit_loss(trainer, unit);
    tv_range_pop(trainer->backend);
    report->times.backward += lap(mark) - watch.spent;
    report->times.exchange += watch.spent;
    trainer->units_run += *mine == TV_OK;
    return st;
}

static tv_status start_units(tv_trainer *trainer)
{
    tv_unit none = describe_unit(trainer, trainer->first_unit);
    none.tokens = 0;
    trainer->predicted = 0;
    TV_TRY(tv_corpus_check(trainer->train_text));
    TV_TRY(trainer->backend->zero(trainer->batch.fault, sizeof(int32_t), NULL));
    TV_TRY(tv_params_clear_votes(&trainer->model.params, NULL));
    return tv_model_before_step(&trainer->model, &none);
}

// All units but the last one.
static tv_status run_units(tv_trainer *trainer, tv_status *mine, tv_step_report *report, double *mark)
{
    int64_t last = trainer->first_unit + trainer->unit_count - 1;
    tv_watch_mark(TV_PHASE_UNITS, trainer->step + 1);
    *mine = tv_fault_status(TV_FAULT_STEP_START_POINT, TV_IO);
    if (*mine == TV_OK)
        *mine = start_units(trainer);
    for (int64_t u = trainer->first_unit; u < last; u++) {
        tv_range_push(trainer->backend, "unit");
        tv_status st = forward(trainer, u, mine, report, mark);
        if (st == TV_OK)
            st = backward(trainer, u, mine, report, mark);
        tv_range_pop(trainer->backend);
        TV_TRY(st);
    }
    return TV_OK;
}

// All ranks prove that they are at the same step and tell of failures and requests. One small exchange when all is well.
static tv_status guard_step(tv_trainer *trainer, tv_status mine, uint64_t *flags)
{
    tv_guard guard = {.step = trainer->step, .config = trainer->guard_hash, .flags = *flags};
    if (trainer->requests)
        guard.flags |= trainer->requests(trainer->request_source);
    if (mine != TV_OK)
        guard.flags |= TV_FLAG_FAILED;
    TV_TRY(tv_guard_check(trainer->comm, &guard));
    *flags = guard.flags;
    return guard.flags & TV_FLAG_FAILED ? tv_comm_agree(trainer->comm, mine) : TV_OK;
}

// The exchange ends, with whatever votes there are, also on a rank that failed since the guard: the others wait for it. When
// that fails in turn, the first reason is the one to tell.
static tv_status finish_exchange(tv_trainer *trainer, tv_status mine)
{
    char reason[1024] = "";
    if (mine != TV_OK)
        snprintf(reason, sizeof reason, "%s", tv_status_message());
    tv_range_push(trainer->backend, "exchange");
    tv_status st = tv_ballot_exchange_finish(&trainer->box);
    tv_range_pop(trainer->backend);
    return st != TV_OK && mine != TV_OK ? TV_FAIL(st, "%s", reason) : st;
}

// Mean of the units' losses, gathered from all ranks and added in unit order. A rank that failed gives NaN, and then all agree
// to stop.
static tv_status gather_loss(tv_trainer *trainer, tv_status mine, double *loss)
{
    int64_t units = trainer->config.train.units;
    if (mine != TV_OK)
        trainer->unit_loss[trainer->first_unit] = NAN;
    TV_TRY(tv_comm_all_gather_bytes(trainer->comm, trainer->unit_loss, (size_t)trainer->unit_count * sizeof(double),
                                    TV_WIRE_METRICS));
    double sum = 0;
    for (int64_t u = 0; u < units; u++)
        sum += trainer->unit_loss[u];
    *loss = sum / (double)units;
    return isnan(sum) ? tv_comm_agree(trainer->comm, mine) : TV_OK;
}

// Bytes predicted by all ranks: one for each token, but for those that are features.
static tv_status count_bytes(tv_trainer *trainer, int64_t *bytes)
{
    const tv_config *config = &trainer->config;
    *bytes = config->train.units * config->train.unit_windows * config->model.context;
    if (!tv_modalities_any(&trainer->modalities))
        return TV_OK;
    *bytes = trainer->predicted;
    return tv_comm_sum_i64(trainer->comm, bytes, 1, TV_WIRE_METRICS);
}

// What parts do once a step: a unit of no tokens says which.
static tv_status tell_parts(tv_trainer *trainer, double loss)
{
    tv_unit work = describe_unit(trainer, trainer->first_unit);
    const tv_step_rule rule = tv_ballot_rule(&trainer->config, trainer->step, loss);
    work.rule = &rule;
    return tv_model_after_step(&trainer->model, &work);
}

// From the summed votes to the decoded weights of the next step.
static tv_status apply_votes(tv_trainer *trainer, tv_step_report *report, double *mark)
{
    const tv_backend *backend = trainer->backend;
    tv_range_push(backend, "ballot");
    tv_status st = tv_ballot_run(&trainer->box, trainer->step, report->loss, &report->ballot);
    if (st == TV_OK)
        st = backend->sync(NULL);
    report->times.ballot = lap(mark);
    if (st == TV_OK)
        st = tv_ballot_share(&trainer->box);
    report->times.exchange += lap(mark);
    tv_range_pop(backend);
    TV_TRY(st);
    tv_range_push(backend, "decode");
    st = tv_params_decode(&trainer->model.params, 0, NULL);
    if (st == TV_OK)
        st = tell_parts(trainer, report->loss);
    if (st == TV_OK)
        st = backend->sync(NULL);
    tv_range_pop(backend);
    report->times.ballot += lap(mark);
    return st;
}

// The guard stands between its halves, since votes travel from there on.
static tv_status run_last_unit(tv_trainer *trainer, tv_status *mine, tv_step_report *report, double *mark)
{
    int64_t last = trainer->first_unit + trainer->unit_count - 1;
    TV_TRY(forward(trainer, last, mine, report, mark));
    tv_watch_mark(TV_PHASE_GUARD, trainer->step + 1);
    tv_fault_at(TV_FAULT_STEP_GUARD_POINT);
    TV_TRY(guard_step(trainer, *mine, &report->flags));
    report->times.exchange += lap(mark);
    tv_watch_mark(TV_PHASE_VOTES, trainer->step + 1);
    return backward(trainer, last, mine, report, mark);
}

static tv_status run_step(tv_trainer *trainer, tv_step_report *report)
{
    double mark = tv_clock_seconds();
    tv_status mine = TV_OK;
    TV_TRY(run_units(trainer, &mine, report, &mark));
    tv_range_push(trainer->backend, "unit");
    tv_status st = run_last_unit(trainer, &mine, report, &mark);
    tv_range_pop(trainer->backend);
    TV_TRY(st);
    TV_TRY(finish_exchange(trainer, mine));
    TV_TRY(gather_loss(trainer, mine, &report->loss));
    TV_TRY(count_bytes(trainer, &report->bytes));
    report->times.exchange += lap(&mark);
    tv_watch_mark(TV_PHASE_BALLOT, trainer->step + 1);
    tv_fault_at(TV_FAULT_STEP_BALLOT_POINT);
    return apply_votes(trainer, report, &mark);
}

tv_status tv_trainer_step(tv_trainer *trainer, uint64_t flags, tv_step_report *report)
{
    double start = tv_clock_seconds();
    *report = (tv_step_report){.flags = flags};
    tv_range_push(trainer->backend, "step");
    tv_status st = run_step(trainer, report);
    tv_range_pop(trainer->backend);
    TV_TRY(st);
    TV_TRY(tv_trainer_spoil(trainer));
    report->times.total = tv_clock_seconds() - start;
    trainer->bytes_seen += report->bytes;
    report->step = ++trainer->step;
    return TV_OK;
}
