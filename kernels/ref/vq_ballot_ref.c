// Codebooks: the ballot on touched rows, usage, and rows that start again.
#include "kernels/ref/ref_ops.h"
#include "kernels/ref/vq_common.h"

// Sum of the votes on the u-th touched row, and of its tokens.
static int64_t sum_votes(const tv_vq_ballot_args *a, int64_t u, int16_t votes[TV_VQ_COLS_MAX])
{
    int64_t size = tv_vq_vote_bytes(a->table.cols), tokens = 0;
    memset(votes, 0, TV_VQ_COLS_MAX * sizeof *votes);
    for (int32_t i = a->start[u]; i < a->start[u + 1]; i++) {
        const uint8_t *vote = a->bytes + a->order[i] * size;
        int32_t used;
        memcpy(&used, vote + 4, 4);
        tokens += used;
        for (int64_t c = 0; c < a->table.cols; c++)
            votes[c] = (int16_t)(votes[c] + (int8_t)vote[8 + c]);
    }
    return tokens;
}

static tv_ballot_args row_ballot(const tv_vq_ballot_args *a, int64_t row, const int16_t *votes)
{
    int64_t at = row - a->table.first_row, cols = a->table.cols;
    return (tv_ballot_args){.rows = 1,
                            .cols = cols,
                            .first_row = row,
                            .T = a->table.T + at * tv_row_bytes(cols),
                            .T_accum = a->table.T_accum + at * cols,
                            .votes = votes,
                            .vote_bits = 16,
                            .rule = a->rule,
                            .combine = a->combine,
                            .units = a->units,
                            .quorum = a->quorum,
                            .threshold = a->threshold,
                            .eta_q = a->eta_q,
                            .classic_step = a->classic_step,
                            .theta = a->theta_min,
                            .theta_min = a->theta_min,
                            .cut = -1,
                            .seed = a->seed,
                            .tensor_id = a->tensor_id,
                            .step = a->step,
                            .stats = a->stats};
}

static tv_ballot_e_args row_exponent(const tv_vq_ballot_args *a, int64_t row, const int16_t *votes)
{
    int64_t at = row - a->table.first_row, cols = a->table.cols;
    return (tv_ballot_e_args){.rows = 1,
                              .cols = cols,
                              .first_row = row,
                              .group = (int)cols,
                              .base = a->table.base,
                              .mantissa_bits = a->table.mantissa_bits,
                              .T = a->table.T + at * tv_row_bytes(cols),
                              .E = a->table.E + at,
                              .E_accum = a->table.E_accum + at,
                              .votes = votes,
                              .vote_bits = 16,
                              .eta_e_q = a->eta_e_q,
                              .threshold = a->exponent_threshold,
                              .seed = a->seed,
                              .tensor_id = a->tensor_id,
                              .step = a->step,
                              .stats = a->stats + 2};
}

tv_status vq_ballot_ref(const tv_vq_ballot_args *a, void *stream)
{
    for (int64_t u = 0; a->table.cols && u < a->count; u++) {
        int16_t votes[TV_VQ_COLS_MAX];
        int64_t row = a->distinct[u], tokens = sum_votes(a, u, votes);
        tv_ballot_args ballot = row_ballot(a, row, votes);
        tv_ballot_e_args exponent = row_exponent(a, row, votes);
        if (a->rule == TV_RULE_CLASSIC)
            TV_TRY(ballot_e_ref(&exponent, stream));
        TV_TRY(ballot_ref(&ballot, stream));
        if (a->rule != TV_RULE_CLASSIC)
            TV_TRY(ballot_e_ref(&exponent, stream));
        if (!a->usage)
            continue;
        int16_t *usage = &a->usage[row - a->table.first_row];
        *usage = (int16_t)tv_clamp(*usage + tokens, 0, TV_VQ_USAGE_MAX);
    }
    return TV_OK;
}

// Query t in the place of the bucket's farthest so far.
static tv_vq_far far_of(const tv_vq_farthest_args *a, int64_t t)
{
    const int8_t *q = a->q + t * a->cols;
    int64_t sq = tv_vq_scale(a->scale[t], a->base);
    tv_vq_far far = {.found = 1, .unit = a->unit[t]};
    far.distance = sq * sq * tv_vq_dot(q, q, a->cols) - 256 * (int64_t)a->score[t * a->probes];
    for (int64_t c = 0; c < a->cols; c++)
        far.trit[c] = (int8_t)tv_sign(q[c]);
    return far;
}

tv_status vq_farthest_ref(const tv_vq_farthest_args *a, void *stream)
{
    (void)stream;
    for (int64_t b = 0; b < a->buckets; b++)
        for (int32_t r = a->start[b]; r < a->start[b + 1]; r++) {
            int32_t pair = a->item[r];
            if (pair % a->probes != 0 || a->row[pair] < 0)
                continue;
            tv_vq_far far = far_of(a, pair / a->probes), *so_far = &a->far[b];
            if (!so_far->found || far.distance > so_far->distance ||
                (far.distance == so_far->distance && far.unit < so_far->unit))
                *so_far = far;
        }
    return TV_OK;
}

// A row starts again.
static void restart_row(const tv_vq_restart_args *a, int64_t bucket, int64_t row)
{
    const tv_vq_table *table = &a->table;
    int64_t at = row - table->first_row, cols = table->cols;
    int8_t trits[TV_VQ_COLS_MAX];
    memcpy(trits, a->far[bucket - a->first_bucket].trit, sizeof trits);
    for (int c = 0; c < table->bits; c++)
        trits[c] = (int8_t)tv_vq_pattern(bucket, c);
    tv_pack_row(trits, cols, table->T + at * tv_row_bytes(cols));
    table->E[at] = (int8_t)a->exponent;
    memset(table->T_accum + at * cols, 0, (size_t)cols);
    table->E_accum[at] = 0;
    a->usage[at] = (int16_t)a->usage_start;
    a->restarts[0]++;
}

tv_status vq_restart_ref(const tv_vq_restart_args *a, void *stream)
{
    (void)stream;
    for (int64_t b = 0; b < a->buckets; b++) {
        tv_vq_range range = tv_vq_bucket_rows(&a->table, a->first_bucket + b);
        int64_t row = range.first;
        while (a->far[b].found && row < range.last && a->usage[row - a->table.first_row] != 0)
            row++;
        if (a->far[b].found && row < range.last)
            restart_row(a, a->first_bucket + b, row);
    }
    return TV_OK;
}

tv_status vq_usage_ref(const tv_vq_usage_args *a, void *stream)
{
    (void)stream;
    for (int64_t i = 0; i < a->rows; i++) {
        int usage = a->usage[i], log2 = 0;
        while (usage >> (log2 + 1) > 0)
            log2++;
        if (a->counts && usage > 0) {
            a->counts[0]++;
            a->counts[1] += usage;
            a->counts[2 + log2]++;
        }
        if (a->halve)
            a->usage[i] = (int16_t)(usage >> 1);
    }
    return TV_OK;
}
