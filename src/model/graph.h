// The part made of a graph of motifs, behind the codebook: x += lin(Up, n), where n is what the node of a token's motif is after `hops` hops of
// messages along its edges. Nodes start as the codebook's rows; edges are motifs that followed each other (model/graph_store.h).
#ifndef TV_MODEL_GRAPH_H
#define TV_MODEL_GRAPH_H

#include "model/part.h"

// `codebook`: the part whose motifs it takes.
tv_status tv_graph_create(const tv_part *codebook, tv_part **out);

#endif
