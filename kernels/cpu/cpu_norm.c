// RMS norm, forward and backward: rows are independent, passes over a row stay in L1.
#include "kernels/cpu/cpu_bodies.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"

void TV_ISA_NAME(norm_body)(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_norm_args *a = args;
    const int8_t *w8 = a->w8;
    float unit = tv_exp2i(a->exponent);
    for (int64_t t = first; t < last; t++) {
        const float *x = a->x + t * a->cols;
        float *restrict y = a->y + t * a->cols;
        float r = 1.0f / sqrtf(tv_row_sum_squares(x, a->cols) / (float)a->cols + 1e-5f);
        float absmax = tv_row_absmax(tv_row_absmax_bits(x, a->cols), a->fault);
        for (int64_t c = 0; c < a->cols; c++)
            y[c] = (x[c] * r) * ((float)w8[c] * unit);
        if (a->saved_q == NULL)
            continue;
        tv_row_quantize(x, absmax == 0.0f ? 0.0f : 127.0f / absmax, a->cols, a->saved_q + t * a->cols);
        a->saved_scale[t] = absmax / 127.0f;
        a->saved_rstd[t] = r;
    }
}

tv_status TV_ISA_NAME(norm)(const tv_norm_args *args, void *stream)
{
    (void)stream;
    if (args->cols > 0)
        tv_cpu_for(args->rows, args->cols / 4, TV_ISA_NAME(norm_body), args);
    return TV_OK;
}

// One row of the backward pass.
typedef struct backward_row {
    const float *dy;
    const int8_t *w8, *q;
    float unit, scale; // scale = s r
    int64_t cols;
} backward_row;

// sum32 of u h
static inline float row_correlation(const backward_row *b)
{
    float lane[TV_LANES] = {0};
    int64_t c = 0;
    for (; c + TV_LANES <= b->cols; c += TV_LANES)
        for (int l = 0; l < TV_LANES; l++) {
            float h = (float)b->q[c + l] * b->scale, u = b->dy[c + l] * ((float)b->w8[c + l] * b->unit);
            lane[l] = fmaf(u, h, lane[l]);
        }
    for (int l = 0; c + l < b->cols; l++) {
        float h = (float)b->q[c + l] * b->scale, u = b->dy[c + l] * ((float)b->w8[c + l] * b->unit);
        lane[l] = fmaf(u, h, lane[l]);
    }
    return tv_lanes_combine(lane);
}

void TV_ISA_NAME(norm_backward_body)(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_norm_backward_args *a = args;
    for (int64_t t = first; t < last; t++) {
        float r = a->saved_rstd[t];
        const backward_row b = {.dy = a->dy + t * a->cols,
                                .w8 = a->w8,
                                .q = a->saved_q + t * a->cols,
                                .unit = tv_exp2i(a->exponent),
                                .scale = a->saved_scale[t] * r,
                                .cols = a->cols};
        float mean = row_correlation(&b) / (float)a->cols;
        float *dx = a->dx + t * a->cols;
        // dx may be dy: an item is read before it is written, so the loop has no dependence between items.
#pragma GCC ivdep
        for (int64_t c = 0; c < a->cols; c++) {
            float h = (float)b.q[c] * b.scale, u = b.dy[c] * ((float)b.w8[c] * b.unit);
            float v = r * fmaf(-mean, h, u);
            dx[c] = a->accumulate ? dx[c] + v : v;
        }
    }
}

tv_status TV_ISA_NAME(norm_backward)(const tv_norm_backward_args *args, void *stream)
{
    (void)stream;
    if (args->cols > 0)
        tv_cpu_for(args->rows, args->cols / 4, TV_ISA_NAME(norm_backward_body), args);
    return TV_OK;
}
