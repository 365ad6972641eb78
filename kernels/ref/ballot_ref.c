// The ballot: summed votes move the counters, and the counters move the trits.
#include "base/pack.h"
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

// What the votes ask of one element: the counter after adding them, and the flip (-1, 0, +1) that the rule would make.
typedef struct verdict {
    int64_t a;
    int flip;
    int movable; // budget: the trit can go where the counter points
} verdict;

// d of the restart rule.
static int64_t restart_step(const tv_ballot_args *args, int v, uint32_t r)
{
    uint64_t size = (uint64_t)(v < 0 ? -v : v), step;
    if (args->combine == TV_COMBINE_MEAN)
        step = ((uint64_t)args->eta_q * size / (uint64_t)args->units + r) >> 16;
    else
        step = size >= (uint64_t)args->quorum ? ((uint64_t)args->eta_q + r) >> 16 : 0;
    return tv_sign(v) * (int64_t)step;
}

static verdict judge_counter(const tv_ballot_args *args, int v, int t, int accum, uint32_t r)
{
    int64_t d;
    if (args->rule == TV_RULE_CLASSIC)
        d = (v < 0 ? -v : v) >= args->quorum ? tv_sign(v) * args->classic_step : 0;
    else
        d = restart_step(args, v, r);
    verdict out = {accum - d, 0, 0};
    if (d != 0 && out.a >= args->threshold && t < 1)
        out.flip = 1;
    if (d != 0 && out.a <= -args->threshold && t > -1)
        out.flip = -1;
    return out;
}

static verdict judge_budget(const tv_ballot_args *args, int v, int t, int accum, uint64_t element)
{
    verdict out = {tv_clamp((int64_t)accum - v, -127, 127), 0, 0};
    int size = (int)(out.a < 0 ? -out.a : out.a), direction = tv_sign(out.a);
    out.movable = direction != 0 && t + direction >= -1 && t + direction <= 1;
    if (!out.movable)
        return out;
    tv_rng_key key = {args->seed, TV_RNG_TIE, args->tensor_id, args->step};
    if (size > args->theta)
        out.flip = direction;
    else if (size == args->theta && args->theta > args->theta_min && tv_rng16(key, element) < args->tie_q)
        out.flip = direction;
    return out;
}

// Walks the elements of a block in order.
typedef struct ballot_walk {
    const tv_ballot_args *args;
    tv_draws draws;
    int64_t ties; // elements at the flip cap's border so far
} ballot_walk;

static ballot_walk walk_start(const tv_ballot_args *args)
{
    ballot_walk walk = {args, tv_draws_start((tv_rng_key){args->seed, TV_RNG_BALLOT_T, args->tensor_id, args->step}),
                        0};
    return walk;
}

// Element (n, k) of the block with its trit.
static verdict judge(ballot_walk *walk, int64_t n, int64_t k, int t)
{
    const tv_ballot_args *args = walk->args;
    int64_t i = n * args->cols + k;
    uint64_t element = (uint64_t)((args->first_row + n) * args->cols + k);
    int v = tv_vote_get(args->votes, args->vote_bits, i);
    if (args->rule == TV_RULE_BUDGET)
        return judge_budget(args, v, t, args->T_accum[i], element);
    return judge_counter(args, v, t, args->T_accum[i], tv_draws_at(&walk->draws, element));
}

static int capped_size(int64_t a)
{
    int64_t size = a < 0 ? -a : a;
    return (int)(size > 255 ? 255 : size);
}

tv_status ballot_histogram_ref(const tv_ballot_args *args, void *stream)
{
    (void)stream;
    ballot_walk walk = walk_start(args);
    for (int64_t n = 0; n < args->rows; n++)
        for (int64_t k = 0; k < args->cols; k++) {
            int t = tv_trit_digits[args->T[n * tv_row_bytes(args->cols) + k / 5]][k % 5] - 1;
            verdict ruling = judge(&walk, n, k, t);
            if (args->rule == TV_RULE_BUDGET ? ruling.movable : ruling.flip != 0)
                args->histogram[capped_size(ruling.a)]++;
        }
    return TV_OK;
}

// 1 when the flip cap lets this flip pass.
static int cap_allows(ballot_walk *walk, int64_t a)
{
    const tv_ballot_args *args = walk->args;
    if (args->cut < 0)
        return 1;
    int size = capped_size(a);
    if (size == args->cut)
        return walk->ties++ < args->tie_quota;
    return size > args->cut;
}

// Move one element: returns its new trit and stores its new counter.
static int settle(ballot_walk *walk, int64_t n, int64_t k, int t)
{
    const tv_ballot_args *args = walk->args;
    verdict ruling = judge(walk, n, k, t);
    int64_t a = ruling.a;
    int flip = ruling.flip;
    if (args->rule == TV_RULE_BUDGET) {
        if (flip)
            a = 0;
        else if (!ruling.movable)
            a = tv_clamp(a, -args->theta, args->theta);
    } else {
        if (flip && !cap_allows(walk, a))
            flip = 0;
        if (flip)
            a = args->rule == TV_RULE_CLASSIC ? 0 : a - flip * args->threshold;
        a = tv_clamp(a, -(args->threshold - 1), args->threshold - 1);
    }
    args->T_accum[n * args->cols + k] = (int8_t)a;
    args->stats[0] += flip != 0;
    args->stats[1] += t + flip == 0;
    return t + flip;
}

tv_status ballot_ref(const tv_ballot_args *args, void *stream)
{
    (void)stream;
    static const int power[5] = {1, 3, 9, 27, 81};
    ballot_walk walk = walk_start(args);
    for (int64_t n = 0; n < args->rows; n++) {
        uint8_t *T = args->T + n * tv_row_bytes(args->cols);
        for (int64_t i = 0; i < tv_row_bytes(args->cols); i++) {
            int byte = 0;
            for (int j = 0; j < 5; j++) {
                int t = tv_trit_digits[T[i]][j] - 1;
                if (5 * i + j < args->cols)
                    t = settle(&walk, n, 5 * i + j, t);
                byte += (t + 1) * power[j];
            }
            T[i] = (uint8_t)byte;
        }
    }
    return TV_OK;
}
