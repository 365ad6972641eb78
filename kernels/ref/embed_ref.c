// Embedding, its one-hot vote, and the trigram sequencer.
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

tv_status embed_ref(const tv_embed_args *a, void *stream)
{
    (void)stream;
    float scale = tv_exp2i(a->exponent);
    for (int64_t t = 0; t < a->tokens; t++) {
        const int8_t *w = a->w8 + (int64_t)a->ids[t] * a->width;
        for (int64_t c = 0; c < a->width; c++)
            a->x[t * a->width + c] = (float)w[c] * scale;
    }
    return TV_OK;
}

tv_status embed_vote_ref(const tv_embed_vote_args *a, void *stream)
{
    (void)stream;
    if (!a->tokens || !a->width || !a->table)
        return TV_OK;
    void *memory;
    TV_TRY(tv_ref_scratch((size_t)a->table * 2 * sizeof(int32_t), &memory));
    int32_t *sum = memory, *sumsq = sum + a->table;
    tv_draws draws = tv_draws_start(tv_vote_level_key(&a->rule));
    for (int64_t c = 0; c < a->width; c++) {
        memset(memory, 0, (size_t)a->table * 2 * sizeof(int32_t));
        for (int64_t t = 0; t < a->tokens; t++) {
            int g = a->gt[c * a->tokens + t];
            sum[a->ids[t]] += g;
            sumsq[a->ids[t]] += g * g;
        }
        for (int64_t v = 0; v < a->table; v++) {
            int64_t element = v * a->width + c;
            float root = sqrtf((float)sumsq[v]);
            int vote;
            if (a->rule.levels > 1)
                vote = tv_vote_level((float)sum[v], root, a->rule.levels, tv_draws_at(&draws, (uint64_t)element));
            else
                vote = fabsf((float)sum[v]) > a->rule.tau * root ? tv_sign(sum[v]) : 0;
            tv_vote_add(a->votes, a->rule.vote_bits, element, vote);
        }
    }
    return TV_OK;
}

tv_status trigram_ref(const tv_trigram_args *a, void *stream)
{
    (void)stream;
    int64_t channels = a->channels;
    for (int64_t t = 0; a->context && t < a->tokens; t++) {
        for (int back = 0; back <= 2; back++) {
            float *y = a->out + t * 3 * channels + (2 - back) * channels;
            if (t % a->context >= back)
                memcpy(y, a->in + (t - back) * channels, (size_t)channels * sizeof *y);
            else
                for (int64_t c = 0; c < channels; c++)
                    y[c] = 0.0f;
        }
    }
    return TV_OK;
}

tv_status trigram_backward_ref(const tv_trigram_args *a, void *stream)
{
    (void)stream;
    int64_t channels = a->channels;
    for (int64_t t = 0; a->context && t < a->tokens; t++) {
        int64_t left = a->context - 1 - t % a->context; // tokens of the window after t
        const float *dy = a->in + t * 3 * channels;
        for (int64_t c = 0; c < channels; c++) {
            float own = dy[2 * channels + c];
            float next = left >= 1 ? dy[3 * channels + channels + c] : 0.0f;
            float second = left >= 2 ? dy[6 * channels + c] : 0.0f;
            float *dx = a->out + t * channels + c;
            *dx = *dx + ((own + next) + second);
        }
    }
    return TV_OK;
}
