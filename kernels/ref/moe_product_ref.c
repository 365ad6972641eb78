// The experts' products: those of kernels.h, segment by segment.
#include "kernels/op_parts.h"
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

tv_status moe_gemm_ref(const tv_moe_gemm_args *a, void *stream)
{
    for (int64_t i = 0; i < a->segment_count; i++) {
        tv_gemm_args product = tv_moe_gemm_segment(a, i);
        TV_TRY(gemm_ref(&product, stream));
    }
    return TV_OK;
}

// v of row r and channel c
static float channel_value(const tv_moe_channels_args *a, int64_t r, int64_t c)
{
    return a->item && a->item[r] < 0 ? 0.0f : (float)a->q[r * a->channels + c] * a->scale[r];
}

static void segment_channel(const tv_moe_channels_args *a, int64_t segment, int64_t c)
{
    const tv_segment *s = &a->segments[segment];
    int8_t *qt = a->qt + c * a->columns + s->padded;
    uint32_t top = 0;
    int32_t sum = 0;
    for (int64_t r = 0; r < s->rows; r++) {
        uint32_t bits = tv_abs_bits(channel_value(a, s->first + r, c));
        top = bits > top ? bits : top;
    }
    float absmax = tv_absmax_from_bits(top, a->fault), inverse = absmax == 0.0f ? 0.0f : 127.0f / absmax;
    memset(qt, 0, (size_t)(tv_ceil_div(s->rows, TV_SEGMENT_PAD) * TV_SEGMENT_PAD));
    for (int64_t r = 0; absmax != 0.0f && r < s->rows; r++) {
        int q = (int)rintf(channel_value(a, s->first + r, c) * inverse);
        qt[r] = (int8_t)q;
        sum += q * q;
    }
    a->sumsq[segment * a->channels + c] = sum;
}

tv_status moe_channels_ref(const tv_moe_channels_args *a, void *stream)
{
    (void)stream;
    for (int64_t i = 0; i < a->segment_count; i++)
        for (int64_t c = 0; c < a->channels; c++)
            segment_channel(a, i, c);
    return TV_OK;
}

// gemm_vote with operands whose rows are longer than the segment.
static void segment_vote(const tv_moe_vote_args *a, int64_t segment)
{
    const tv_segment *s = &a->segments[segment];
    tv_vote_rule rule = a->rule;
    rule.unit = (uint32_t)s->unit;
    tv_draws draws = tv_draws_start(tv_vote_level_key(&rule));
    int64_t stack = a->n * a->k, first = (a->first_expert + (int64_t)s->expert) * stack;
    for (int64_t i = 0; i < stack; i++) {
        int64_t n = i / a->k, k = i % a->k;
        const int8_t *g = a->gt + n * a->columns + s->padded, *x = a->xt + k * a->columns + s->padded;
        int32_t sum = 0;
        for (int64_t r = 0; r < s->rows; r++)
            sum += (int32_t)g[r] * x[r];
        float root_g = sqrtf((float)a->g_sumsq[segment * a->n + n]);
        float rx = sqrtf((float)a->x_sumsq[segment * a->k + k] / (float)s->tokens);
        uint32_t r16 = rule.levels > 1 ? tv_draws_at(&draws, (uint64_t)(first + i)) : 0;
        tv_vote_add(a->votes, rule.vote_bits, s->expert * stack + i, tv_vote_of(&rule, sum, root_g, rx, r16));
    }
}

tv_status moe_vote_ref(const tv_moe_vote_args *a, void *stream)
{
    (void)stream;
    for (int64_t i = 0; i < a->segment_count; i++)
        if (a->segments[i].tokens > 0)
            segment_vote(a, i);
    return TV_OK;
}
