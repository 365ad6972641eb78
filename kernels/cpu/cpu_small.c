// Ops that only move data: embedding, trigrams, row sums, add, fill.
#include "kernels/cpu/cpu_bodies.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"

enum { CHUNK = 4096 }; // floats of an item of add and fill

static void embed_tokens(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_embed_args *a = args;
    float scale = tv_exp2i(a->exponent);
    for (int64_t t = first; t < last; t++) {
        const int8_t *restrict w = a->w8 + (int64_t)a->ids[t] * a->width;
        float *restrict x = a->x + t * a->width;
        for (int64_t c = 0; c < a->width; c++)
            x[c] = (float)w[c] * scale;
    }
}

tv_status TV_ISA_NAME(embed)(const tv_embed_args *args, void *stream)
{
    (void)stream;
    tv_cpu_for(args->tokens, args->width / 8, embed_tokens, args);
    return TV_OK;
}

void TV_ISA_NAME(trigram_body)(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_trigram_args *a = args;
    size_t bytes = (size_t)a->channels * sizeof(float);
    for (int64_t t = first; t < last; t++)
        for (int back = 0; back <= 2; back++) {
            float *y = a->out + (t * 3 + 2 - back) * a->channels;
            if (t % a->context >= back)
                memcpy(y, a->in + (t - back) * a->channels, bytes);
            else
                memset(y, 0, bytes);
        }
}

tv_status TV_ISA_NAME(trigram)(const tv_trigram_args *args, void *stream)
{
    (void)stream;
    if (args->context > 0)
        tv_cpu_for(args->tokens, args->channels / 2, TV_ISA_NAME(trigram_body), args);
    return TV_OK;
}

static void trigram_backward_tokens(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_trigram_args *a = args;
    int64_t channels = a->channels;
    for (int64_t t = first; t < last; t++) {
        int64_t left = a->context - 1 - t % a->context; // tokens of the window after t
        const float *dy = a->in + t * 3 * channels;
        const float *own = dy + 2 * channels, *next = dy + 4 * channels, *second = dy + 6 * channels;
        float *restrict dx = a->out + t * channels;
        if (left >= 2)
            for (int64_t c = 0; c < channels; c++)
                dx[c] = dx[c] + ((own[c] + next[c]) + second[c]);
        else if (left == 1)
            for (int64_t c = 0; c < channels; c++)
                dx[c] = dx[c] + ((own[c] + next[c]) + 0.0f);
        else
            for (int64_t c = 0; c < channels; c++)
                dx[c] = dx[c] + ((own[c] + 0.0f) + 0.0f);
    }
}

tv_status TV_ISA_NAME(trigram_backward)(const tv_trigram_args *args, void *stream)
{
    (void)stream;
    if (args->context > 0)
        tv_cpu_for(args->tokens, args->channels / 2, trigram_backward_tokens, args);
    return TV_OK;
}

static void sum_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_row_sum_args *a = args;
    for (int64_t r = first; r < last; r++) {
        float lane[TV_LANES] = {0};
        tv_lanes_add(lane, a->x + r * a->cols, a->cols);
        a->out[r] = tv_lanes_combine(lane);
    }
}

tv_status TV_ISA_NAME(row_sum)(const tv_row_sum_args *args, void *stream)
{
    (void)stream;
    if (args->cols > 0)
        tv_cpu_for(args->rows, args->cols / 8, sum_rows, args);
    return TV_OK;
}

// Items [first, last) of CHUNK floats as a range of floats.
static inline int64_t chunk_end(int64_t last, int64_t count) { return last * CHUNK < count ? last * CHUNK : count; }

static void add_chunks(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_add_args *a = args;
    const float *restrict x = a->x;
    float *restrict y = a->y;
    int64_t end = chunk_end(last, a->count);
    for (int64_t i = first * CHUNK; i < end; i++)
        y[i] = y[i] + x[i];
}

tv_status TV_ISA_NAME(add)(const tv_add_args *args, void *stream)
{
    (void)stream;
    tv_cpu_for(tv_ceil_div(args->count, CHUNK), CHUNK / 4, add_chunks, args);
    return TV_OK;
}

static void fill_chunks(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_fill_args *a = args;
    int64_t end = chunk_end(last, a->count);
    for (int64_t i = first * CHUNK; i < end; i++)
        a->y[i] = a->value;
}

tv_status TV_ISA_NAME(fill)(const tv_fill_args *args, void *stream)
{
    (void)stream;
    tv_cpu_for(tv_ceil_div(args->count, CHUNK), CHUNK / 8, fill_chunks, args);
    return TV_OK;
}
