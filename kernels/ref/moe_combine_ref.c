// The gated sum of what a token's experts give, and its gradient.
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

tv_status moe_combine_ref(const tv_moe_combine_args *a, void *stream)
{
    (void)stream;
    for (int64_t t = 0; t < a->tokens; t++) {
        const int32_t *place = a->place + t * a->slots;
        for (int64_t c = 0; c < a->cols; c++) {
            float sum = 0.0f, *y = a->y + t * a->cols + c;
            for (int j = 0; j < a->slots; j++) {
                float scale = a->scale[place[j]], weight = a->gate ? a->gate[t * a->slots + j] * scale : scale;
                sum = fmaf(weight, (float)a->q[place[j] * a->cols + c], sum);
            }
            *y = a->accumulate ? *y + sum : sum;
        }
    }
    return TV_OK;
}

tv_status moe_combine_backward_ref(const tv_moe_combine_backward_args *a, void *stream)
{
    (void)stream;
    for (int64_t i = 0; a->cols && i < a->tokens * a->slots; i++) {
        const float *dy = a->dy + i / a->slots * a->cols;
        int64_t r = a->place[i];
        float lane[32] = {0};
        for (int64_t c = 0; c < a->cols; c++)
            lane[c % 32] = fmaf(dy[c], (float)a->q[r * a->cols + c] * a->scale[r], lane[c % 32]);
        a->grad[i] = tv_lanes_combine(lane);
    }
    return TV_OK;
}
