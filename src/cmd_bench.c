#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "base/nearest.h"
#include "bench.h"
#include "command.h"

typedef tv_status bench_function(const tv_backend *backend, FILE *out);

static const struct {
    const char *name;
    bench_function *run;
} benches[] = {
    {"gemm", tv_bench_gemm},
    {"ops", tv_bench_ops},
};
#define BENCH_COUNT ((int64_t)(sizeof benches / sizeof *benches))

static tv_status run_bench(const char *name, const tv_backend *backend)
{
    const char *names[BENCH_COUNT + 1] = {"all"};
    int all = strcmp(name, "all") == 0, known = all;
    for (int64_t i = 0; i < BENCH_COUNT; i++) {
        names[i + 1] = benches[i].name;
        if (all || strcmp(name, benches[i].name) == 0) {
            known = 1;
            TV_TRY(benches[i].run(backend, stdout));
        }
    }
    if (known)
        return TV_OK;
    const char *nearest = tv_nearest(name, names, BENCH_COUNT + 1);
    return TV_FAIL(TV_USAGE, "unknown benchmark '%s'%s%s%s; there are: all, gemm, ops", name, nearest ? " (did you mean '" : "",
                   nearest ? nearest : "", nearest ? "'?)" : "");
}

tv_status tv_cmd_bench(tv_comm *comm, int argc, char **argv)
{
    const char *name = "auto";
    int64_t threads = 1;
    tv_arg_list operands = {0};
    const tv_arg args[] = {
        {"--backend", TV_ARG_TEXT, &name, "auto|ref|cpu|cuda", 0},
        {"--threads", TV_ARG_INT, &threads, "N", 0},
    };
    const tv_arg_table table = {"bench", args, sizeof args / sizeof *args, &operands};
    const tv_backend *backend = NULL;
    tv_status st;
    TV_TRY_GOTO(st, done, tv_args_parse(&table, argc, argv));
    if (operands.count == 0) {
        st = TV_FAIL(TV_USAGE, "name what to time: all, gemm, ops");
        goto done;
    }
    TV_TRY_GOTO(st, done, tv_command_backend(name, comm, (int)threads, &backend));
    for (int64_t i = 0; st == TV_OK && i < operands.count; i++)
        st = run_bench(operands.items[i], backend);
    backend->close();
done:
    free(operands.items);
    return st;
}
