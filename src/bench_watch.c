// What a step pays to be watched: the record of a collective, a mark of progress, and the guard between the ranks that run.
#include "bench.h"
#include "comm/guard.h"
#include "comm/watch.h"

enum { ROUNDS = 11, CALLS = 2000 };

// A collective that does nothing: its record is what remains.
static tv_status record(tv_comm *alone, int call)
{
    (void)call;
    return tv_comm_barrier(alone);
}

static tv_status mark(tv_comm *alone, int call)
{
    (void)alone;
    tv_watch_mark(TV_PHASE_UNITS, call);
    return TV_OK;
}

static tv_status check(tv_comm *comm, int call) { return tv_guard_check(comm, &(tv_guard){.step = call}); }

static const struct {
    const char *name;
    tv_status (*call)(tv_comm *comm, int call);
    int all_ranks;
} contestants[] = {
    {"record of a collective", record, 0},
    {"mark of progress", mark, 0},
    {"guard of a step", check, 1},
};
#define CONTESTANTS ((int)(sizeof contestants / sizeof *contestants))

// Nanoseconds a call.
static tv_status time_one(tv_comm *comm, int c, double *nanoseconds)
{
    double start = tv_bench_now();
    for (int i = 0; i < CALLS; i++)
        TV_TRY(contestants[c].call(comm, i));
    *nanoseconds = 1e9 * (tv_bench_now() - start) / CALLS;
    return TV_OK;
}

static tv_status time_all(tv_comm *comm, tv_comm *alone, double times[CONTESTANTS][ROUNDS])
{
    for (int round = 0; round < ROUNDS; round++)
        for (int c = 0; c < CONTESTANTS; c++)
            TV_TRY(time_one(contestants[c].all_ranks ? comm : alone, c, &times[c][round]));
    return TV_OK;
}

tv_status tv_bench_watch(tv_comm *comm, const tv_backend *backend, FILE *out)
{
    double times[CONTESTANTS][ROUNDS];
    tv_comm *alone = NULL;
    (void)backend;
    TV_TRY(tv_comm_agree(comm, tv_comm_open_self(&alone)));
    tv_status st = time_all(comm, alone, times);
    if (st == TV_OK && tv_comm_rank(comm) == 0) {
        fprintf(out, "being watched, %d ranks, median of %d\n%-32s %10s\n", tv_comm_size(comm), ROUNDS, "", "ns");
        for (int c = 0; c < CONTESTANTS; c++)
            fprintf(out, "%-32s %10.0f\n", contestants[c].name, tv_bench_median(times[c], ROUNDS));
    }
    tv_comm_close(alone);
    return st;
}
