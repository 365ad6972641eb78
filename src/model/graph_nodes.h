// The nodes that a unit's motifs need: the motifs themselves (level 0), what has edges into them (level 1), and so on, hops levels. All in host
// memory; made anew for every unit.
#ifndef TV_MODEL_GRAPH_NODES_H
#define TV_MODEL_GRAPH_NODES_H

#include <stdint.h>

#include "model/graph_link.h"

enum { TV_GRAPH_HOPS_MAX = 4 };

// Zeros at first, but for hops.
typedef struct tv_graph_nodes {
    int hops;
    int64_t level_end[TV_GRAPH_HOPS_MAX + 1]; // nodes of levels 0 .. k; each level ascends, a node has its lowest level
    int64_t count, edges;
    int32_t *node;                     // [count] rows of the codebook
    int32_t *start;                    // [nodes with a list + 1] lists of edges, as the graph ops take them
    int32_t *source, *dst;             // [edges] nodes
    int8_t *attr;                      // [edges]
    int32_t *source_start, *by_source; // [count + 1], [edges]: edges by their source, ascending
    int32_t *key, *value;              // hash table from rows to nodes
    int32_t *ascending, *place;        // [count] of tv_graph_nodes_ascend
    tv_graph_record *sorted, *spare;   // [count] sorting
    int64_t node_room, edge_room, map_size, map_used;
} tv_graph_nodes;

void tv_graph_nodes_free(tv_graph_nodes *nodes);
// Collective over unit->comm. All levels from `count` distinct rows, ascending.
tv_status tv_graph_nodes_find(tv_graph_nodes *nodes, tv_graph_link *link, tv_unit *unit, const int32_t *rows,
                              int64_t count);
// The nodes' rows in ascending order, and for each node which of these it is; both last until the next call here.
tv_status tv_graph_nodes_ascend(tv_graph_nodes *nodes, const int32_t **rows, const int32_t **places);

#endif
