// The page around the charts: figures, tables, style.
#include <math.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "report.h"

// Colours that eyes of every kind tell apart (Okabe and Ito), each with a dash pattern of its own.
static const char style[] =
    "body{margin:0 auto;padding:16px;max-width:1240px;background:#fff;color:#1a1a1a;font:16px/1.45 "
    "system-ui,sans-serif}"
    "h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:28px 0 8px}"
    ".sub,.note{color:#555;margin:2px 0 0}.note{font-size:.85rem}.warn{border-left:4px solid #d55e00;padding:4px "
    "10px;margin:10px 0}"
    "dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:10px 18px;margin:16px 0}"
    "dt{color:#555;font-size:.85rem}dd{margin:0;font-weight:600;overflow-wrap:anywhere}"
    ".charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));gap:22px 26px}"
    "figure{margin:0;min-width:0;max-width:32rem}@media(min-width:720px){figcaption{min-height:4.6em}}figure>svg{width:"
    "100%;height:"
    "auto;display:block}"
    ".small{margin-top:10px;grid-template-columns:repeat(auto-fit,minmax(min(100%,15rem),1fr));gap:16px 20px}.small "
    "figure{max-width:23rem}@media(min-width:720px){.small figcaption{min-height:2.9em}}"
    "figure>svg text{font-size:13.5px;fill:#333}.m{text-anchor:middle}.e{text-anchor:end}"
    ".legend{display:block;font-size:.85rem}.key{display:inline-block;margin-right:14px;white-space:nowrap}"
    ".key svg{width:28px;height:10px;margin-right:5px}"
    "path{fill:none;stroke-width:2}.axis,.tick{stroke:#444;stroke-width:1}.grid{stroke:#ddd;stroke-width:1}"
    ".line{stroke-linejoin:round}.faint{stroke-width:1;stroke-opacity:.5}circle{stroke:#fff;stroke-width:1}"
    ".restart{stroke:#444;stroke-width:1.5;stroke-dasharray:5 4}.save{fill:#444}"
    ".c0{stroke:#0072b2}.c1{stroke:#d55e00}.c2{stroke:#009e73}.c3{stroke:#a8508a}.c4{stroke:#8a6d00}.c5{stroke:#56b4e9}"
    ".bar{fill:#0072b2}figure>svg .t{font-size:11px}"
    ".d1{stroke-dasharray:9 3}.d2{stroke-dasharray:3 3}.d3{stroke-dasharray:9 3 3 3}.d4{stroke-dasharray:14 4}"
    "circle.c0{fill:#0072b2}circle.c1{fill:#d55e00}"
    "table{border-collapse:collapse}.wide{overflow-x:auto}th,td{text-align:left;padding:4px 14px 4px 0;"
    "border-bottom:1px solid #ddd;white-space:nowrap}th{font-weight:600}td.n,th.n{text-align:right}"
    "code,pre{font:.85rem ui-monospace,monospace}pre{overflow-x:auto;background:#f6f6f6;padding:10px}"
    "@media print{body{padding:0;max-width:none;font-size:11pt}figure,tr{break-inside:avoid}"
    ".charts{grid-template-columns:1fr 1fr}pre{white-space:pre-wrap;background:none}h2{break-after:avoid}}";

// Bytes of the UTF-8 character at `text`, 0 when it is none (also overlong forms and surrogates).
static int utf8_length(const unsigned char *t)
{
    int length = *t < 0x80                 ? 1
                 : *t >= 0xC2 && *t < 0xE0 ? 2
                 : *t >= 0xE0 && *t < 0xF0 ? 3
                 : *t >= 0xF0 && *t < 0xF5 ? 4
                                           : 0;
    for (int i = 1; i < length; i++)
        if ((t[i] & 0xC0) != 0x80)
            return 0;
    if ((*t == 0xE0 && t[1] < 0xA0) || (*t == 0xED && t[1] >= 0xA0) || (*t == 0xF0 && t[1] < 0x90) ||
        (*t == 0xF4 && t[1] >= 0x90) || (*t == 0xEF && t[1] == 0xBF && t[2] >= 0xBE))
        return 0;
    return length;
}

static const char *entity_of(unsigned char c)
{
    return c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '"' ? "&quot;" : NULL;
}

void tv_html_text(FILE *out, const char *text)
{
    const unsigned char *t = (const unsigned char *)text;
    while (*t) {
        int length = utf8_length(t);
        if (entity_of(*t))
            fputs(entity_of(*t), out);
        else if (length == 0)
            fputs("\xEF\xBF\xBD", out);
        else if ((*t < ' ' && *t != '\n') || *t == 0x7F)
            fputc(' ', out);
        else
            fwrite(t, 1, (size_t)length, out);
        t += length ? length : 1;
    }
}

static void format_date(double date, char text[32])
{
    time_t seconds = (time_t)date;
    struct tm parts;
    if (isnan(date) || fabs(date) > 1e11 || gmtime_r(&seconds, &parts) == NULL ||
        strftime(text, 32, "%Y-%m-%d %H:%M UTC", &parts) == 0)
        snprintf(text, 32, "not known");
}

static void write_figure(FILE *out, const char *name, const char *value)
{
    fprintf(out, "<div><dt>%s</dt><dd>", name);
    tv_html_text(out, value);
    fprintf(out, "</dd></div>\n");
}

static int is_restart(const tv_run_metrics *run, int64_t i) { return i > 0 || run->starts[i].step > 0; }

static int64_t count_restarts(const tv_run_metrics *run)
{
    return run->start_count - (run->start_count > 0 && !is_restart(run, 0));
}

// Mean of a column over the last tenth of the steps.
static double late_mean(const tv_run_metrics *run, int column)
{
    double sum = 0, count = 0;
    for (int64_t i = run->step_count - 1 - run->step_count / 10; i < run->step_count; i++)
        if (!isnan(run->steps[i].values[column])) {
            sum += run->steps[i].values[column];
            count++;
        }
    return count > 0 ? sum / count : NAN;
}

static void format_held(const tv_run_metrics *run, char *text, size_t bytes)
{
    const tv_run_eval *best = NULL, *last = run->eval_count ? &run->evals[run->eval_count - 1] : NULL;
    for (int64_t i = 0; i < run->eval_count; i++)
        if (!isnan(run->evals[i].bpb) && (best == NULL || run->evals[i].bpb < best->bpb))
            best = &run->evals[i];
    if (best == NULL)
        snprintf(text, bytes, "none");
    else if (best == last)
        snprintf(text, bytes, "%.4f", last->bpb);
    else
        snprintf(text, bytes, "%.4f (least %.4f at step %lld)", last->bpb, best->bpb, (long long)best->step);
}

static void write_figures(FILE *out, const tv_run_metrics *run)
{
    char text[96], number[24];
    const tv_run_step *last = &run->steps[run->step_count - 1];
    fprintf(out, "<dl>\n");
    snprintf(text, sizeof text, run->last_step ? "%lld of %lld" : "%lld", (long long)last->step,
             (long long)run->last_step);
    write_figure(out, "steps", text);
    format_held(run, text, sizeof text);
    write_figure(out, "held-out bits a byte", text);
    snprintf(text, sizeof text, "%.4f", late_mean(run, TV_RUN_BPB));
    write_figure(out, "training bits a byte, last tenth", text);
    tv_number_format((double)run->bytes_seen, number);
    snprintf(text, sizeof text, "%sB", number);
    write_figure(out, "text seen", text);
    tv_time_format(last->values[TV_RUN_ELAPSED], text);
    write_figure(out, "time of running", text);
    tv_number_format(late_mean(run, TV_RUN_RATE), number);
    snprintf(text, sizeof text, "%sB/s", number);
    write_figure(out, "throughput, last tenth", text);
    snprintf(text, sizeof text, "%lld", (long long)run->rank_count);
    write_figure(out, "ranks", text);
    snprintf(text, sizeof text, "%lld", (long long)count_restarts(run));
    write_figure(out, "restarts", text);
    snprintf(text, sizeof text, "%lld", (long long)run->save_count);
    write_figure(out, "checkpoints", text);
    if (run->save_count > 0 && run->saves[run->save_count - 1].step == last->step)
        write_figure(out, "digest", run->saves[run->save_count - 1].digest);
    fprintf(out, "</dl>\n");
}

static void write_warnings(FILE *out, const tv_run_metrics *run)
{
    if (run->skipped_lines > 0)
        fprintf(out,
                "<p class=\"warn\">%lld line%s of metrics.jsonl skipped, first line %lld: a process that is killed "
                "leaves its "
                "last one torn.</p>\n",
                (long long)run->skipped_lines, run->skipped_lines > 1 ? "s" : "", (long long)run->first_skipped);
    if (run->repeated > 0)
        fprintf(out, "<p class=\"note\">%lld step%s done again after a restart; the later ones are shown.</p>\n",
                (long long)run->repeated, run->repeated > 1 ? "s were" : " was");
}

static int on_disk(const char *dir, int64_t step)
{
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/step-%09lld/manifest.json", dir, (long long)step);
    return length < (int)sizeof path && access(path, F_OK) == 0;
}

static void write_saves(FILE *out, const tv_report *report)
{
    enum { SHOWN = 20 };
    char date[32], spent[24];
    const tv_run_metrics *run = &report->run;
    int64_t first = run->save_count > SHOWN ? run->save_count - SHOWN : 0;
    if (run->save_count == 0)
        return;
    fprintf(out, "<h2>Checkpoints</h2>\n");
    if (first > 0)
        fprintf(out, "<p class=\"note\">The last %d of %lld.</p>\n", SHOWN, (long long)run->save_count);
    fprintf(out,
            "<div class=\"wide\"><table><tr><th class=\"n\">step</th><th>saved</th><th class=\"n\">took</th><th>on "
            "disk</th><th>digest</th></tr>\n");
    for (int64_t i = first; i < run->save_count; i++) {
        const tv_run_save *save = &run->saves[i];
        format_date(save->date, date);
        tv_time_format(isnan(save->seconds) ? 0 : save->seconds, spent);
        fprintf(out, "<tr><td class=\"n\">%lld</td><td>%s</td><td class=\"n\">%s</td><td>%s</td><td><code>",
                (long long)save->step, date, spent, on_disk(report->dir, save->step) ? "yes" : "no");
        tv_html_text(out, save->digest);
        fprintf(out, "</code></td></tr>\n");
    }
    fprintf(out, "</table></div>\n");
}

static void write_starts(FILE *out, const tv_run_metrics *run)
{
    char date[32], ranks[24];
    if (run->start_count == 0)
        return;
    fprintf(out, "<h2>Starts</h2>\n<div class=\"wide\"><table><tr><th class=\"n\">after "
                 "step</th><th>at</th><th class=\"n\">ranks</th></tr>\n");
    for (int64_t i = 0; i < run->start_count; i++) {
        format_date(run->starts[i].date, date);
        snprintf(ranks, sizeof ranks, "%lld", (long long)run->starts[i].ranks);
        fprintf(out, "<tr><td class=\"n\">%lld</td><td>%s</td><td class=\"n\">%s</td></tr>\n",
                (long long)run->starts[i].step, date, run->starts[i].ranks ? ranks : "not known");
    }
    fprintf(out, "</table></div>\n");
}

static void write_settings(FILE *out, const tv_config *c)
{
    char text[160];
    fprintf(out, "<dl>\n");
    snprintf(text, sizeof text, "width %lld, blocks %lld, heads %lld", (long long)c->model.width,
             (long long)c->model.blocks, (long long)c->model.heads);
    write_figure(out, "model", text);
    snprintf(text, sizeof text, "%lld bytes", (long long)c->model.context);
    write_figure(out, "context", text);
    snprintf(text, sizeof text, "inner width %lld", (long long)c->model.ffn);
    if (c->moe.experts > 0)
        snprintf(text, sizeof text, "%lld experts of width %lld, %lld a token", (long long)c->moe.experts,
                 (long long)tv_config_expert_width(c), (long long)c->moe.top_k);
    write_figure(out, c->moe.experts > 0 ? "mixture of experts" : "feed-forward", text);
    if (c->codebook.rows > 0) {
        snprintf(text, sizeof text, "%lld rows of width %lld", (long long)c->codebook.rows,
                 (long long)c->codebook.width);
        write_figure(out, "codebook", text);
    }
    snprintf(text, sizeof text, "%lld units of %lld windows, %lld bytes", (long long)c->train.units,
             (long long)c->train.unit_windows, (long long)(c->train.units * c->train.unit_windows * c->model.context));
    write_figure(out, "step", text);
    snprintf(text, sizeof text, "%lld", (long long)c->train.seed);
    write_figure(out, "seed", text);
    snprintf(text, sizeof text, "%s%s", c->data.train_count ? c->data.train[0] : "none",
             c->data.train_count > 1 ? " and more" : "");
    write_figure(out, "text", text);
    fprintf(out, "</dl>\n");
}

static void write_config(FILE *out, const tv_report *report)
{
    if (report->config_text == NULL)
        return;
    fprintf(out, "<h2>Config</h2>\n");
    if (report->has_config)
        write_settings(out, &report->config);
    fprintf(out, "<details><summary>config.yaml</summary><pre>");
    tv_html_text(out, report->config_text);
    fprintf(out, "</pre></details>\n");
}

static void write_head(FILE *out, const tv_report *report)
{
    const tv_run_metrics *run = &report->run;
    fprintf(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n<meta name=\"viewport\" "
                 "content=\"width=device-width, initial-scale=1\"/>\n<title>");
    tv_html_text(out, report->dir);
    fprintf(out, " - trivote</title>\n<style>%s</style></head>\n<body>\n<h1>", style);
    tv_html_text(out, report->dir);
    fprintf(out, "</h1>\n<p class=\"sub\">");
    if (*run->program)
        fprintf(out, "trivote ");
    tv_html_text(out, run->program);
    if (*run->backend)
        fprintf(out, ", ");
    tv_html_text(out, run->backend);
    fprintf(out, "</p>\n");
}

tv_status tv_report_write(FILE *out, const tv_report *report)
{
    const tv_run_metrics *run = &report->run;
    write_head(out, report);
    write_warnings(out, run);
    write_figures(out, run);
    fprintf(out, "<h2>Curves</h2>\n<p class=\"legend\"><span class=\"key\"><svg viewBox=\"0 0 28 10\" "
                 "aria-hidden=\"true\"><path class=\"save\" d=\"M14 1l-4 8h8z\"/></svg>checkpoint</span> <span "
                 "class=\"key\"><svg viewBox=\"0 0 28 10\" aria-hidden=\"true\"><path class=\"restart\" d=\"M0 "
                 "5H28\"/></svg>restart</span> <span class=\"key\">time: of running, without pauses</span></p>\n"
                 "<div class=\"charts\">\n");
    TV_TRY(tv_report_write_charts(out, report));
    fprintf(out, "</div>\n");
    TV_TRY(tv_report_write_parts(out, report));
    write_config(out, report);
    write_saves(out, report);
    write_starts(out, run);
    fprintf(out, "</body></html>\n");
    return TV_OK;
}
