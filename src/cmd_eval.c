#include <stdio.h>
#include <string.h>

#include "args.h"
#include "command.h"
#include "io/corpus.h"
#include "train/eval.h"

// Of each part that asked an oracle: how often it found the best row with 1, 2, 4 .. probes, and how much farther it was on average.
static void print_recall(const tv_model *model)
{
    for (int64_t i = 0; i < model->part_count; i++) {
        tv_figures figures = {.count = 0};
        if (model->parts[i]->ops->tell == NULL)
            continue;
        model->parts[i]->ops->tell(model->parts[i], &figures);
        for (int f = 0; f < figures.count; f++)
            if (strncmp(figures.items[f].name, "recall", 6) == 0 || strncmp(figures.items[f].name, "excess", 6) == 0)
                printf("%s: %s=%.6f\n", model->parts[i]->name, figures.items[f].name, figures.items[f].value);
    }
}

static tv_status check_recall(const tv_loaded *loaded)
{
    if (loaded->config.codebook.rows == 0)
        return TV_FAIL(TV_USAGE, "--codebook-recall: the checkpoint's model has no codebook");
    return TV_OK;
}

// What is evaluated.
typedef struct request {
    const char *data, *features[TV_MODALITIES]; // NULL: none
    int64_t windows;
    int recall;
} request;

static tv_status open_features(const request *r, const tv_loaded *loaded, const tv_corpus *corpus, tv_modalities *out)
{
    tv_modalities_args args = {
        .config = &loaded->config, .backend = loaded->backend, .text_bytes = tv_corpus_held_bytes(corpus)};
    memcpy(args.paths, r->features, sizeof args.paths);
    return tv_modalities_open(out, &args);
}

static tv_status evaluate(tv_comm *comm, tv_loaded *loaded, const request *r)
{
    const tv_config *config = &loaded->config;
    tv_modalities modalities = {0};
    tv_batch batch = {0};
    tv_corpus *corpus = NULL;
    tv_eval_report report;
    tv_status st = tv_batch_open(&batch, loaded->backend, config->train.unit_windows, config->model.context);
    if (st == TV_OK)
        st = tv_corpus_open(&r->data, 1, TV_CORPUS_HOLD_ALL, config->model.context + 1, &corpus);
    if (st == TV_CORPUS)
        tv_status_context(st, "--data");
    if (st == TV_OK)
        st = open_features(r, loaded, corpus, &modalities);
    TV_TRY_GOTO(st, done, tv_comm_agree(comm, st));
    tv_eval_args args = {
        .places = &loaded->places,
        .backend = loaded->backend,
        .model = &loaded->model,
        .batch = &batch,
        .corpus = corpus,
        .modalities = &modalities,
        .windows = r->windows,
        .oracle = r->recall,
    };
    TV_TRY_GOTO(st, done, tv_eval_run(&args, &report));
    if (tv_comm_rank(comm) == 0)
        printf("bpb=%.6f loss=%.6f windows=%lld bytes=%lld step=%lld\n", report.bpb, report.loss,
               (long long)report.windows, (long long)report.bytes, (long long)loaded->step);
    if (r->recall && tv_comm_rank(comm) == 0)
        print_recall(&loaded->model);
done:
    tv_modalities_close(&modalities);
    tv_corpus_close(corpus);
    tv_batch_close(&batch, loaded->backend);
    return st;
}

tv_status tv_cmd_eval(tv_comm *comm, int argc, char **argv)
{
    const char *dir = NULL, *without = NULL;
    request r = {.windows = 256};
    const tv_arg args[] = {
        {"--checkpoint", TV_ARG_TEXT, &dir, "DIR", 1},
        {"--data", TV_ARG_TEXT, &r.data, "FILE", 1},
        {"--image-features", TV_ARG_TEXT, &r.features[TV_IMAGE], "FILE", 0},
        {"--audio-features", TV_ARG_TEXT, &r.features[TV_AUDIO], "FILE", 0},
        {"--windows", TV_ARG_INT, &r.windows, "N", 0},
        {"--without", TV_ARG_TEXT, &without, "PART,...", 0},
        {"--codebook-recall", TV_ARG_FLAG, &r.recall, NULL, 0},
    };
    const tv_arg_table table = {"eval", args, sizeof args / sizeof *args, NULL};
    tv_loaded loaded = {0};
    TV_TRY(tv_args_parse(&table, argc, argv));
    if (r.windows < 1)
        return TV_FAIL(TV_USAGE, "--windows takes a number from 1, not %lld", (long long)r.windows);
    tv_status st = tv_command_load(dir, comm, 0, &loaded);
    if (st == TV_OK && r.recall)
        st = check_recall(&loaded);
    if (st == TV_OK && without)
        st = tv_comm_agree(comm, tv_model_mute(&loaded.model, without));
    if (st == TV_OK)
        st = evaluate(comm, &loaded, &r);
    tv_command_unload(&loaded);
    return st;
}
