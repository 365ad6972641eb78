// Which experts a token goes to, and where its rows lie.
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

// The best expert that is not among the first `taken` of `chosen`.
static int32_t best_left(const tv_moe_route_args *a, const float *logits, const int32_t *chosen, int taken)
{
    int32_t best = -1;
    float top = 0.0f;
    for (int32_t e = 0; e < a->experts; e++) {
        int used = 0;
        for (int j = 0; j < taken; j++)
            used |= chosen[j] == e;
        float s = logits[e] + (float)a->bias[e] * (float)TV_MOE_BIAS_UNIT;
        if (!used && (best < 0 || s > top)) {
            best = e;
            top = s;
        }
    }
    return best;
}

static void select_gates(const float *logits, const int32_t *chosen, int slots, float *gate)
{
    float top = logits[chosen[0]], sum = 0.0f;
    for (int j = 1; j < slots; j++)
        top = logits[chosen[j]] > top ? logits[chosen[j]] : top;
    top = top + 0.0f;
    for (int j = 0; j < slots; j++) {
        gate[j] = tv_exp(logits[chosen[j]] - top);
        sum = sum + gate[j];
    }
    float inverse = 1.0f / sum;
    for (int j = 0; j < slots; j++)
        gate[j] = gate[j] * inverse;
}

tv_status moe_route_ref(const tv_moe_route_args *a, void *stream)
{
    (void)stream;
    for (int64_t t = 0; a->slots && t < a->tokens; t++) {
        const float *logits = a->logits + t * a->experts;
        int32_t *chosen = a->expert + t * a->slots;
        float *gate = a->gate + t * a->slots;
        int bad = tv_absmax_bits(logits, a->experts, 1) >= TV_BITS_INF;
        for (int j = 0; j < a->slots; j++)
            chosen[j] = bad ? j : best_left(a, logits, chosen, j);
        if (bad) {
            *a->fault = 1;
            memset(gate, 0, (size_t)a->slots * sizeof *gate);
        } else {
            select_gates(logits, chosen, a->slots, gate);
        }
        for (int j = 0; a->counts && j < a->slots; j++)
            a->counts[chosen[j]]++;
    }
    return TV_OK;
}

tv_status moe_route_backward_ref(const tv_moe_route_backward_args *a, void *stream)
{
    (void)stream;
    for (int64_t t = 0; t < a->tokens; t++) {
        const int32_t *expert = a->expert + t * a->slots;
        const float *gate = a->gate + t * a->slots, *grad = a->grad + t * a->slots;
        float *d = a->logits + t * a->experts, mean = 0.0f;
        for (int64_t e = 0; e < a->experts; e++)
            d[e] = 0.0f;
        for (int j = 0; j < a->slots; j++)
            mean = fmaf(gate[j], grad[j], mean);
        for (int j = 0; j < a->slots; j++)
            d[expert[j]] = gate[j] * (grad[j] - mean);
    }
    return TV_OK;
}

// The expert of pair i, 0 for one that is none.
static int32_t pair_expert(const tv_moe_plan_args *a, int64_t i)
{
    int32_t e = a->expert[i];
    if (e >= 0 && e < a->experts)
        return e;
    *a->fault = 1;
    return 0;
}

static void plan_sparse(const tv_moe_plan_args *a)
{
    int64_t first = 0;
    for (int64_t e = 0; e < a->experts; e++) {
        a->segments[e].first = first;
        first += a->segments[e].rows;
        a->segments[e].rows = 0;
    }
    for (int64_t i = 0; i < a->tokens * a->slots; i++) {
        tv_segment *s = &a->segments[pair_expert(a, i)];
        a->place[i] = (int32_t)(s->first + s->rows);
        a->item[s->first + s->rows++] = (int32_t)i;
    }
}

static void plan_dense(const tv_moe_plan_args *a)
{
    for (int64_t e = 0; e < a->experts; e++) {
        a->segments[e].first = e * a->tokens;
        a->segments[e].rows = a->tokens;
        for (int64_t t = 0; t < a->tokens; t++)
            a->item[e * a->tokens + t] = (int32_t)(-(t + 1));
    }
    for (int64_t i = 0; i < a->tokens * a->slots; i++) {
        a->place[i] = (int32_t)(pair_expert(a, i) * a->tokens + i / a->slots);
        a->item[a->place[i]] = (int32_t)i;
    }
}

tv_status moe_plan_ref(const tv_moe_plan_args *a, void *stream)
{
    (void)stream;
    int64_t padded = 0;
    if (!a->tokens || !a->slots)
        return TV_OK;
    memset(a->segments, 0, (size_t)a->experts * sizeof *a->segments);
    for (int64_t i = 0; i < a->tokens * a->slots; i++) {
        a->segments[pair_expert(a, i)].rows++;
        a->segments[pair_expert(a, i)].tokens++;
    }
    if (a->dense)
        plan_dense(a);
    else
        plan_sparse(a);
    for (int64_t e = 0; e < a->experts; e++) {
        tv_segment *s = &a->segments[e];
        s->expert = (int32_t)e;
        s->unit = a->unit;
        s->padded = padded;
        padded += tv_ceil_div(s->rows, TV_SEGMENT_PAD) * TV_SEGMENT_PAD;
    }
    return TV_OK;
}
