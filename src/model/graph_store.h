// The edges of the graph of motifs: side state that lies with the owners of their dst rows.
//
// The rows are cut into 2^bits runs of neighbours, and each has room for max_edges / 2^bits edges, whatever rank holds it: so what is kept does not
// depend on the number of ranks, and nothing is sized by the rows. The edges of a run lie at its first `used` places, sorted by (dst, src); the places
// behind them are zero. They lie in host memory on every backend, since the host
// alone reads and changes them.
#ifndef TV_MODEL_GRAPH_STORE_H
#define TV_MODEL_GRAPH_STORE_H

#include <stdint.h>

#include "model/part.h"

enum { TV_GRAPH_RUN_BITS_MAX = 8, TV_GRAPH_SCORE_MAX = 127 };

// One edge, or what is said of one: a transition (value not read), or the vote of a unit (value).
typedef struct tv_graph_record {
    int32_t dst, src, value;
} tv_graph_record;

// Records that grow.
typedef struct tv_graph_records {
    tv_graph_record *items;
    int64_t count, capacity;
} tv_graph_records;

typedef enum tv_graph_side {
    TV_GRAPH_USED, // int32 [runs, 1]
    TV_GRAPH_DST,  // int32 [runs, room], as the others
    TV_GRAPH_SRC,
    TV_GRAPH_ATTR,  // int8 -1, 0, 1
    TV_GRAPH_ACCUM, // int8 vote counter of attr
    TV_GRAPH_SCORE, // int8 0 .. TV_GRAPH_SCORE_MAX
    TV_GRAPH_SIDES
} tv_graph_side;

// What a step did to the edges held here.
typedef struct tv_graph_changes {
    int64_t made, replaced, evicted, flips; // flips: of attr
} tv_graph_changes;

// Zeros at first.
typedef struct tv_graph_store {
    int64_t rows, room, list, decay_every; // of the codebook; edges of a run; edges into a row
    int bits, dense;
    int64_t side[TV_GRAPH_SIDES]; // places in the table
    const tv_params *params;
    int64_t first_run, runs; // held here
    int64_t first_row, held_rows;
    int indexed;                  // the index is that of the edges
    int32_t *used, *dst, *src;    // [runs], [runs room]
    int8_t *attr, *accum, *score; // [runs room]
    int32_t *index;               // dense: first place of each held row, [held rows + 1]
    tv_graph_record *records;     // sorting
    int64_t record_capacity;
    void *merged; // runs while they change, one a thread
    int64_t merged_capacity;
} tv_graph_store;

tv_status tv_graph_store_declare(tv_graph_store *store, const tv_part *part, tv_params *params,
                                 const tv_config *config);
tv_status tv_graph_store_plan(tv_graph_store *store, const tv_plan *plan);
void tv_graph_store_free(tv_graph_store *store);

// TV_CHECKPOINT: the state is none that a run can have made (which edge, and why).
tv_status tv_graph_store_check(tv_graph_store *store, tv_params *params);
// Before the store is read: an index of what the state holds.
void tv_graph_store_refresh(tv_graph_store *store);

// Edges into a row that is held here: `count` of them from place `first` on.
typedef struct tv_graph_list {
    int64_t first, count;
} tv_graph_list;
tv_graph_list tv_graph_store_find(const tv_graph_store *store, int64_t row);

// ---- graph_learn.c: a step's changes, in this order ---------------------------------------------------------------------------

// Votes on attr, any number an edge: their sum v moves attr_accum and attr by the rule of trits, draws at element dst rows + src. Votes on edges that
// are not there do nothing. Sorts the votes.
tv_status tv_graph_store_vote(tv_graph_store *store, const tv_unit *unit, tv_graph_record *votes, int64_t count,
                              tv_graph_changes *changes);
// Transitions src -> dst, one after the other: an edge that is there scores one more, a new one starts with attr +1 and score 1, in a full list in the
// place of the lowest score (ties: the lower src). Then runs that hold more than their room lose their lowest scores, ties by (dst, src). Sorts them.
// Runs change side by side on as many cores as the thread may run on.
tv_status tv_graph_store_learn(tv_graph_store *store, tv_graph_record *transitions, int64_t count,
                               tv_graph_changes *changes);
// Scores are halved when it is time.
void tv_graph_store_decay(tv_graph_store *store, int64_t step);
// Sorts by dst, or by src; equal ones keep their order. `spare` [count].
void tv_graph_sort(tv_graph_record *records, tv_graph_record *spare, int64_t count, int by_src);

#endif
