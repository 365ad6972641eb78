// The vote exchange between the ranks that run, in both forms, against the bare sum of as many bytes.
#include <stdlib.h>

#include "base/rng.h"
#include "bench.h"
#include "comm/vote_exchange.h"

enum { ROUNDS = 11, MOST_VOTE = 100, SEED_ITEMS = 1 << 22 };
#define ITEMS_GPU ((int64_t)1000000000)
#define ITEMS_HOST ((int64_t)1 << 24)
#define TENSORS 256 // of the contestants with many
#define GAP 256     // bytes between two of them
#define GROUP 32    // weights that share an exponent, in the sharded form

typedef struct exchange_bench {
    tv_comm *comm;
    const tv_backend *backend;
    int64_t items;   // votes; a multiple of 8 R
    int16_t *seed;   // [SEED_ITEMS] votes in [-MOST_VOTE, MOST_VOTE]
    int16_t *buffer; // [items], refilled before each round
} exchange_bench;

typedef tv_status exchange_run(const exchange_bench *b);

static tv_votes votes_of(const exchange_bench *b, int bits, int64_t items)
{
    return (tv_votes){b->buffer, bits, bits == 8 ? INT8_MAX : MOST_VOTE * tv_comm_size(b->comm), items};
}

static tv_status sum_words(const exchange_bench *b)
{
    TV_TRY(tv_comm_device_sum_u32(b->comm, (uint32_t *)b->buffer, b->items / 4, TV_WIRE_OTHER, NULL));
    return tv_comm_device_wait(b->comm, NULL);
}

static tv_status sum_votes(const exchange_bench *b, int bits)
{
    tv_votes votes = votes_of(b, bits, b->items);
    TV_TRY(tv_vote_sum(b->comm, &votes, 1, NULL));
    return tv_vote_finish(b->comm, NULL);
}

// Almost as many votes, in as many tensors as a model has, with `gap` bytes between two.
static tv_status sum_many_votes8(const exchange_bench *b, int64_t gap)
{
    tv_votes votes[TENSORS];
    int64_t items = b->items / TENSORS;
    for (int64_t i = 0; i < TENSORS; i++)
        votes[i] = (tv_votes){(int8_t *)b->buffer + i * items, 8, INT8_MAX, items - gap};
    TV_TRY(tv_vote_sum(b->comm, votes, TENSORS, NULL));
    return tv_vote_finish(b->comm, NULL);
}

static tv_status sum_near_votes8(const exchange_bench *b) { return sum_many_votes8(b, 0); }

static tv_status sum_apart_votes8(const exchange_bench *b) { return sum_many_votes8(b, GAP); }

static tv_status sum_votes8(const exchange_bench *b) { return sum_votes(b, 8); }

static tv_status sum_votes16(const exchange_bench *b) { return sum_votes(b, 16); }

// As the trainer does it, less the ballot between the two.
static tv_status share_votes(const exchange_bench *b, int bits)
{
    int64_t block = b->items / tv_comm_size(b->comm);
    tv_votes votes = votes_of(b, bits, block);
    TV_TRY(tv_vote_scatter(b->comm, &votes, 1, NULL));
    TV_TRY(tv_vote_finish(b->comm, NULL));
    TV_TRY(tv_comm_device_all_gather_bytes(b->comm, b->buffer, (size_t)(block / 5), TV_WIRE_STATE, NULL));
    TV_TRY(tv_comm_device_all_gather_bytes(b->comm, b->buffer, (size_t)(block / GROUP), TV_WIRE_STATE, NULL));
    return tv_comm_device_wait(b->comm, NULL);
}

static tv_status share_votes8(const exchange_bench *b) { return share_votes(b, 8); }

static tv_status share_votes16(const exchange_bench *b) { return share_votes(b, 16); }

// on_bus: bytes a vote that a rank must send and receive, less the factor (R - 1) / R: a sum moves its payload twice,
// its two halves once each.
static const struct {
    const char *name;
    exchange_run *run;
    double on_bus;
} contestants[] = {
    {"sum of 32-bit words, as many bytes as 8-bit votes", sum_words, 2.0},
    {"8-bit votes, allreduce", sum_votes8, 2.0},
    {"8-bit votes of 256 tensors side by side, allreduce", sum_near_votes8, 2.0},
    {"8-bit votes of 256 tensors with gaps, allreduce", sum_apart_votes8, 2.0},
    {"16-bit votes, allreduce", sum_votes16, 4.0},
    {"8-bit votes, sharded", share_votes8, 1.0 + 1.0 / 5 + 1.0 / GROUP},
    {"16-bit votes, sharded", share_votes16, 2.0 + 1.0 / 5 + 1.0 / GROUP},
};
#define CONTESTANTS ((int)(sizeof contestants / sizeof *contestants))

static tv_status refill(const exchange_bench *b)
{
    int64_t filled = b->items < SEED_ITEMS ? b->items : SEED_ITEMS;
    TV_TRY(b->backend->copy(b->buffer, b->seed, (size_t)filled * sizeof *b->seed, TV_COPY_DEVICE, NULL));
    while (filled < b->items) {
        int64_t more = b->items - filled < filled ? b->items - filled : filled;
        TV_TRY(b->backend->copy(b->buffer + filled, b->buffer, (size_t)more * sizeof *b->seed, TV_COPY_DEVICE, NULL));
        filled += more;
    }
    return b->backend->sync(NULL);
}

// Seconds of the slowest rank.
static tv_status time_one(const exchange_bench *b, exchange_run *run, double *seconds)
{
    TV_TRY(refill(b));
    TV_TRY(tv_comm_barrier(b->comm));
    double start = tv_bench_now();
    TV_TRY(run(b));
    int64_t nanoseconds = (int64_t)(1e9 * (tv_bench_now() - start));
    TV_TRY(tv_comm_max_i64(b->comm, &nanoseconds, 1, TV_WIRE_OTHER));
    *seconds = 1e-9 * (double)nanoseconds;
    return TV_OK;
}

static void print_table(const exchange_bench *b, double times[CONTESTANTS][ROUNDS], FILE *out)
{
    double ranks = tv_comm_size(b->comm), first = 0;
    fprintf(out, "exchange of %lld votes, %d ranks, backend %s, median of %d\n", (long long)b->items,
            tv_comm_size(b->comm), b->backend->describe(), ROUNDS);
    fprintf(out, "%-52s %10s %14s %8s\n", "", "ms", "bus GB/s", "of bare");
    for (int c = 0; c < CONTESTANTS; c++) {
        double seconds = tv_bench_median(times[c], ROUNDS);
        double bus = contestants[c].on_bus * (ranks - 1) / ranks * (double)b->items / seconds;
        first = c == 0 ? bus : first;
        fprintf(out, "%-52s %10.3f %14.1f %7.0f%%\n", contestants[c].name, 1e3 * seconds, 1e-9 * bus,
                first > 0 ? 100 * bus / first : 100.0);
    }
}

static tv_status time_all(const exchange_bench *b, FILE *out)
{
    double times[CONTESTANTS][ROUNDS], warm_up;
    for (int round = -1; round < ROUNDS; round++)
        for (int c = 0; c < CONTESTANTS; c++)
            TV_TRY(time_one(b, contestants[c].run, round < 0 ? &warm_up : &times[c][round]));
    if (tv_comm_rank(b->comm) == 0)
        print_table(b, times, out);
    return TV_OK;
}

// Random votes, eight from a block of draws.
static int16_t *make_seed(tv_bench_pool *pool)
{
    int16_t *memory = NULL, *votes = malloc(SEED_ITEMS * sizeof *votes);
    if (votes == NULL) {
        pool->status = TV_FAIL(TV_MEMORY, "no memory for %d votes", SEED_ITEMS);
        return NULL;
    }
    for (int64_t i = 0; i < SEED_ITEMS; i++) {
        uint32_t draw = tv_rng16((tv_rng_key){.seed = 1}, (uint64_t)i);
        votes[i] = (int16_t)((int)(draw % (2 * MOST_VOTE + 1)) - MOST_VOTE);
    }
    memory = tv_bench_copy(pool, votes, SEED_ITEMS * (int64_t)sizeof *votes);
    free(votes);
    return memory;
}

tv_status tv_bench_exchange(tv_comm *comm, const tv_backend *backend, FILE *out)
{
    tv_bench_pool pool = {.backend = backend};
    int64_t unit = 8 * tv_comm_size(comm), items = backend->host_memory ? ITEMS_HOST : ITEMS_GPU;
    exchange_bench b = {.comm = comm, .backend = backend, .items = items / unit * unit};
    b.seed = make_seed(&pool);
    b.buffer = tv_bench_zeros(&pool, b.items * (int64_t)sizeof *b.buffer);
    tv_status st = tv_comm_agree(comm, pool.status);
    if (st == TV_OK)
        st = tv_comm_device_open(comm, backend->host_memory);
    if (st == TV_OK)
        st = time_all(&b, out);
    tv_bench_pool_free(&pool);
    return st;
}
