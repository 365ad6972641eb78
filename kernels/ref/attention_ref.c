// Causal attention on int8 q, k, v: a query row at a time, and in the backward 32 query rows for the keys' gradients. Scores, dp and the
// sums of a block are exact integers; only sums of floats over keys and over blocks have an order (kernels.h).
#include "kernels/block_sum.h"
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

static int32_t dot(const int8_t *restrict a, const int8_t *restrict b, int64_t count)
{
    int32_t sum = 0;
    for (int64_t c = 0; c < count; c++)
        sum += (int32_t)a[c] * b[c];
    return sum;
}

// One window and head: token i of the window is item i * heads of [M, H], counted from `first`.
typedef struct head_view {
    int64_t first, heads, width, context;
    float inv_sqrt;
} head_view;

static inline int64_t item(const head_view *v, int64_t i) { return v->first + i * v->heads; }

static head_view head_at(int64_t window, int64_t head, int64_t heads, int64_t width, int64_t context)
{
    head_view v = {window * context * heads + head, heads, width, context, 1.0f / sqrtf((float)width)};
    return v;
}

// One block of a blocksum: acc[c] for the weights w of `rows` tokens from `first` on, `step` items apart, and the head's rows of x8.
static void add_block(const head_view *v, const float *w, int64_t step, int64_t first, int64_t rows, const int8_t *x8,
                      float *acc)
{
    tv_block_scale scale = tv_block_scale_of(tv_absmax_bits(w, rows, step));
    int32_t weight[TV_BLOCK_ROWS] = {0};
    for (int64_t r = 0; r < rows && scale.to_integer > 0.0f; r++)
        weight[r] = (int32_t)rintf(w[r * step] * scale.to_integer);
    for (int64_t d = 0; d < v->width; d++) {
        int32_t sum = 0;
        for (int64_t r = 0; r < rows; r++)
            sum += weight[r] * x8[item(v, first + r) * v->width + d];
        acc[d] = fmaf((float)sum, scale.from_integer, acc[d]);
    }
}

// acc = blocksum of the tokens 0..count-1
static void block_sum(const head_view *v, const float *w, int64_t count, const int8_t *x8, float *acc)
{
    for (int64_t d = 0; d < v->width; d++)
        acc[d] = 0.0f;
    for (int64_t first = 0; first < count; first += TV_BLOCK_ROWS) {
        int64_t left = count - first;
        add_block(v, w + first, 1, first, left < TV_BLOCK_ROWS ? left : TV_BLOCK_ROWS, x8, acc);
    }
}

// Query i; e is scratch for one row of weights.
static void forward_query(const tv_attention_args *a, const head_view *v, int64_t i, float *e)
{
    int64_t qi = item(v, i), width = v->width;
    float c = a->q_scale[qi] * v->inv_sqrt;
    float top = 0.0f, lane[32] = {0};
    for (int64_t j = 0; j <= i; j++) {
        int64_t kj = item(v, j);
        e[j] = (float)dot(a->q + qi * width, a->k + kj * width, width) * (c * a->k_scale[kj]);
        top = j == 0 || e[j] > top ? e[j] : top;
    }
    top = top + 0.0f;
    for (int64_t j = 0; j <= i; j++) {
        e[j] = tv_exp(e[j] - top);
        lane[j % 32] += e[j];
    }
    float norm = tv_lanes_combine(lane), inverse = 1.0f / norm, *out = a->out + qi * width;
    for (int64_t j = 0; j <= i; j++)
        e[j] = e[j] * a->v_scale[item(v, j)];
    block_sum(v, e, i + 1, a->v, out);
    for (int64_t d = 0; d < width; d++)
        out[d] = out[d] * inverse;
    if (a->top)
        a->top[qi] = top;
    if (a->norm)
        a->norm[qi] = norm;
}

tv_status attention_ref(const tv_attention_args *a, void *stream)
{
    (void)stream;
    if (!a->tokens || !a->heads || !a->width || !a->context)
        return TV_OK;
    void *e;
    TV_TRY(tv_ref_scratch((size_t)a->context * sizeof(float), &e));
    for (int64_t w = 0; w < a->tokens / a->context; w++)
        for (int64_t h = 0; h < a->heads; h++) {
            head_view v = head_at(w, h, a->heads, a->width, a->context);
            for (int64_t i = 0; i < a->context; i++)
                forward_query(a, &v, i, e);
        }
    return TV_OK;
}

// p[j] and dp[j] for query i; returns delta_i.
static float query_weights(const tv_attention_backward_args *a, const head_view *v, int64_t i, float *p, float *dp)
{
    int64_t qi = item(v, i), width = v->width;
    float c = a->q_scale[qi] * v->inv_sqrt, inverse = 1.0f / a->norm[qi], lane[32] = {0};
    for (int64_t j = 0; j <= i; j++) {
        int64_t kj = item(v, j);
        float score = (float)dot(a->q + qi * width, a->k + kj * width, width) * (c * a->k_scale[kj]);
        p[j] = tv_exp(score - a->top[qi]) * inverse;
        dp[j] = (float)dot(a->g + qi * width, a->v + kj * width, width) * (a->g_scale[qi] * a->v_scale[kj]);
        lane[j % 32] = fmaf(p[j], dp[j], lane[j % 32]);
    }
    return tv_lanes_combine(lane);
}

// Scratch of the backward: the weights of up to 32 queries.
typedef struct block_weights {
    float *p, *dp;      // [context], one query
    float *to_k, *to_v; // [32, context]
} block_weights;

// dq of query i, and its row of the weights of dk and dv.
static void backward_query(const tv_attention_backward_args *a, const head_view *v, int64_t i, const block_weights *w)
{
    int64_t qi = item(v, i), row = i % TV_BLOCK_ROWS * v->context;
    float delta = query_weights(a, v, i, w->p, w->dp);
    float *dq = a->dq + qi * v->width, *to_q = w->dp, *to_k = w->to_k + row, *to_v = w->to_v + row,
          c = a->q_scale[qi] * v->inv_sqrt;
    for (int64_t j = 0; j < v->context; j++)
        to_k[j] = to_v[j] = 0.0f;
    for (int64_t j = 0; j <= i; j++) {
        float ds = w->p[j] * (w->dp[j] - delta);
        to_q[j] = ds * a->k_scale[item(v, j)];
        to_k[j] = ds * c;
        to_v[j] = w->p[j] * a->g_scale[qi];
    }
    block_sum(v, to_q, i + 1, a->k, dq);
    for (int64_t d = 0; d < v->width; d++)
        dq[d] = v->inv_sqrt * dq[d];
}

// The block of queries from `first` on: its rows of dq, and its part of every key's sums.
static void backward_block(const tv_attention_backward_args *a, const head_view *v, int64_t first,
                           const block_weights *w)
{
    int64_t rows = v->context - first < TV_BLOCK_ROWS ? v->context - first : TV_BLOCK_ROWS;
    for (int64_t i = first; i < first + rows; i++)
        backward_query(a, v, i, w);
    for (int64_t j = 0; j < first + rows; j++) {
        add_block(v, w->to_k + j, v->context, first, rows, a->q, a->dk + item(v, j) * v->width);
        add_block(v, w->to_v + j, v->context, first, rows, a->g, a->dv + item(v, j) * v->width);
    }
}

tv_status attention_backward_ref(const tv_attention_backward_args *a, void *stream)
{
    (void)stream;
    if (!a->tokens || !a->heads || !a->width || !a->context)
        return TV_OK;
    void *memory;
    TV_TRY(tv_ref_scratch((size_t)a->context * (2 + 2 * TV_BLOCK_ROWS) * sizeof(float), &memory));
    block_weights weights = {.p = memory};
    weights.dp = weights.p + a->context;
    weights.to_k = weights.dp + a->context;
    weights.to_v = weights.to_k + TV_BLOCK_ROWS * a->context;
    for (int64_t i = 0; i < a->tokens * a->heads * a->width; i++)
        a->dk[i] = a->dv[i] = 0.0f;
    for (int64_t w = 0; w < a->tokens / a->context; w++)
        for (int64_t h = 0; h < a->heads; h++) {
            head_view v = head_at(w, h, a->heads, a->width, a->context);
            for (int64_t first = 0; first < a->context; first += TV_BLOCK_ROWS)
                backward_block(a, &v, first, &weights);
        }
    return TV_OK;
}
