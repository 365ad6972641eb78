#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "base/nearest.h"
#include "bench.h"
#include "command.h"
#ifdef TV_BENCH_CUDA
#include "kernels/cuda/bench_cuda.h"
#endif

// A GPU's products have opponents of their own.
static tv_status bench_gemm(const tv_backend *backend, FILE *out)
{
#ifdef TV_BENCH_CUDA
    if (strcmp(backend->name, "cuda") == 0)
        return tv_bench_gemm_cuda(out);
#endif
    return tv_bench_gemm(backend, out);
}

// A benchmark of one process, or one of all ranks.
static const struct {
    const char *name;
    tv_status (*run)(const tv_backend *backend, FILE *out);
    tv_status (*run_ranks)(tv_comm *comm, const tv_backend *backend, FILE *out);
} benches[] = {
    {"gemm", bench_gemm, NULL},
    {"ops", tv_bench_ops, NULL},
    {"exchange", NULL, tv_bench_exchange},
};
#define BENCH_COUNT ((int64_t)(sizeof benches / sizeof *benches))
#define BENCH_NAMES "all, gemm, ops, exchange"

static tv_status run_at(int64_t i, tv_comm *comm, const tv_backend *backend)
{
    if (benches[i].run_ranks != NULL)
        return benches[i].run_ranks(comm, backend, stdout);
    if (tv_comm_size(comm) > 1)
        return TV_FAIL(TV_USAGE, "trivote bench %s runs as one process; start it without mpirun or srun",
                       benches[i].name);
    return benches[i].run(backend, stdout);
}

static tv_status run_bench(const char *name, tv_comm *comm, const tv_backend *backend)
{
    const char *names[BENCH_COUNT + 1] = {"all"};
    int all = strcmp(name, "all") == 0, known = all;
    for (int64_t i = 0; i < BENCH_COUNT; i++) {
        names[i + 1] = benches[i].name;
        if (all || strcmp(name, benches[i].name) == 0) {
            known = 1;
            TV_TRY(run_at(i, comm, backend));
        }
    }
    if (known)
        return TV_OK;
    const char *nearest = tv_nearest(name, names, BENCH_COUNT + 1);
    return TV_FAIL(TV_USAGE, "unknown benchmark '%s'%s%s%s; there are: " BENCH_NAMES, name,
                   nearest ? " (did you mean '" : "", nearest ? nearest : "", nearest ? "'?)" : "");
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
        st = TV_FAIL(TV_USAGE, "name what to time: " BENCH_NAMES);
        goto done;
    }
    TV_TRY_GOTO(st, done, tv_command_backend(name, comm, (int)threads, &backend));
    for (int64_t i = 0; st == TV_OK && i < operands.count; i++)
        st = run_bench(operands.items[i], comm, backend);
    backend->close();
done:
    free(operands.items);
    return st;
}
