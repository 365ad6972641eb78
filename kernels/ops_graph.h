// Ops of the graph of motifs: part of the contract (kernels.h says the common rules).
//
// Nodes are rows of a codebook's table (tv_vq_table), d = cols values each, d <= TV_VQ_COLS_MAX. A unit's nodes are numbered so that those a hop
// computes come first: a hop turns x [sources, d] into y [nodes, d], nodes <= sources. Edges are lists, one for each node: edge e of node v, for
// e = start[v] .. start[v + 1] - 1 (start[0] = 0), comes from node source[e] < sources with attr[e] in {-1, 0, 1}. No list is longer than
// TV_GRAPH_LIST_MAX. Letters beside kernels.h's: r = rank of the low-rank term.
#ifndef TV_KERNELS_OPS_GRAPH_H
#define TV_KERNELS_OPS_GRAPH_H

#include <stdint.h>

#include "base/host_device.h"
#include "base/status.h"

#define TV_GRAPH_LIST_MAX 32 // edges into one node
#define TV_GRAPH_RANK_MAX 64

// Nodes from packed rows: with the answer (tv_vq_answer_args) at bytes[from[i]], or at bytes[i] when from is NULL:
//   x[i, c] = (float)(t[c] L[E - b]) * 2^b                                                                              exact
// An answer whose row is below 0, with a trit byte above 242 or an exponent outside the window raises fault and gives zeros; the score is not read.
typedef struct tv_graph_decode_args {
    int64_t count, cols;
    int base, mantissa_bits;
    const uint8_t *bytes; // answers, tv_vq_answer_bytes(d) each, 4-byte aligned
    const int32_t *from;  // [count] or NULL
    float *x;             // [count, d]
    int32_t *fault;
} tv_graph_decode_args;

// Edge weighting and aggregation: a[v, c] = chain of acc = fma((float)attr[e], m[source[e], c], acc) over v's edges in order, from +0.
typedef struct tv_graph_aggregate_args {
    int64_t nodes, cols;
    const int32_t *start;  // [nodes + 1]
    const int32_t *source; // [start[nodes]]
    const int8_t *attr;    // [start[nodes]]
    const float *m;        // [sources, d]
    float *a;              // [nodes, d]
} tv_graph_aggregate_args;

// Its gradient. Edges below `edges` count, and no others; dst[e] = the node v whose edge e is. The edges from node u are
// e_i = by_source[source_start[u] + i], i = 0 .. , ascending, and may go on with edges that do not count; n of them count.
//   dm[u, c] = sum32((float)attr[e_i] da[dst[e_i], c], i < n)                            0 for a node without such edges
//   attr_grad[e] = sum32(da[dst[e], c] m[source[e], c], c < d), or attr_grad[e] + that with `accumulate`
typedef struct tv_graph_aggregate_backward_args {
    int64_t sources, cols, edges; // sources: rows of dm
    int accumulate;
    const int32_t *source, *dst; // [edges]
    const int8_t *attr;          // [edges]
    const int32_t *source_start; // [sources + 1]
    const int32_t *by_source;    // [source_start[sources]]
    const float *m;              // [all sources, d]
    const float *da;             // [nodes, d]
    float *dm;                   // [sources, d]
    float *attr_grad;            // [edges]
} tv_graph_aggregate_backward_args;

// Scale of the low-rank term, h[j] = (float)w8[j] * 2^exponent:  y[v, j] = l[v, j] * h[j].  y may be l.
typedef struct tv_graph_scale_args {
    int64_t nodes, rank;
    const int8_t *w8; // [r]
    int exponent;
    const float *l; // [nodes, r]
    float *y;       // [nodes, r]
} tv_graph_scale_args;

// dl[v, j] = dy[v, j] * h[j];  dh[v, j] = dy[v, j] * l[v, j].  dl may be dy, dh may be l.
typedef struct tv_graph_scale_backward_args {
    int64_t nodes, rank;
    const int8_t *w8;
    int exponent;
    const float *l, *dy; // [nodes, r]
    float *dl, *dh;      // [nodes, r]
} tv_graph_scale_backward_args;

// Gather and add: x[t, c] = x[t, c] + u[slot[t], c]; tokens with slot[t] < 0 stay as they are.
typedef struct tv_graph_gather_args {
    int64_t tokens, width; // M, D
    const int32_t *slot;   // [M]
    const float *u;        // [distinct, D]
    float *x;              // [M, D]
} tv_graph_gather_args;

// Its gradient: du[i, c] = sum32(dx[order[start[i] + k], c], k < start[i + 1] - start[i]): tokens of one motif in their order.
typedef struct tv_graph_gather_backward_args {
    int64_t count, width;         // count: of distinct motifs
    const int32_t *order, *start; // of tv_vq_group_args over the tokens
    const float *dx;              // [M, D]
    float *du;                    // [count, D]
} tv_graph_gather_backward_args;

// A decoded ternary layer [n, k] for products: tv_gemm_args' b and exponent.
typedef struct tv_graph_layer {
    const int8_t *w8;
    int exponent;
} tv_graph_layer;

// A whole hop, defined by ops one after the other, so it has their bits; what lies between them need not go through memory. qmax is 127; S =
// sources, N = nodes; products as in tv_gemm_args.
//   x  [S, d] = decode(bytes, from) when bytes is not NULL, else as given
//   q, s      = quantize_rows(x)                           [S, d]
//   m  [S, d] = gemm(q, s, message)
//   a  [N, d] = aggregate(m)
//   qa, sa    = quantize_rows(a)                           [N, d]
//   y  [N, d] = x[0 .. N - 1];  y = gemm(qa, sa, update), accumulated
//   with rank > 0:
//   l  [N, r] = gemm(q[0 .. N - 1], s, lora_down);  l = scale(l, hop_scale)
//   ql, sl    = quantize_rows(l)                           [N, r]
//   y         = gemm(ql, sl, lora_up), accumulated
// Rows are independent of each other but for edges: y[v] needs x[v] and x of v's sources alone.
// q, s, qa, sa, ql, sl are written for a backward, all of them or, when q is NULL, none. `work` is memory of tv_graph_hop_work_bytes that a backend may
// use as it likes, 256-byte aligned; what it holds afterwards is left open.
typedef struct tv_graph_hop_args {
    int64_t sources, nodes, cols, rank;
    // nodes before the hop: one of the two
    const uint8_t *bytes;    // answers
    const int32_t *from;     // [S] or NULL
    const float *x;          // [S, d]
    int base, mantissa_bits; // of bytes
    const int32_t *start, *source;
    const int8_t *attr;
    tv_graph_layer message, update;    // [d, d]
    tv_graph_layer lora_down, lora_up; // [r, d], [d, r]
    tv_graph_layer hop_scale;          // [r]
    float *y;                          // [N, d], not x
    int8_t *q, *qa, *ql;               // [S, d], [N, d], [N, r]
    float *scale, *scale_a, *scale_l;  // [S], [N], [N]
    void *work;
    int32_t *fault;
} tv_graph_hop_args;

// Of the steps between: x, q, s, m, a, qa, sa, l, ql, sl, each on its own 256 bytes.
static inline int64_t tv_graph_work_piece(int64_t bytes) { return (bytes + 255) / 256 * 256; }
static inline int64_t tv_graph_hop_work_bytes(int64_t sources, int64_t nodes, int64_t cols, int64_t rank)
{
    return 2 * tv_graph_work_piece(4 * sources * cols) + tv_graph_work_piece(sources * cols) +
           tv_graph_work_piece(4 * sources) + tv_graph_work_piece(4 * nodes * cols) +
           tv_graph_work_piece(nodes * cols) + 2 * tv_graph_work_piece(4 * nodes) +
           tv_graph_work_piece(4 * nodes * rank) + tv_graph_work_piece(nodes * rank);
}

// Part of a backend's table: all of them or, in a backend that has no graph yet, none.
typedef struct tv_graph_ops {
    tv_status (*decode)(const tv_graph_decode_args *, void *stream);
    tv_status (*aggregate)(const tv_graph_aggregate_args *, void *stream);
    tv_status (*aggregate_backward)(const tv_graph_aggregate_backward_args *, void *stream);
    tv_status (*scale)(const tv_graph_scale_args *, void *stream);
    tv_status (*scale_backward)(const tv_graph_scale_backward_args *, void *stream);
    tv_status (*gather)(const tv_graph_gather_args *, void *stream);
    tv_status (*gather_backward)(const tv_graph_gather_backward_args *, void *stream);
    tv_status (*hop)(const tv_graph_hop_args *, void *stream);
} tv_graph_ops;

#endif
