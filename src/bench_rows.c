// Rows between ranks, there and back, against the library's own all-to-all of as many bytes.
#include <stdlib.h>

#include "bench.h"
#include "comm/row_exchange.h"

typedef struct rows_bench {
    tv_comm *comm;
    const tv_backend *backend;
    const tv_bench_rows *rows;
    int64_t *sizes, *counts, *messages; // [R] bytes, [R] rows, buffer of the counts
    int64_t *received;                  // [R]
    int32_t *units;                     // [R] zeros
    uint8_t *send, *recv;
} rows_bench;

// One way, `row_bytes` a row. own: our exchange of blocks of any length, else the library's of equal ones.
static tv_status travel(const rows_bench *b, int own, int64_t row_bytes)
{
    int64_t block = b->rows->rows * row_bytes;
    for (int r = 0; r < tv_comm_size(b->comm); r++)
        b->sizes[r] = block;
    const tv_all_to_all args = {b->send, b->sizes, b->recv, b->sizes};
    return own ? tv_comm_device_all_to_all_v_bytes(b->comm, &args, TV_WIRE_TOKENS, NULL)
               : tv_comm_device_all_to_all_bytes(b->comm, b->send, b->recv, (size_t)block, TV_WIRE_TOKENS, NULL);
}

static tv_status say_counts(const rows_bench *b)
{
    const tv_row_counts counts = {.experts = 1,
                                  .layer = b->rows->what,
                                  .expected_units = b->units,
                                  .sent = b->counts,
                                  .received = b->received,
                                  .buffer = b->messages};
    return tv_row_exchange_counts(b->comm, &counts);
}

enum { BARE, OWN, OWN_COUNTED, CONTESTANTS };

static tv_status time_one(const rows_bench *b, int contestant, double *seconds)
{
    TV_TRY(b->backend->sync(NULL));
    TV_TRY(tv_comm_barrier(b->comm));
    double start = tv_bench_now();
    if (contestant == OWN_COUNTED)
        TV_TRY(say_counts(b));
    TV_TRY(travel(b, contestant != BARE, b->rows->there));
    if (b->rows->back > 0)
        TV_TRY(travel(b, contestant != BARE, b->rows->back));
    TV_TRY(tv_comm_device_wait(b->comm, NULL));
    int64_t nanoseconds = (int64_t)(1e9 * (tv_bench_now() - start));
    TV_TRY(tv_comm_max_i64(b->comm, &nanoseconds, 1, TV_WIRE_OTHER)); // of the slowest rank
    *seconds = 1e-9 * (double)nanoseconds;
    return TV_OK;
}

static tv_status compare(const rows_bench *b, FILE *out)
{
    static const char *const names[] = {"the library's all-to-all", "own exchange", "own, with its counts"};
    double times[CONTESTANTS][TV_BENCH_ROUNDS], warm_up, bare = 0;
    for (int round = -2; round < TV_BENCH_ROUNDS; round++)
        for (int c = 0; c < CONTESTANTS; c++)
            TV_TRY(time_one(b, c, round < 0 ? &warm_up : &times[c][round]));
    if (tv_comm_rank(b->comm) != 0)
        return TV_OK;
    double moved = (double)(b->rows->rows * (b->rows->there + b->rows->back) * (tv_comm_size(b->comm) - 1));
    fprintf(out, "%s between %d ranks of %s, %.1f MB from each to others\n", b->rows->what, tv_comm_size(b->comm),
            b->backend->describe(), 1e-6 * moved);
    for (int c = 0; c < CONTESTANTS; c++) {
        double seconds = tv_bench_median(times[c], TV_BENCH_ROUNDS);
        bare = c == BARE ? seconds : bare;
        fprintf(out, "  %-26s %8.3f ms %8.1f GB/s %4.0f%%\n", names[c], 1e3 * seconds, 1e-9 * moved / seconds,
                100 * bare / seconds);
    }
    return TV_OK;
}

static tv_status take_memory(rows_bench *b, tv_bench_pool *pool)
{
    int64_t ranks = tv_comm_size(b->comm), longest = b->rows->there > b->rows->back ? b->rows->there : b->rows->back;
    b->sizes = calloc((size_t)ranks, sizeof *b->sizes);
    b->counts = calloc((size_t)ranks, sizeof *b->counts);
    b->received = calloc((size_t)ranks, sizeof *b->received);
    b->messages = calloc((size_t)tv_row_counts_buffer(ranks, 1), sizeof *b->messages);
    b->units = calloc((size_t)ranks, sizeof *b->units);
    b->send = tv_bench_zeros(pool, ranks * b->rows->rows * longest);
    b->recv = tv_bench_zeros(pool, ranks * b->rows->rows * longest);
    if (!b->sizes || !b->counts || !b->received || !b->messages || !b->units)
        return TV_FAIL(TV_MEMORY, "no memory for %lld sizes", (long long)ranks);
    for (int64_t r = 0; r < ranks; r++)
        b->counts[r] = b->rows->rows;
    return pool->status;
}

tv_status tv_bench_exchange_rows(tv_comm *comm, const tv_backend *backend, const tv_bench_rows *rows, FILE *out)
{
    tv_bench_pool pool = {.backend = backend};
    rows_bench b = {.comm = comm, .backend = backend, .rows = rows};
    tv_status st = tv_comm_agree(comm, take_memory(&b, &pool));
    if (st == TV_OK)
        st = tv_comm_device_open(comm, backend->host_memory);
    if (st == TV_OK)
        st = compare(&b, out);
    free(b.sizes);
    free(b.counts);
    free(b.received);
    free(b.messages);
    free(b.units);
    tv_bench_pool_free(&pool);
    return st;
}
