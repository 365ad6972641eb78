#include "base/fmath_tables.h"

#include <math.h>

#define LN2_HIGH 0.693147180559945286
#define LN2_LOW 2.31904681384629956e-17

// 1 / n!
static const double inverse_factorial[18] = {
    1.0,
    1.0,
    1.0 / 2,
    1.0 / 6,
    1.0 / 24,
    1.0 / 120,
    1.0 / 720,
    1.0 / 5040,
    1.0 / 40320,
    1.0 / 362880,
    1.0 / 3628800,
    1.0 / 39916800,
    1.0 / 479001600,
    1.0 / 6227020800,
    1.0 / 87178291200,
    1.0 / 1307674368000,
    1.0 / 20922789888000,
    1.0 / 355687428096000,
};

// 1/first! - x/(first+2)! + x^2/(first+4)! - ..., eight terms; for x <= (pi / 4)^2 the rest is below 2^-55.
static double alternating_tail(double x, int first)
{
    double sum = inverse_factorial[first + 14];
    for (int j = 6; j >= 0; j--)
        sum = fma(-x, sum, inverse_factorial[first + 2 * j]);
    return sum;
}

// cos(x + quarters pi / 2). x = count pi / 2 + r with |r| <= pi / 4; pi / 2 comes in two parts, and the first
// difference is exact.
static double cos_shifted(double x, int64_t quarters)
{
    const double magic = 6755399441055744.0; // 1.5 2^52: adding it rounds to an integer
    double count = fma(x, 0.636619772367581343, magic) - magic;
    double r = fma(-count, 1.57079632679489656, x);
    r = fma(-count, 6.12323399573676604e-17, r);
    double square = r * r;
    double cos_r = fma(-square, alternating_tail(square, 2), 1.0);
    double sin_r = fma(-(r * square), alternating_tail(square, 3), r);
    switch (((int64_t)count + quarters) & 3) {
    case 0: return cos_r;
    case 1: return -sin_r;
    case 2: return -cos_r;
    default: return sin_r;
    }
}

double tv_cos_double(double x) { return cos_shifted(x, 0); }

double tv_sin_double(double x) { return cos_shifted(x, 3); }

// ln x = e ln 2 + 2 artanh s, x = m 2^e, m in [sqrt 1/2, sqrt 2), s = (m - 1) / (m + 1), |s| < 0.1716.
static double log_double(double x)
{
    int e;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752) {
        m *= 2.0;
        e--;
    }
    double s = (m - 1.0) / (m + 1.0), square = s * s;
    double sum = 0.0;
    for (int j = 11; j >= 1; j--)
        sum = fma(square, sum, 1.0 / (2 * j + 1));
    double two_s = 2.0 * s;
    double mantissa = fma(two_s * square, sum, two_s);
    return fma(e, LN2_HIGH, fma(e, LN2_LOW, mantissa));
}

// e^x = e^r 2^count, |r| <= ln 2 / 2.
static double exp_double(double x)
{
    double count = rint(x * 1.44269504088896341);
    double r = fma(-count, LN2_LOW, fma(-count, LN2_HIGH, x));
    double sum = inverse_factorial[14];
    for (int j = 13; j >= 0; j--)
        sum = fma(r, sum, inverse_factorial[j]);
    return ldexp(sum, (int)count);
}

double tv_pow_double(double base, double exponent) { return exp_double(exponent * log_double(base)); }

void tv_rotary_table(int64_t context, int64_t half, double base, float *cos_table, float *sin_table)
{
    for (int64_t i = 0; i < half; i++) {
        double frequency = tv_pow_double(base, -(double)i / (double)half);
        for (int64_t p = 0; p < context; p++) {
            double angle = (double)p * frequency;
            cos_table[p * half + i] = (float)tv_cos_double(angle);
            sin_table[p * half + i] = (float)tv_sin_double(angle);
        }
    }
}
