// A codebook: a sharded ternary table, the search for the row nearest to a query, and sparse votes. The parts `codebook` and
// `composite` are made of one each.
//
// A query z becomes q of five digits with a scale, here too when nothing travels. It goes once to each place that holds one of its
// buckets and comes back as a row, so a unit's rows do not depend on who holds what. A unit's vote on a row goes once to the row's
// owner, who moves the rows of the step after the other tensors' ballot (kernels/ops_vq.h).
#ifndef TV_MODEL_VQ_H
#define TV_MODEL_VQ_H

#include <stdint.h>

#include "model/part.h"
#include "model/pool.h"
#include "model/table_link.h"
#include "model/table_votes.h"

// Queries as their owner sees them, and what it finds: of all units that came here at once.
typedef struct tv_vq_found {
    int64_t count;
    int8_t *q;            // [count, d]
    float *scale;         // [count]
    int32_t *unit;        // [count] of the step; for restarts
    int32_t *bucket;      // [count, probes]
    int32_t *item;        // [count probes]
    int32_t *start;       // [own buckets + 1]
    int32_t *row, *score; // [count, probes]
    int32_t *best_row, *best_score;
    uint8_t *answers; // [count, tv_vq_answer_bytes]
} tv_vq_found;

// Numbers of a step in backend memory: of the ballot, restarts, usage, and one int32 of distinct rows.
enum { TV_VQ_BALLOT = 0, TV_VQ_RESTARTS = 3, TV_VQ_USAGE = 4, TV_VQ_DISTINCT = 21, TV_VQ_COUNTS };

// What a step did, all ranks.
typedef struct tv_vq_report {
    int64_t touched, flips, moves, restarts, sent_queries, sent_votes, wire_bytes; // sent: to other ranks
    double commitment;                                                             // mean of |z - row|^2 / d
    double rows_used, entropy; // share of the rows, bits: of the last count of usage
} tv_vq_report;

// Of queries that an oracle was asked about: for 1, 2, 4 .. 64 probes, how many found the best row of all, and the sum of how much
// larger the squared distance was than to that one.
enum { TV_VQ_RECALLS = 7 };
typedef struct tv_vq_recall {
    int64_t queries, hits[TV_VQ_RECALLS];
    double excess[TV_VQ_RECALLS];
} tv_vq_recall;

typedef struct tv_vq {
    const tv_part *part; // whose it is
    // of the config
    int64_t rows, cols; // cols: d
    int bits, probes;
    float beta, weight;
    int64_t usage_halving, restart_every, units_a_rank, tokens; // tokens: of a unit, at most
    int64_t table, usage;                                       // tensor, side state
    // of the layout
    int ranks, rank, places;
    int64_t first_bucket, buckets; // held here
    // of the unit, from forward to backward
    int8_t *q, *w8;   // [M, d] query, row
    float *scale;     // [M] of q
    float *row_scale; // [M] of w8
    int32_t *row;     // [M]
    // scratch
    int32_t *bucket, *item, *index; // [M, probes], [M places], [M, places]: where queries go
    int64_t *place_counts;          // [places] how many
    int32_t *from, *answer_row, *answer_score;
    float *row_grad, *distance, *window_distance; // [M, d], [M], [windows]
    int8_t *gt;                                   // [d, M]
    int32_t *sumsq, *order, *distinct, *start;
    uint8_t *votes; // [M, tv_vq_vote_bytes]
    tv_vq_found found;
    // of the step
    tv_table_votes ballots;
    tv_vq_far *far;          // [buckets]
    int64_t *counts;         // [TV_VQ_COUNTS]
    double *unit_commitment; // [units of the step] host
    tv_vq_report report;
    tv_vq_recall recall; // of an evaluation
    // rows that travel
    tv_pool pool;
    tv_table_link link;
    int32_t *host_rows;   // [M]
    float *host_distance; // [windows]
} tv_vq;

// Declare table and usage of `part` with `rows` rows, by the config's section codebook.
tv_status tv_vq_declare(tv_vq *vq, const tv_part *part, tv_params *params, const tv_config *config, int64_t rows);
tv_status tv_vq_plan(tv_vq *vq, tv_plan *plan);
void tv_vq_free(tv_vq *vq);

// Rows for the unit's queries z [M, d]: w8, row_scale (an operand of the next layer) and row. Collective over unit->comm.
tv_status tv_vq_forward(tv_vq *vq, tv_unit *unit, const float *z);
// g [M, d] is the rows' gradient: sends the unit's votes to the rows' owners. z_grad [M, d] gets that of z (straight through, and the
// commitment's when it is in this pass); it may be g. Votes are
// sent in the table's own pass. Collective over unit->comm.
tv_status tv_vq_backward(tv_vq *vq, tv_unit *unit, const float *g, float *z_grad);
tv_status tv_vq_before_step(tv_vq *vq, tv_unit *unit);
// Ballot of the rows that were used, usage, restarts. Collective over unit->comm.
tv_status tv_vq_after_step(tv_vq *vq, tv_unit *unit);
void tv_vq_tell(const tv_vq *vq, tv_figures *figures);

// vq_recall.c, Collective among several ranks: the first queries of all ranks' units, after the forward's quantisation, by brute force over all
// rows. The recall is the same on all ranks, and for every number of them that takes the same batches.
tv_status tv_vq_ask_oracle(tv_vq *vq, tv_unit *unit);
void tv_vq_tell_recall(const tv_vq *vq, tv_figures *figures);

// ---- pieces of the above ---------------------------------------------------------------------------------------------------

// The buffers of `count` queries, from an arena that may be unbound.
void tv_vq_take_found(const tv_vq *vq, tv_vq_found *found, tv_arena *arena, int64_t count);
// found->q, scale (and unit, when far is wanted) -> answers, with this rank's rows.
tv_status tv_vq_find(tv_vq *vq, tv_unit *unit, tv_vq_found *found, int want_far);
// 1 when far queries of this step are collected for restarts.
int tv_vq_restarts_in(const tv_vq *vq, int64_t step);

#endif
