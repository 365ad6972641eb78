// A hop as the ops that define it, with any backend's own versions of them.
#ifndef TV_KERNELS_GRAPH_HOP_H
#define TV_KERNELS_GRAPH_HOP_H

#include "kernels/kernels.h"

typedef struct tv_graph_hop_parts {
    tv_status (*decode)(const tv_graph_decode_args *, void *stream);
    tv_status (*quantize)(const tv_quantize_rows_args *, void *stream);
    tv_status (*gemm)(const tv_gemm_args *, void *stream);
    tv_status (*aggregate)(const tv_graph_aggregate_args *, void *stream);
    tv_status (*scale)(const tv_graph_scale_args *, void *stream);
} tv_graph_hop_parts;

// For backends in host memory.
tv_status tv_graph_hop_by_parts(const tv_graph_hop_args *a, const tv_graph_hop_parts *parts, void *stream);

#endif
