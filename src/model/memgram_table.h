// One table of n-grams: rows found by hashing the last ids of a sequence, and sparse votes on them. The part `memgram` is made of one or two.
//
// A unit's distinct rows are asked for once each, from the rank that holds them, and come back packed with their strength, so what a token
// gets does not depend on who holds what. A unit's vote on a row goes once to its owner, as with codebooks (model/vq.h).
#ifndef TV_MODEL_MEMGRAM_TABLE_H
#define TV_MODEL_MEMGRAM_TABLE_H

#include <stdint.h>

#include "model/part.h"
#include "model/pool.h"
#include "model/table_link.h"
#include "model/table_votes.h"

enum { TV_MEMGRAM_COLS = 64 };

// Numbers of a step in backend memory: of the ballot, health, and one int32 of distinct rows.
enum { TV_MEMGRAM_BALLOT = 0, TV_MEMGRAM_COUNTED = 3, TV_MEMGRAM_DISTINCT = 11, TV_MEMGRAM_COUNTS };

// What a step did, all ranks.
typedef struct tv_memgram_report {
    int64_t touched, flips, moves, sent_rows, sent_votes, wire_bytes; // sent: to other ranks
    int counted; // strengths were, so that what follows is of the last count, else 0
    // Rows by strength, and the shares of the rows with a strength above 0 and of at least half of the largest.
    int64_t strengths[TV_MEMGRAM_HEALTH];
    double used, strong;
} tv_memgram_report;

// Zeros at first.
typedef struct tv_memgram_table {
    const char *leaf; // "struct", "conv"
    // of the config
    int64_t rows, decay_every, by_strength;
    int slots, bits, orders[TV_MEMGRAM_SLOTS_MAX];
    int64_t table, strength; // tensor, side state
    // of the unit, from forward to backward; entries = tokens slots
    int32_t *order, *distinct, *slot; // [entries]
    int32_t *start;                   // [entries + 1]
    uint8_t *answers;                 // [entries, tv_vq_answer_bytes]
    int64_t count;                    // distinct rows
    // scratch
    int32_t *row, *score, *sumsq; // [entries], [entries], [cols]
    float *row_grad;              // [entries, cols]
    int8_t *gt;                   // [cols, entries]
    uint8_t *votes;               // [entries, tv_vq_vote_bytes]
    int32_t *found;               // [1] number of distinct rows
    // of the step
    tv_table_votes ballots;
    int64_t *counts; // [TV_MEMGRAM_COUNTS]
    tv_memgram_report report;
    // rows that travel
    tv_pool pool;
    tv_table_link link;
    int32_t *host_rows; // [entries]
} tv_memgram_table;

// Declare "<part's name>.<leaf>" and its strength.
tv_status tv_memgram_table_declare(tv_memgram_table *m, const tv_part *part, tv_params *params,
                                   const tv_config *config);
tv_status tv_memgram_table_plan(tv_memgram_table *m, tv_plan *plan);
void tv_memgram_table_free(tv_memgram_table *m);

// The rows of the unit's n-grams of ids [M]. Collective over unit->comm.
tv_status tv_memgram_table_look_up(tv_memgram_table *m, tv_unit *unit, const int32_t *ids, const char *layer);
// y [M, cols] = (or += with accumulate) the gated sum of each token's rows, for its query z [M, cols].
tv_status tv_memgram_table_mix(const tv_memgram_table *m, tv_unit *unit, const float *z, float *y, int accumulate);

typedef struct tv_memgram_gradient {
    const float *z, *dy; // [M, cols]
    float *dz;           // [M, cols]
    int accumulate;      // dz += instead of dz =
} tv_memgram_gradient;
// dz of mix, and the unit's votes to the rows' owners. Collective over unit->comm.
tv_status tv_memgram_table_backward(tv_memgram_table *m, tv_unit *unit, const tv_memgram_gradient *gradient,
                                    const char *layer);
tv_status tv_memgram_table_before_step(tv_memgram_table *m, tv_unit *unit);
// Ballot of the rows that were used, strength. Collective over unit->comm.
tv_status tv_memgram_table_after_step(tv_memgram_table *m, tv_unit *unit);

#endif
