#include "train/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "comm/hang.h"
#include "comm/watch.h"
#include "io/atomic_file.h"
#include "io/checkpoint.h"
#include "train/eval.h"
#include "train/metrics.h"
#include "train/requests.h"
#include "train/resume.h"
#include "train/saver.h"
#include "train/trainer.h"

enum { STEPS_OF_PROOF = 10 }; // after so many steps a restart has not failed

typedef struct run {
    tv_trainer trainer;
    tv_metrics metrics;
    tv_run_lock *lock;  // rank 0
    char *resumed_from; // checkpoint folder, NULL for a fresh start
    const char *dir;
    tv_saver saver;
    int64_t first_step; // where this process began
    tv_eval_report eval;
    int64_t eval_step; // step that `eval` belongs to, -1 when none
    tv_requests requests;
} run;

// Rank 0 makes and locks the run folder; the others wait for its verdict.
static tv_status open_folder(run *r, tv_comm *comm)
{
    tv_status st = TV_OK;
    if (tv_comm_rank(comm) == 0) {
        st = tv_dir_make(r->dir);
        if (st == TV_OK)
            st = tv_run_lock_take(r->dir, &r->lock);
    }
    return tv_comm_agree(comm, st);
}

// A run folder that holds checkpoints of another run must not get ours beside them. `newest` is the folder's, or NULL.
static tv_status check_owner(const run *r, const char *newest)
{
    tv_checkpoint *checkpoint = NULL;
    if (!newest)
        return TV_OK;
    tv_status st = tv_checkpoint_open(newest, 0, &checkpoint);
    if (st == TV_OK && !tv_hash_equal(tv_checkpoint_describe(checkpoint)->config_hash, r->trainer.config_hash))
        st = TV_FAIL(TV_USAGE, "run folder %s holds %s of a run with another config; give another --run", r->dir,
                     newest);
    tv_checkpoint_close(checkpoint);
    return st;
}

// Sets resumed_from: the folder that --resume names, the newest of the run folder, or NULL.
static tv_status find_checkpoint(run *r, const char *resume, tv_comm *comm)
{
    char *newest = NULL;
    if (strcmp(resume, "auto") != 0 && strcmp(resume, "never") != 0) {
        if (tv_comm_rank(comm) == 0)
            tv_checkpoint_attempts_clear(r->dir); // whoever names a folder has decided
        TV_TRY(tv_checkpoint_newest(comm, r->dir, &newest));
        tv_status st = check_owner(r, newest);
        free(newest);
        r->resumed_from = strdup(resume);
        if (!r->resumed_from)
            st = TV_FAIL(TV_MEMORY, "no memory for a folder's name");
        return tv_comm_agree(comm, st);
    }
    TV_TRY(tv_checkpoint_newest(comm, r->dir, &r->resumed_from));
    if (strcmp(resume, "never") == 0 && r->resumed_from)
        return TV_FAIL(TV_USAGE,
                       "--resume never, but run folder %s holds %s; give another --run, or --resume auto to go on",
                       r->dir, r->resumed_from);
    return TV_OK;
}

static tv_status write_config(const run *r)
{
    char path[4096], *text = NULL;
    tv_status st = tv_config_text(&r->trainer.config, &text);
    if (st == TV_OK && snprintf(path, sizeof path, "%s/config.yaml", r->dir) >= (int)sizeof path)
        st = TV_FAIL(TV_IO, "run folder's name is too long: %s", r->dir);
    if (st == TV_OK)
        st = tv_file_replace(path, text, strlen(text));
    free(text);
    return st;
}

// A restart counts until the run has shown that it gets somewhere (forget_attempts). One that is refused for its config or text does not.
static void count_attempt(const run *r)
{
    if (tv_comm_rank(r->trainer.comm) == 0 && tv_trainer_check_origin(&r->trainer, r->resumed_from) == TV_OK)
        tv_checkpoint_attempts_raise(r->dir, r->resumed_from);
}

static void forget_attempts(const run *r)
{
    if (r->resumed_from && tv_comm_rank(r->trainer.comm) == 0)
        tv_checkpoint_attempts_clear(r->dir);
}

static tv_status resume_from(run *r, int chosen)
{
    tv_trainer *t = &r->trainer;
    if (chosen)
        count_attempt(r);
    TV_TRY(tv_trainer_load(t, r->resumed_from, !chosen)); // tv_checkpoint_newest hashed every file
    r->saver.saved_step = t->step;
    r->saver.resumed_from = r->resumed_from;
    TV_TRY(tv_trainer_digest(t, &r->saver.saved_digest));
    TV_TRY(tv_comm_agree(t->comm, tv_io_fault(TV_FAULT_RESUME_READY_POINT)));
    tv_log_info("resumed %s at step %lld", r->resumed_from, (long long)t->step);
    return TV_OK;
}

// Collective, in start-up: a request to stop need not wait for a step. The state is on disk already, or is the one that the seed gives.
static tv_status leave_early(run *r, tv_comm *comm)
{
    int stop = 0;
    TV_TRY(tv_requests_agree(&r->requests, comm, &stop));
    return stop ? TV_FAIL(TV_STOPPED, "stopped on request before the first step; there is nothing new to save") : TV_OK;
}

static tv_status start(run *r, const char *resume)
{
    tv_trainer *t = &r->trainer;
    TV_TRY(find_checkpoint(r, resume, t->comm));
    TV_TRY(leave_early(r, t->comm));
    if (r->resumed_from)
        TV_TRY(resume_from(r, strcmp(resume, "auto") == 0));
    r->first_step = t->step;
    tv_status st = tv_comm_rank(t->comm) == 0 ? write_config(r) : TV_OK;
    if (st == TV_OK)
        st = tv_metrics_open(&r->metrics, r->dir, t);
    TV_TRY(tv_comm_agree(t->comm, st));
    r->saver.requests = &r->requests;
    return tv_saver_attach(&r->saver, t, &r->metrics, r->dir);
}

static const tv_corpus *held_text(const tv_trainer *t) { return t->valid_text ? t->valid_text : t->train_text; }

static int has_held_text(const tv_trainer *t) { return tv_corpus_held_bytes(held_text(t)) > 0; }

// *stopped: a request came meanwhile, and nothing is known of this step's text.
static tv_status evaluate(run *r, int *stopped)
{
    tv_trainer *t = &r->trainer;
    tv_eval_args args = {
        .places = &t->places,
        .backend = t->backend,
        .model = &t->model,
        .batch = &t->batch,
        .corpus = held_text(t),
        .modalities = &t->modalities,
        .origin = tv_trainer_valid_origin(t),
        .windows = t->config.train.eval_windows,
        .stop_wanted = tv_requests_stop,
        .context = &r->requests,
    };
    tv_watch_mark(TV_PHASE_EVAL, t->step);
    tv_status st = tv_eval_run(&args, &r->eval);
    if (st == TV_STOPPED) {
        *stopped = TV_FLAG_STOP;
        return TV_OK;
    }
    TV_TRY(st);
    r->eval_step = t->step;
    tv_metrics_eval(&r->metrics, t->step, &r->eval);
    return TV_OK;
}

static int due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

// Steps until the end, stop_at or a request. *stopped: a request ended it, TV_FLAG_STOP and perhaps TV_FLAG_TIME.
static tv_status run_steps(run *r, int64_t end, int *stopped)
{
    tv_trainer *t = &r->trainer;
    const tv_config *config = &t->config;
    while (t->step < end && !*stopped) {
        tv_step_report report;
        TV_TRY(tv_trainer_step(t, tv_saver_flags(&r->saver) | tv_metrics_flags(&r->metrics, t), &report));
        tv_watch_begin_steps();
        tv_metrics_step(&r->metrics, t, &report);
        tv_requests_step(&r->requests, report.times.total);
        if (report.flags & TV_FLAG_TIMES)
            TV_TRY(tv_metrics_ranks(&r->metrics, t));
        TV_TRY(tv_saver_poll(&r->saver, report.flags));
        if (t->step == r->first_step + STEPS_OF_PROOF)
            forget_attempts(r);
        if (due(t->step, config->guard.hash_every))
            TV_TRY(tv_trainer_check_replicas(t));
        *stopped = (int)(report.flags & (TV_FLAG_STOP | TV_FLAG_TIME));
        if (t->step < end && !*stopped && due(t->step, config->train.eval_every))
            TV_TRY(evaluate(r, stopped));
        if (t->step < end && !*stopped && (due(t->step, config->checkpoint.every) || (report.flags & TV_FLAG_SAVE))) {
            TV_TRY(tv_saver_save(&r->saver, (report.flags & TV_FLAG_SAVE) != 0));
            // A request that came during the save need not wait for a step.
            TV_TRY(tv_requests_agree(&r->requests, t->comm, stopped));
        }
        tv_requests_saved(&r->requests, r->metrics.longest_save);
    }
    return TV_OK;
}

static tv_status say_stopped(const run *r, int stopped)
{
    return TV_FAIL(TV_STOPPED, "stopped %s after step %lld; saved in %s",
                   stopped & TV_FLAG_TIME ? "in time for a save" : "on request", (long long)r->trainer.step, r->dir);
}

static tv_status finish(run *r, int stopped)
{
    char hex[TV_HASH_HEX], bpb[32] = "none"; // no text is held out
    tv_watch_mark(TV_PHASE_END, r->trainer.step);
    TV_TRY(tv_saver_finish(&r->saver));
    forget_attempts(r);
    tv_requests_saved(&r->requests, r->metrics.longest_save);
    tv_log_progress_end();
    if (!stopped && r->eval_step != r->trainer.step && has_held_text(&r->trainer))
        TV_TRY(evaluate(r, &stopped));
    if (stopped)
        return say_stopped(r, stopped);
    tv_metrics_summary(&r->metrics);
    tv_hash_format(r->saver.saved_digest, hex);
    if (r->eval_step == r->trainer.step)
        snprintf(bpb, sizeof bpb, "%.4f", r->eval.bpb);
    tv_log_info("final: step=%lld val_bpb=%s digest=%s", (long long)r->trainer.step, bpb, hex);
    return TV_OK;
}

static void describe(const run *r)
{
    const tv_trainer *t = &r->trainer;
    const tv_config *config = &t->config;
    tv_log_info("trivote %s: backend %s, %d ranks, %lld units a step of %lld tokens, %lld steps", TV_VERSION,
                t->backend->describe(), tv_comm_size(t->comm), (long long)config->train.units,
                (long long)(config->train.unit_windows * config->model.context), (long long)config->train.steps);
    tv_log_info("text: %lld bytes to train on, %lld held out", (long long)tv_corpus_train_bytes(t->train_text),
                (long long)tv_corpus_held_bytes(held_text(t)));
}

// What this rank would write, or bring to host memory for it; 0 when that cannot be said.
static size_t state_bytes(tv_trainer *t)
{
    size_t bytes = tv_params_state_staging_bytes(&t->model.params, 1);
    tv_state_array *arrays = NULL;
    int64_t count = 0;
    if (bytes > 0 || tv_params_state(&t->model.params, 1, NULL, 0, &arrays, &count) != TV_OK)
        return bytes;
    for (int64_t i = 0; i < count; i++)
        bytes += (size_t)(arrays[i].count * tv_state_row_bytes(&arrays[i]));
    free(arrays);
    return bytes;
}

static tv_status run_all(run *r, const tv_config *config, const tv_train_options *options, tv_comm *comm,
                         const tv_backend *backend)
{
    int stopped = 0;
    tv_watch_limits((double)config->comm.start_timeout, (double)config->comm.timeout);
    TV_TRY(open_folder(r, comm));
    TV_TRY(tv_hang_folder(comm, r->dir));
    tv_requests_open(&r->requests, tv_comm_rank(comm) == 0 ? r->dir : NULL, options->max_seconds);
    TV_TRY(leave_early(r, comm));
    tv_fault_at(TV_FAULT_START_MODEL_POINT);
    TV_TRY(tv_saver_open(&r->saver, comm, config));
    TV_TRY(tv_trainer_open(&r->trainer, config, comm, backend));
    r->trainer.requests = tv_requests_take;
    r->trainer.request_source = &r->requests;
    tv_requests_expect(&r->requests, state_bytes(&r->trainer));
    describe(r);
    TV_TRY(leave_early(r, comm));
    TV_TRY(start(r, options->resume));
    TV_TRY(leave_early(r, comm));
    int64_t end = config->train.stop_at ? config->train.stop_at : config->train.steps;
    if (r->trainer.step > end)
        tv_log_info("the checkpoint is already past step %lld, where this run would end", (long long)end);
    TV_TRY(run_steps(r, end, &stopped));
    return finish(r, stopped);
}

// What is pending is a whole state of an earlier step: it is finished before the run ends with its error.
static tv_status keep_message(run *r, tv_status st)
{
    char message[1024];
    snprintf(message, sizeof message, "%s", tv_status_message());
    tv_saver_rescue(&r->saver);
    return TV_FAIL(st, "%s", message);
}

tv_status tv_train_run(const tv_config *config, const tv_train_options *options, tv_comm *comm,
                       const tv_backend *backend)
{
    run r = {.dir = config->run.dir, .eval_step = -1};
    tv_status st = run_all(&r, config, options, comm, backend);
    if (st != TV_OK && st != TV_COMM && st != TV_HANG)
        st = keep_message(&r, st);
    tv_log_progress_end();
    tv_saver_close(&r.saver);
    tv_metrics_close(&r.metrics);
    tv_trainer_close(&r.trainer);
    tv_run_lock_free(r.lock);
    free(r.resumed_from);
    return st;
}
