#include "train/metrics.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

// Behind every line: a full disk is said once and costs the metrics, not the run.
static void flush_line(tv_metrics *metrics)
{
    if (fflush(metrics->jsonl) == 0 && !ferror(metrics->jsonl))
        return;
    clearerr(metrics->jsonl);
    if (!metrics->broken)
        tv_log_warn("cannot write metrics.jsonl: %s; lines are lost, training goes on", strerror(errno));
    metrics->broken = 1;
}

// A process that was killed in the midst of a line leaves it without an end; what follows must not hang on to it.
static void end_torn_line(FILE *out)
{
    int last = fseek(out, -1, SEEK_END) == 0 ? fgetc(out) : '\n';
    fseek(out, 0, SEEK_END);
    if (last != '\n')
        fputc('\n', out);
}

static void write_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else
            fputc((unsigned char)*text < ' ' ? ' ' : *text, out);
    fputc('"', out);
}

// A process begins at this step: the first one, or one that goes on from a checkpoint.
static void write_start(FILE *out, const tv_trainer *trainer, int64_t last_step)
{
    fprintf(out,
            "{\"event\":\"start\",\"step\":%lld,\"time\":%.3f,\"last_step\":%lld,\"ranks\":%d,\"program\":\"%s\","
            "\"backend\":",
            (long long)trainer->step, tv_clock_date(), (long long)last_step, tv_comm_size(trainer->comm), TV_VERSION);
    write_text(out, trainer->backend->describe());
    fprintf(out, "}\n");
}

static tv_nvml *open_gpu(const tv_trainer *trainer)
{
    unsigned char uuid[TV_DEVICE_ID_BYTES];
    int index = tv_comm_local_rank(trainer->comm);
    if (!trainer->backend->device_id || trainer->backend->host_memory)
        return tv_nvml_open(NULL, index);
    trainer->backend->device_id(uuid);
    return tv_nvml_open(uuid, index);
}

tv_status tv_metrics_open(tv_metrics *metrics, const char *dir, const tv_trainer *trainer)
{
    const tv_config *config = &trainer->config;
    char path[4096];
    *metrics = (tv_metrics){
        .rank = tv_comm_rank(trainer->comm),
        .ranks = tv_comm_size(trainer->comm),
        .log_every = config->run.log_every,
        .first_step = trainer->step,
        .last_step = config->train.stop_at ? config->train.stop_at : config->train.steps,
        .started = tv_clock_seconds(),
    };
    metrics->nvml = open_gpu(trainer);
    TV_TRY(tv_lag_open(&metrics->lag, config->run.lag_every, metrics->ranks));
    if (metrics->rank != 0)
        return TV_OK;
    if (snprintf(path, sizeof path, "%s/metrics.jsonl", dir) >= (int)sizeof path)
        return TV_FAIL(TV_IO, "run folder's name is too long: %s", dir);
    metrics->jsonl = fopen(path, "a+");
    if (!metrics->jsonl)
        return TV_FAIL(TV_IO, "cannot write %s: %s", path, strerror(errno));
    end_torn_line(metrics->jsonl);
    write_start(metrics->jsonl, trainer, metrics->last_step);
    flush_line(metrics);
    return TV_OK;
}

void tv_metrics_close(tv_metrics *metrics)
{
    if (metrics->jsonl)
        fclose(metrics->jsonl);
    metrics->jsonl = NULL;
    tv_lag_close(&metrics->lag);
    tv_nvml_close(metrics->nvml);
    metrics->nvml = NULL;
}

static void write_times(FILE *out, const tv_step_times *t)
{
    fprintf(out,
            "\"seconds\":{\"total\":%.9g,\"data\":%.9g,\"forward\":%.9g,\"backward\":%.9g,\"exchange\":%.9g,\"ballot\":"
            "%.9g}",
            t->total, t->data, t->forward, t->backward, t->exchange, t->ballot);
}

static tv_figures figures_of(const tv_part *part)
{
    tv_figures figures = {0};
    if (part->ops->tell)
        part->ops->tell(part, &figures);
    return figures;
}

static void write_histogram(FILE *out, const tv_histogram *h)
{
    fprintf(out, ",\"%s\":[", h->name);
    for (int k = 0; k < h->bins; k++)
        fprintf(out, "%s%lld", k ? "," : "", (long long)h->counts[k]);
    fprintf(out, "]");
}

// ,"parts":{"block.0.moe":{"tokens_min":1,...},...} when some part has something to tell. Histograms are lists behind a part's figures.
static void write_parts(FILE *out, const tv_model *model)
{
    int written = 0;
    for (int64_t i = 0; i < model->part_count; i++) {
        tv_figures figures = figures_of(model->parts[i]);
        if (figures.count == 0)
            continue;
        fprintf(out, "%s\"%s\":{", written++ ? "," : ",\"parts\":{", model->parts[i]->name);
        for (int f = 0; f < figures.count; f++)
            fprintf(out, "%s\"%s\":%.9g", f ? "," : "", figures.items[f].name, figures.items[f].value);
        for (int h = 0; h < figures.histogram_count; h++)
            write_histogram(out, &figures.histograms[h]);
        fprintf(out, "}");
    }
    if (written)
        fprintf(out, "}");
}

static void log_parts(const tv_model *model)
{
    for (int64_t i = 0; i < model->part_count; i++) {
        char line[512];
        int used = 0;
        tv_figures figures = figures_of(model->parts[i]);
        for (int f = 0; f < figures.count && used < (int)sizeof line; f++)
            used += snprintf(line + used, sizeof line - (size_t)used, " %s=%.6g", figures.items[f].name,
                             figures.items[f].value);
        if (figures.count)
            tv_log_info("    %s:%s", model->parts[i]->name, line);
    }
}

static void write_step(FILE *out, const tv_trainer *trainer, const tv_step_report *r, const tv_gpu_state *gpu)
{
    const tv_ballot_report *b = &r->ballot;
    fprintf(out,
            "{\"event\":\"step\",\"step\":%lld,\"time\":%.3f,\"loss\":%.17g,\"bpb\":%.17g,\"bytes\":%lld,\"bytes_"
            "seen\":%lld,"
            "\"flips\":%lld,"
            "\"exponent_moves\":%lld,\"zeros\":%lld,\"weights\":%lld,\"ranks\":%d,\"units_run\":%lld,\"wire_vote_"
            "bytes\":%lld,"
            "\"wire_state_bytes\":%lld,\"wire_other_bytes\":%lld,",
            (long long)r->step, tv_clock_date(), r->loss, r->loss / TV_LN_2, (long long)r->bytes,
            (long long)trainer->bytes_seen, (long long)b->flips, (long long)b->exponent_moves, (long long)b->zeros,
            (long long)b->weights, tv_comm_size(trainer->comm), (long long)trainer->units_run,
            (long long)tv_comm_wire_bytes(trainer->comm, TV_WIRE_VOTES),
            (long long)tv_comm_wire_bytes(trainer->comm, TV_WIRE_STATE),
            (long long)(tv_comm_wire_bytes(trainer->comm, TV_WIRE_METRICS) +
                        tv_comm_wire_bytes(trainer->comm, TV_WIRE_GUARD) +
                        tv_comm_wire_bytes(trainer->comm, TV_WIRE_OTHER)));
    write_times(out, &r->times);
    write_parts(out, &trainer->model);
    if (gpu->present) {
        fprintf(out, ",");
        tv_gpu_write(out, gpu);
    }
    fprintf(out, "}\n");
}

static void add_times(tv_step_times *sum, const tv_step_times *t)
{
    sum->data += t->data;
    sum->forward += t->forward;
    sum->backward += t->backward;
    sum->exchange += t->exchange;
    sum->ballot += t->ballot;
    sum->total += t->total;
}

static void format_eta(double left, char *text, size_t bytes)
{
    long long s = left > 0 ? (long long)(left + 0.5) : 0;
    if (s >= 3600)
        snprintf(text, bytes, "%lldh%02lldm", s / 3600, s / 60 % 60);
    else
        snprintf(text, bytes, "%lldm%02llds", s / 60, s % 60);
}

static void log_step(const tv_metrics *metrics, const tv_step_report *r)
{
    char eta[32];
    const tv_ballot_report *b = &r->ballot;
    double elapsed = tv_clock_seconds() - metrics->started, done = (double)(r->step - metrics->first_step);
    double weights = b->weights ? (double)b->weights : 1.0;
    format_eta(elapsed / done * (double)(metrics->last_step - r->step), eta, sizeof eta);
    if (r->step == metrics->first_step + 1 || (r->step - 1) % (20 * metrics->log_every) < metrics->log_every)
        tv_log_info("%8s %8s %7s %10s %9s %8s %7s %7s", "step", "loss", "bpb", "bytes/s", "flips/M", "E moves", "zeros",
                    "ETA");
    tv_log_info("%8lld %8.4f %7.4f %10.0f %9.0f %8lld %6.2f%% %7s", (long long)r->step, r->loss, r->loss / TV_LN_2,
                (double)r->bytes / r->times.total, 1e6 * (double)b->flips / weights, (long long)b->exponent_moves,
                100.0 * (double)b->zeros / weights, eta);
}

// Of the own GPU, with a log line, at most once a second: asking takes the driver a while.
static tv_gpu_state read_gpu(tv_metrics *metrics)
{
    double now = tv_clock_seconds();
    if (!metrics->nvml || (metrics->gpu_read_at > 0 && now - metrics->gpu_read_at < 1))
        return (tv_gpu_state){0};
    metrics->gpu_read_at = now;
    return tv_nvml_read(metrics->nvml);
}

void tv_metrics_step(tv_metrics *metrics, const tv_trainer *trainer, const tv_step_report *report)
{
    if (report->step == metrics->first_step + 1) {
        metrics->first = report->times;
    } else {
        add_times(&metrics->sum, &report->times);
        metrics->summed++;
    }
    int logged = report->step % metrics->log_every == 0 || report->step == metrics->first_step + 1 ||
                 report->step == metrics->last_step;
    tv_lag_add(&metrics->lag, &report->times);
    if (metrics->jsonl) {
        tv_gpu_state gpu = logged ? read_gpu(metrics) : (tv_gpu_state){0};
        write_step(metrics->jsonl, trainer, report, &gpu);
        flush_line(metrics);
    }
    if (logged) {
        log_step(metrics, report);
        if (metrics->rank == 0 && trainer->config.run.log_parts)
            log_parts(&trainer->model);
    }
    tv_log_progress(report->step, metrics->last_step, "steps");
}

void tv_metrics_eval(tv_metrics *metrics, int64_t step, const tv_eval_report *report)
{
    if (metrics->jsonl) {
        fprintf(metrics->jsonl,
                "{\"event\":\"eval\",\"step\":%lld,\"time\":%.3f,\"loss\":%.17g,\"bpb\":%.17g,\"windows\":%lld,"
                "\"bytes\":%lld}\n",
                (long long)step, tv_clock_date(), report->loss, report->bpb, (long long)report->windows,
                (long long)report->bytes);
        flush_line(metrics);
    }
    tv_log_info("eval: step=%lld val_bpb=%.4f windows=%lld", (long long)step, report->bpb, (long long)report->windows);
}

void tv_metrics_save(tv_metrics *metrics, int64_t step, double spent, double blocked, const char *digest)
{
    if (spent > metrics->longest_save)
        metrics->longest_save = spent;
    if (metrics->jsonl) {
        fprintf(metrics->jsonl,
                "{\"event\":\"checkpoint\",\"step\":%lld,\"time\":%.3f,\"seconds\":%.9g,\"blocked\":%.9g,\"digest\":\"%"
                "s\"}\n",
                (long long)step, tv_clock_date(), spent, blocked, digest);
        flush_line(metrics);
    }
    tv_log_info("checkpoint: step=%lld seconds=%.2f blocked=%.2f digest=%s", (long long)step, spent, blocked, digest);
}

uint64_t tv_metrics_flags(const tv_metrics *metrics, const tv_trainer *trainer)
{
    return tv_lag_flags(&metrics->lag, trainer->comm);
}

static void write_phases(FILE *out, const char *name, const double *seconds)
{
    fprintf(out, ",\"%s\":{", name);
    for (int p = 0; p < TV_LAG_PHASES; p++)
        fprintf(out, "%s\"%s\":%.9g", p ? "," : "", tv_lag_phase_names[p], seconds[p]);
    fprintf(out, "}");
}

static void write_ranks(FILE *out, int64_t step, const tv_lag_report *r)
{
    fprintf(out,
            "{\"event\":\"ranks\",\"step\":%lld,\"time\":%.3f,\"steps\":%lld,\"slowest_rank\":%d,\"ratio\":%.9g,"
            "\"phase\":\"%s\"",
            (long long)step, tv_clock_date(), (long long)r->steps, r->rank, r->ratio, tv_lag_phase_names[r->phase]);
    write_phases(out, "median_seconds", r->median);
    write_phases(out, "slowest_seconds", r->slowest);
    if (r->gpus > 0) {
        fprintf(out, ",\"gpus\":%d,\"power_w\":%.9g,\"throttled_ranks\":%d,\"hottest_rank\":%d,", r->gpus, r->power,
                r->throttled_ranks, r->hottest);
        tv_gpu_write(out, &r->hottest_gpu);
    }
    fprintf(out, "}\n");
}

static void tell_gpus(tv_metrics *metrics, const tv_lag_report *r)
{
    if (r->throttled >= 0)
        tv_log_info("the GPU of rank %d is slowed by %s%s", r->throttled, tv_gpu_trouble(&r->slowed_gpu),
                    r->throttled_ranks > 1 ? ", and others too" : "");
    if (r->most_errors < 0 || r->most_errors_gpu.ecc_uncorrected <= metrics->ecc_told)
        return;
    metrics->ecc_told = r->most_errors_gpu.ecc_uncorrected;
    tv_log_warn("the GPU of rank %d counts %lld uncorrected memory errors: have it looked at", r->most_errors,
                (long long)metrics->ecc_told);
}

static void tell_slowest(const tv_lag_report *r)
{
    double median = r->median[r->phase], slowest = r->slowest[r->phase];
    tv_log_info("rank %d is slowest: %s %.4g ms a step, %.2fx the median", r->rank, tv_lag_phase_names[r->phase],
                1e3 * slowest, median > 0 ? slowest / median : r->ratio);
}

tv_status tv_metrics_ranks(tv_metrics *metrics, const tv_trainer *trainer)
{
    tv_lag_report report;
    tv_gpu_state gpu = tv_nvml_read(metrics->nvml);
    TV_TRY(tv_lag_gather(&metrics->lag, trainer->comm, &gpu, &report));
    if (metrics->rank != 0 || report.steps == 0)
        return TV_OK;
    if (metrics->jsonl) {
        write_ranks(metrics->jsonl, trainer->step, &report);
        flush_line(metrics);
    }
    if (report.ratio >= TV_LAG_TOLD)
        tell_slowest(&report);
    tell_gpus(metrics, &report);
    return TV_OK;
}

static void log_times(const char *what, const tv_step_times *t, double steps)
{
    tv_log_info("%s: %.1f ms (data %.1f, forward %.1f, backward %.1f, exchange %.1f, ballot %.1f)", what,
                1e3 * t->total / steps, 1e3 * t->data / steps, 1e3 * t->forward / steps, 1e3 * t->backward / steps,
                1e3 * t->exchange / steps, 1e3 * t->ballot / steps);
}

void tv_metrics_summary(const tv_metrics *metrics)
{
    if (metrics->first.total > 0)
        log_times("first step", &metrics->first, 1.0);
    if (metrics->summed > 0)
        log_times("mean of the other steps", &metrics->sum, (double)metrics->summed);
}
