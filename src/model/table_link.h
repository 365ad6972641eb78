// Rows on their way to the ranks that hold a table, and back: what codebooks and n-grams share.
#ifndef TV_MODEL_TABLE_LINK_H
#define TV_MODEL_TABLE_LINK_H

#include <stdint.h>

#include "model/part.h"

// Zeros at first. Counts are of rows, one number a rank, in host memory.
typedef struct tv_table_link {
    int ranks, rank, places;    // places: ranks that hold rows, the first ones
    int64_t units_a_rank, most; // units of a step here; rows that a unit may send to one rank
    int64_t *host;              // what the following point into
    int64_t *sent, *received;   // [ranks]
    int64_t *sent_bytes, *received_bytes, *messages;
    int32_t *expected_units;
    uint8_t *out, *in;  // backend memory: what goes, what comes
    int64_t wire_bytes; // to other ranks, of training; the owner sets it to 0
} tv_table_link;

// For a table of 2^bits buckets.
tv_status tv_table_link_open(tv_table_link *link, const tv_plan *plan, int bits, int64_t most);
void tv_table_link_close(tv_table_link *link);

// sent from `count` row ids of the table, ascending, in host memory: those of one rank are neighbours. Returns how many go to
// other ranks.
int64_t tv_table_link_address(tv_table_link *link, const tv_tensor_spec *table, const int32_t *rows, int64_t count);
// Collective. Says how many rows go to each rank (sent), learns how many come (received), and proves that all ranks are at the same
// unit.
tv_status tv_table_link_counts(tv_table_link *link, tv_unit *unit, const char *layer);
// Collective. out -> in, rows of `row_bytes`; back: as many as came go back.
tv_status tv_table_link_travel(tv_table_link *link, tv_unit *unit, int64_t row_bytes, int back);
// Rows in all.
int64_t tv_table_link_total(const tv_table_link *link, const int64_t *counts);

#endif
