// Memory of a training process beyond what was planned and what any process on so many ranks takes.
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

#include "bench.h"
#include "train/trainer.h"

#define EMPTY_BYTES ((int64_t)16 << 20) // of the exchanges of the empty process

// Bytes in use: of the device, or of this process's resident pages.
static tv_status used_bytes(const tv_backend *backend, int64_t *used)
{
    int64_t all;
    long long pages = 0;
    if (backend->memory != NULL)
        return backend->memory(used, &all);
#ifdef __GLIBC__
    malloc_trim(0); // what was freed is not in use
#endif
    FILE *file = fopen("/proc/self/statm", "r");
    int found = file != NULL && fscanf(file, "%*s %lld", &pages) == 1;
    if (file != NULL)
        fclose(file);
    *used = pages * sysconf(_SC_PAGESIZE);
    return found ? TV_OK : TV_FAIL(TV_IO, "cannot read the memory of this process from /proc/self/statm");
}

// What every program on so many ranks takes: the context, the communicator, its buffers once each collective has run.
static tv_status touch_empty(tv_comm *comm, const tv_backend *backend)
{
    tv_bench_pool pool = {.backend = backend};
    int64_t size = tv_comm_size(comm), block = EMPTY_BYTES / size;
    int8_t *data = tv_bench_zeros(&pool, block * size);
    tv_status st = tv_comm_agree(comm, pool.status);
    if (st == TV_OK)
        st = tv_comm_device_sum_i8(comm, data, block * size, TV_WIRE_OTHER, NULL);
    if (st == TV_OK)
        st = tv_comm_device_reduce_scatter_i8(comm, data, block, TV_WIRE_OTHER, NULL);
    if (st == TV_OK)
        st = tv_comm_device_all_gather_bytes(comm, data, (size_t)block, TV_WIRE_OTHER, NULL);
    if (st == TV_OK)
        st = tv_comm_device_wait(comm, NULL);
    tv_bench_pool_free(&pool);
    return st;
}

static void print_bytes(FILE *out, const char *what, int64_t bytes)
{
    fprintf(out, "  %-52s %16lld %10.1f MiB\n", what, (long long)bytes, (double)bytes / (1 << 20));
}

// used: empty, with the trainer open, after the steps.
static tv_status report_memory(const tv_trainer *t, const int64_t used[3], FILE *out)
{
    const tv_params *params = &t->model.params;
    int64_t saved = (int64_t)tv_model_saved_bytes(&t->model), scratch = (int64_t)tv_model_scratch_bytes(&t->model);
    int64_t planned = (int64_t)(params->state_bytes + params->decoded_bytes + params->vote_bytes) + saved + scratch;
    int64_t beyond = used[2] - used[0] - planned, most = beyond;
    TV_TRY(tv_comm_max_i64(t->comm, &most, 1, TV_WIRE_OTHER));
    if (tv_comm_rank(t->comm) != 0)
        return TV_OK;
    fprintf(out, "memory of %s, rank 0 of %d\n", t->backend->describe(), tv_comm_size(t->comm));
    print_bytes(out, "in use before training (context, communicator)", used[0]);
    print_bytes(out, "more with the trainer open", used[1] - used[0]);
    print_bytes(out, "more after 3 steps", used[2] - used[0]);
    print_bytes(out, "planned: state", (int64_t)params->state_bytes);
    print_bytes(out, "planned: decoded weights", (int64_t)params->decoded_bytes);
    print_bytes(out, "planned: votes", (int64_t)params->vote_bytes);
    print_bytes(out, "planned: saved activations, streams", saved);
    print_bytes(out, "planned: scratch", scratch);
    print_bytes(out, "planned, all", planned);
    print_bytes(out, "beyond both", beyond);
    print_bytes(out, "beyond both, on the rank with the most", most);
    return TV_OK;
}

static tv_status watch_steps(tv_bench_run *run, int64_t used[3], FILE *out)
{
    tv_step_report report;
    const tv_backend *backend = run->trainer->backend;
    TV_TRY(used_bytes(backend, &used[1]));
    for (int s = 0; s < 3; s++)
        TV_TRY(tv_trainer_step(run->trainer, 0, &report));
    TV_TRY(used_bytes(backend, &used[2]));
    return report_memory(run->trainer, used, out);
}

tv_status tv_bench_memory(tv_comm *comm, const tv_backend *backend, const tv_config *config, FILE *out)
{
    tv_bench_run run;
    int64_t used[3] = {0};
    TV_TRY(tv_comm_device_open(comm, backend->host_memory));
    TV_TRY(touch_empty(comm, backend));
    TV_TRY(tv_comm_agree(comm, used_bytes(backend, &used[0])));
    tv_status st = tv_bench_run_open(&run, comm, backend, config);
    if (st == TV_OK)
        st = watch_steps(&run, used, out);
    tv_bench_run_close(&run);
    return st;
}
