#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "base/log.h"
#include "command.h"
#include "io/atomic_file.h"
#include "report.h"

#define CONFIG_LIMIT ((size_t)1 << 20)

// config.yaml as text, and as a config where this program understands it; a run without one is shown without.
static tv_status read_config(const char *dir, tv_report *report)
{
    char path[4096];
    size_t bytes;
    if (snprintf(path, sizeof path, "%s/config.yaml", dir) >= (int)sizeof path)
        return TV_FAIL(TV_USAGE, "run folder's name is too long: %s", dir);
    TV_TRY(tv_config_init(&report->config));
    if (tv_file_read(path, CONFIG_LIMIT, &report->config_text, &bytes) != TV_OK) {
        report->config_text = NULL;
        return TV_OK;
    }
    report->has_config = tv_config_read_text(&report->config, path, report->config_text, bytes) == TV_OK;
    return TV_OK;
}

static tv_status read_run(const char *dir, tv_report *report)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/metrics.jsonl", dir) >= (int)sizeof path)
        return TV_FAIL(TV_USAGE, "run folder's name is too long: %s", dir);
    TV_TRY(tv_run_metrics_read(path, &report->run));
    report->dir = dir;
    return read_config(dir, report);
}

static tv_status write_page(const tv_report *report, const char *path)
{
    char *page = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&page, &bytes);
    if (out == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for the report");
    tv_status st = tv_report_write(out, report);
    if (fclose(out) != 0 && st == TV_OK)
        st = TV_FAIL(TV_MEMORY, "no memory for the report");
    if (st == TV_OK && strcmp(path, "-") == 0)
        fwrite(page, 1, bytes, stdout); // main looks at stdout's state
    else if (st == TV_OK)
        st = tv_file_replace(path, page, bytes);
    free(page);
    return st;
}

static tv_status report_run(const char *dir, const char *path)
{
    char own[4096];
    tv_report report = {0};
    if (path == NULL && snprintf(own, sizeof own, "%s/report.html", dir) >= (int)sizeof own)
        return TV_FAIL(TV_USAGE, "run folder's name is too long: %s", dir);
    tv_status st = read_run(dir, &report);
    if (st == TV_OK)
        st = write_page(&report, path ? path : own);
    if (st == TV_OK && (path == NULL || strcmp(path, "-") != 0))
        tv_log_info("report: %s", path ? path : own);
    tv_run_metrics_free(&report.run);
    tv_config_free(&report.config);
    free(report.config_text);
    return st;
}

tv_status tv_cmd_report(tv_comm *comm, int argc, char **argv)
{
    const char *path = NULL;
    tv_arg_list folders = {0};
    const tv_arg args[] = {{"--out", TV_ARG_TEXT, &path, "FILE", 0}};
    const tv_arg_table table = {"report", args, sizeof args / sizeof *args, &folders};
    (void)comm;
    tv_status st = tv_args_parse(&table, argc, argv);
    if (st == TV_OK && folders.count != 1)
        st = TV_FAIL(TV_USAGE, "report takes one run folder, not %lld: trivote report RUN [--out FILE]",
                     (long long)folders.count);
    if (st == TV_OK)
        st = report_run(folders.items[0], path);
    free(folders.items);
    return st;
}
