// exp, log, sigmoid and silu in float32, and the fixed tree of a row sum: one source for gcc and nvcc, the same
// bits everywhere.
//
// Only + - * / sqrt, fma, compares and integer operations on the bits, so every IEEE machine in its default
// rounding mode gives the same result; each function is within 2 ulp of the real value over the whole range,
// subnormal results included (tests/base/test_fmath.c). There are no branches and no calls but fmaf, so a loop
// over one of these functions vectorises wherever the target has fma. A NaN result is always the same NaN,
// 0x7FC00000. Files that use this header need -ffp-contract=off (nvcc: --fmad=false).
#ifndef TV_BASE_FMATH_H
#define TV_BASE_FMATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/host_device.h"

// Always inlined: a call inside a loop would end its vectorisation, and a copy compiled for an older target would
// call libm's fmaf.
#define TV_FMATH static inline TV_HOST_DEVICE __attribute__((always_inline))

TV_FMATH uint32_t tv_float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

TV_FMATH float tv_bits_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// condition ? yes : no through the bits, so that no compiler turns it into a branch. condition is 0 or 1.
TV_FMATH float tv_float_select(int condition, float yes, float no)
{
    uint32_t mask = 0u - (uint32_t)condition;
    return tv_bits_float((tv_float_bits(yes) & mask) | (tv_float_bits(no) & ~mask));
}

TV_FMATH float tv_float_nan(void) { return tv_bits_float(0x7FC00000u); }
TV_FMATH float tv_float_inf(void) { return tv_bits_float(0x7F800000u); }

// 2^e, exact for e = -149 .. 127 (subnormal below -126); 0 below, inf above.
TV_FMATH float tv_exp2i(int e)
{
    int clamped = e < -150 ? -150 : (e > 128 ? 128 : e);
    int shift = clamped + 149 < 0 || clamped > -127 ? 0 : clamped + 149;
    uint32_t normal = (uint32_t)(clamped + 127) << 23;
    uint32_t subnormal = clamped < -149 ? 0u : 1u << shift;
    return tv_bits_float(clamped > -127 ? normal : subnormal);
}

// value * 2^n with one rounding, for |n| <= 240 and a value between 2^-6 and 2^7 in magnitude (any value when n =
// 0). The first product stays normal, hence exact; only the second can round (to a subnormal or to inf).
TV_FMATH float tv_float_scale(float value, int n)
{
    int half = n >> 1;
    float first = tv_bits_float((uint32_t)(half + 127) << 23);
    float second = tv_bits_float((uint32_t)(n - half + 127) << 23);
    return value * first * second;
}

// exp(x) = p 2^n with p in (0.7, 1.42), for |x| <= 160. Adding 1.5 2^23 rounds x / ln 2 to an integer in the low
// bits of the sum. x - n ln2_high is exact, since both lie on the grid 2^-24 (2^-25 when |n| = 1) and the
// difference is below 0.36.
TV_FMATH void tv_exp_parts(float x, float *p, int *n)
{
    const float magic = 12582912.0f;
    float shifted = fmaf(x, 1.44269502f, magic);
    float count = shifted - magic;
    float r = fmaf(-count, 0.693147182f, x);
    r = fmaf(-count, -1.90465421e-9f, r);
    float sum = 0.00138389028f; // (exp(r) - 1 - r) / r^2, minimax in relative error on |r| <= ln 2 / 2
    sum = fmaf(sum, r, 0.00836919248f);
    sum = fmaf(sum, r, 0.0416681021f);
    sum = fmaf(sum, r, 0.166665167f);
    sum = fmaf(sum, r, 0.499999940f);
    sum = fmaf(sum, r, 1.0f);
    *p = fmaf(sum, r, 1.0f);
    *n = (int)(tv_float_bits(shifted) - tv_float_bits(magic));
}

// Clamp into [low, high]; a NaN gives low.
TV_FMATH float tv_float_clamp(float x, float low, float high)
{
    float above = x > low ? x : low;
    return above < high ? above : high;
}

// e^x. exp(-inf) = 0, exp(inf) = inf, inf above 88.7228, 0 below -103.97.
TV_FMATH float tv_exp(float x)
{
    float p;
    int n;
    tv_exp_parts(tv_float_clamp(x, -105.0f, 89.0f), &p, &n); // both ends already give 0 and inf
    return tv_float_select(x != x, tv_float_nan(), tv_float_scale(p, n));
}

// ln x. log(+-0) = -inf, log(inf) = inf, log(x < 0) = NaN.
// x = m 2^e with m in [sqrt 1/2, sqrt 2), f = m - 1 (exact): ln x = e ln 2 + (f - f^2/2 + f^3 P(f)).
TV_FMATH float tv_log(float x)
{
    int tiny = x < 1.17549435e-38f;
    uint32_t bits = tv_float_bits(tv_float_select(tiny, x * 16777216.0f, x)) - 0x3F3504F3u;
    int exponent = ((int32_t)bits >> 23) - (tiny ? 24 : 0);
    float f = tv_bits_float((bits & 0x007FFFFFu) + 0x3F3504F3u) - 1.0f;
    float e = (float)exponent;
    float sum = 0.0516514927f;
    sum = fmaf(sum, f, -0.108696222f);
    sum = fmaf(sum, f, 0.121176027f);
    sum = fmaf(sum, f, -0.125495687f);
    sum = fmaf(sum, f, 0.142096356f);
    sum = fmaf(sum, f, -0.166593730f);
    sum = fmaf(sum, f, 0.200022221f);
    sum = fmaf(sum, f, -0.250001669f);
    sum = fmaf(sum, f, 0.333333135f);
    sum = fmaf(sum, f, -0.5f);
    float rest = fmaf(e, -1.90465421e-9f, sum * (f * f));
    float y = fmaf(e, 0.693147182f, f + rest);
    y = tv_float_select(x == tv_float_inf(), x, y);
    y = tv_float_select(x == 0.0f, -tv_float_inf(), y);
    return tv_float_select(!(x >= 0.0f), tv_float_nan(), y);
}

// t / (sum + lost) for t = high + low, |low| <= ulp(high) / 2, |lost| <= ulp(sum) / 2, with inverse = 1 / sum as a float: two corrections. The
// residual t - r (sum + lost) of a first quotient r is as good as exact.
TV_FMATH float tv_corrected_quotient(float high, float low, float sum, float lost, float inverse)
{
    float r = high * inverse;
    float rest = fmaf(-r, sum, high);
    rest = fmaf(-r, lost, rest + low);
    return fmaf(rest, inverse, r);
}

// t / (1 + e) for 0 <= e <= 1.42 and t = high + low: one division. 1 + e is held exactly as sum + lost.
TV_FMATH float tv_logistic_divide(float high, float low, float e)
{
    float sum = 1.0f + e;
    float lost = e - (sum - 1.0f);
    return tv_corrected_quotient(high, low, sum, lost, 1.0f / sum);
}

// 1 / (1 + e^-x), with e = e^-|x| so that nothing overflows. sigmoid(-inf) = 0, sigmoid(inf) = 1.
TV_FMATH float tv_sigmoid(float x)
{
    float p;
    int n;
    float magnitude = tv_bits_float(tv_float_bits(x) & 0x7FFFFFFFu);
    tv_exp_parts(-tv_float_clamp(magnitude, 0.0f, 105.0f), &p, &n);
    float e = tv_float_scale(p, n);
    float y = tv_logistic_divide(tv_float_select(x >= 0.0f, 1.0f, e), 0.0f, e);
    return tv_float_select(x != x, tv_float_nan(), y);
}

// x / (1 + e^-x). silu(-inf) = -0, silu(inf) = inf. For x < 0 the factor 2^n of e^x is applied last, so that a
// subnormal result is rounded once.
TV_FMATH float tv_silu(float x)
{
    float p;
    int n;
    float magnitude = tv_bits_float(tv_float_bits(x) & 0x7FFFFFFFu);
    float bounded = tv_float_clamp(magnitude, 0.0f, 120.0f); // 120 e^-120 rounds to 0; above 120 silu(x) is x
    tv_exp_parts(-bounded, &p, &n);
    int positive = x >= 0.0f;
    float factor = tv_float_select(positive, 1.0f, p);
    int exponent = positive ? 0 : n;
    float high = bounded * factor;
    float low = fmaf(bounded, factor, -high);
    float y = tv_float_scale(tv_logistic_divide(high, low, tv_float_scale(p, n)), exponent);
    y = tv_float_select(x > 120.0f, x, tv_float_select(positive, y, -y));
    return tv_float_select(x != x, tv_float_nan(), y);
}

// The last step of sum32 (kernels/kernels.h): lane[l] = lane[l] + lane[l ^ x] for x = 16, 8, 4, 2, 1 and all l at
// once. Since the sum of two floats does not depend on their order, the lower half of each step tells everything.
// Overwrites lane; returns the sum.
TV_FMATH float tv_lanes_combine(float lane[32])
{
    for (int l = 0; l < 16; l++)
        lane[l] = lane[l] + lane[l + 16];
    for (int l = 0; l < 8; l++)
        lane[l] = lane[l] + lane[l + 8];
    for (int l = 0; l < 4; l++)
        lane[l] = lane[l] + lane[l + 4];
    for (int l = 0; l < 2; l++)
        lane[l] = lane[l] + lane[l + 2];
    return lane[0] + lane[1];
}

#endif
