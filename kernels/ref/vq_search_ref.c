// Codebooks: which buckets a query looks into, where they are, and the best row in them.
#include <stdlib.h>

#include "kernels/ref/ref_ops.h"
#include "kernels/ref/vq_common.h"

// A pattern of the first dimensions, and what it costs to differ from the query's signs.
typedef struct candidate {
    int32_t cost, bucket;
} candidate;

static int comes_before(candidate a, candidate b) { return a.cost != b.cost ? a.cost < b.cost : a.bucket < b.bucket; }

// The `most` least of: the candidates so far with bit `bit` as the query has it, and with the other one. Both lists are in order, and
// so is the result. What is cut off here can be in no longer list: the same bits on top keep any two candidates in their order.
static int add_dimension(candidate *list, int count, int most, int bit, int q)
{
    candidate keep[TV_VQ_PROBES_MAX], flip[TV_VQ_PROBES_MAX];
    int32_t own = (q >= 0) << bit, other = (q < 0) << bit;
    for (int i = 0; i < count; i++) {
        keep[i] = (candidate){list[i].cost, list[i].bucket + own};
        flip[i] = (candidate){list[i].cost + abs(q), list[i].bucket + other};
    }
    int made = 0;
    for (int i = 0, j = 0; made < most && made < 2 * count; made++) {
        int take_flip = i == count || (j < count && comes_before(flip[j], keep[i]));
        list[made] = take_flip ? flip[j++] : keep[i++];
    }
    return made;
}

tv_status vq_probes_ref(const tv_vq_probes_args *a, void *stream)
{
    (void)stream;
    for (int64_t t = 0; t < a->tokens; t++) {
        candidate list[TV_VQ_PROBES_MAX] = {{0, 0}};
        int count = 1;
        for (int c = 0; c < a->bits; c++)
            count = add_dimension(list, count, a->probes, c, a->q[t * a->cols + c]);
        for (int j = 0; j < a->probes; j++)
            a->bucket[t * a->probes + j] = list[j].bucket;
    }
    return TV_OK;
}

// 1 when one of token t's buckets is at the place.
static int goes_to(const tv_vq_send_args *a, int64_t t, int place)
{
    for (int j = 0; j < a->probes; j++)
        if (tv_vq_place_of(a->bits, a->places, a->bucket[t * a->probes + j]) == place)
            return 1;
    return 0;
}

tv_status vq_send_ref(const tv_vq_send_args *a, void *stream)
{
    (void)stream;
    int32_t row = 0;
    for (int o = 0; o < a->places; o++) {
        int32_t before = row;
        for (int64_t t = 0; t < a->tokens; t++) {
            int goes = goes_to(a, t, o);
            a->index[t * a->places + o] = goes ? row : -1;
            if (goes)
                a->item[row++] = (int32_t)t;
        }
        a->counts[o] = row - before;
    }
    return TV_OK;
}

tv_status vq_plan_ref(const tv_vq_plan_args *a, void *stream)
{
    (void)stream;
    int64_t pairs = a->tokens * a->probes;
    memset(a->start, 0, (size_t)(a->buckets + 1) * sizeof *a->start);
    for (int64_t i = 0; i < pairs; i++) {
        int64_t b = a->bucket[i] - a->first_bucket;
        if (b >= 0 && b < a->buckets)
            a->start[b + 1]++;
    }
    for (int64_t b = 0; b < a->buckets; b++)
        a->start[b + 1] += a->start[b];
    // Fill each run from its start, which moves on to the next bucket's; then move all back by one.
    for (int64_t i = 0; i < pairs; i++) {
        int64_t b = a->bucket[i] - a->first_bucket;
        if (b >= 0 && b < a->buckets)
            a->item[a->start[b]++] = (int32_t)i;
    }
    for (int64_t b = a->buckets; b > 0; b--)
        a->start[b] = a->start[b - 1];
    a->start[0] = 0;
    return TV_OK;
}

// One row against all queries of its bucket.
static void try_row(const tv_vq_search_args *a, int64_t row, int64_t bucket)
{
    int8_t w8[TV_VQ_COLS_MAX];
    int64_t cols = a->table.cols;
    tv_vq_decode_row(&a->table, row, w8);
    int32_t norm = tv_vq_dot(w8, w8, cols);
    for (int32_t r = a->start[bucket]; r < a->start[bucket + 1]; r++) {
        int32_t pair = a->item[r];
        int64_t t = pair / a->probes;
        int32_t sq = tv_vq_scale(a->scale[t], a->table.base);
        int32_t score = 2 * sq * tv_vq_dot(a->q + t * cols, w8, cols) - 256 * norm;
        if (a->row[pair] < 0 || score > a->score[pair]) {
            a->row[pair] = (int32_t)row;
            a->score[pair] = score;
        }
    }
}

tv_status vq_search_ref(const tv_vq_search_args *a, void *stream)
{
    (void)stream;
    for (int64_t i = 0; i < a->tokens * a->probes; i++) {
        a->row[i] = -1;
        a->score[i] = INT32_MIN;
    }
    for (int64_t b = 0; b < a->buckets; b++) {
        tv_vq_range range = tv_vq_bucket_rows(&a->table, a->first_bucket + b);
        for (int64_t row = range.first; a->start[b] < a->start[b + 1] && row < range.last; row++)
            try_row(a, row, b);
    }
    return TV_OK;
}

tv_status vq_best_ref(const tv_vq_best_args *a, void *stream)
{
    (void)stream;
    for (int64_t t = 0; t < a->tokens; t++) {
        int32_t row = -1, score = INT32_MIN, from = -1;
        for (int64_t i = t * a->slots; i < (t + 1) * a->slots; i++) {
            int32_t entry = a->index ? a->index[i] : (int32_t)i;
            if (entry < 0 || a->row[entry] < 0)
                continue;
            int better = a->score[entry] > score || (a->score[entry] == score && a->row[entry] < row);
            if (from < 0 || better)
                row = a->row[entry], score = a->score[entry], from = entry;
        }
        if (a->best_row)
            a->best_row[t] = row;
        if (a->best_score)
            a->best_score[t] = score;
        if (a->best_from)
            a->best_from[t] = from;
    }
    return TV_OK;
}
