// Counts first, then payload: how many rows each rank has for the experts (or buckets) of each other rank.
#ifndef TV_COMM_ROW_EXCHANGE_H
#define TV_COMM_ROW_EXCHANGE_H

#include "comm/comm.h"

#define TV_ROW_RECORD 4 // numbers beside a rank's counts: step, layer, unit, sum of the counts

// int64 numbers that `buffer` must hold: a message to and from each rank.
static inline int64_t tv_row_counts_buffer(int64_t ranks, int64_t experts)
{
    return 2 * ranks * (TV_ROW_RECORD + experts);
}

typedef struct tv_row_counts {
    int64_t experts;               // of each rank
    int64_t step;                  // of training
    const char *layer;             // the part that asks, for messages; all ranks are in the same one
    int32_t unit;                  // of this rank
    const int32_t *expected_units; // [size] unit that each rank should be at
    const int64_t *sent;           // [size, experts] rows for each rank's experts
    int64_t *received;             // [size, experts] rows from each rank for the experts here
    int64_t *buffer;               // [tv_row_counts_buffer]
} tv_row_counts;

// Collective. Exchanges the counts and proves that all ranks are in the same layer of the same step, with the units that
// were expected and counts that add up. When one is not, every rank returns an error that names it, before any payload
// moves: TV_COMM on the rank that saw it, TV_REMOTE on the others. Host memory.
tv_status tv_row_exchange_counts(tv_comm *comm, const tv_row_counts *counts);

#endif
