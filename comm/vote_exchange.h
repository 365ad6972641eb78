// Sums of int8 or int16 votes over the ranks, whole (all-reduce) or split by rows (reduce-scatter, then all-gather of
// packed state).
#ifndef TV_COMM_VOTE_EXCHANGE_H
#define TV_COMM_VOTE_EXCHANGE_H

#include "comm/comm.h"

// Rows of a tensor split over R ranks: rank r owns rows [r c, min(N, (r + 1) c)), c = ceil(N / R). first may be N with
// count 0.
int64_t tv_split_block(int64_t rows, int ranks);
void tv_split_rows(int64_t rows, int rank, int ranks, int64_t *first, int64_t *count);

// The votes of a tensor, in the memory of the compute backend: sums of this rank's units.
// 8-bit votes are summed as they are. 16-bit votes travel as two lanes of a uint32, in the order of the two int16 in
// memory:
//   lane_r = v_r + B, B = limit / R;    v = sum_r lane_r - limit
// R divides U, so B is exact and |v_r| <= B. Then 0 <= lane_r <= 2 B, and the sum over ranks stays in [0, 2 limit]: it
// never carries into the next lane.
typedef struct tv_votes {
    void *data;    // int8 or int16 items; 16-bit buffers are 4-byte aligned
    int bits;      // 8 or 16
    int64_t limit; // U q, the largest |sum| over all ranks: at most 127 for 8 bits, 32767 for 16
    int64_t items; // of the tensor for tv_vote_sum, of a rank's block for tv_vote_scatter
} tv_votes;

// Both take `tensors` tensors, queue their exchange together on the backend's `stream`, and are done when
// tv_vote_finish returns. Wrong arguments, the same on all ranks, give TV_INTERNAL before anything moves.

// Collective. Every rank gets every sum, in place. For 16 bits an odd count takes the item after it along, which the
// caller's buffer must hold (a pad of zero).
tv_status tv_vote_sum(tv_comm *comm, const tv_votes *votes, int64_t tensors, void *stream);
// Collective. The data holds size * block items; afterwards this rank's block, items rank * block and on, holds the
// sums and the other blocks are undefined. For 16 bits the block must be even.
tv_status tv_vote_scatter(tv_comm *comm, const tv_votes *votes, int64_t tensors, void *stream);
// Local. Waits for what was queued on the stream. A 16-bit vote beyond B, in any exchange since the last call, is a
// fault of the caller that spoilt the sums of all ranks: TV_INTERNAL, and as after a failed collective this rank enters
// no other (comm.h).
tv_status tv_vote_finish(tv_comm *comm, void *stream);

#endif
