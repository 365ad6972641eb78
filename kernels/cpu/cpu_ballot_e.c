// The exponents' part of the ballot.
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"
#include "kernels/cpu/cpu_trits.h"

// sum of sign(v) t over `count` columns
static inline int32_t score8(const int8_t *restrict votes, const int8_t *restrict trits, int64_t count)
{
    int32_t score = 0;
    for (int64_t i = 0; i < count; i++)
        score += ((votes[i] > 0) - (votes[i] < 0)) * trits[i];
    return score;
}

static inline int32_t score16(const int16_t *restrict votes, const int8_t *restrict trits, int64_t count)
{
    int32_t score = 0;
    for (int64_t i = 0; i < count; i++)
        score += ((votes[i] > 0) - (votes[i] < 0)) * trits[i];
    return score;
}

// Move one exponent by its counter's new value e; returns 1 when it moved.
static inline int settle_exponent(const tv_ballot_e_args *a, int64_t i, int64_t e)
{
    int most = a->base + tv_lattice_codes(a->mantissa_bits) - 1;
    int direction = (e >= a->threshold) - (e <= -a->threshold);
    if (direction == 0) {
        a->E_accum[i] = (int8_t)e;
        return 0;
    }
    if (direction > 0 ? a->E[i] >= most : a->E[i] <= a->base) {
        a->E_accum[i] = (int8_t)(direction * (a->threshold - 1));
        return 0;
    }
    a->E[i] = (int8_t)(a->E[i] + direction);
    a->E_accum[i] = 0;
    return 1;
}

static void exponent_rows(const void *args, int64_t first, int64_t last, int thread)
{
    const tv_ballot_e_args *a = args;
    int8_t *trits = tv_cpu_scratch(thread);
    int64_t groups = tv_row_groups(a->cols, a->group), moved = 0;
    tv_trit_table table;
    tv_draws draws = tv_draws_start((tv_rng_key){a->seed, TV_RNG_BALLOT_E, a->tensor_id, a->step});
    tv_trit_table_fill(&table);
    for (int64_t n = first; n < last; n++) {
        tv_trits_unpack(&table, a->T + n * tv_row_bytes(a->cols), a->cols, trits);
        for (int64_t g = 0; g < groups; g++) {
            int64_t from = g * a->group, count = a->cols - from < a->group ? a->cols - from : a->group;
            int32_t score = a->vote_bits == 8
                                ? score8((const int8_t *)a->votes + n * a->cols + from, trits + from, count)
                                : score16((const int16_t *)a->votes + n * a->cols + from, trits + from, count);
            uint64_t x = (uint64_t)a->eta_e_q * (uint64_t)(score < 0 ? -score : score) / (uint64_t)count;
            uint32_t r = tv_draws_at(&draws, (uint64_t)((a->first_row + n) * groups + g));
            int64_t i = n * groups + g;
            moved += settle_exponent(a, i, a->E_accum[i] - tv_sign(score) * (int64_t)((x + r) >> 16));
        }
    }
    __atomic_fetch_add(&a->stats[0], moved, __ATOMIC_RELAXED);
}

tv_status TV_ISA_NAME(ballot_e)(const tv_ballot_e_args *args, void *stream)
{
    (void)stream;
    if (args->rows <= 0 || args->cols <= 0)
        return TV_OK;
    TV_TRY(tv_cpu_scratch_reserve((size_t)args->cols));
    tv_cpu_for(args->rows, args->cols, exponent_rows, args);
    return TV_OK;
}
