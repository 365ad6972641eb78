#include "train/eval.h"

#include <math.h>
#include <stdlib.h>

#include "train/sampler.h"

// Windows [first, first + count) through the model; their loss sums into out.
static tv_status run_batch(const tv_eval_args *args, int64_t first, int64_t count, int64_t windows, float *out)
{
    tv_batch *batch = args->batch;
    int64_t context = args->model->config.model.context, tokens = count * context;
    for (int64_t w = 0; w < count; w++) {
        const uint8_t *bytes;
        TV_TRY(tv_corpus_held_window(args->corpus, first + w, windows, &bytes));
        tv_window_tokens(bytes, context, batch->host_ids + w * context, batch->host_targets + w * context);
    }
    size_t size = (size_t)tokens * sizeof(int32_t);
    TV_TRY(args->backend->copy(batch->ids, batch->host_ids, size, TV_COPY_TO_DEVICE, NULL));
    TV_TRY(args->backend->copy(batch->targets, batch->host_targets, size, TV_COPY_TO_DEVICE, NULL));
    TV_TRY(args->backend->zero(batch->fault, sizeof(int32_t), NULL));
    tv_unit unit = {
        .backend = args->backend,
        .params = &args->model->params,
        .tokens = tokens,
        .context = context,
        .ids = batch->ids,
        .targets = batch->targets,
        .fault = batch->fault,
    };
    TV_TRY(tv_model_forward(args->model, &unit));
    return args->backend->copy(out, args->model->window_loss, (size_t)count * sizeof(float), TV_COPY_TO_HOST, NULL);
}

static tv_status run_share(const tv_eval_args *args, int64_t windows, float *loss)
{
    int rank = tv_comm_rank(args->comm), ranks = tv_comm_size(args->comm);
    int64_t batch = args->batch->windows;
    for (int64_t first = rank * batch; first < windows; first += ranks * batch) {
        int64_t count = windows - first < batch ? windows - first : batch;
        TV_TRY(run_batch(args, first, count, windows, loss + first));
    }
    return TV_OK;
}

tv_status tv_eval_run(const tv_eval_args *args, tv_eval_report *report)
{
    int64_t windows = tv_corpus_held_windows(args->corpus, args->windows);
    if (windows < 1)
        return TV_FAIL(TV_CORPUS, "there is no held-out text to evaluate; set data.valid or data.valid_bytes");
    float *loss = calloc((size_t)windows, sizeof(float));
    tv_status st =
        loss ? run_share(args, windows, loss) : TV_FAIL(TV_MEMORY, "no memory for %lld windows", (long long)windows);
    TV_TRY_GOTO(st, done, tv_comm_agree(args->comm, st));
    // Each window's bits are non-zero on one rank only, so the integer sum is a gather.
    TV_TRY_GOTO(st, done, tv_comm_sum_u32(args->comm, (uint32_t *)loss, windows, TV_WIRE_METRICS));
    double sum = 0;
    for (int64_t w = 0; w < windows; w++)
        sum += (double)loss[w];
    report->windows = windows;
    report->bytes = windows * args->model->config.model.context;
    report->loss = sum / (double)report->bytes;
    report->bpb = report->loss / TV_LN_2;
    if (!isfinite(sum))
        st = TV_FAIL(TV_NUMERIC, "NaN or Inf in the loss on held-out text");
done:
    free(loss);
    return st;
}
