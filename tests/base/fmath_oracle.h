// The float functions of base/fmath.h against libm in double, over grids of bit patterns; scalar and vectorised
// evaluation.
#ifndef TV_TESTS_FMATH_ORACLE_H
#define TV_TESTS_FMATH_ORACLE_H

#include <stdint.h>

typedef enum fmath_kind { FMATH_EXP, FMATH_LOG, FMATH_SIGMOID, FMATH_SILU, FMATH_KINDS } fmath_kind;
typedef enum fmath_width { FMATH_SCALAR, FMATH_AVX2, FMATH_AVX512, FMATH_WIDTHS } fmath_width;

const char *fmath_name(fmath_kind kind);
// 1 when this processor can run that evaluation.
int fmath_width_runs(fmath_width width);
// y[i] = f(x[i]) by a loop compiled for `width`.
void fmath_evaluate(fmath_kind kind, fmath_width width, const float *x, float *y, int64_t count);
// |y - f(x)| in units of the float spacing at f(x); a huge number when one of the two is a NaN, or an infinity of
// other sign.
double fmath_error(fmath_kind kind, float x, float y);
// Largest error over the bit patterns 0, stride, 2 stride, ... below 2^32, printed with the place where it is.
double fmath_scan(fmath_kind kind, uint64_t stride);

#endif
