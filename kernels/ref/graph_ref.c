// The graph of motifs: nodes from packed rows, messages along edges, gather and add, and their gradients.
#include "kernels/ref/graph_hop.h"
#include "kernels/ref/graph_loops.h"
#include "kernels/ref/ref_ops.h"

tv_status graph_decode_ref(const tv_graph_decode_args *a, void *stream)
{
    (void)stream;
    for (int64_t i = 0; a->cols && i < a->count; i++)
        tv_graph_decode_node(a, i);
    return TV_OK;
}

tv_status graph_aggregate_ref(const tv_graph_aggregate_args *a, void *stream)
{
    (void)stream;
    for (int64_t v = 0; v < a->nodes; v++)
        tv_graph_aggregate_node(a, v);
    return TV_OK;
}

tv_status graph_aggregate_backward_ref(const tv_graph_aggregate_backward_args *a, void *stream)
{
    (void)stream;
    for (int64_t u = 0; a->cols && u < a->sources; u++)
        tv_graph_source_gradient(a, u);
    for (int64_t e = 0; a->cols && e < a->edges; e++)
        tv_graph_edge_gradient(a, e);
    return TV_OK;
}

tv_status graph_scale_ref(const tv_graph_scale_args *a, void *stream)
{
    (void)stream;
    for (int64_t i = 0; i < a->nodes * a->rank; i++)
        a->y[i] = a->l[i] * ((float)a->w8[i % a->rank] * tv_exp2i(a->exponent));
    return TV_OK;
}

tv_status graph_scale_backward_ref(const tv_graph_scale_backward_args *a, void *stream)
{
    (void)stream;
    for (int64_t i = 0; i < a->nodes * a->rank; i++) {
        float l = a->l[i], dy = a->dy[i];
        a->dl[i] = dy * ((float)a->w8[i % a->rank] * tv_exp2i(a->exponent));
        a->dh[i] = dy * l;
    }
    return TV_OK;
}

tv_status graph_gather_ref(const tv_graph_gather_args *a, void *stream)
{
    (void)stream;
    for (int64_t t = 0; t < a->tokens; t++)
        tv_graph_gather_token(a, t);
    return TV_OK;
}

tv_status graph_gather_backward_ref(const tv_graph_gather_backward_args *a, void *stream)
{
    (void)stream;
    for (int64_t i = 0; i < a->count; i++)
        tv_graph_motif_gradient(a, i);
    return TV_OK;
}

tv_status graph_hop_ref(const tv_graph_hop_args *a, void *stream)
{
    static const tv_graph_hop_parts parts = {.decode = graph_decode_ref,
                                             .quantize = quantize_rows_ref,
                                             .gemm = gemm_ref,
                                             .aggregate = graph_aggregate_ref,
                                             .scale = graph_scale_ref};
    return tv_graph_hop_by_parts(a, &parts, stream);
}
