// Whole training steps on random text: where their time goes.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "bench.h"
#include "train/trainer.h"

enum { WARM_UP = 3, STEPS_HOST = 5, STEPS_GPU = 30, STEPS_MOST = STEPS_GPU };
#define TEXT_BYTES ((int64_t)4 << 20)

// Eight 16-bit draws at a time.
static tv_status write_text(const char *path, FILE *file, int64_t bytes)
{
    for (int64_t i = 0; i < bytes / 8; i++) {
        unsigned char text[8];
        tv_rng_block block = tv_rng_at((tv_rng_key){.seed = 1}, (uint64_t)i);
        for (int lane = 0; lane < 8; lane++)
            text[lane] = (unsigned char)(tv_rng_lane(block, lane) >> 8);
        fwrite(text, 1, sizeof text, file);
    }
    return ferror(file) ? TV_FAIL(TV_IO, "cannot write the benchmark's text to %s; is the disk full?", path) : TV_OK;
}

static tv_status make_text(tv_bench_run *run)
{
    const char *folder = getenv("TMPDIR");
    int length =
        snprintf(run->text, sizeof run->text, "%s/trivote-bench-XXXXXX", folder && folder[0] ? folder : P_tmpdir);
    int file = length < (int)sizeof run->text ? mkstemp(run->text) : -1;
    if (file < 0) {
        run->text[0] = '\0';
        return TV_FAIL(TV_IO,
                       "cannot make a file for the benchmark's text; set TMPDIR to a short path of a folder that "
                       "takes files");
    }
    FILE *stream = fdopen(file, "wb");
    if (stream == NULL) {
        close(file);
        return TV_FAIL(TV_IO, "cannot write the benchmark's text to %s", run->text);
    }
    tv_status st = write_text(run->text, stream, TEXT_BYTES + run->config.model.context + 8);
    if (fclose(stream) != 0 && st == TV_OK)
        st = TV_FAIL(TV_IO, "cannot write the benchmark's text to %s; is the disk full?", run->text);
    return st;
}

// The caller's config, copied through its text, with this text and nothing held out.
static tv_status make_config(tv_bench_run *run, const tv_config *config)
{
    static const char *const sets[] = {"data.valid=\"\"", "data.valid_bytes=0", "train.eval_every=0"};
    char *text = NULL, train[96];
    TV_TRY(tv_config_init(&run->config));
    TV_TRY(tv_config_text(config, &text));
    tv_status st = tv_config_read_text(&run->config, "the config", text, strlen(text));
    free(text);
    TV_TRY(st);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        TV_TRY(tv_config_set(&run->config, sets[i]));
    TV_TRY(make_text(run));
    snprintf(train, sizeof train, "data.train=[\"%s\"]", run->text);
    TV_TRY(tv_config_set(&run->config, train));
    return tv_config_check(&run->config);
}

tv_status tv_bench_run_open(tv_bench_run *run, tv_comm *comm, const tv_backend *backend, const tv_config *config)
{
    *run = (tv_bench_run){.trainer = calloc(1, sizeof *run->trainer)};
    tv_status st = run->trainer ? make_config(run, config) : TV_FAIL(TV_MEMORY, "no memory for a trainer");
    TV_TRY(tv_comm_agree(comm, st));
    return tv_trainer_open(run->trainer, &run->config, comm, backend);
}

void tv_bench_run_close(tv_bench_run *run)
{
    if (run->trainer != NULL && run->trainer->backend != NULL)
        tv_trainer_close(run->trainer);
    free(run->trainer);
    if (run->text[0])
        unlink(run->text);
    tv_config_free(&run->config);
}

// The three products of every layer, an operation a multiplication or an addition; those in two digits count once.
static double product_operations(const tv_params *params)
{
    double weights = 0;
    for (int64_t i = 0; i < params->count; i++)
        if (!params->items[i].spec.lookup && !params->items[i].spec.frozen)
            weights += (double)(params->items[i].spec.rows * params->items[i].spec.cols);
    return 6 * weights;
}

typedef double step_phases[STEPS_MOST];
enum { DATA, FORWARD, BACKWARD, EXCHANGE, BALLOT, TOTAL, PHASES };

static void print_steps(const tv_trainer *t, step_phases times[PHASES], int steps, FILE *out)
{
    static const char *const names[PHASES] = {"data", "forward", "backward", "exchange", "ballot and decode", "step"};
    const tv_config *config = &t->config;
    double ranks = tv_comm_size(t->comm);
    int64_t unit = config->train.unit_windows * config->model.context, tokens = unit * config->train.units;
    double total = tv_bench_median(times[TOTAL], steps);
    fprintf(out, "step of %s: %d ranks, %lld units of %lld tokens, width %lld, %lld blocks; medians of %d steps\n",
            t->backend->describe(), tv_comm_size(t->comm), (long long)config->train.units, (long long)unit,
            (long long)config->model.width, (long long)config->model.blocks, steps);
    for (int p = 0; p < PHASES; p++) {
        double seconds = tv_bench_median(times[p], steps);
        fprintf(out, "  %-20s %10.3f ms %5.1f%%\n", names[p], 1e3 * seconds, 100 * seconds / total);
    }
    fprintf(out, "  %.2f steps/s, %.0f bytes/s, %.2f TOP/s a rank in the products\n", 1 / total, (double)tokens / total,
            1e-12 * product_operations(&t->model.params) * (double)tokens / ranks / total);
    if (ranks > 1)
        fprintf(out, "  votes: %lld bytes a step in %lld buckets, vote.bucket_bytes %lld\n",
                (long long)tv_ballot_vote_bytes(&t->model.params), (long long)(t->box.buckets / t->step),
                (long long)config->vote.bucket_bytes);
}

static tv_status time_steps(tv_trainer *trainer, FILE *out)
{
    step_phases times[PHASES];
    tv_step_report report;
    int steps = trainer->backend->host_memory ? STEPS_HOST : STEPS_GPU;
    for (int s = -WARM_UP; s < steps; s++) {
        TV_TRY(tv_comm_barrier(trainer->comm));
        TV_TRY(tv_trainer_step(trainer, 0, &report));
        const tv_step_times *spent = &report.times;
        double phases[PHASES] = {spent->data,     spent->forward, spent->backward,
                                 spent->exchange, spent->ballot,  spent->total};
        for (int p = 0; s >= 0 && p < PHASES; p++)
            times[p][s] = phases[p];
    }
    if (tv_comm_rank(trainer->comm) == 0)
        print_steps(trainer, times, steps, out);
    return TV_OK;
}

tv_status tv_bench_step(tv_comm *comm, const tv_backend *backend, const tv_config *config, FILE *out)
{
    tv_bench_run run;
    tv_status st = tv_bench_run_open(&run, comm, backend, config);
    if (st == TV_OK)
        st = time_steps(run.trainer, out);
    tv_bench_run_close(&run);
    return st;
}
