// Sines, cosines and powers in double by our own code, for tables and schedules made on the host: libm's last bits
// differ between versions, ours do not (only + - * / and fma, round to nearest).
#ifndef TV_BASE_FMATH_TABLES_H
#define TV_BASE_FMATH_TABLES_H

#include <stdint.h>

// cos x and sin x, error below 2^-51 for |x| <= 2^30.
double tv_cos_double(double x);
double tv_sin_double(double x);

// base^exponent for base > 0, relative error below 2^-52 (2 + |exponent ln base|); the result must be a normal
// double.
double tv_pow_double(double base, double exponent);

// Angle of position p and pair i: p base^(-i / half). cos_table[p, i] and sin_table[p, i], both float [context,
// half], rounded once.
void tv_rotary_table(int64_t context, int64_t half, double base, float *cos_table, float *sin_table);

#endif
