// Gated activation, forward and backward, and rotary positions.
#include "kernels/cpu/cpu_bodies.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"

void TV_ISA_NAME(gate_body)(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_gate_args *a = args;
    for (int64_t t = first; t < last; t++) {
        const float *gate = a->gu + t * 2 * a->width, *up = gate + a->width;
        float *restrict h = a->h + t * a->width;
        for (int64_t f = 0; f < a->width; f++)
            h[f] = tv_silu(gate[f]) * up[f];
    }
}

tv_status TV_ISA_NAME(gate)(const tv_gate_args *args, void *stream)
{
    (void)stream;
    tv_cpu_for(args->tokens, args->width, TV_ISA_NAME(gate_body), args);
    return TV_OK;
}

void TV_ISA_NAME(gate_backward_body)(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_gate_backward_args *ga = args;
    int64_t width = ga->width;
    for (int64_t t = first; t < last; t++) {
        const int8_t *restrict gate = ga->saved_q + 2 * t * width, *restrict up = gate + width;
        const float *restrict dh = ga->dh + t * width;
        float *restrict dgate = ga->dgu + 2 * t * width, *restrict dup = dgate + width;
        float s_gate = ga->saved_scale[2 * t], s_up = ga->saved_scale[2 * t + 1];
        for (int64_t f = 0; f < width; f++) {
            float a = (float)gate[f] * s_gate, u = (float)up[f] * s_up;
            float g = tv_sigmoid(a), act = a * g;
            dup[f] = dh[f] * act;
            dgate[f] = (dh[f] * u) * (g * fmaf(a, 1.0f - g, 1.0f));
        }
    }
}

tv_status TV_ISA_NAME(gate_backward)(const tv_gate_backward_args *args, void *stream)
{
    (void)stream;
    tv_cpu_for(args->tokens, args->width, TV_ISA_NAME(gate_backward_body), args);
    return TV_OK;
}

void TV_ISA_NAME(rotary_body)(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_rotary_args *a = args;
    int64_t half = a->width / 2;
    for (int64_t t = first; t < last; t++) {
        const float *restrict cosine = a->cos_table + t % a->context * half, *restrict sine =
                                                                                 a->sin_table + t % a->context * half;
        for (int64_t head = 0; head < a->heads; head++) {
            float *restrict low = a->x + (t * a->heads + head) * a->width, *restrict high = low + half;
            for (int64_t c = 0; c < half; c++) {
                float x = low[c], y = high[c], sin = a->inverse ? -sine[c] : sine[c];
                low[c] = fmaf(x, cosine[c], -(y * sin));
                high[c] = fmaf(x, sin, y * cosine[c]);
            }
        }
    }
}

tv_status TV_ISA_NAME(rotary)(const tv_rotary_args *args, void *stream)
{
    (void)stream;
    if (args->context > 0)
        tv_cpu_for(args->tokens, args->heads * args->width / 8, TV_ISA_NAME(rotary_body), args);
    return TV_OK;
}
