// The verdict on one element of the ballot, and the step of one exponent, as kernels.h defines them.
#ifndef TV_KERNELS_BALLOT_CUDA_CUH
#define TV_KERNELS_BALLOT_CUDA_CUH

#include "kernels/cuda/cuda_common.cuh"

// The counter after the votes, and the flip that the rule would make.
typedef struct tv_verdict {
    int64_t a;
    int flip, movable;
} tv_verdict;

__device__ static inline int tv_capped_size(int64_t a)
{
    int64_t size = a < 0 ? -a : a;
    return (int)(size > 255 ? 255 : size);
}

__device__ static inline int64_t tv_counter_step(const tv_ballot_args &a, int v, uint64_t element)
{
    uint64_t size = (uint64_t)(v < 0 ? -v : v), step;
    if (a.rule == TV_RULE_CLASSIC)
        return size >= (uint64_t)a.quorum ? tv_sign(v) * (int64_t)a.classic_step : 0;
    tv_rng_key key = {a.seed, TV_RNG_BALLOT_T, a.tensor_id, a.step};
    uint32_t r = tv_rng16(key, element);
    if (a.combine == TV_COMBINE_MEAN)
        step = ((uint64_t)a.eta_q * size / (uint64_t)a.units + r) >> 16;
    else
        step = size >= (uint64_t)a.quorum ? ((uint64_t)a.eta_q + r) >> 16 : 0;
    return tv_sign(v) * (int64_t)step;
}

__device__ static inline tv_verdict tv_judge_budget(const tv_ballot_args &a, int v, int t, int accum, uint64_t element)
{
    tv_verdict out = {tv_clamp((int64_t)accum - v, -127, 127), 0, 0};
    int size = (int)(out.a < 0 ? -out.a : out.a), direction = tv_sign(out.a);
    out.movable = direction != 0 && t + direction >= -1 && t + direction <= 1;
    if (!out.movable)
        return out;
    tv_rng_key key = {a.seed, TV_RNG_TIE, a.tensor_id, a.step};
    if (size > a.theta || (size == a.theta && a.theta > a.theta_min && tv_rng16(key, element) < a.tie_q))
        out.flip = direction;
    return out;
}

// Element (n, k) of the block with trit t.
__device__ static inline tv_verdict tv_judge(const tv_ballot_args &a, int64_t n, int64_t k, int t)
{
    int64_t i = n * a.cols + k;
    uint64_t element = (uint64_t)((a.first_row + n) * a.cols + k);
    int v = tv_vote_get(a.votes, a.vote_bits, i), accum = a.T_accum[i];
    if (a.rule == TV_RULE_BUDGET)
        return tv_judge_budget(a, v, t, accum, element);
    int64_t d = tv_counter_step(a, v, element);
    tv_verdict out = {accum - d, 0, 0};
    if (d != 0 && out.a >= a.threshold && t < 1)
        out.flip = 1;
    if (d != 0 && out.a <= -a.threshold && t > -1)
        out.flip = -1;
    return out;
}

// Moves one element: stores its counter, returns its trit. *ties: elements at the cap's border before this one.
__device__ static inline int tv_settle(const tv_ballot_args &a, int64_t n, int64_t k, int t, int64_t *ties, int *flips)
{
    tv_verdict v = tv_judge(a, n, k, t);
    if (a.rule == TV_RULE_BUDGET) {
        if (v.flip)
            v.a = 0;
        else if (!v.movable)
            v.a = tv_clamp(v.a, -a.theta, a.theta);
    } else {
        if (v.flip && a.cut >= 0) {
            int size = tv_capped_size(v.a);
            if (size < a.cut || (size == a.cut && (*ties)++ >= a.tie_quota))
                v.flip = 0;
        }
        if (v.flip)
            v.a = a.rule == TV_RULE_CLASSIC ? 0 : v.a - v.flip * a.threshold;
        v.a = tv_clamp(v.a, -(a.threshold - 1), a.threshold - 1);
    }
    a.T_accum[n * a.cols + k] = (int8_t)v.a;
    *flips += v.flip != 0;
    return t + v.flip;
}

// Move exponent i, with the score of its group of `length` elements. Whether the exponent moved.
__device__ static inline int tv_move_exponent(const tv_ballot_e_args &a, int64_t i, int score, uint32_t length)
{
    uint64_t push = (uint64_t)a.eta_e_q * (uint64_t)(score < 0 ? -score : score);
    uint64_t x = (length & (length - 1)) == 0 ? push >> (31 - __clz((int)length)) : push / length;
    tv_rng_key key = {a.seed, TV_RNG_BALLOT_E, a.tensor_id, a.step};
    uint32_t r = tv_rng16(key, (uint64_t)(a.first_row * tv_row_groups(a.cols, a.group) + i));
    int64_t e = a.E_accum[i] - tv_sign(score) * (int64_t)((x + r) >> 16);
    int most = a.base + tv_lattice_codes(a.mantissa_bits) - 1;
    int direction = e >= a.threshold ? 1 : e <= -a.threshold ? -1 : 0;
    if (direction == 0) {
        a.E_accum[i] = (int8_t)e;
    } else if (direction > 0 ? a.E[i] < most : a.E[i] > a.base) {
        a.E[i] = (int8_t)(a.E[i] + direction);
        a.E_accum[i] = 0;
        return 1;
    } else {
        a.E_accum[i] = (int8_t)(direction * (a.threshold - 1));
    }
    return 0;
}

#endif
