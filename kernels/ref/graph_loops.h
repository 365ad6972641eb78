// The loops of the graph ops: ref and cpu compile them, each for its own machine.
#ifndef TV_KERNELS_GRAPH_LOOPS_H
#define TV_KERNELS_GRAPH_LOOPS_H

#include "base/pack.h"
#include "kernels/ref/ref_common.h"

static inline void tv_graph_decode_node(const tv_graph_decode_args *a, int64_t i)
{
    int64_t cols = a->cols, packed = tv_row_bytes(cols);
    const uint8_t *at = a->bytes + (a->from ? a->from[i] : i) * tv_vq_answer_bytes(cols);
    int code = (int8_t)at[8 + packed] - a->base;
    int8_t trits[TV_VQ_COLS_MAX];
    int32_t row;
    memcpy(&row, at, 4);
    int bad = row < 0 || code < 0 || code >= tv_lattice_codes(a->mantissa_bits);
    for (int64_t k = 0; k < packed; k++)
        bad |= at[8 + k] > TV_TRIT_BYTE_MAX;
    if (bad) {
        *a->fault = 1;
        memset(a->x + i * cols, 0, (size_t)cols * sizeof(float));
        return;
    }
    tv_unpack_row(at + 8, cols, trits);
    int value = tv_lattice_value(a->mantissa_bits, code);
    for (int64_t c = 0; c < cols; c++)
        a->x[i * cols + c] = (float)(trits[c] * value) * tv_exp2i(a->base);
}

static inline void tv_graph_aggregate_node(const tv_graph_aggregate_args *a, int64_t v)
{
    float *out = a->a + v * a->cols;
    for (int64_t c = 0; c < a->cols; c++)
        out[c] = 0.0f;
    for (int32_t e = a->start[v]; e < a->start[v + 1]; e++) {
        const float *m = a->m + a->source[e] * a->cols;
        float attr = a->attr[e];
        for (int64_t c = 0; c < a->cols; c++)
            out[c] = fmaf(attr, m[c], out[c]);
    }
}

// Lane sums of at most TV_GRAPH_BLOCK columns. Lanes that nothing is added to are +0, and no lane is ever -0, so adding them changes no bit:
// only the first `lanes`, a power of two, are kept.
enum { TV_GRAPH_BLOCK = 64 };
typedef struct tv_graph_lanes {
    float lane[32][TV_GRAPH_BLOCK];
} tv_graph_lanes;

static inline int tv_graph_lanes_start(tv_graph_lanes *s, int64_t count)
{
    int lanes = 1;
    while (lanes < 32 && lanes < count)
        lanes *= 2;
    memset(s, 0, (size_t)lanes * sizeof s->lane[0]);
    return lanes;
}

static inline void tv_graph_lanes_combine(tv_graph_lanes *s, int lanes, int64_t width, float *out)
{
    for (int x = lanes / 2; x > 0; x /= 2)
        for (int l = 0; l < x; l++)
            for (int64_t c = 0; c < width; c++)
                s->lane[l][c] = s->lane[l][c] + s->lane[l + x][c];
    for (int64_t c = 0; c < width; c++)
        out[c] = s->lane[0][c];
}

// dm of source u.
static inline void tv_graph_source_gradient(const tv_graph_aggregate_backward_args *a, int64_t u)
{
    tv_graph_lanes sums;
    int64_t cols = a->cols, first = a->source_start[u], count = 0;
    while (first + count < a->source_start[u + 1] && a->by_source[first + count] < a->edges)
        count++;
    int lanes = tv_graph_lanes_start(&sums, count);
    for (int64_t i = 0; i < count; i++) {
        int32_t e = a->by_source[first + i];
        float attr = a->attr[e], *lane = sums.lane[i % 32];
        const float *da = a->da + a->dst[e] * cols;
        for (int64_t c = 0; c < cols; c++)
            lane[c] = fmaf(attr, da[c], lane[c]);
    }
    tv_graph_lanes_combine(&sums, lanes, cols, a->dm + u * cols);
}

static inline void tv_graph_edge_gradient(const tv_graph_aggregate_backward_args *a, int64_t e)
{
    float lane[32] = {0};
    const float *da = a->da + a->dst[e] * a->cols, *m = a->m + a->source[e] * a->cols;
    for (int64_t first = 0; first < a->cols; first += 32)
        for (int64_t l = 0; l < 32 && first + l < a->cols; l++)
            lane[l] = fmaf(da[first + l], m[first + l], lane[l]);
    float sum = tv_lanes_combine(lane);
    a->attr_grad[e] = a->accumulate ? a->attr_grad[e] + sum : sum;
}

static inline void tv_graph_gather_token(const tv_graph_gather_args *a, int64_t t)
{
    float *x = a->x + t * a->width;
    if (a->slot[t] < 0)
        return;
    const float *u = a->u + a->slot[t] * a->width;
    for (int64_t c = 0; c < a->width; c++)
        x[c] = x[c] + u[c];
}

// du of distinct motif i.
static inline void tv_graph_motif_gradient(const tv_graph_gather_backward_args *a, int64_t i)
{
    int64_t first = a->start[i], count = a->start[i + 1] - first;
    for (int64_t c0 = 0; c0 < a->width; c0 += TV_GRAPH_BLOCK) {
        int64_t width = a->width - c0 < TV_GRAPH_BLOCK ? a->width - c0 : TV_GRAPH_BLOCK;
        tv_graph_lanes sums;
        int lanes = tv_graph_lanes_start(&sums, count);
        for (int64_t k = 0; k < count; k++) {
            const float *dx = a->dx + a->order[first + k] * a->width + c0;
            float *lane = sums.lane[k % 32];
            for (int64_t c = 0; c < width; c++)
                lane[c] = lane[c] + dx[c];
        }
        tv_graph_lanes_combine(&sums, lanes, width, a->du + i * a->width + c0);
    }
}

#endif
