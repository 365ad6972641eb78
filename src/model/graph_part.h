// What the sources of the graph's part share.
#ifndef TV_MODEL_GRAPH_PART_H
#define TV_MODEL_GRAPH_PART_H

#include <stdint.h>

#include "model/graph_link.h"
#include "model/graph_nodes.h"
#include "model/graph_store.h"
#include "model/linear.h"

// A hop: its layers, and what its forward leaves for the backward (tv_graph_hop_args).
typedef struct tv_graph_hop {
    tv_linear message, update, lora_down, lora_up;
    int64_t sources, nodes;
    float *y;
    int8_t *q, *qa, *ql;
    float *scale, *scale_a, *scale_l;
} tv_graph_hop;

// What a step did, all ranks.
typedef struct tv_graph_report {
    tv_graph_changes changes;
    int64_t edges, score_sum; // in the store
    int64_t nodes;            // of all units
    int64_t rows_asked, lists_asked, records_sent, wire_bytes;
} tv_graph_report;

typedef struct tv_graph_part {
    tv_part base;
    const tv_part *codebook;
    int64_t width, cols, rank; // D, d, r
    int hops;
    tv_graph_hop hop[TV_GRAPH_HOPS_MAX];
    int64_t hop_scale; // tensor [hops, r]
    tv_linear up;
    tv_graph_store store;
    tv_graph_link link;
    tv_graph_nodes nodes;
    // of the unit: tokens by motif, in backend memory
    int32_t *order, *distinct, *group_start, *slot, *found;
    int32_t *host_motifs; // [tokens]
    int64_t motifs;       // distinct
    // of the unit: the nodes in backend memory
    uint8_t *answers;
    int32_t *from, *start, *source, *dst, *source_start, *by_source;
    int8_t *attr;
    void *work;
    tv_operand top; // [motifs, d] input of up
    float *u;       // [motifs, D] its output
    tv_pool keep, back;
    // of the step
    tv_graph_records transitions, votes;
    tv_graph_report report;
} tv_graph_part;

tv_status tv_graph_forward(tv_part *base, tv_unit *unit, float *x);
tv_status tv_graph_backward(tv_part *base, tv_unit *unit, float *dx);
tv_status tv_graph_after_step(tv_part *base, tv_unit *unit);

// The unit with another number of tokens: products of the graph have a row for each node.
static inline tv_unit tv_graph_rows_unit(const tv_unit *unit, int64_t rows)
{
    tv_unit of_rows = *unit;
    of_rows.tokens = rows;
    return of_rows;
}

// Hop scale of hop h, from 0.
tv_graph_layer tv_graph_scale_of(const tv_graph_part *part, const tv_unit *unit, int h);
tv_status tv_graph_note(tv_graph_records *records, tv_graph_record record);

#endif
