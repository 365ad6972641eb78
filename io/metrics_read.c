#include "io/metrics_read.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    tv_run_metrics *out;
    int64_t line;
    double date;      // of the step before, NaN after a start
    int started;      // a start since the last step
    char reason[160]; // of the first line that was skipped
} reader;

// Room for one more item in a list that doubles when it is full.
static tv_status grow(void *list, int64_t count, size_t item_bytes)
{
    void **items = list;
    if (count & (count - 1)) // not a power of two: there is room
        return TV_OK;
    void *more = realloc(*items, (size_t)(count ? 2 * count : 1) * item_bytes);
    if (more == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for %lld lines of metrics", (long long)count);
    *items = more;
    return TV_OK;
}

// NaN where the key is missing, or the number so large that arithmetic with it would leave the range.
static tv_status take_number(const json_t *object, const char *key, double *value)
{
    const json_t *item = json_object_get(object, key);
    *value = json_number_value(item);
    if (item == NULL)
        *value = NAN;
    else if (!json_is_number(item))
        return TV_FAIL(TV_IO, "'%s' is no number", key);
    if (fabs(*value) > 1e200)
        *value = NAN;
    return TV_OK;
}

static tv_status take_integer(const json_t *object, const char *key, int64_t *value)
{
    const json_t *item = json_object_get(object, key);
    *value = json_integer_value(item);
    if (item && (!json_is_integer(item) || *value < 0))
        return TV_FAIL(TV_IO, "'%s' is no whole number from 0", key);
    return TV_OK;
}

static tv_status take_step(const json_t *object, int64_t *step)
{
    if (json_object_get(object, "step") == NULL)
        return TV_FAIL(TV_IO, "'step' is missing");
    return take_integer(object, "step", step);
}

static void take_text(const json_t *object, const char *key, char *text, size_t bytes)
{
    const char *value = json_string_value(json_object_get(object, key));
    if (value)
        snprintf(text, bytes, "%s", value);
}

static tv_status take_phases(const json_t *object, double *values)
{
    static const char *const names[] = {"data", "forward", "backward", "exchange", "ballot"};
    for (int i = 0; i < 5; i++) {
        TV_TRY(take_number(object, names[i], &values[TV_RUN_DATA + i]));
        values[TV_RUN_DATA + i] *= 1e3;
    }
    return TV_OK;
}

// The place of a codebook among those seen, -1 when there is no more room.
static int find_table(tv_run_metrics *out, const char *name)
{
    for (int i = 0; i < out->table_count; i++)
        if (strcmp(out->tables[i], name) == 0)
            return i;
    if (out->table_count == TV_RUN_TABLES_MAX || strlen(name) >= sizeof *out->tables)
        return -1;
    snprintf(out->tables[out->table_count], sizeof *out->tables, "%s", name);
    return out->table_count++;
}

static tv_status take_experts(const json_t *part, double *values)
{
    double least, median, most;
    TV_TRY(take_number(part, "tokens_min", &least));
    TV_TRY(take_number(part, "tokens_median", &median));
    TV_TRY(take_number(part, "tokens_max", &most));
    values[TV_RUN_TOKENS_MIN] = fmin(values[TV_RUN_TOKENS_MIN], least); // NaN gives way
    values[TV_RUN_TOKENS_MAX] = fmax(values[TV_RUN_TOKENS_MAX], most);
    if (isnan(values[TV_RUN_TOKENS_MEDIAN]))
        values[TV_RUN_TOKENS_MEDIAN] = median;
    return TV_OK;
}

static tv_status take_gates(const json_t *part, double *values)
{
    static const char *const names[] = {"topic", "reset", "dampen", "forget_fast", "forget_slow"};
    for (int i = 0; i < 5; i++) {
        TV_TRY(take_number(part, names[i], &values[TV_RUN_TOPIC + i]));
        values[TV_RUN_TOPIC + i] *= 100;
    }
    return TV_OK;
}

static int is_plain(const char *name, size_t room)
{
    size_t length = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.");
    return length > 0 && length < room && name[length] == '\0';
}

// "block.3.moe" without its block.
static const char *without_block(const char *part)
{
    const char *rest = strncmp(part, "block.", 6) == 0 ? part + 6 + strspn(part + 6, "0123456789") : part;
    return rest > part + 6 && *rest == '.' ? rest + 1 : part;
}

// The figure of this name; NULL in *found when there is no more room, or it is no name that a part would give.
static tv_status find_figure(tv_run_metrics *out, const char *part, const char *name, tv_run_figure **found)
{
    *found = NULL;
    for (int64_t i = 0; i < out->figure_count && *found == NULL; i++)
        if (strcmp(out->figures[i].part, part) == 0 && strcmp(out->figures[i].name, name) == 0)
            *found = &out->figures[i];
    if (*found || out->figure_count == TV_RUN_FIGURES_MAX || !is_plain(part, sizeof out->figures->part) ||
        !is_plain(name, sizeof out->figures->name))
        return TV_OK;
    TV_TRY(grow(&out->figures, out->figure_count, sizeof *out->figures));
    *found = &out->figures[out->figure_count++];
    memset(*found, 0, sizeof **found);
    snprintf((*found)->part, sizeof(*found)->part, "%s", part);
    snprintf((*found)->name, sizeof(*found)->name, "%s", name);
    return TV_OK;
}

// A list of numbers from 0; anything else is no histogram and passed over.
static void take_histogram(tv_run_metrics *out, const char *part, const char *name, const json_t *list, int64_t step)
{
    tv_run_histogram taken = {.step = step, .bins = (int)json_array_size(list)};
    int at = 0;
    if (json_array_size(list) < 2 || json_array_size(list) > TV_RUN_BINS_MAX || !is_plain(part, sizeof taken.part) ||
        !is_plain(name, sizeof taken.name))
        return;
    for (int k = 0; k < taken.bins; k++) {
        const json_t *item = json_array_get(list, (size_t)k);
        taken.counts[k] = json_number_value(item);
        if (!json_is_number(item) || !(taken.counts[k] >= 0 && taken.counts[k] <= 1e18))
            return;
    }
    snprintf(taken.part, sizeof taken.part, "%s", part);
    snprintf(taken.name, sizeof taken.name, "%s", name);
    while (at < out->histogram_count &&
           (strcmp(out->histograms[at].part, part) != 0 || strcmp(out->histograms[at].name, name) != 0))
        at++;
    if (at == TV_RUN_HISTOGRAMS_MAX)
        return;
    out->histograms[at] = taken;
    out->histogram_count += at == out->histogram_count;
}

static tv_status take_figures(reader *r, const char *part, const json_t *figures, int64_t step)
{
    const char *name;
    json_t *item;
    json_object_foreach((json_t *)figures, name, item)
    {
        tv_run_figure *figure;
        double value = json_number_value(item);
        if (json_is_array(item)) {
            take_histogram(r->out, without_block(part), name, item, step);
            continue;
        }
        TV_TRY(find_figure(r->out, without_block(part), name, &figure));
        if (!json_is_number(item) || fabs(value) > 1e200 || figure == NULL)
            continue;
        if (figure->count == 0 || figure->told[figure->count - 1].step != step) {
            TV_TRY(grow(&figure->told, figure->count, sizeof *figure->told));
            figure->told[figure->count++] = (tv_run_told){.step = step};
        }
        figure->told[figure->count - 1].sum += value;
        figure->told[figure->count - 1].parts++;
    }
    return TV_OK;
}

static tv_status take_parts(reader *r, const json_t *parts, tv_run_step *step)
{
    double *values = step->values;
    const char *name;
    json_t *part;
    json_object_foreach((json_t *)parts, name, part)
    {
        TV_TRY(take_experts(part, values));
        TV_TRY(take_figures(r, name, part, step->step));
        if (json_object_get(part, "edges")) {
            TV_TRY(take_number(part, "edges", &values[TV_RUN_EDGES]));
            TV_TRY(take_number(part, "mean_score", &values[TV_RUN_EDGE_SCORE]));
        }
        if (json_object_get(part, "forget_fast"))
            TV_TRY(take_gates(part, values));
        int table = json_object_get(part, "rows_used") ? find_table(r->out, name) : -1;
        if (table < 0)
            continue;
        TV_TRY(take_number(part, "rows_used", &values[TV_RUN_ROWS_USED + table]));
        TV_TRY(take_number(part, "entropy_bits", &values[TV_RUN_ENTROPY + table]));
        values[TV_RUN_ROWS_USED + table] *= 100;
    }
    return TV_OK;
}

static tv_status push_start(tv_run_metrics *out, const tv_run_start *start)
{
    TV_TRY(grow(&out->starts, out->start_count, sizeof *out->starts));
    out->starts[out->start_count++] = *start;
    return TV_OK;
}

// A process that goes on from a checkpoint does steps again that an earlier one did after it: only the later ones count.
static tv_status go_back(reader *r, int64_t step)
{
    tv_run_metrics *out = r->out;
    if (out->step_count == 0 || step > out->steps[out->step_count - 1].step)
        return TV_OK;
    while (out->step_count > 0 && out->steps[out->step_count - 1].step >= step) {
        out->step_count--;
        out->repeated++;
    }
    while (out->eval_count > 0 && out->evals[out->eval_count - 1].step >= step)
        out->eval_count--;
    while (out->save_count > 0 && out->saves[out->save_count - 1].step >= step)
        out->save_count--;
    while (out->ranks_count > 0 && out->ranks[out->ranks_count - 1].step >= step)
        out->ranks_count--;
    for (int64_t i = 0; i < out->figure_count; i++) {
        tv_run_figure *figure = &out->figures[i];
        while (figure->count > 0 && figure->told[figure->count - 1].step >= step)
            figure->count--;
    }
    if (r->started)
        return TV_OK;
    r->date = NAN;
    return push_start(out, &(tv_run_start){.step = step - 1, .date = NAN});
}

static tv_status read_step(reader *r, const json_t *object)
{
    tv_run_metrics *out = r->out;
    tv_run_step step;
    double date, bytes, flips, zeros, weights, total;
    for (int i = 0; i < TV_RUN_COLUMNS; i++)
        step.values[i] = NAN;
    TV_TRY(take_step(object, &step.step));
    TV_TRY(take_number(object, "time", &date));
    TV_TRY(take_number(object, "loss", &step.values[TV_RUN_LOSS]));
    TV_TRY(take_number(object, "bpb", &step.values[TV_RUN_BPB]));
    TV_TRY(take_number(object, "bytes", &bytes));
    TV_TRY(take_number(object, "flips", &flips));
    TV_TRY(take_number(object, "zeros", &zeros));
    TV_TRY(take_number(object, "weights", &weights));
    TV_TRY(take_integer(object, "bytes_seen", &out->bytes_seen));
    TV_TRY(take_integer(object, "ranks", &out->rank_count));
    const json_t *seconds = json_object_get(object, "seconds");
    TV_TRY(take_number(seconds, "total", &total));
    TV_TRY(take_phases(seconds, step.values));
    step.values[TV_RUN_FLIPS] = weights > 0 ? 1e6 * flips / weights : NAN;
    step.values[TV_RUN_ZEROS] = weights > 0 ? 100 * zeros / weights : NAN;
    step.values[TV_RUN_RATE] = total > 0 ? bytes / total : NAN;
    TV_TRY(go_back(r, step.step));
    TV_TRY(take_parts(r, json_object_get(object, "parts"), &step));
    double before = out->step_count ? out->steps[out->step_count - 1].values[TV_RUN_ELAPSED] : 0;
    double spent = date - r->date; // also what lies between two steps of a process: saves, evaluations
    if (!(spent >= 0))             // or NaN
        spent = total > 0 ? total : 0;
    step.values[TV_RUN_ELAPSED] = before + spent;
    r->date = date;
    r->started = 0;
    TV_TRY(grow(&out->steps, out->step_count, sizeof *out->steps));
    out->steps[out->step_count++] = step;
    return TV_OK;
}

static tv_status read_start(reader *r, const json_t *object)
{
    tv_run_start start = {0};
    TV_TRY(take_step(object, &start.step));
    TV_TRY(take_number(object, "time", &start.date));
    TV_TRY(take_integer(object, "ranks", &start.ranks));
    TV_TRY(take_integer(object, "last_step", &r->out->last_step));
    take_text(object, "program", r->out->program, sizeof r->out->program);
    take_text(object, "backend", r->out->backend, sizeof r->out->backend);
    r->started = 1;
    r->date = NAN;
    return push_start(r->out, &start);
}

static tv_status read_eval(reader *r, const json_t *object)
{
    tv_run_metrics *out = r->out;
    tv_run_eval eval;
    TV_TRY(take_step(object, &eval.step));
    TV_TRY(take_number(object, "bpb", &eval.bpb));
    if (out->eval_count > 0 && out->evals[out->eval_count - 1].step >= eval.step)
        out->eval_count--; // the same state once more
    TV_TRY(grow(&out->evals, out->eval_count, sizeof *out->evals));
    out->evals[out->eval_count++] = eval;
    return TV_OK;
}

static tv_status read_save(reader *r, const json_t *object)
{
    tv_run_metrics *out = r->out;
    tv_run_save save = {.digest = ""};
    TV_TRY(take_step(object, &save.step));
    TV_TRY(take_number(object, "time", &save.date));
    TV_TRY(take_number(object, "seconds", &save.seconds));
    take_text(object, "digest", save.digest, sizeof save.digest);
    TV_TRY(grow(&out->saves, out->save_count, sizeof *out->saves));
    out->saves[out->save_count++] = save;
    return TV_OK;
}

static tv_status read_ranks(reader *r, const json_t *object)
{
    tv_run_metrics *out = r->out;
    tv_run_ranks ranks;
    TV_TRY(take_step(object, &ranks.step));
    TV_TRY(take_integer(object, "slowest_rank", &ranks.slowest));
    TV_TRY(take_number(object, "ratio", &ranks.ratio));
    TV_TRY(take_number(json_object_get(object, "gpu"), "temperature_c", &ranks.temperature));
    TV_TRY(grow(&out->ranks, out->ranks_count, sizeof *out->ranks));
    out->ranks[out->ranks_count++] = ranks;
    return TV_OK;
}

static tv_status read_event(reader *r, const json_t *object)
{
    static const struct {
        const char *name;
        tv_status (*read)(reader *r, const json_t *object);
    } events[] = {{"step", read_step},
                  {"start", read_start},
                  {"eval", read_eval},
                  {"checkpoint", read_save},
                  {"ranks", read_ranks}};
    const char *name = json_string_value(json_object_get(object, "event"));
    for (size_t i = 0; name && i < sizeof events / sizeof *events; i++)
        if (strcmp(name, events[i].name) == 0)
            return events[i].read(r, object);
    return TV_OK;
}

static void skip_line(reader *r, const char *reason)
{
    if (r->out->skipped_lines++ > 0)
        return;
    r->out->first_skipped = r->line;
    snprintf(r->reason, sizeof r->reason, "%s", reason);
}

static tv_status read_line(reader *r, const char *text, size_t bytes)
{
    json_error_t error;
    tv_status st = TV_OK;
    json_t *object = json_loadb(text, bytes, 0, &error);
    r->line++;
    if (json_is_object(object))
        st = read_event(r, object);
    else
        skip_line(r, object ? "another value" : error.text);
    json_decref(object);
    return st;
}

static tv_status read_all(reader *r, FILE *in, const char *path)
{
    char *text = NULL;
    size_t room = 0;
    ssize_t bytes;
    tv_status st = TV_OK;
    errno = 0;
    while (st == TV_OK && (bytes = getline(&text, &room, in)) > 0) {
        if (bytes == 1 && *text == '\n')
            r->line++;
        else if ((st = read_line(r, text, (size_t)bytes)) != TV_OK)
            tv_status_context(st, "%s:%lld", path, (long long)r->line);
    }
    if (st == TV_OK && !feof(in))
        st = TV_FAIL(TV_IO, "cannot read %s: %s", path, strerror(errno));
    free(text);
    return st;
}

tv_status tv_run_metrics_read(const char *path, tv_run_metrics *out)
{
    reader r = {.out = out, .date = NAN};
    *out = (tv_run_metrics){0};
    FILE *in = fopen(path, "r");
    if (in == NULL)
        return TV_FAIL(TV_IO, "cannot read %s: %s; give the folder of a run", path, strerror(errno));
    tv_status st = read_all(&r, in, path);
    fclose(in);
    if (st == TV_OK && out->step_count == 0 && out->skipped_lines > 0)
        st = TV_FAIL(TV_IO, "%s holds no step; line %lld is no JSON object: %s", path, (long long)out->first_skipped,
                     r.reason);
    else if (st == TV_OK && out->step_count == 0)
        st = TV_FAIL(TV_IO, "%s holds no step yet", path);
    if (st != TV_OK)
        tv_run_metrics_free(out);
    return st;
}

void tv_run_metrics_free(tv_run_metrics *metrics)
{
    free(metrics->steps);
    free(metrics->evals);
    free(metrics->saves);
    free(metrics->starts);
    free(metrics->ranks);
    for (int64_t i = 0; i < metrics->figure_count; i++)
        free(metrics->figures[i].told);
    free(metrics->figures);
    *metrics = (tv_run_metrics){0};
}
