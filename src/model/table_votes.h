// A step's votes on the rows of a table, at their owner: kept as they come, then one ballot on the rows that have any.
#ifndef TV_MODEL_TABLE_VOTES_H
#define TV_MODEL_TABLE_VOTES_H

#include <stdint.h>

#include "model/part.h"
#include "model/pool.h"

// Zeros at first; pool.backend is the owner's to set. All arrays are backend memory that grows.
typedef struct tv_table_votes {
    int64_t table;  // tensor
    uint8_t *bytes; // [capacity, tv_vq_vote_bytes]
    int32_t *row;   // [capacity]
    int64_t count, capacity;
    tv_pool pool;
    // of the step's ballot, until the next one: rows that had votes, and whose these are (tv_vq_group_args)
    int64_t touched;
    int32_t *order, *distinct, *start;
} tv_table_votes;

void tv_table_votes_free(tv_table_votes *votes);
// `count` votes that came here join the step's, whose number of votes the owner sets to 0 before. A vote on a row that this rank does not
// hold raises the unit's fault.
tv_status tv_table_votes_keep(tv_table_votes *votes, tv_unit *unit, const uint8_t *bytes, int64_t count);

typedef struct tv_table_ballot {
    int16_t *usage;    // [held] of the table, or NULL
    int32_t *distinct; // [1] backend memory for a number
    int64_t *stats;    // [3] backend memory, of tv_vq_ballot_args
} tv_table_ballot;
// The ballot of unit->rule on the rows that have votes.
tv_status tv_table_votes_ballot(tv_table_votes *votes, tv_unit *unit, const tv_table_ballot *ballot);

#endif
