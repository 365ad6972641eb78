// The vote product: sums of the product engine become votes while their tile is in L1 (kernels.h, tv_vote_rule).
#include "kernels/cpu/cpu_gemm.h"
#include "kernels/cpu/cpu_rows.h"

// A row of a tile: sums (two digits joined) and the columns' rx.
typedef struct vote_row {
    const tv_vote_rule *rule;
    float sum[TV_GEMM_NR], rx[TV_GEMM_NR];
    int sign[TV_GEMM_NR];
    float root_g; // sqrtf((float)Qg)
} vote_row;

static void load_sums(const tv_cpu_tile *tile, int row, vote_row *r)
{
    const int32_t *hi = tile->hi + row * tile->stride;
    if (tile->lo == NULL) {
        for (int c = 0; c < TV_GEMM_NR; c++) {
            r->sum[c] = (float)hi[c];
            r->sign[c] = (hi[c] > 0) - (hi[c] < 0);
        }
        return;
    }
    const int32_t *lo = tile->lo + row * tile->stride;
    for (int c = 0; c < TV_GEMM_NR; c++) {
        int64_t a = 127 * (int64_t)hi[c] + lo[c];
        r->sum[c] = (float)a;
        r->sign[c] = (a > 0) - (a < 0);
    }
}

static void sign_votes(const vote_row *r, int vote[TV_GEMM_NR])
{
    float rg = r->rule->tau * r->root_g;
    for (int c = 0; c < TV_GEMM_NR; c++)
        vote[c] = fabsf(r->sum[c]) > rg * r->rx[c] ? r->sign[c] : 0;
}

static void level_votes(const vote_row *r, uint64_t element, int cols, int vote[TV_GEMM_NR])
{
    uint16_t draws[TV_GEMM_NR + 14];
    tv_row_draws(tv_vote_level_key(r->rule), element, cols, draws);
    for (int c = 0; c < cols; c++)
        vote[c] = tv_vote_level(r->sum[c], r->root_g * r->rx[c], r->rule->levels, draws[(element & 7) + (uint64_t)c]);
}

static void add_votes(const tv_gemm_vote_args *v, int64_t element, int cols, const int vote[TV_GEMM_NR])
{
    if (v->rule.vote_bits == 8) {
        int8_t *restrict votes = (int8_t *)v->votes + element;
        for (int c = 0; c < cols; c++)
            votes[c] = (int8_t)(votes[c] + vote[c]);
    } else {
        int16_t *restrict votes = (int16_t *)v->votes + element;
        for (int c = 0; c < cols; c++)
            votes[c] = (int16_t)(votes[c] + vote[c]);
    }
}

// A vote product, its draws and the pitch of its operands.
typedef struct vote_job {
    const tv_gemm_vote_args *votes;
    int64_t first; // element of the tensor that votes[0] belongs to
} vote_job;

static void finish_tile(const void *args, const tv_cpu_tile *tile)
{
    const vote_job *job = args;
    const tv_gemm_vote_args *v = job->votes;
    vote_row r = {.rule = &v->rule};
    int vote[TV_GEMM_NR];
    for (int c = 0; c < tile->cols; c++)
        r.rx[c] = sqrtf((float)v->x_sumsq[tile->col + c] / (float)v->tokens);
    for (int row = 0; row < tile->rows; row++) {
        int64_t n = tile->row + row, element = n * v->k + tile->col;
        r.root_g = sqrtf(v->gt_lo == NULL ? (float)v->g_sumsq[n] : (float)v->g_sumsq2[n]);
        load_sums(tile, row, &r);
        if (v->rule.levels > 1)
            level_votes(&r, (uint64_t)(job->first + element), tile->cols, vote);
        else
            sign_votes(&r, vote);
        add_votes(v, element, tile->cols, vote);
    }
}

tv_status TV_ISA_NAME(gemm_vote)(const tv_gemm_vote_args *args, void *stream)
{
    (void)stream;
    const vote_job job = {args, 0};
    if (args->tokens <= 0)
        return TV_OK;
    const tv_cpu_product product = {.m = args->n,
                                    .n = args->k,
                                    .reduce = args->tokens,
                                    .a = args->gt,
                                    .a_lo = args->gt_lo,
                                    .b = args->xt,
                                    .done = finish_tile,
                                    .args = &job};
    return TV_ISA_NAME(tv_cpu_product_run)(&product);
}

static tv_status segment_votes(const tv_moe_vote_args *a, int64_t segment)
{
    const tv_segment *s = &a->segments[segment];
    int64_t stack = a->n * a->k;
    tv_gemm_vote_args votes = {.n = a->n,
                               .k = a->k,
                               .tokens = s->tokens,
                               .g_sumsq = a->g_sumsq + segment * a->n,
                               .x_sumsq = a->x_sumsq + segment * a->k,
                               .rule = a->rule,
                               .votes = (char *)a->votes + s->expert * stack * (a->rule.vote_bits / 8)};
    votes.rule.unit = (uint32_t)s->unit;
    const vote_job job = {&votes, (a->first_expert + (int64_t)s->expert) * stack};
    const tv_cpu_product product = {.m = a->n,
                                    .n = a->k,
                                    .reduce = s->rows,
                                    .a = a->gt + s->padded,
                                    .b = a->xt + s->padded,
                                    .stride = a->columns,
                                    .done = finish_tile,
                                    .args = &job};
    return TV_ISA_NAME(tv_cpu_product_run)(&product);
}

tv_status TV_ISA_NAME(moe_vote)(const tv_moe_vote_args *args, void *stream)
{
    (void)stream;
    for (int64_t i = 0; i < args->segment_count; i++)
        if (args->segments[i].tokens > 0)
            TV_TRY(segment_votes(args, i));
    return TV_OK;
}
