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

// A benchmark of one process, one of one process that reads a config, one of all ranks, or one of all ranks that trains by a config.
static const struct {
    const char *name;
    tv_status (*run)(const tv_backend *backend, FILE *out);
    tv_status (*run_ranks)(tv_comm *comm, const tv_backend *backend, FILE *out);
    tv_status (*run_config)(tv_comm *comm, const tv_backend *backend, const tv_config *config, FILE *out);
    tv_status (*disk)(int64_t bytes, const char *folder, FILE *out); // not among "all": it fills and wears a disk
} benches[] = {
    {.name = "gemm", .run = bench_gemm},
    {.name = "decode", .run = tv_bench_decode},
    {.name = "quantise", .run = tv_bench_quantise},
    {.name = "attention", .run = tv_bench_attention},
    {.name = "ops", .run = tv_bench_ops},
    {.name = "exchange", .run_ranks = tv_bench_exchange},
    {.name = "watch", .run_ranks = tv_bench_watch},
    {.name = "moe", .run_ranks = tv_bench_moe},
    {.name = "codebook", .run_config = tv_bench_codebook},
    {.name = "memgram", .run = tv_bench_memgram},
    {.name = "graph", .run = tv_bench_graph},
    {.name = "focus", .run = tv_bench_focus},
    {.name = "step", .run_config = tv_bench_step},
    {.name = "memory", .run_config = tv_bench_memory},
    {.name = "save", .disk = tv_bench_save},
};
#define BENCH_COUNT ((int64_t)(sizeof benches / sizeof *benches))
#define BENCH_NAMES                                                                                                    \
    "all, gemm, decode, quantise, attention, ops, exchange, watch, moe, codebook, memgram, graph, focus, step, "       \
    "memory, save"

// What the command line says.
typedef struct request {
    tv_comm *comm;
    const tv_backend *backend;
    const char *path; // of the config; NULL: the default one
    tv_arg_list sets;
    int64_t bytes;      // of the state that is saved
    const char *folder; // where
} request;

// Without a config: one unit a rank, of a model that suits the backend.
static tv_status default_config(const request *r, tv_config *config)
{
    static const char *const large[] = {"model.width=512",   "model.blocks=6", "model.heads=8",
                                        "model.context=256", "model.ffn=1440", "train.unit_windows=64"};
    char units[48];
    snprintf(units, sizeof units, "train.units=%d", tv_comm_size(r->comm));
    TV_TRY(tv_config_init(config));
    tv_status st = tv_config_set(config, units);
    for (size_t i = 0; st == TV_OK && !r->backend->host_memory && i < sizeof large / sizeof *large; i++)
        st = tv_config_set(config, large[i]);
    for (int64_t i = 0; st == TV_OK && i < r->sets.count; i++)
        st = tv_config_set(config, r->sets.items[i]);
    return st == TV_OK ? tv_config_check(config) : st;
}

static tv_status config_at(int64_t i, const request *r)
{
    tv_config config = {0};
    tv_status st =
        r->path ? tv_command_config(r->path, r->sets.items, r->sets.count, &config) : default_config(r, &config);
    st = tv_comm_agree(r->comm, st);
    if (st == TV_OK)
        st = benches[i].run_config(r->comm, r->backend, &config, stdout);
    tv_config_free(&config);
    return st;
}

static int is_of_one_process(int64_t i) { return benches[i].run != NULL || benches[i].disk != NULL; }

static tv_status run_at(int64_t i, const request *r)
{
    if (is_of_one_process(i) && tv_comm_size(r->comm) > 1)
        return TV_FAIL(TV_USAGE, "trivote bench %s runs as one process; start it without mpirun or srun",
                       benches[i].name);
    if (benches[i].disk != NULL)
        return r->bytes < 1 ? TV_FAIL(TV_USAGE, "--bytes %lld is no size", (long long)r->bytes)
                            : benches[i].disk(r->bytes, r->folder, stdout);
    if (benches[i].run != NULL)
        return benches[i].run(r->backend, stdout);
    if (benches[i].run_ranks != NULL)
        return benches[i].run_ranks(r->comm, r->backend, stdout);
    return config_at(i, r);
}

// "all" are those that so many ranks can run.
static tv_status run_bench(const char *name, const request *r)
{
    const char *names[BENCH_COUNT + 1] = {"all"};
    int all = strcmp(name, "all") == 0, known = all;
    for (int64_t i = 0; i < BENCH_COUNT; i++) {
        int fits = (tv_comm_size(r->comm) == 1 || !is_of_one_process(i)) && benches[i].disk == NULL;
        names[i + 1] = benches[i].name;
        if ((all && fits) || strcmp(name, benches[i].name) == 0) {
            known = 1;
            TV_TRY(run_at(i, r));
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
    request r = {.comm = comm, .bytes = (int64_t)1 << 30, .folder = "."};
    const tv_arg args[] = {
        {"--backend", TV_ARG_TEXT, &name, "auto|ref|cpu|cuda", 0},
        {"--threads", TV_ARG_INT, &threads, "N", 0},
        {"--config", TV_ARG_TEXT, &r.path, "FILE", 0},
        {"--set", TV_ARG_LIST, &r.sets, "key=value", 0},
        {"--bytes", TV_ARG_INT, &r.bytes, "N", 0},
        {"--folder", TV_ARG_TEXT, &r.folder, "DIR", 0},
    };
    const tv_arg_table table = {"bench", args, sizeof args / sizeof *args, &operands};
    tv_status st;
    TV_TRY_GOTO(st, done, tv_args_parse(&table, argc, argv));
    if (operands.count == 0) {
        st = TV_FAIL(TV_USAGE, "name what to time: " BENCH_NAMES);
        goto done;
    }
    TV_TRY_GOTO(st, done, tv_command_backend(name, comm, (int)threads, &r.backend));
    for (int64_t i = 0; st == TV_OK && i < operands.count; i++)
        st = run_bench(operands.items[i], &r);
    r.backend->close();
done:
    free(r.sets.items);
    free(operands.items);
    return st;
}
