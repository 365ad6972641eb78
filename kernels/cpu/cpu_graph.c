// The graph of motifs: nodes, edges, tokens and motifs are independent, so threads share them.
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_threads.h"
#include "kernels/ref/graph_hop.h"
#include "kernels/ref/graph_loops.h"
#include "kernels/ref/ref_ops.h"

enum { NODE_NS = 200, MOTIF_NS = 2000 };

static void decode_nodes(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    for (int64_t i = first; i < last; i++)
        tv_graph_decode_node(args, i);
}

tv_status TV_ISA_NAME(graph_decode)(const tv_graph_decode_args *a, void *stream)
{
    (void)stream;
    if (a->cols > 0)
        tv_cpu_for(a->count, NODE_NS, decode_nodes, a);
    return TV_OK;
}

static void aggregate_nodes(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    for (int64_t v = first; v < last; v++)
        tv_graph_aggregate_node(args, v);
}

tv_status TV_ISA_NAME(graph_aggregate)(const tv_graph_aggregate_args *a, void *stream)
{
    (void)stream;
    tv_cpu_for(a->nodes, NODE_NS, aggregate_nodes, a);
    return TV_OK;
}

static void source_gradients(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    for (int64_t u = first; u < last; u++)
        tv_graph_source_gradient(args, u);
}

static void edge_gradients(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    for (int64_t e = first; e < last; e++)
        tv_graph_edge_gradient(args, e);
}

tv_status TV_ISA_NAME(graph_aggregate_backward)(const tv_graph_aggregate_backward_args *a, void *stream)
{
    (void)stream;
    if (a->cols == 0)
        return TV_OK;
    tv_cpu_for(a->sources, MOTIF_NS, source_gradients, a);
    tv_cpu_for(a->edges, NODE_NS, edge_gradients, a);
    return TV_OK;
}

static void gather_tokens(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    for (int64_t t = first; t < last; t++)
        tv_graph_gather_token(args, t);
}

tv_status TV_ISA_NAME(graph_gather)(const tv_graph_gather_args *a, void *stream)
{
    (void)stream;
    tv_cpu_for(a->tokens, NODE_NS, gather_tokens, a);
    return TV_OK;
}

static void motif_gradients(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    for (int64_t i = first; i < last; i++)
        tv_graph_motif_gradient(args, i);
}

tv_status TV_ISA_NAME(graph_gather_backward)(const tv_graph_gather_backward_args *a, void *stream)
{
    (void)stream;
    tv_cpu_for(a->count, MOTIF_NS, motif_gradients, a);
    return TV_OK;
}

tv_status TV_ISA_NAME(graph_hop)(const tv_graph_hop_args *a, void *stream)
{
    static const tv_graph_hop_parts parts = {.decode = TV_ISA_NAME(graph_decode),
                                             .quantize = TV_ISA_NAME(quantize_rows),
                                             .gemm = TV_ISA_NAME(gemm),
                                             .aggregate = TV_ISA_NAME(graph_aggregate),
                                             .scale = graph_scale_ref};
    return tv_graph_hop_by_parts(a, &parts, stream);
}
