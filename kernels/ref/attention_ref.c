// Causal attention on int8 q, k, v: a query row at a time. Scores and dp are exact integer sums, scaled once; only the sums over
// keys and queries have an order (kernels.h).
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

// e[j] = exp(score_j - top) for j = 0..i and their sum l, for query i.
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
    for (int64_t d = 0; d < width; d++)
        out[d] = 0.0f;
    for (int64_t j = 0; j <= i; j++) {
        int64_t vj = item(v, j);
        float weight = e[j] * a->v_scale[vj];
        for (int64_t d = 0; d < width; d++)
            out[d] = fmaf(weight, (float)a->v[vj * width + d], out[d]);
    }
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

// Query i's terms: all of dq[i], and one link of the chains of dk[j] and dv[j], j <= i. Queries come in ascending order.
static void backward_query(const tv_attention_backward_args *a, const head_view *v, int64_t i, float *p, float *dp)
{
    int64_t qi = item(v, i), width = v->width;
    float delta = query_weights(a, v, i, p, dp);
    float *dq = a->dq + qi * width, c = a->q_scale[qi] * v->inv_sqrt;
    const int8_t *q = a->q + qi * width, *g = a->g + qi * width;
    for (int64_t d = 0; d < width; d++)
        dq[d] = 0.0f;
    for (int64_t j = 0; j <= i; j++) {
        int64_t kj = item(v, j);
        const int8_t *k = a->k + kj * width;
        float *dk = a->dk + kj * width, *dv = a->dv + kj * width;
        float ds = p[j] * (dp[j] - delta);
        float to_q = ds * a->k_scale[kj], to_k = ds * c, to_v = p[j] * a->g_scale[qi];
        for (int64_t d = 0; d < width; d++) {
            dq[d] = fmaf(to_q, (float)k[d], dq[d]);
            dk[d] = fmaf(to_k, (float)q[d], dk[d]);
            dv[d] = fmaf(to_v, (float)g[d], dv[d]);
        }
    }
    for (int64_t d = 0; d < width; d++)
        dq[d] = v->inv_sqrt * dq[d];
}

tv_status attention_backward_ref(const tv_attention_backward_args *a, void *stream)
{
    (void)stream;
    if (!a->tokens || !a->heads || !a->width || !a->context)
        return TV_OK;
    void *memory;
    TV_TRY(tv_ref_scratch((size_t)a->context * 2 * sizeof(float), &memory));
    float *p = memory, *dp = p + a->context;
    for (int64_t i = 0; i < a->tokens * a->heads * a->width; i++)
        a->dk[i] = a->dv[i] = 0.0f;
    for (int64_t w = 0; w < a->tokens / a->context; w++)
        for (int64_t h = 0; h < a->heads; h++) {
            head_view v = head_at(w, h, a->heads, a->width, a->context);
            for (int64_t i = 0; i < a->context; i++)
                backward_query(a, &v, i, p, dp);
        }
    return TV_OK;
}
