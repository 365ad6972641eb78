// The ballot: rows are unpacked, judged by branch-free loops and packed again.
//
// Served here: restart and budget. ref serves classic, and the flip cap, whose ties are counted in element order
// over the whole block.
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"
#include "kernels/cpu/cpu_trits.h"

enum {
    CHUNK = 640,
    BINS = 256
}; // columns judged at once: a multiple of the 5 trits of a byte and of the 8 draws of a block

// A stretch of one row with what the rule needs and finds.
typedef struct stretch {
    int count;
    int8_t trit[CHUNK];
    int16_t vote[CHUNK];
    uint16_t draw[CHUNK + 14];
    int32_t step[CHUNK]; // |d| of the restart rule
    int32_t a[CHUNK];    // the counter after the votes
    int8_t flip[CHUNK];
    int8_t movable[CHUNK]; // budget
} stretch;

static void load_votes(const tv_ballot_args *b, int64_t element, stretch *s)
{
    if (b->vote_bits == 8) {
        const int8_t *votes = (const int8_t *)b->votes + element;
        for (int i = 0; i < s->count; i++)
            s->vote[i] = votes[i];
    } else {
        memcpy(s->vote, (const int16_t *)b->votes + element, (size_t)s->count * sizeof *s->vote);
    }
}

// |d|. 2^20 stands for any larger step: the counter ends at its bound either way. floor(eta_q |v| / U) through a
// double is exact, since the numerator is below 2^52 and a quotient just below an integer lies too far from it to
// round up.
static void restart_steps(const tv_ballot_args *b, int shift, stretch *s)
{
    int32_t whole = (int32_t)(b->eta_q >> 16), part = (int32_t)(b->eta_q & 0xFFFF);
    const uint16_t *draw = s->draw + shift;
    if (b->combine == TV_COMBINE_MEAN) {
        double eta = b->eta_q, units = b->units;
        for (int i = 0; i < s->count; i++) {
            int32_t size = s->vote[i] < 0 ? -s->vote[i] : s->vote[i];
            double x = (floor(eta * size / units) + draw[i]) * 0x1p-16;
            s->step[i] = (int32_t)(x < 0x1p20 ? x : 0x1p20);
        }
        return;
    }
    for (int i = 0; i < s->count; i++) {
        int32_t size = s->vote[i] < 0 ? -s->vote[i] : s->vote[i];
        s->step[i] = size >= b->quorum ? whole + ((part + draw[i]) >> 16) : 0;
    }
}

static void judge_restart(const tv_ballot_args *b, const int8_t *accum, int shift, stretch *s)
{
    int32_t high = b->threshold;
    restart_steps(b, shift, s);
    for (int i = 0; i < s->count; i++) {
        int32_t v = s->vote[i], d = ((v > 0) - (v < 0)) * s->step[i];
        int32_t a = accum[i] - d, t = s->trit[i];
        int32_t up = (d != 0) & (a >= high) & (t < 1), down = (d != 0) & (a <= -high) & (t > -1);
        s->a[i] = a;
        s->flip[i] = (int8_t)(up - down);
    }
}

static void judge_budget(const tv_ballot_args *b, const int8_t *accum, int shift, stretch *s)
{
    int32_t theta = b->theta, above_least = b->theta > b->theta_min, tie_q = (int32_t)b->tie_q;
    const uint16_t *draw = s->draw + shift;
    for (int i = 0; i < s->count; i++) {
        int32_t a = accum[i] - s->vote[i], t = s->trit[i];
        a = a > 127 ? 127 : a < -127 ? -127 : a;
        int32_t size = a < 0 ? -a : a, direction = (a > 0) - (a < 0);
        int32_t movable = ((a > 0) & (t < 1)) | ((a < 0) & (t > -1));
        int32_t wins = (size > theta) | ((size == theta) & above_least & (draw[i] < tie_q));
        s->a[i] = a;
        s->movable[i] = (int8_t)movable;
        s->flip[i] = (int8_t)(movable & wins ? direction : 0);
    }
}

// Fill the stretch for columns [k, k + count) of row n.
static void judge(const tv_ballot_args *b, const tv_trit_table *table, int64_t n, int64_t k, stretch *s)
{
    int64_t i = n * b->cols + k;
    uint64_t element = (uint64_t)(b->first_row * b->cols + i);
    tv_rng_key key = {b->seed, b->rule == TV_RULE_BUDGET ? TV_RNG_TIE : TV_RNG_BALLOT_T, b->tensor_id, b->step};
    s->count = b->cols - k < CHUNK ? (int)(b->cols - k) : CHUNK;
    tv_trits_unpack(table, b->T + n * tv_row_bytes(b->cols) + k / 5, s->count, s->trit);
    load_votes(b, i, s);
    tv_row_draws(key, element, s->count, s->draw);
    if (b->rule == TV_RULE_BUDGET)
        judge_budget(b, b->T_accum + i, (int)(element & 7), s);
    else
        judge_restart(b, b->T_accum + i, (int)(element & 7), s);
}

// Do the flips: trits and counters of the stretch. Returns the number of flips and adds the zero trits to *zeros.
static int32_t settle(const tv_ballot_args *b, stretch *s, int8_t *restrict accum, int64_t *zeros)
{
    int32_t flips = 0, empty = 0, budget = b->rule == TV_RULE_BUDGET, high = b->threshold, theta = b->theta;
    for (int i = 0; i < s->count; i++) {
        int32_t a = s->a[i], flip = s->flip[i], t = s->trit[i] + flip;
        if (budget) {
            int32_t bounded = a > theta ? theta : a < -theta ? -theta : a;
            a = flip ? 0 : s->movable[i] ? a : bounded;
        } else {
            a -= flip * high;
            a = a > high - 1 ? high - 1 : a < 1 - high ? 1 - high : a;
        }
        accum[i] = (int8_t)a;
        s->trit[i] = (int8_t)t;
        flips += flip != 0;
        empty += t == 0;
    }
    *zeros += empty;
    return flips;
}

static void ballot_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_ballot_args *b = args;
    tv_trit_table table;
    stretch s;
    int64_t flips = 0, zeros = 0;
    tv_trit_table_fill(&table);
    for (int64_t n = first; n < last; n++)
        for (int64_t k = 0; k < b->cols; k += CHUNK) {
            judge(b, &table, n, k, &s);
            flips += settle(b, &s, b->T_accum + n * b->cols + k, &zeros);
            tv_pack_row(s.trit, s.count, b->T + n * tv_row_bytes(b->cols) + k / 5);
        }
    __atomic_fetch_add(&b->stats[0], flips, __ATOMIC_RELAXED);
    __atomic_fetch_add(&b->stats[1], zeros, __ATOMIC_RELAXED);
}

tv_status TV_ISA_NAME(ballot)(const tv_ballot_args *args, void *stream)
{
    if (args->rule == TV_RULE_CLASSIC || (args->rule == TV_RULE_RESTART && args->cut >= 0))
        return ballot_ref(args, stream);
    tv_cpu_for(args->rows, args->cols * 2, ballot_rows, args);
    return TV_OK;
}

static void histogram_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_ballot_args *b = args;
    tv_trit_table table;
    stretch s;
    int64_t bins[BINS] = {0};
    tv_trit_table_fill(&table);
    for (int64_t n = first; n < last; n++)
        for (int64_t k = 0; k < b->cols; k += CHUNK) {
            judge(b, &table, n, k, &s);
            for (int i = 0; i < s.count; i++) {
                int32_t size = s.a[i] < 0 ? -s.a[i] : s.a[i];
                bins[size > BINS - 1 ? BINS - 1 : size] += b->rule == TV_RULE_BUDGET ? s.movable[i] : s.flip[i] != 0;
            }
        }
    for (int i = 0; i < BINS; i++)
        __atomic_fetch_add(&b->histogram[i], bins[i], __ATOMIC_RELAXED);
}

tv_status TV_ISA_NAME(ballot_histogram)(const tv_ballot_args *args, void *stream)
{
    if (args->rule == TV_RULE_CLASSIC)
        return ballot_histogram_ref(args, stream);
    tv_cpu_for(args->rows, args->cols * 2, histogram_rows, args);
    return TV_OK;
}
