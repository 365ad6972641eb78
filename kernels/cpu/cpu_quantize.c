// Quantisation of rows.
#include "kernels/cpu/cpu_bodies.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"

#define TWO_DIGITS_MAX 16129.0f // 127^2

void TV_ISA_NAME(quantize_rows_body)(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_quantize_rows_args *a = args;
    float qmax = (float)a->qmax;
    for (int64_t t = first; t < last; t++) {
        const float *x = a->x + t * a->cols;
        float absmax = tv_row_absmax(tv_row_absmax_bits(x, a->cols), a->fault);
        a->scale[t] = absmax / qmax;
        tv_row_quantize(x, absmax == 0.0f ? 0.0f : qmax / absmax, a->cols, a->q + t * a->cols);
    }
}

tv_status TV_ISA_NAME(quantize_rows)(const tv_quantize_rows_args *args, void *stream)
{
    (void)stream;
    if (args->cols > 0)
        tv_cpu_for(args->rows, args->cols / 8, TV_ISA_NAME(quantize_rows_body), args);
    return TV_OK;
}

static void rows_two(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_quantize_rows2_args *a = args;
    for (int64_t t = first; t < last; t++) {
        const float *restrict x = a->x + t * a->cols;
        int8_t *restrict hi = a->hi + t * a->cols, *restrict lo = a->lo + t * a->cols;
        float absmax = tv_row_absmax(tv_row_absmax_bits(x, a->cols), a->fault);
        a->scale[t] = absmax / TWO_DIGITS_MAX;
        if (absmax == 0.0f) {
            memset(hi, 0, (size_t)a->cols);
            memset(lo, 0, (size_t)a->cols);
            continue;
        }
        float inverse = TWO_DIGITS_MAX / absmax;
        for (int64_t c = 0; c < a->cols; c++) {
            int32_t Q = (int32_t)rintf(x[c] * inverse), high = tv_high_digit(Q);
            hi[c] = (int8_t)high;
            lo[c] = (int8_t)(Q - 127 * high);
        }
    }
}

tv_status TV_ISA_NAME(quantize_rows2)(const tv_quantize_rows2_args *args, void *stream)
{
    (void)stream;
    if (args->cols > 0)
        tv_cpu_for(args->rows, args->cols / 6, rows_two, args);
    return TV_OK;
}
