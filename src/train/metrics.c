#include "train/metrics.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

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
    if (metrics->rank != 0)
        return TV_OK;
    if (snprintf(path, sizeof path, "%s/metrics.jsonl", dir) >= (int)sizeof path)
        return TV_FAIL(TV_IO, "run folder's name is too long: %s", dir);
    metrics->jsonl = fopen(path, "a");
    return metrics->jsonl ? TV_OK : TV_FAIL(TV_IO, "cannot write %s: %s", path, strerror(errno));
}

void tv_metrics_close(tv_metrics *metrics)
{
    if (metrics->jsonl)
        fclose(metrics->jsonl);
    metrics->jsonl = NULL;
}

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

// ,"parts":{"block.0.moe":{"tokens_min":1,...},...} when some part has something to tell.
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

static void write_step(FILE *out, const tv_trainer *trainer, const tv_step_report *r)
{
    const tv_ballot_report *b = &r->ballot;
    fprintf(out,
            "{\"event\":\"step\",\"step\":%lld,\"loss\":%.17g,\"bpb\":%.17g,\"bytes\":%lld,\"bytes_seen\":%lld,"
            "\"flips\":%lld,"
            "\"exponent_moves\":%lld,\"zeros\":%lld,\"weights\":%lld,\"ranks\":%d,\"units_run\":%lld,\"wire_vote_"
            "bytes\":%lld,"
            "\"wire_state_bytes\":%lld,\"wire_other_bytes\":%lld,",
            (long long)r->step, r->loss, r->loss / TV_LN_2, (long long)r->bytes, (long long)trainer->bytes_seen,
            (long long)b->flips, (long long)b->exponent_moves, (long long)b->zeros, (long long)b->weights,
            tv_comm_size(trainer->comm), (long long)trainer->units_run,
            (long long)tv_comm_wire_bytes(trainer->comm, TV_WIRE_VOTES),
            (long long)tv_comm_wire_bytes(trainer->comm, TV_WIRE_STATE),
            (long long)(tv_comm_wire_bytes(trainer->comm, TV_WIRE_METRICS) +
                        tv_comm_wire_bytes(trainer->comm, TV_WIRE_GUARD) +
                        tv_comm_wire_bytes(trainer->comm, TV_WIRE_OTHER)));
    write_times(out, &r->times);
    write_parts(out, &trainer->model);
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

void tv_metrics_step(tv_metrics *metrics, const tv_trainer *trainer, const tv_step_report *report)
{
    if (report->step == metrics->first_step + 1) {
        metrics->first = report->times;
    } else {
        add_times(&metrics->sum, &report->times);
        metrics->summed++;
    }
    if (metrics->jsonl) {
        write_step(metrics->jsonl, trainer, report);
        flush_line(metrics);
    }
    if (report->step % metrics->log_every == 0 || report->step == metrics->first_step + 1 ||
        report->step == metrics->last_step) {
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
                "{\"event\":\"eval\",\"step\":%lld,\"loss\":%.17g,\"bpb\":%.17g,\"windows\":%lld,\"bytes\":%lld}\n",
                (long long)step, report->loss, report->bpb, (long long)report->windows, (long long)report->bytes);
        flush_line(metrics);
    }
    tv_log_info("eval: step=%lld val_bpb=%.4f windows=%lld", (long long)step, report->bpb, (long long)report->windows);
}

void tv_metrics_save(tv_metrics *metrics, int64_t step, double spent, const char *digest)
{
    if (spent > metrics->longest_save)
        metrics->longest_save = spent;
    if (metrics->jsonl) {
        fprintf(metrics->jsonl, "{\"event\":\"checkpoint\",\"step\":%lld,\"seconds\":%.9g,\"digest\":\"%s\"}\n",
                (long long)step, spent, digest);
        flush_line(metrics);
    }
    tv_log_info("checkpoint: step=%lld seconds=%.2f digest=%s", (long long)step, spent, digest);
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
