// The products: activations x decoded weights, and the vote product. Integer sums are exact, so their order is free.
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

static int32_t dot(const int8_t *restrict a, const int8_t *restrict b, int64_t count)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += (int32_t)a[i] * b[i];
    return sum;
}

// 127 hi.b + lo.b
static int64_t dot2(const int8_t *hi, const int8_t *lo, const int8_t *b, int64_t count)
{
    return 127 * (int64_t)dot(hi, b, count) + dot(lo, b, count);
}

tv_status gemm_ref(const tv_gemm_args *a, void *stream)
{
    (void)stream;
    for (int64_t i = 0; a->reduce && i < a->m; i++) {
        float scale = a->scale[i] * tv_exp2i(a->exponent);
        for (int64_t j = 0; j < a->n; j++) {
            const int8_t *b = a->b + j * a->reduce;
            float acc = a->a_lo ? (float)dot2(a->a + i * a->reduce, a->a_lo + i * a->reduce, b, a->reduce)
                                : (float)dot(a->a + i * a->reduce, b, a->reduce);
            float v = acc * scale;
            float *y = a->y + i * a->n + j;
            *y = a->accumulate ? *y + v : v;
        }
    }
    return TV_OK;
}

tv_status gemm_vote_ref(const tv_gemm_vote_args *a, void *stream)
{
    (void)stream;
    tv_draws draws = tv_draws_start(tv_vote_level_key(&a->rule));
    for (int64_t n = 0; a->tokens && n < a->n; n++) {
        const int8_t *g = a->gt + n * a->tokens;
        float root_g = sqrtf(a->gt_lo ? (float)a->g_sumsq2[n] : (float)a->g_sumsq[n]);
        for (int64_t k = 0; k < a->k; k++) {
            const int8_t *x = a->xt + k * a->tokens;
            int64_t sum = a->gt_lo ? dot2(g, a->gt_lo + n * a->tokens, x, a->tokens) : dot(g, x, a->tokens);
            float rx = sqrtf((float)a->x_sumsq[k] / (float)a->tokens);
            int64_t element = n * a->k + k;
            uint32_t r16 = a->rule.levels > 1 ? tv_draws_at(&draws, (uint64_t)element) : 0;
            tv_vote_add(a->votes, a->rule.vote_bits, element, tv_vote_of(&a->rule, sum, root_g, rx, r16));
        }
    }
    return TV_OK;
}
