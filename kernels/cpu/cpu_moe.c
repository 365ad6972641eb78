// The experts' activation and quantisation by segment, from the bodies of the ops that they are made of.
#include "kernels/cpu/cpu_bodies.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"

// A segment of an op: what a body works on.
typedef struct segment_job {
    const void *args;
    const tv_segment *segment;
    float *dgu;         // [rows, 2F] gradient of a segment's rows
    const float *scale; // [rows] of channels: 0 for rows that do not count
    int8_t *own;        // [C, rows] before the columns go to their places
} segment_job;

static void activate_rows(const void *args, int64_t first, int64_t last, int thread)
{
    const segment_job *job = args;
    const tv_moe_activate_args *a = job->args;
    float *h = tv_cpu_scratch(thread);
    const tv_quantize_rows_args save = {2 * a->rows, a->width, 127, a->gu, a->saved_q, a->saved_scale, a->fault};
    for (int64_t i = first; i < last; i++) {
        int64_t r = job->segment->first + i;
        const tv_gate_args gate = {1, a->width, a->gu + r * 2 * a->width, h};
        const tv_quantize_rows_args made = {1, a->width, a->qmax, h, a->q + r * a->width, a->scale + r, a->fault};
        if (a->saved_q != NULL)
            TV_ISA_NAME(quantize_rows_body)(&save, 2 * r, 2 * r + 2, thread);
        TV_ISA_NAME(gate_body)(&gate, 0, 1, thread);
        TV_ISA_NAME(quantize_rows_body)(&made, 0, 1, thread);
    }
}

tv_status TV_ISA_NAME(moe_activate)(const tv_moe_activate_args *args, void *stream)
{
    (void)stream;
    TV_TRY(tv_cpu_scratch_reserve((size_t)args->width * sizeof(float)));
    for (int64_t i = 0; args->width > 0 && i < args->segment_count; i++) {
        const segment_job job = {.args = args, .segment = &args->segments[i]};
        tv_cpu_for(job.segment->rows, 2 * args->width, activate_rows, &job);
    }
    return TV_OK;
}

// Rows [C, rows] of a segment to their columns, and zeros behind them.
typedef struct columns_job {
    const tv_segment *segment;
    const int8_t *own;
    int8_t *qt;
    int64_t columns;
} columns_job;

static void place_columns(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const columns_job *job = args;
    int64_t rows = job->segment->rows, padded = tv_ceil_div(rows, TV_SEGMENT_PAD) * TV_SEGMENT_PAD;
    for (int64_t c = first; c < last; c++) {
        int8_t *to = job->qt + c * job->columns + job->segment->padded;
        memcpy(to, job->own + c * rows, (size_t)rows);
        memset(to + rows, 0, (size_t)(padded - rows));
    }
}

// quantize_channels of one segment's rows, which have a scale each (q) or are float (x).
static tv_status turn_segment(const tv_quantize_channels_args *turn, const columns_job *columns)
{
    if (turn->tokens == 0) {
        memset(turn->sumsq, 0, (size_t)turn->channels * sizeof *turn->sumsq);
        return TV_OK;
    }
    TV_TRY(TV_ISA_NAME(quantize_channels)(turn, NULL));
    tv_cpu_for(turn->channels, turn->tokens / 16, place_columns, columns);
    return TV_OK;
}

static int64_t longest(const tv_segment *segments, int64_t count)
{
    int64_t most = 0;
    for (int64_t i = 0; i < count; i++)
        most = segments[i].rows > most ? segments[i].rows : most;
    return most;
}

static int counts(const int32_t *item, int64_t r) { return item == NULL || item[r] >= 0; }

tv_status TV_ISA_NAME(moe_channels)(const tv_moe_channels_args *a, void *stream)
{
    (void)stream;
    int64_t most = longest(a->segments, a->segment_count);
    void *memory;
    TV_TRY(tv_ref_scratch((size_t)most * (sizeof(float) + (size_t)a->channels), &memory));
    float *scale = memory;
    for (int64_t i = 0; a->channels > 0 && i < a->segment_count; i++) {
        const tv_segment *s = &a->segments[i];
        for (int64_t r = 0; r < s->rows; r++)
            scale[r] = counts(a->item, s->first + r) ? a->scale[s->first + r] : 0.0f;
        const columns_job columns = {s, (int8_t *)(scale + most), a->qt, a->columns};
        const tv_quantize_channels_args turn = {.tokens = s->rows,
                                                .channels = a->channels,
                                                .q = a->q + s->first * a->channels,
                                                .scale = scale,
                                                .qt = (int8_t *)(scale + most),
                                                .sumsq = a->sumsq + i * a->channels,
                                                .fault = a->fault};
        TV_TRY(turn_segment(&turn, &columns));
    }
    return TV_OK;
}

// dgu of each row to int8; what stays in dgu goes into the channels, so rows that do not count become zeros.
static void gradient_rows(const void *args, int64_t first, int64_t last, int thread)
{
    const segment_job *job = args;
    const tv_moe_activate_backward_args *a = job->args;
    int64_t width = a->width;
    float *dh = tv_cpu_scratch(thread);
    for (int64_t i = first; i < last; i++) {
        int64_t r = job->segment->first + i;
        float *dgu = job->dgu + i * 2 * width;
        for (int64_t f = 0; f < width; f++)
            dh[f] = (float)a->q[r * width + f] * a->scale[r];
        const tv_gate_backward_args gate = {1, width, a->saved_q + 2 * r * width, a->saved_scale + 2 * r, dh, dgu};
        const tv_quantize_rows_args row = {1, 2 * width, 127, dgu, a->dq + 2 * r * width, a->dscale + r, a->fault};
        TV_ISA_NAME(gate_backward_body)(&gate, 0, 1, thread);
        TV_ISA_NAME(quantize_rows_body)(&row, 0, 1, thread);
        if (!counts(a->item, r))
            memset(dgu, 0, (size_t)(2 * width) * sizeof *dgu);
    }
}

tv_status TV_ISA_NAME(moe_activate_backward)(const tv_moe_activate_backward_args *a, void *stream)
{
    (void)stream;
    int64_t channels = 2 * a->width, most = longest(a->segments, a->segment_count);
    void *memory;
    TV_TRY(tv_cpu_scratch_reserve((size_t)a->width * sizeof(float)));
    TV_TRY(tv_ref_scratch((size_t)(most * channels) * (sizeof(float) + 1), &memory));
    float *dgu = memory;
    int8_t *own = (int8_t *)(dgu + most * channels);
    for (int64_t i = 0; channels > 0 && i < a->segment_count; i++) {
        const segment_job job = {.args = a, .segment = &a->segments[i], .dgu = dgu};
        const columns_job columns = {job.segment, own, a->dt, a->columns};
        const tv_quantize_channels_args turn = {.tokens = job.segment->rows,
                                                .channels = channels,
                                                .x = dgu,
                                                .qt = own,
                                                .sumsq = a->sumsq + i * channels,
                                                .fault = a->fault};
        tv_cpu_for(job.segment->rows, 3 * a->width, gradient_rows, &job);
        TV_TRY(turn_segment(&turn, &columns));
    }
    return TV_OK;
}
