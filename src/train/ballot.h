// From the step's votes to the next trits and exponents, over the whole parameter table (docs/numerics.md, section 4).
#ifndef TV_TRAIN_BALLOT_H
#define TV_TRAIN_BALLOT_H

#include <stdint.h>

#include "base/config.h"
#include "base/status.h"
#include "comm/vote_exchange.h"
#include "model/params.h"
#include "model/part.h"
#include "train/places.h"

// What a ballot did, over all tensors and all ranks.
typedef struct tv_ballot_report {
    int64_t flips; // trits that moved
    int64_t zeros; // zero trits after the step
    int64_t exponent_moves;
    int64_t weights; // trainable weights
} tv_ballot_report;

// Tensors whose votes the same ranks sum, in the table's order. The exchange of a step: votes[ready ..] are final,
// votes[sent ..] are on their way.
typedef struct tv_vote_lane {
    tv_comm *comm;                             // NULL: this rank alone, nothing travels
    int scatter;                               // each rank gets the sums of its own rows
    tv_votes *votes;                           // [count] what the exchange moves
    int64_t *owners;                           // [count] whose votes they are: places in the table
    int64_t count, ready, sent, waiting_bytes; // waiting_bytes: of votes[ready .. sent)
} tv_vote_lane;

enum { TV_LANE_DENSE, TV_LANE_EXPERT, TV_LANE_COUNT };

// Backend memory for counts and the host copies; made once.
typedef struct tv_ballot_box {
    tv_params *params;
    const tv_places *places;
    const tv_config *config;
    int64_t *counts;    // backend: [256] histogram, then flips, zeros, exponent moves of each lane's tensors
    int64_t *rank_ties; // [R] flip cap: candidates at the cut, a rank
    tv_vote_lane lanes[TV_LANE_COUNT]; // over all ranks, and over the replicas of this rank's experts
    int64_t vote_count;                // tensors that take votes
    int64_t buckets;                   // sent since the start
} tv_ballot_box;

// Local. The communicators must know the backend's memory (tv_comm_device_open) before the first exchange.
tv_status tv_ballot_box_open(tv_ballot_box *box, tv_params *params, const tv_places *places, const tv_config *config);
void tv_ballot_box_close(tv_ballot_box *box);

// The sum of the votes over the ranks: every sum everywhere (allreduce) or each rank its own rows (sharded). Those of
// experts are summed over their replicas, every sum on each of them, since a place saw the votes of its group's units.
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

// Local. The step's rule, for parts that run ballots of their own.
tv_step_rule tv_ballot_rule(const tv_config *config, int64_t step, double loss);

// Bytes that tv_ballot_exchange and tv_ballot_share hand to collectives, by formula (docs/distribution.md).
int64_t tv_ballot_vote_bytes(const tv_params *params);
int64_t tv_ballot_state_bytes(const tv_params *params);

#endif
