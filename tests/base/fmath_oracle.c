#include "fmath_oracle.h"

#include <math.h>
#include <stdio.h>

#include "base/fmath.h"

enum { BLOCK = 1024 };

#define EACH(f)                                                                                                        \
    for (int64_t i = 0; i < count; i++)                                                                                \
        y[i] = f(x[i]);                                                                                                \
    break

// One body for each instruction set: the attribute decides how its loops are compiled.
#define EVALUATE(name, attribute)                                                                                      \
    attribute static void name(fmath_kind kind, const float *restrict x, float *restrict y, int64_t count)             \
    {                                                                                                                  \
        switch (kind) {                                                                                                \
        case FMATH_EXP: EACH(tv_exp);                                                                                  \
        case FMATH_LOG: EACH(tv_log);                                                                                  \
        case FMATH_SIGMOID: EACH(tv_sigmoid);                                                                          \
        default: EACH(tv_silu);                                                                                        \
        }                                                                                                              \
    }

EVALUATE(evaluate_scalar, __attribute__((optimize("no-tree-vectorize"))))
#ifdef __x86_64__
EVALUATE(evaluate_avx2, __attribute__((target("avx2,fma"), optimize("tree-vectorize"))))
EVALUATE(evaluate_avx512, __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma,prefer-vector-width=512"),
                                         optimize("tree-vectorize"))))
#endif

const char *fmath_name(fmath_kind kind)
{
    static const char *const names[FMATH_KINDS] = {"exp", "log", "sigmoid", "silu"};
    return names[kind];
}

int fmath_width_runs(fmath_width width)
{
#ifdef __x86_64__
    if (width == FMATH_AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (width == FMATH_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
    return width == FMATH_SCALAR;
}

void fmath_evaluate(fmath_kind kind, fmath_width width, const float *x, float *y, int64_t count)
{
#ifdef __x86_64__
    if (width == FMATH_AVX2) {
        evaluate_avx2(kind, x, y, count);
        return;
    }
    if (width == FMATH_AVX512) {
        evaluate_avx512(kind, x, y, count);
        return;
    }
#endif
    (void)width;
    evaluate_scalar(kind, x, y, count);
}

static double exact(fmath_kind kind, double x)
{
    switch (kind) {
    case FMATH_EXP: return exp(x);
    case FMATH_LOG: return log(x);
    case FMATH_SIGMOID: return 1.0 / (1.0 + exp(-x));
    default: return x < -700.0 ? -0.0 : x / (1.0 + exp(-x));
    }
}

// Spacing of floats at `value`; beyond the largest float that of its binade, so that an overflow counts as 2^128.
static double spacing(double value)
{
    double magnitude = fmin(fabs(value), 0x1.fffffep127);
    return magnitude < 0x1p-126 ? 0x1p-149 : ldexp(1.0, ilogb(magnitude) - 23);
}

double fmath_error(fmath_kind kind, float x, float y)
{
    double want = exact(kind, x);
    if (isnan(want) || isnan(y))
        return isnan(want) && tv_float_bits(y) == 0x7FC00000u ? 0.0 : 1e30;
    if (isinf(want))
        return isinf(y) && (want > 0.0) == (y > 0.0f) ? 0.0 : 1e30;
    double got = isinf(y) ? copysign(0x1p128, y) : y;
    if (fabs(want) > 0x1p128)
        want = copysign(0x1p128, want);
    return fabs(got - want) / spacing(want);
}

double fmath_scan(fmath_kind kind, uint64_t stride)
{
    fmath_width width = fmath_width_runs(FMATH_AVX2) ? FMATH_AVX2 : FMATH_SCALAR;
    float x[BLOCK], y[BLOCK], where = 0.0f;
    double worst = 0.0;
    for (uint64_t first = 0; first < 1ull << 32; first += BLOCK * stride) {
        for (int i = 0; i < BLOCK; i++) // past the end the pattern wraps and is tested twice
            x[i] = tv_bits_float((uint32_t)(first + (uint64_t)i * stride));
        fmath_evaluate(kind, width, x, y, BLOCK);
        for (int i = 0; i < BLOCK; i++) {
            double error = fmath_error(kind, x[i], y[i]);
            if (error > worst) {
                worst = error;
                where = x[i];
            }
        }
    }
    printf("%s: largest error %.3f ulp at %a (every %llu. bit pattern)\n", fmath_name(kind), worst, where,
           (unsigned long long)stride);
    return worst;
}
