// Softmax cross-entropy and its gradient.
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

static float largest(const float *x, int64_t count)
{
    float top = x[0];
    for (int64_t v = 1; v < count; v++)
        top = x[v] > top ? x[v] : top;
    return top;
}

// Loss of one row; grad may be NULL or the row of logits itself.
static float xent_row(const float *logits, int64_t vocab, int32_t target, float *grad, float weight)
{
    float top = largest(logits, vocab), lane[32] = {0};
    float wanted = logits[target];
    for (int64_t v = 0; v < vocab; v++) {
        float e = tv_exp(logits[v] - top);
        lane[v % 32] += e;
        if (grad)
            grad[v] = e;
    }
    float z = tv_lanes_combine(lane), inverse = 1.0f / z;
    for (int64_t v = 0; grad && v < vocab; v++) {
        float p = grad[v] * inverse;
        grad[v] = (v == target ? p - 1.0f : p) * weight;
    }
    return (tv_log(z) + top) - wanted;
}

tv_status xent_ref(const tv_xent_args *a, void *stream)
{
    (void)stream;
    for (int64_t t = 0; a->vocab && t < a->rows; t++) {
        const float *logits = a->logits + t * a->vocab;
        float *grad = a->grad ? a->grad + t * a->vocab : NULL;
        tv_absmax_from_bits(tv_absmax_bits(logits, a->vocab, 1), a->fault);
        if (a->targets[t] < 0) {
            a->loss[t] = 0.0f;
            for (int64_t v = 0; grad && v < a->vocab; v++)
                grad[v] = 0.0f;
            continue;
        }
        a->loss[t] = xent_row(logits, a->vocab, a->targets[t], grad, a->weight);
        if (tv_abs_bits(a->loss[t]) >= TV_BITS_INF)
            *a->fault = 1;
    }
    return TV_OK;
}
