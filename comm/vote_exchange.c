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

static tv_status check_votes(const tv_comm *comm, const tv_votes *votes)
{
    int64_t limit = votes->limit, most = votes->bits == 8 ? INT8_MAX : INT16_MAX;
    if (votes->bits != 8 && votes->bits != 16)
        return TV_FAIL(TV_INTERNAL, "votes of %d bits: only 8 and 16 are exchanged", votes->bits);
    if (limit < 1 || limit > most)
        return TV_FAIL(TV_INTERNAL, "vote sums up to %lld do not fit %d bits", (long long)limit, votes->bits);
    if (votes->bits == 16 && limit % tv_comm_size(comm) != 0)
        return TV_FAIL(TV_INTERNAL, "a vote limit of %lld is not split evenly over %d ranks", (long long)limit,
                       tv_comm_size(comm));
    if (votes->bits == 16 && (uintptr_t)votes->data % sizeof(uint32_t) != 0)
        return TV_FAIL(TV_INTERNAL, "16-bit votes are not aligned to 4 bytes");
    return TV_OK;
}

// lane = vote + B. A lane above 2 B was a vote beyond B.
static tv_status lanes_from_votes(tv_comm *comm, const tv_votes *votes, int64_t count)
{
    int bias = (int)(votes->limit / tv_comm_size(comm));
    return tv_comm_shift_lanes(comm, &(tv_lane_shift){votes->data, count, bias, 2 * bias}, votes->stream);
}

static tv_status votes_from_lanes(tv_comm *comm, const tv_votes *votes, int64_t first, int64_t count)
{
    uint16_t *lanes = (uint16_t *)votes->data + first;
    return tv_comm_shift_lanes(comm, &(tv_lane_shift){lanes, count, -(int)votes->limit, UINT16_MAX}, votes->stream);
}

tv_status tv_vote_sum(tv_comm *comm, const tv_votes *votes, int64_t count)
{
    TV_TRY(check_votes(comm, votes));
    if (votes->bits == 8)
        return tv_comm_device_sum_i8(comm, votes->data, count, TV_WIRE_VOTES, votes->stream);
    int64_t pairs = tv_ceil_div(count, 2);
    TV_TRY(lanes_from_votes(comm, votes, 2 * pairs));
    TV_TRY(tv_comm_device_sum_u32(comm, votes->data, pairs, TV_WIRE_VOTES, votes->stream));
    return votes_from_lanes(comm, votes, 0, 2 * pairs);
}

tv_status tv_vote_scatter(tv_comm *comm, const tv_votes *votes, int64_t block)
{
    TV_TRY(check_votes(comm, votes));
    if (votes->bits == 8)
        return tv_comm_device_reduce_scatter_i8(comm, votes->data, block, TV_WIRE_VOTES, votes->stream);
    if (block % 2 != 0)
        return TV_FAIL(TV_INTERNAL, "a block of %lld 16-bit votes is not even: pad it", (long long)block);
    TV_TRY(lanes_from_votes(comm, votes, block * tv_comm_size(comm)));
    TV_TRY(tv_comm_device_reduce_scatter_u32(comm, votes->data, block / 2, TV_WIRE_VOTES, votes->stream));
    return votes_from_lanes(comm, votes, tv_comm_rank(comm) * block, block);
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
