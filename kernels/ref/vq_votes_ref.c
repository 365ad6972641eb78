// Codebooks: gradients of rows and queries, and a unit's votes on the rows that it used.
#include <stdlib.h>

#include "kernels/ref/ref_ops.h"
#include "kernels/ref/vq_common.h"

tv_status vq_gradient_ref(const tv_vq_gradient_args *a, void *stream)
{
    (void)stream;
    float power = tv_exp2i(a->base);
    for (int64_t t = 0; a->cols && t < a->tokens; t++) {
        float lane[32] = {0};
        for (int64_t c = 0; c < a->cols; c++) {
            int64_t i = t * a->cols + c;
            float z = (float)a->q[i] * a->scale[t];
            float e = (float)a->w8[i] * power - z;
            lane[c % 32] = fmaf(e, e, lane[c % 32]);
            float g = a->g ? a->g[i] : 0.0f;
            if (a->row_grad)
                a->row_grad[i] = fmaf(a->beta, e, g);
            if (a->z_grad)
                a->z_grad[i] = fmaf(-a->weight, e, g);
        }
        if (a->loss)
            a->loss[t] = tv_lanes_combine(lane);
    }
    return TV_OK;
}

// An entry and its row, to be sorted.
typedef struct keyed {
    int32_t row, entry;
} keyed;

static int compare_keyed(const void *left, const void *right)
{
    const keyed *a = left, *b = right;
    if (a->row != b->row)
        return a->row < b->row ? -1 : 1;
    return (a->entry > b->entry) - (a->entry < b->entry);
}

tv_status vq_group_ref(const tv_vq_group_args *a, void *stream)
{
    (void)stream;
    void *memory;
    int32_t kept = 0, distinct = 0;
    TV_TRY(tv_ref_scratch((size_t)a->entries * sizeof(keyed), &memory));
    keyed *list = memory;
    for (int64_t i = 0; i < a->entries; i++)
        if (a->row[i] >= 0)
            list[kept++] = (keyed){a->row[i], (int32_t)i};
    qsort(list, (size_t)kept, sizeof *list, compare_keyed);
    for (int32_t i = 0; i < kept; i++) {
        a->order[i] = list[i].entry;
        if (i == 0 || list[i].row != list[i - 1].row) {
            a->start[distinct] = i;
            a->distinct[distinct++] = list[i].row;
        }
    }
    a->start[distinct] = kept;
    *a->count = distinct;
    return TV_OK;
}

// The one-hot vote of channel c of the u-th row.
static int row_vote(const tv_vq_votes_args *a, int64_t u, int64_t c, tv_draws *draws)
{
    int32_t sum = 0, sumsq = 0;
    for (int32_t i = a->start[u]; i < a->start[u + 1]; i++) {
        int g = a->gt[c * a->tokens + a->order[i]];
        sum += g;
        sumsq += g * g;
    }
    float root = sqrtf((float)sumsq);
    if (a->rule.levels > 1)
        return tv_vote_level((float)sum, root, a->rule.levels,
                             tv_draws_at(draws, (uint64_t)(a->distinct[u] * a->cols + c)));
    return fabsf((float)sum) > a->rule.tau * root ? tv_sign(sum) : 0;
}

tv_status vq_votes_ref(const tv_vq_votes_args *a, void *stream)
{
    (void)stream;
    int64_t size = tv_vq_vote_bytes(a->cols);
    tv_draws draws = tv_draws_start(tv_vote_level_key(&a->rule));
    for (int64_t u = 0; u < a->count; u++) {
        uint8_t *out = a->bytes + u * size;
        int32_t tokens = a->start[u + 1] - a->start[u];
        memset(out, 0, (size_t)size);
        memcpy(out, &a->distinct[u], 4);
        memcpy(out + 4, &tokens, 4);
        for (int64_t c = a->bits; c < a->cols; c++)
            out[8 + c] = (uint8_t)row_vote(a, u, c, &draws);
    }
    return TV_OK;
}

tv_status vq_votes_rows_ref(const tv_vq_votes_rows_args *a, void *stream)
{
    (void)stream;
    int64_t size = tv_vq_vote_bytes(a->cols);
    for (int64_t i = 0; i < a->count; i++) {
        int32_t row, tokens;
        memcpy(&row, a->bytes + i * size, 4);
        memcpy(&tokens, a->bytes + i * size + 4, 4);
        int bad = row < a->first_row || row >= a->first_row + a->held_rows || tokens < 1;
        if (bad)
            *a->fault = 1;
        a->row[i] = bad ? -1 : row;
    }
    return TV_OK;
}
