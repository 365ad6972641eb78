// The exponents' part of the ballot.
#include "base/pack.h"
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

// sum of sign(v) t over columns [from, to) of row n.
static int group_score(const tv_ballot_e_args *a, int64_t n, int64_t from, int64_t to)
{
    const uint8_t *T = a->T + n * tv_row_bytes(a->cols);
    int score = 0;
    for (int64_t k = from; k < to; k++)
        score += tv_sign(tv_vote_get(a->votes, a->vote_bits, n * a->cols + k)) * (tv_trit_digits[T[k / 5]][k % 5] - 1);
    return score;
}

// Move one exponent by its counter's new value e.
static void settle_exponent(const tv_ballot_e_args *a, int64_t i, int64_t e)
{
    int most = a->base + tv_lattice_codes(a->mantissa_bits) - 1;
    int direction = e >= a->threshold ? 1 : e <= -a->threshold ? -1 : 0;
    if (direction == 0) {
        a->E_accum[i] = (int8_t)e;
    } else if (direction > 0 ? a->E[i] < most : a->E[i] > a->base) {
        a->E[i] = (int8_t)(a->E[i] + direction);
        a->E_accum[i] = 0;
        a->stats[0]++;
    } else {
        a->E_accum[i] = (int8_t)(direction * (a->threshold - 1));
    }
}

tv_status ballot_e_ref(const tv_ballot_e_args *a, void *stream)
{
    (void)stream;
    int64_t groups = tv_row_groups(a->cols, a->group);
    tv_draws draws = tv_draws_start((tv_rng_key){a->seed, TV_RNG_BALLOT_E, a->tensor_id, a->step});
    for (int64_t n = 0; n < a->rows; n++)
        for (int64_t g = 0; g < groups; g++) {
            int64_t from = g * a->group, to = from + a->group < a->cols ? from + a->group : a->cols;
            int score = group_score(a, n, from, to);
            uint64_t x = (uint64_t)a->eta_e_q * (uint64_t)(score < 0 ? -score : score) / (uint64_t)(to - from);
            uint32_t r = tv_draws_at(&draws, (uint64_t)((a->first_row + n) * groups + g));
            int64_t i = n * groups + g;
            settle_exponent(a, i, a->E_accum[i] - tv_sign(score) * (int64_t)((x + r) >> 16));
        }
    return TV_OK;
}
