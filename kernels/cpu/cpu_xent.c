// Softmax cross-entropy and its gradient.
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"

enum { CHUNK = 512 }; // a multiple of the 32 lanes

// Loss of one row; grad may be NULL or the row of logits itself.
static inline float xent_row(const float *logits, int64_t vocab, int32_t target, float *grad, float weight)
{
    float top = tv_row_max(logits, vocab), wanted = logits[target], lane[TV_LANES] = {0}, e[CHUNK];
    for (int64_t from = 0; from < vocab; from += CHUNK) {
        int64_t count = vocab - from < CHUNK ? vocab - from : CHUNK;
        for (int64_t v = 0; v < count; v++)
            e[v] = tv_exp(logits[from + v] - top);
        tv_lanes_add(lane, e, count);
        if (grad != NULL)
            memcpy(grad + from, e, (size_t)count * sizeof *e);
    }
    float z = tv_lanes_combine(lane), inverse = 1.0f / z;
    if (grad != NULL) {
        for (int64_t v = 0; v < vocab; v++)
            grad[v] = grad[v] * inverse;
        grad[target] = grad[target] - 1.0f;
        for (int64_t v = 0; weight != 1.0f && v < vocab; v++)
            grad[v] = grad[v] * weight;
    }
    return (tv_log(z) + top) - wanted;
}

static void xent_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_xent_args *a = args;
    for (int64_t t = first; t < last; t++) {
        const float *logits = a->logits + t * a->vocab;
        float *grad = a->grad == NULL ? NULL : a->grad + t * a->vocab;
        int bad = tv_row_absmax_bits(logits, a->vocab) >= TV_BITS_INF;
        if (a->targets[t] < 0) {
            a->loss[t] = 0.0f;
            if (grad != NULL)
                memset(grad, 0, (size_t)a->vocab * sizeof *grad);
        } else {
            a->loss[t] = xent_row(logits, a->vocab, a->targets[t], grad, a->weight);
            bad |= tv_abs_bits(a->loss[t]) >= TV_BITS_INF;
        }
        if (bad)
            tv_fault_raise(a->fault);
    }
}

tv_status TV_ISA_NAME(xent)(const tv_xent_args *args, void *stream)
{
    (void)stream;
    if (args->vocab > 0)
        tv_cpu_for(args->rows, args->vocab, xent_rows, args);
    return TV_OK;
}
