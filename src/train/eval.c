#include "train/eval.h"

#include <math.h>
#include <stdlib.h>

#include "base/fault.h"
#include "comm/watch.h"
#include "train/sampler.h"

static tv_unit describe_batch(const tv_eval_args *args, int64_t tokens)
{
    tv_unit unit = {
        .backend = args->backend,
        .params = &args->model->params,
        .tokens = tokens,
        .context = args->model->config.model.context,
        .ids = args->batch->ids,
        .targets = args->batch->targets,
        .fault = args->batch->fault,
        .oracle = args->oracle,
        .comm = args->places->comm,
        .experts = args->places->experts,
    };
    if (tokens > 0)
        tv_modalities_describe(args->modalities, &unit);
    return unit;
}

// Windows [first, first + count) of the text to the backend.
static tv_status load_batch(const tv_eval_args *args, int64_t first, int64_t count, int64_t windows)
{
    tv_batch *batch = args->batch;
    int64_t context = args->model->config.model.context;
    tv_modalities_begin(args->modalities);
    for (int64_t w = 0; w < count; w++) {
        tv_corpus_span span;
        const tv_window_place place = {
            .window = w, .origin = args->origin, .ids = batch->host_ids, .targets = batch->host_targets};
        TV_TRY(tv_corpus_held_span(args->corpus, first + w, windows, &span));
        TV_TRY(tv_modalities_window(args->modalities, &span, &place));
    }
    TV_TRY(tv_modalities_upload(args->modalities));
    size_t size = (size_t)(count * context) * sizeof(int32_t);
    TV_TRY(args->backend->copy(batch->ids, batch->host_ids, size, TV_COPY_TO_DEVICE, NULL));
    TV_TRY(args->backend->copy(batch->targets, batch->host_targets, size, TV_COPY_TO_DEVICE, NULL));
    return args->backend->zero(batch->fault, sizeof(int32_t), NULL);
}

// The loaded batch through the model; its windows' loss sums into out. A batch of no windows is this rank's half of the
// exchanges that others need.
static tv_status run_batch(const tv_eval_args *args, int64_t count, float *out)
{
    tv_unit unit = describe_batch(args, count * args->model->config.model.context);
    tv_status st = tv_model_forward(args->model, &unit);
    if (st == TV_OK && count > 0)
        st = args->backend->copy(out, args->model->window_loss, (size_t)count * sizeof(float), TV_COPY_TO_HOST, NULL);
    if (st != TV_OK && tv_params_in_lockstep(&args->model->params))
        tv_comm_abandon(args->places->comm);
    return st;
}

// Collective. *leave: some rank is to stop.
static tv_status ask_to_leave(const tv_eval_args *args, int *leave)
{
    tv_fault_at(TV_FAULT_EVAL_BATCH_POINT);
    if (!args->stop_wanted)
        return TV_OK;
    int64_t wanted = args->stop_wanted(args->context);
    TV_TRY(tv_comm_max_i64(args->places->comm, &wanted, 1, TV_WIRE_OTHER));
    *leave = wanted != 0;
    return TV_OK;
}

// Every rank runs as many batches as the first, and a rank that cannot read its text goes on with empty ones.
static tv_status run_share(const tv_eval_args *args, int64_t windows, float *loss, int64_t *predicted, int *leave)
{
    int rank = tv_comm_rank(args->places->comm), ranks = tv_comm_size(args->places->comm);
    int64_t batch = args->batch->windows;
    tv_status mine = loss ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for %lld windows", (long long)windows);
    for (int64_t round = 0; round < windows; round += ranks * batch) {
        TV_TRY(ask_to_leave(args, leave));
        if (*leave)
            break;
        int64_t first = round + rank * batch, count = windows - first < batch ? windows - first : batch;
        if (count < 0 || mine != TV_OK)
            count = 0;
        if (mine == TV_OK && count > 0)
            mine = load_batch(args, first, count, windows);
        if (mine == TV_OK && count > 0)
            *predicted += args->modalities->predicted;
        tv_watch_moves();
        TV_TRY(run_batch(args, mine == TV_OK ? count : 0, loss + (count > 0 ? first : 0)));
    }
    return mine;
}

tv_status tv_eval_run(const tv_eval_args *args, tv_eval_report *report)
{
    tv_comm *comm = args->places->comm;
    int64_t windows = tv_corpus_held_windows(args->corpus, args->windows);
    if (windows < 1)
        return TV_FAIL(TV_CORPUS, "there is no held-out text to evaluate; set data.valid or data.valid_bytes");
    int leave = 0;
    float *loss = calloc((size_t)windows, sizeof(float));
    int64_t predicted = 0;
    tv_status st = run_share(args, windows, loss, &predicted, &leave);
    TV_TRY_GOTO(st, done, tv_comm_agree(comm, st));
    if (leave) {
        st = TV_FAIL(TV_STOPPED, "the evaluation was left on request");
        goto done;
    }
    // Each window's bits are non-zero on one rank only, so the integer sum is a gather.
    TV_TRY_GOTO(st, done, tv_comm_sum_u32(comm, (uint32_t *)loss, windows, TV_WIRE_METRICS));
    TV_TRY_GOTO(st, done, tv_comm_sum_i64(comm, &predicted, 1, TV_WIRE_METRICS));
    double sum = 0;
    for (int64_t w = 0; w < windows; w++)
        sum += (double)loss[w];
    report->windows = windows;
    report->bytes = predicted;
    report->loss = sum / (double)report->bytes;
    report->bpb = report->loss / TV_LN_2;
    if (!isfinite(sum))
        st = TV_FAIL(TV_NUMERIC, "NaN or Inf in the loss on held-out text");
done:
    free(loss);
    return st;
}
