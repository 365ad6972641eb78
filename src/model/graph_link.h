// What the graph of motifs exchanges with other ranks: lists of edges and rows are asked for, and a step's transitions and votes delivered.
#ifndef TV_MODEL_GRAPH_LINK_H
#define TV_MODEL_GRAPH_LINK_H

#include <stdint.h>

#include "model/graph_store.h"
#include "model/pool.h"
#include "model/table_link.h"

// Zeros at first.
typedef struct tv_graph_link {
    int64_t table; // the codebook's tensor
    tv_graph_store *store;
    tv_table_link rows, edges;
    tv_pool pool;                                  // what travels
    tv_pool host;                                  // the same, where the host reads and writes it
    int64_t rows_asked, lists_asked, records_sent; // of other ranks, in training
} tv_graph_link;

tv_status tv_graph_link_plan(tv_graph_link *link, const tv_plan *plan, tv_graph_store *store);
void tv_graph_link_free(tv_graph_link *link);
// Wire bytes of the step, and starts them anew with the other figures.
int64_t tv_graph_link_bytes(const tv_graph_link *link);
void tv_graph_link_reset(tv_graph_link *link);

// A list as it travels: int32 count, `list` times int32 src, `list` times int8 attr, zero bytes to a multiple of 4.
static inline int64_t tv_graph_list_bytes(int64_t list) { return 4 + 4 * list + (list + 3) / 4 * 4; }

// Collective over unit->comm. The lists of `count` rows, ascending; host memory that lasts until the next call here.
tv_status tv_graph_link_lists(tv_graph_link *link, tv_unit *unit, const int32_t *rows, int64_t count,
                              const uint8_t **lists);
// Collective over unit->comm. Answers (tv_vq_answer_args) of `count` rows into backend memory. Among several ranks the rows must ascend.
tv_status tv_graph_link_rows(tv_graph_link *link, tv_unit *unit, const int32_t *rows, int64_t count, uint8_t *answers);
// Collective over unit->comm, after a step's units. Records to the owners of their dst, in place of those that came here: ordered by rank, each
// rank's in its order; host memory of the link that lasts until the next call here.
tv_status tv_graph_link_deliver(tv_graph_link *link, tv_unit *unit, tv_graph_records *records);

#endif
