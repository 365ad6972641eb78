// From the step's votes to the next trits and exponents, over the whole parameter table (docs/numerics.md, section 4).
#ifndef TV_TRAIN_BALLOT_H
#define TV_TRAIN_BALLOT_H

#include <stdint.h>

#include "base/config.h"
#include "base/status.h"
#include "comm/vote_exchange.h"
#include "model/params.h"

// What a ballot did, over all tensors and all ranks.
typedef struct tv_ballot_report {
    int64_t flips; // trits that moved
    int64_t zeros; // zero trits after the step
    int64_t exponent_moves;
    int64_t weights; // trainable weights
} tv_ballot_report;

// Backend memory for counts and the host copies; made once.
typedef struct tv_ballot_box {
    tv_params *params;
    tv_comm *comm;
    const tv_config *config;
    int64_t *counts;    // backend: [256] histogram, then flips, zeros, exponent moves
    int64_t *rank_ties; // [R] flip cap: candidates at the cut, a rank
    tv_votes *votes;    // [vote_count] what the exchange moves, in the table's order
    int64_t *owners;    // [vote_count] whose votes they are: places in the table
    int64_t vote_count;
    // The exchange of a step: votes[ready ..] are final, votes[sent ..] are on their way.
    int64_t ready, sent, waiting_bytes; // waiting_bytes: of votes[ready .. sent)
    int64_t buckets;                    // sent since the start
} tv_ballot_box;

// Local. The communicator must know the backend's memory (tv_comm_device_open) before the first exchange.
tv_status tv_ballot_box_open(tv_ballot_box *box, tv_params *params, tv_comm *comm, const tv_config *config);
void tv_ballot_box_close(tv_ballot_box *box);

// The sum of the votes over the ranks: every sum everywhere (allreduce) or each rank its own rows (sharded).
// Collective. The votes of the table's tensors from `first` on are final, or will be when what is queued on the
// backend's stream is done. They travel in buckets of vote.bucket_bytes or a little more, beside what the backend
// computes from here on. Which tensors share a bucket depends on the table alone, not on how the calls cut it.
tv_status tv_ballot_exchange_ready(tv_ballot_box *box, int64_t first);
// Collective. All other votes are final too: sends the rest, and returns when every sum is there.
tv_status tv_ballot_exchange_finish(tv_ballot_box *box);
// Collective. Run the update rule on the own rows with the summed votes; `loss` is the step's mean in nats (rule classic).
tv_status tv_ballot_run(tv_ballot_box *box, int64_t step, double loss, tv_ballot_report *report);
// Collective. With sharded exchange: every rank gets the new packed trits and exponents of all rows. Otherwise nothing.
tv_status tv_ballot_share(tv_ballot_box *box);

// Bytes that tv_ballot_exchange and tv_ballot_share hand to collectives, by formula (docs/distribution.md).
int64_t tv_ballot_vote_bytes(const tv_params *params);
int64_t tv_ballot_state_bytes(const tv_params *params);

#endif
