// Use of the experts: global counts a step, the biases that even them out, and what is told of both.
#ifndef TV_MODEL_MOE_BALANCE_H
#define TV_MODEL_MOE_BALANCE_H

#include "model/moe_rows.h"

typedef struct tv_moe_balance {
    int64_t experts, side; // n_e; the bias among the table's side state
    int moves;             // 0: biases stay
    int64_t *counts;       // [n_e] backend memory: tokens of each expert since the step's start; NULL in evaluation
    int64_t
        *step_counts; // [n_e + 3] host: of the last step, all ranks; then pairs, pairs that travelled, bytes that did
    int64_t *sorted;  // [n_e] host
    int16_t *bias;    // [n_e] host
} tv_moe_balance;

tv_status tv_moe_balance_plan(tv_moe_balance *balance, tv_plan *plan);
// Local. A step begins: its counts, here and in rows, start at zero.
tv_status tv_moe_balance_start(tv_moe_balance *balance, tv_moe_rows *rows, tv_unit *unit);
// Collective over unit->comm. Sums the step's counts, moves each bias by one towards equal use: up where
// count n_e < total, down where it is above; it stays within int16.
tv_status tv_moe_balance_step(tv_moe_balance *balance, const tv_moe_rows *rows, tv_unit *unit);
// tokens_min, tokens_median, tokens_max a (expert, step); off_rank, the share of pairs that went to another rank;
// wire_bytes of all ranks.
void tv_moe_balance_tell(const tv_moe_balance *balance, tv_figures *figures);
void tv_moe_balance_free(tv_moe_balance *balance);

#endif
