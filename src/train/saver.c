#include "train/saver.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "comm/watch.h"
#include "train/requests.h"
#include "train/resume.h"

#define PAUSE_SECONDS 2 // between two looks at the free space

tv_status tv_saver_open(tv_saver *saver, tv_comm *comm, const tv_config *config)
{
    int64_t writers = 0;
    *saver = (tv_saver){.saved_step = -1, .begun_step = -1};
    TV_TRY(tv_comm_agree(comm, tv_config_writers(config, &writers)));
    return tv_checkpoint_writer_open(comm, writers, &saver->writer);
}

static tv_status attach_local(tv_saver *saver)
{
    tv_params *params = &saver->trainer->model.params;
    tv_state_array *arrays = NULL;
    int64_t count = 0;
    if (!saver->trainer->backend->host_memory) {
        saver->staging = malloc(tv_params_state_staging_bytes(params, 1));
        return saver->staging ? TV_OK : TV_FAIL(TV_MEMORY, "no memory to stage the state for a checkpoint");
    }
    if (!saver->trainer->config.checkpoint.async)
        return TV_OK;
    TV_TRY(tv_params_state(params, 1, NULL, 0, &arrays, &count));
    tv_status st = tv_checkpoint_writer_reserve(saver->writer, arrays, count);
    free(arrays);
    return st;
}

tv_status tv_saver_attach(tv_saver *saver, tv_trainer *trainer, tv_metrics *metrics, const char *run_dir)
{
    saver->trainer = trainer;
    saver->metrics = metrics;
    saver->run_dir = run_dir;
    return tv_comm_agree(trainer->comm, attach_local(saver));
}

void tv_saver_close(tv_saver *saver)
{
    tv_checkpoint_writer_close(saver->writer);
    free(saver->staging);
    *saver = (tv_saver){0};
}

uint64_t tv_saver_flags(const tv_saver *saver) { return tv_checkpoint_save_busy(saver->writer) ? TV_FLAG_SAVING : 0; }

// ---- one save

static tv_status start_with(tv_saver *saver, const tv_checkpoint_info *info)
{
    tv_trainer *t = saver->trainer;
    tv_state_array *arrays = NULL;
    int64_t count = 0;
    tv_status st = tv_params_state(&t->model.params, 1, saver->staging, 1, &arrays, &count);
    TV_TRY_GOTO(st, done, tv_comm_agree(t->comm, st));
    st = tv_checkpoint_save_start(saver->writer, &(tv_save_args){
                                                     .run_dir = saver->run_dir,
                                                     .info = info,
                                                     .arrays = arrays,
                                                     .count = count,
                                                     .background = (int)t->config.checkpoint.async,
                                                     .kept = saver->staging != NULL,
                                                     .keep = t->config.checkpoint.keep,
                                                     .resumed_from = saver->resumed_from,
                                                 });
done:
    free(arrays);
    return st;
}

static tv_status start(tv_saver *saver)
{
    tv_checkpoint_info info;
    TV_TRY(tv_comm_agree(saver->trainer->comm, tv_trainer_describe(saver->trainer, &info)));
    tv_status st = start_with(saver, &info);
    tv_checkpoint_info_free(&info);
    return st;
}

static void note(tv_saver *saver, const tv_save_report *report)
{
    char hex[TV_HASH_HEX];
    if (!report->done)
        return;
    saver->saved_step = report->step;
    saver->saved_digest = report->digest;
    tv_hash_format(report->digest, hex);
    tv_metrics_save(saver->metrics, report->step, tv_clock_seconds() - saver->begun, saver->blocked, hex);
}

static tv_status finish_pending(tv_saver *saver)
{
    tv_save_report report;
    double begun = tv_clock_seconds();
    tv_watch_mark(TV_PHASE_SAVE, saver->begun_step);
    tv_status st = tv_checkpoint_save_finish(saver->writer, &report);
    saver->blocked += tv_clock_seconds() - begun;
    note(saver, &report);
    return st;
}

// The state of this step; without checkpoint.async, or with `wait`, it is on disk afterwards.
static tv_status save_now(tv_saver *saver, int wait)
{
    saver->begun = tv_clock_seconds();
    saver->blocked = 0;
    tv_watch_mark(TV_PHASE_SAVE, saver->trainer->step);
    TV_TRY(tv_trainer_check_replicas(saver->trainer));
    TV_TRY(start(saver));
    saver->blocked = tv_clock_seconds() - saver->begun;
    return wait || !saver->trainer->config.checkpoint.async ? finish_pending(saver) : TV_OK;
}

// ---- what a failure means

typedef enum verdict { FINE, LOST, NO_ROOM, FATAL } verdict;

// Collective. What happened to a save on the worst-off rank.
static tv_status judge(tv_saver *saver, tv_status st, verdict *out)
{
    if (st == TV_COMM || st == TV_HANG)
        return st;
    int64_t worst = st == TV_OK ? FINE : st == TV_DISK_FULL ? NO_ROOM : st == TV_IO || st == TV_REMOTE ? LOST : FATAL;
    TV_TRY(tv_comm_max_i64(saver->trainer->comm, &worst, 1, TV_WIRE_OTHER));
    *out = (verdict)worst;
    return TV_OK;
}

static void warn(tv_saver *saver, const char *message)
{
    if (tv_comm_rank(saver->trainer->comm) == 0)
        tv_log_warn("checkpoint at step %lld failed, training goes on: %s", (long long)saver->begun_step, message);
}

static int64_t bytes_needed(tv_saver *saver)
{
    tv_state_array *arrays = NULL;
    int64_t count = 0, bytes = 0;
    if (tv_params_state(&saver->trainer->model.params, 1, saver->staging, 0, &arrays, &count) == TV_OK)
        bytes = tv_checkpoint_size_bytes(arrays, count);
    free(arrays);
    return bytes;
}

// Collective. Returns when there is room, or with *stopped when somebody asks the run to stop. All ranks meet at each look, so that none is
// missed by the others.
static tv_status wait_for_room(tv_saver *saver, int64_t needed, int *stopped)
{
    int64_t state[2] = {0, 0}; // room, stop
    while (!state[0] && !state[1]) {
        int64_t free_bytes = 0;
        nanosleep(&(struct timespec){.tv_sec = PAUSE_SECONDS}, NULL);
        tv_watch_moves();
        int root = tv_comm_rank(saver->trainer->comm) == 0;
        state[0] = root && tv_checkpoint_free_bytes(saver->run_dir, &free_bytes) == TV_OK && free_bytes >= needed;
        state[1] = saver->requests && tv_requests_stop(saver->requests) != 0;
        TV_TRY(tv_comm_max_i64(saver->trainer->comm, state, 2, TV_WIRE_OTHER));
    }
    *stopped = state[1] && !state[0];
    return TV_OK;
}

// No room with checkpoint.on_disk_full=pause: training stands still, then this step's state is saved. *st and *v: how that went.
static tv_status pause_and_save(tv_saver *saver, tv_status *st, verdict *v)
{
    int stopped = 0;
    int64_t needed = bytes_needed(saver);
    if (tv_comm_rank(saver->trainer->comm) == 0)
        tv_log_warn("training pauses at step %lld until %s has room for a checkpoint (up to %lld bytes): %s",
                    (long long)saver->trainer->step, saver->run_dir, (long long)needed, tv_status_message());
    saver->begun_step = saver->trainer->step;
    while (*v == NO_ROOM) {
        TV_TRY(wait_for_room(saver, needed, &stopped));
        if (stopped)
            return TV_FAIL(TV_DISK_FULL, "stopped on request while waiting for room in %s; step %lld is not saved",
                           saver->run_dir, (long long)saver->trainer->step);
        *st = save_now(saver, 1);
        TV_TRY(judge(saver, *st, v));
    }
    return TV_OK;
}

// Takes the policy's way after a save; `st` is this rank's outcome.
static tv_status settle(tv_saver *saver, tv_status st)
{
    verdict v = FINE;
    TV_TRY(judge(saver, st, &v));
    int64_t full = saver->trainer->config.checkpoint.on_disk_full;
    if (v == NO_ROOM && full == TV_FULL_PAUSE)
        TV_TRY(pause_and_save(saver, &st, &v));
    if (v == NO_ROOM && full == TV_FULL_STOP)
        return TV_FAIL(TV_DISK_FULL, "the run ends after step %lld, as checkpoint.on_disk_full=stop asks: %.800s",
                       (long long)saver->trainer->step, tv_status_message());
    if (v == FATAL)
        return st;
    if (v != FINE)
        warn(saver, tv_status_message());
    return TV_OK;
}

// ---- the run's calls

tv_status tv_saver_poll(tv_saver *saver, uint64_t flags)
{
    tv_save_report report;
    if (!tv_checkpoint_save_pending(saver->writer) || (flags & TV_FLAG_SAVING))
        return TV_OK;
    double begun = tv_clock_seconds();
    tv_status st = tv_checkpoint_save_advance(saver->writer, &report);
    saver->blocked += tv_clock_seconds() - begun;
    note(saver, &report);
    // A save that goes on has failed nowhere.
    return st == TV_OK ? TV_OK : settle(saver, st);
}

tv_status tv_saver_save(tv_saver *saver, int asked)
{
    const tv_config_checkpoint *config = &saver->trainer->config.checkpoint;
    int64_t step = saver->trainer->step;
    if (saver->saved_step == step)
        return TV_OK;
    if (tv_checkpoint_save_pending(saver->writer)) {
        if (saver->begun_step == step)
            return TV_OK;
        if (config->when_busy == TV_BUSY_SKIP && !asked) {
            tv_log_info("no checkpoint at step %lld: that of step %lld is still being written", (long long)step,
                        (long long)saver->begun_step);
            return TV_OK;
        }
        TV_TRY(settle(saver, finish_pending(saver)));
        if (saver->saved_step == step)
            return TV_OK;
    }
    saver->begun_step = step;
    return settle(saver, save_now(saver, 0));
}

tv_status tv_saver_finish(tv_saver *saver)
{
    if (tv_checkpoint_save_pending(saver->writer))
        TV_TRY(settle(saver, finish_pending(saver)));
    if (saver->saved_step == saver->trainer->step)
        return TV_OK;
    saver->begun_step = saver->trainer->step;
    tv_status st = save_now(saver, 1);
    verdict v = FINE;
    TV_TRY(judge(saver, st, &v));
    if (v == NO_ROOM && saver->trainer->config.checkpoint.on_disk_full == TV_FULL_PAUSE)
        TV_TRY(pause_and_save(saver, &st, &v));
    return st;
}

void tv_saver_rescue(tv_saver *saver)
{
    if (saver->writer && tv_checkpoint_save_pending(saver->writer) && finish_pending(saver) != TV_OK)
        tv_log_warn("the checkpoint of step %lld is not finished: %s", (long long)saver->begun_step,
                    tv_status_message());
}
