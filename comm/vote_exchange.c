// Sums of votes over the ranks: int8 directly, int16 as biased lanes of a uint32.
#include "comm/vote_exchange.h"

#include "base/tensor.h"
#include "comm/comm_impl.h"

int64_t tv_split_block(int64_t rows, int ranks) { return tv_ceil_div(rows, ranks); }

void tv_split_rows(int64_t rows, int rank, int ranks, int64_t *first, int64_t *count)
{
    int64_t block = tv_split_block(rows, ranks);
    int64_t begin = rank * block < rows ? rank * block : rows;
    int64_t end = begin + block < rows ? begin + block : rows;
    *first = begin;
    *count = end - begin;
}

static tv_status check_votes(const tv_comm *comm, const tv_votes *v, int scatter)
{
    int64_t most = v->bits == 8 ? INT8_MAX : INT16_MAX;
    if (v->bits != 8 && v->bits != 16)
        return TV_FAIL(TV_INTERNAL, "votes of %d bits: only 8 and 16 are exchanged", v->bits);
    if (v->limit < 1 || v->limit > most)
        return TV_FAIL(TV_INTERNAL, "vote sums up to %lld do not fit %d bits", (long long)v->limit, v->bits);
    if (v->bits == 16 && v->limit % tv_comm_size(comm) != 0)
        return TV_FAIL(TV_INTERNAL, "a vote limit of %lld is not split evenly over %d ranks", (long long)v->limit,
                       tv_comm_size(comm));
    if (v->bits == 16 && (uintptr_t)v->data % sizeof(uint32_t) != 0)
        return TV_FAIL(TV_INTERNAL, "16-bit votes are not aligned to 4 bytes");
    if (v->bits == 16 && scatter && v->items % 2 != 0)
        return TV_FAIL(TV_INTERNAL, "a block of %lld 16-bit votes is not even: pad it", (long long)v->items);
    return TV_OK;
}

// What an exchange works on.
typedef struct exchange {
    tv_comm *comm;
    int scatter; // else the whole sum
    void *stream;
} exchange;

// lane = vote + B. A lane above 2 B was a vote beyond B.
static tv_status lanes_from_votes(const exchange *x, const tv_votes *v)
{
    int size = tv_comm_size(x->comm), bias = (int)(v->limit / size);
    int64_t count = x->scatter ? v->items * size : 2 * tv_ceil_div(v->items, 2);
    return tv_comm_shift_lanes(x->comm, &(tv_lane_shift){v->data, count, bias, 2 * bias}, x->stream);
}

static tv_status votes_from_lanes(const exchange *x, const tv_votes *v)
{
    uint16_t *lanes = (uint16_t *)v->data + (x->scatter ? tv_comm_rank(x->comm) * v->items : 0);
    int64_t count = 2 * tv_ceil_div(v->items, 2);
    return tv_comm_shift_lanes(x->comm, &(tv_lane_shift){lanes, count, -(int)v->limit, UINT16_MAX}, x->stream);
}

static tv_status move(const exchange *x, const tv_votes *v)
{
    int64_t words = tv_ceil_div(v->items, 2);
    if (v->bits == 8 && x->scatter)
        return tv_comm_device_reduce_scatter_i8(x->comm, v->data, v->items, TV_WIRE_VOTES, x->stream);
    if (v->bits == 8)
        return tv_comm_device_sum_i8(x->comm, v->data, v->items, TV_WIRE_VOTES, x->stream);
    if (x->scatter)
        return tv_comm_device_reduce_scatter_u32(x->comm, v->data, words, TV_WIRE_VOTES, x->stream);
    return tv_comm_device_sum_u32(x->comm, v->data, words, TV_WIRE_VOTES, x->stream);
}

// How many tensors from votes[first] on lie right behind each other in memory, so that one sum moves them all, and their votes.
static int64_t side_by_side(const tv_votes *votes, int64_t first, int64_t tensors, int64_t *items)
{
    const tv_votes *v = &votes[first];
    int64_t next = first + 1;
    *items = v->items;
    while (next < tensors && votes[next].bits == v->bits && (v->bits == 8 || *items % 2 == 0) &&
           (char *)votes[next].data == (char *)v->data + *items * v->bits / 8)
        *items += votes[next++].items;
    return next - first;
}

// Three passes, so that the middle one is a single batch, of few calls: NCCL shares its channels out among the calls of a batch.
static tv_status run(const exchange *x, const tv_votes *votes, int64_t tensors)
{
    for (int64_t i = 0; i < tensors; i++)
        TV_TRY(check_votes(x->comm, &votes[i], x->scatter));
    for (int64_t i = 0; i < tensors; i++)
        if (votes[i].bits == 16)
            TV_TRY(lanes_from_votes(x, &votes[i]));
    TV_TRY(tv_comm_device_begin(x->comm));
    for (int64_t i = 0, next; i < tensors; i = next) {
        tv_votes joined = votes[i];
        next = i + (x->scatter ? 1 : side_by_side(votes, i, tensors, &joined.items));
        TV_TRY(move(x, &joined));
    }
    TV_TRY(tv_comm_device_end(x->comm));
    for (int64_t i = 0; i < tensors; i++)
        if (votes[i].bits == 16)
            TV_TRY(votes_from_lanes(x, &votes[i]));
    return TV_OK;
}

tv_status tv_vote_sum(tv_comm *comm, const tv_votes *votes, int64_t tensors, void *stream)
{
    return run(&(exchange){comm, 0, stream}, votes, tensors);
}

tv_status tv_vote_scatter(tv_comm *comm, const tv_votes *votes, int64_t tensors, void *stream)
{
    return run(&(exchange){comm, 1, stream}, votes, tensors);
}

tv_status tv_vote_finish(tv_comm *comm, void *stream)
{
    TV_TRY(tv_comm_device_wait(comm, stream));
    if (!comm->votes_beyond)
        return TV_OK;
    comm->votes_beyond = 0;
    return tv_comm_leave(
        comm,
        TV_FAIL(TV_INTERNAL, "rank %d gave a vote beyond its share: its units' votes are out of range", comm->rank));
}
