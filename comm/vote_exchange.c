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

static tv_status check_votes(const tv_comm *comm, const void *votes, int bits, int64_t limit)
{
    int64_t most = bits == 8 ? INT8_MAX : INT16_MAX;
    if (bits != 8 && bits != 16)
        return TV_FAIL(TV_INTERNAL, "votes of %d bits: only 8 and 16 are exchanged", bits);
    if (limit < 1 || limit > most)
        return TV_FAIL(TV_INTERNAL, "vote sums up to %lld do not fit %d bits", (long long)limit, bits);
    if (bits == 16 && limit % tv_comm_size(comm) != 0)
        return TV_FAIL(TV_INTERNAL, "a vote limit of %lld is not split evenly over %d ranks", (long long)limit,
                       tv_comm_size(comm));
    if (bits == 16 && (uintptr_t)votes % sizeof(uint32_t) != 0)
        return TV_FAIL(TV_INTERNAL, "16-bit votes are not aligned to 4 bytes");
    return TV_OK;
}

// lane = vote + bias, in place. Returns 1 when some vote was beyond the bias, so that its lane may carry.
static int lanes_from_votes(uint16_t *lanes, int64_t count, int bias)
{
    int beyond = 0;
    for (int64_t i = 0; i < count; i++) {
        unsigned lane = (uint16_t)(lanes[i] + bias);
        beyond |= lane > 2 * (unsigned)bias;
        lanes[i] = (uint16_t)lane;
    }
    return beyond;
}

static void votes_from_lanes(uint16_t *lanes, int64_t count, int total_bias)
{
    for (int64_t i = 0; i < count; i++)
        lanes[i] = (uint16_t)(lanes[i] - total_bias);
}

// The sums are spoilt on every rank, so this one enters no further collective: it leaves and the launcher ends the
// others.
static tv_status fail_beyond(tv_comm *comm, int bias)
{
    comm->broken = 1;
    return TV_FAIL(TV_INTERNAL, "rank %d gave a vote beyond its share of %d: its units' votes are out of range",
                   comm->rank, bias);
}

tv_status tv_vote_sum(tv_comm *comm, void *votes, int bits, int64_t count, int64_t limit)
{
    TV_TRY(check_votes(comm, votes, bits, limit));
    if (bits == 8)
        return tv_comm_sum_i8(comm, votes, count, TV_WIRE_VOTES);
    int bias = (int)(limit / tv_comm_size(comm));
    int64_t pairs = tv_ceil_div(count, 2);
    int beyond = lanes_from_votes(votes, 2 * pairs, bias);
    TV_TRY(tv_comm_sum_u32(comm, votes, pairs, TV_WIRE_VOTES));
    votes_from_lanes(votes, 2 * pairs, (int)limit);
    return beyond ? fail_beyond(comm, bias) : TV_OK;
}

tv_status tv_vote_scatter(tv_comm *comm, void *votes, int bits, int64_t block, int64_t limit)
{
    TV_TRY(check_votes(comm, votes, bits, limit));
    if (bits == 8)
        return tv_comm_reduce_scatter_i8(comm, votes, block, TV_WIRE_VOTES);
    if (block % 2 != 0)
        return TV_FAIL(TV_INTERNAL, "a block of %lld 16-bit votes is not even: pad it", (long long)block);
    int bias = (int)(limit / tv_comm_size(comm));
    int beyond = lanes_from_votes(votes, block * tv_comm_size(comm), bias);
    TV_TRY(tv_comm_reduce_scatter_u32(comm, votes, block / 2, TV_WIRE_VOTES));
    votes_from_lanes((uint16_t *)votes + tv_comm_rank(comm) * block, block, (int)limit);
    return beyond ? fail_beyond(comm, bias) : TV_OK;
}
