#include "kernels/ref/graph_hop.h"

#include <string.h>

enum { QMAX = 127 };

// What lies between the ops.
typedef struct hop_work {
    float *decoded, *m, *sum, *low;
    int8_t *q, *qa, *ql;
    float *scale, *scale_a, *scale_l;
} hop_work;

static void *take(uint8_t **at, int64_t bytes)
{
    void *piece = *at;
    *at += tv_graph_work_piece(bytes);
    return piece;
}

static hop_work cut_work(const tv_graph_hop_args *a)
{
    uint8_t *at = a->work;
    hop_work w;
    w.decoded = take(&at, 4 * a->sources * a->cols);
    w.m = take(&at, 4 * a->sources * a->cols);
    w.q = take(&at, a->sources * a->cols);
    w.scale = take(&at, 4 * a->sources);
    w.sum = take(&at, 4 * a->nodes * a->cols);
    w.qa = take(&at, a->nodes * a->cols);
    w.scale_a = take(&at, 4 * a->nodes);
    w.scale_l = take(&at, 4 * a->nodes);
    w.low = take(&at, 4 * a->nodes * a->rank);
    w.ql = take(&at, a->nodes * a->rank);
    if (a->q == NULL)
        return w;
    w.q = a->q, w.qa = a->qa, w.ql = a->ql;
    w.scale = a->scale, w.scale_a = a->scale_a, w.scale_l = a->scale_l;
    return w;
}

static tv_gemm_args product(const tv_graph_layer *layer, int64_t m, int64_t n, int64_t reduce)
{
    return (tv_gemm_args){.m = m, .n = n, .reduce = reduce, .b = layer->w8, .exponent = layer->exponent};
}

// y += lin(lora_up, lin(lora_down, x) * hop_scale)
static tv_status add_low_rank(const tv_graph_hop_args *a, const hop_work *w, const tv_graph_hop_parts *parts,
                              void *stream)
{
    tv_gemm_args down = product(&a->lora_down, a->nodes, a->rank, a->cols);
    down.a = w->q, down.scale = w->scale, down.y = w->low;
    TV_TRY(parts->gemm(&down, stream));
    tv_graph_scale_args scale = {.nodes = a->nodes,
                                 .rank = a->rank,
                                 .w8 = a->hop_scale.w8,
                                 .exponent = a->hop_scale.exponent,
                                 .l = w->low,
                                 .y = w->low};
    TV_TRY(parts->scale(&scale, stream));
    tv_quantize_rows_args quantize = {.rows = a->nodes,
                                      .cols = a->rank,
                                      .qmax = QMAX,
                                      .x = w->low,
                                      .q = w->ql,
                                      .scale = w->scale_l,
                                      .fault = a->fault};
    TV_TRY(parts->quantize(&quantize, stream));
    tv_gemm_args up = product(&a->lora_up, a->nodes, a->cols, a->rank);
    up.a = w->ql, up.scale = w->scale_l, up.y = a->y, up.accumulate = 1;
    return parts->gemm(&up, stream);
}

tv_status tv_graph_hop_by_parts(const tv_graph_hop_args *a, const tv_graph_hop_parts *parts, void *stream)
{
    hop_work w = cut_work(a);
    const float *x = a->x;
    if (a->bytes != NULL) {
        tv_graph_decode_args decode = {.count = a->sources,
                                       .cols = a->cols,
                                       .base = a->base,
                                       .mantissa_bits = a->mantissa_bits,
                                       .bytes = a->bytes,
                                       .from = a->from,
                                       .x = w.decoded,
                                       .fault = a->fault};
        TV_TRY(parts->decode(&decode, stream));
        x = w.decoded;
    }
    tv_quantize_rows_args quantize = {
        .rows = a->sources, .cols = a->cols, .qmax = QMAX, .x = x, .q = w.q, .scale = w.scale, .fault = a->fault};
    TV_TRY(parts->quantize(&quantize, stream));
    tv_gemm_args message = product(&a->message, a->sources, a->cols, a->cols);
    message.a = w.q, message.scale = w.scale, message.y = w.m;
    TV_TRY(parts->gemm(&message, stream));
    tv_graph_aggregate_args aggregate = {.nodes = a->nodes,
                                         .cols = a->cols,
                                         .start = a->start,
                                         .source = a->source,
                                         .attr = a->attr,
                                         .m = w.m,
                                         .a = w.sum};
    TV_TRY(parts->aggregate(&aggregate, stream));
    quantize.rows = a->nodes, quantize.x = w.sum, quantize.q = w.qa, quantize.scale = w.scale_a;
    TV_TRY(parts->quantize(&quantize, stream));
    if (a->nodes * a->cols > 0)
        memcpy(a->y, x, (size_t)(a->nodes * a->cols) * sizeof(float));
    tv_gemm_args update = product(&a->update, a->nodes, a->cols, a->cols);
    update.a = w.qa, update.scale = w.scale_a, update.y = a->y, update.accumulate = 1;
    TV_TRY(parts->gemm(&update, stream));
    return a->rank > 0 ? add_low_rank(a, &w, parts, stream) : TV_OK;
}
