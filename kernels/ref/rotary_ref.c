// Rotary positions, in place.
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

tv_status rotary_ref(const tv_rotary_args *a, void *stream)
{
    (void)stream;
    int64_t half = a->width / 2;
    for (int64_t t = 0; a->context && t < a->tokens; t++) {
        const float *cosine = a->cos_table + t % a->context * half, *sine = a->sin_table + t % a->context * half;
        for (int64_t h = 0; h < a->heads; h++) {
            float *x = a->x + (t * a->heads + h) * a->width;
            for (int64_t c = 0; c < half; c++) {
                float first = x[c], second = x[c + half], sin = a->inverse ? -sine[c] : sine[c];
                x[c] = fmaf(first, cosine[c], -(second * sin));
                x[c + half] = fmaf(first, sin, second * cosine[c]);
            }
        }
    }
    return TV_OK;
}
