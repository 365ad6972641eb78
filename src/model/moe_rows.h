// Rows of the mixture of experts: how (token, slot) pairs reach their experts and what they bring back.
//
// Home is the rank of a token, the owner the rank of an expert. With P = 1 they are one rank: a dispatch gathers, and
// nothing returns. With P > 1 rows travel in their wire form (kernels/ops_moe.h), sorted by owner and expert; what an owner
// receives is, source by source, one segment an expert.
#ifndef TV_MODEL_MOE_ROWS_H
#define TV_MODEL_MOE_ROWS_H

#include <stdint.h>

#include "model/part.h"
#include "model/pool.h"

// int8 rows with one scale each.
typedef struct tv_rows8 {
    int8_t *q;    // [rows, cols]
    float *scale; // [rows]
} tv_rows8;

typedef struct tv_moe_rows {
    int64_t experts, slots; // n_e, k
    int digits;             // of a value on the wire
    int64_t dense_tokens;   // at most so many tokens go to all experts (P = 1)
    int64_t units_a_rank;   // U / R
    int ranks, place;       // P and this rank's place in its group
    // Home, backend memory planned for the largest unit.
    int32_t *expert, *wanted; // [M, k] selected experts; place of each pair's row
    float *gate;              // [M, k]
    int32_t *item;            // [home rows]
    tv_segment *home;         // [n_e]
    int64_t home_rows;        // of the current unit
    // Owner.
    tv_segment *segments;                 // [segment_count] backend memory; `home` when P = 1
    const int32_t *owner_item;            // item when P = 1, else NULL
    int64_t segment_count, rows, columns; // of the current unit; columns: of transposed arrays
    int first_expert;                     // of this rank
    tv_segment *host_segments;            // [max(n_e, segments)] host
    int64_t *sent, *received;             // [P, n_e / P] rows, host; P > 1
    int64_t *sent_bytes, *received_bytes; // [P] host; P > 1
    int32_t *expected_units;              // [P] host; P > 1
    int64_t *counts_buffer;               // host; P > 1
    uint8_t *out, *in;                    // wire buffers of the current exchange
    int64_t pairs, off_rank, wire_bytes;  // since the step's start: dispatched, to other ranks, bytes sent to them
} tv_moe_rows;

// Largest number of owner rows and of columns of a unit with P = 1.
int64_t tv_moe_rows_most(const tv_moe_rows *rows, int64_t tokens);
int64_t tv_moe_columns_most(const tv_moe_rows *rows, int64_t tokens);

// Fills the sizes from the config; ranks are known at plan time.
void tv_moe_rows_init(tv_moe_rows *rows, const tv_config *config);
// Takes home's buffers, and the host arrays the first time. TV_MEMORY.
tv_status tv_moe_rows_plan(tv_moe_rows *rows, tv_plan *plan);
void tv_moe_rows_free(tv_moe_rows *rows);
// Takes the wire buffers of rows of at most `cols` values (nothing when P = 1).
void tv_moe_rows_take_wire(tv_moe_rows *rows, tv_arena *arena, int64_t cols);

// P > 1, collective over unit->experts. After routing: where each row goes, and which rows come here; fills rows,
// columns, segments. `layer` names the part in messages. Ranks that do not agree on the counts: an error that names one.
tv_status tv_moe_rows_plan_unit(tv_moe_rows *rows, tv_unit *unit, const char *layer);

typedef struct tv_moe_send {
    int64_t cols;
    tv_rows8 from;       // one row a token; its digits
    const float *factor; // [M, k] or NULL
    tv_rows8 to;         // owner rows
} tv_moe_send;
// P = 1: after routing, where each row lies, and the tokens' rows there (no factor).
tv_status tv_moe_rows_place(tv_moe_rows *rows, tv_unit *unit, const tv_moe_send *send);
// P = 1: the op that puts tokens' rows to where they lie.
tv_rows_gather_args tv_moe_rows_gather(const tv_moe_rows *rows, const tv_moe_send *send);
// P > 1, collective over unit->experts. Tokens' rows to their experts. A row that names another expert or unit than
// its segment raises the unit's fault.
tv_status tv_moe_rows_send(tv_moe_rows *rows, tv_unit *unit, const tv_moe_send *send);
// P > 1, collective over unit->experts. Owner rows back to their homes, in the places that `wanted` names.
tv_status tv_moe_rows_return(tv_moe_rows *rows, tv_unit *unit, int64_t cols, tv_rows8 from, tv_rows8 *to);

#endif
