// Sums of int8 or int16 votes over the ranks, whole (all-reduce) or split by rows (reduce-scatter, then all-gather of packed state).
#ifndef TV_COMM_VOTE_EXCHANGE_H
#define TV_COMM_VOTE_EXCHANGE_H

#include "comm/comm.h"

// Rows of a tensor split over R ranks: rank r owns rows [r c, min(N, (r + 1) c)), c = ceil(N / R). first may be N with count 0.
int64_t tv_split_block(int64_t rows, int ranks);
void tv_split_rows(int64_t rows, int rank, int ranks, int64_t *first, int64_t *count);

// votes: `bits` 8 or 16 (int8 / int16 items); `limit` = U q, the largest |sum| over all ranks; limit <= 127 for 8 bits, <= 32767 for 16.
// 16-bit votes travel as two biased 16-bit lanes in a uint32 (native order of the two int16 in memory): every rank adds a bias B to
// each lane, B = ceil(limit / 2) ... see docs/distribution.md; the sum over ranks of the biased lanes never carries into the next.
// The buffers hold an even number of items, padded by the caller with zeros.

// Collective. Every rank gets every sum, in place. count items.
tv_status tv_vote_sum(tv_comm *comm, void *votes, int bits, int64_t count, int64_t limit);
// Collective. votes holds size * block items; afterwards this rank's block holds the sums. For 16 bits block must be even.
tv_status tv_vote_scatter(tv_comm *comm, void *votes, int bits, int64_t block, int64_t limit);

#endif
