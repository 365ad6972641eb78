// Formulas of the conversation's cells that all backends share: one element each.
#ifndef TV_KERNELS_FOCUS_COMMON_H
#define TV_KERNELS_FOCUS_COMMON_H

#include "kernels/ref/ref_common.h"

#define TV_FOCUS_BOS 256

// First token of segment row r, and how many tokens it has.
static inline TV_HOST_DEVICE int64_t tv_focus_first(int64_t row, int64_t windows, int64_t context, int64_t segment)
{
    return row % windows * context + row / windows * segment;
}
static inline TV_HOST_DEVICE int64_t tv_focus_length(int64_t row, int64_t windows, int64_t context, int64_t segment)
{
    int64_t left = context - row / windows * segment;
    return left < segment ? (left < 0 ? 0 : left) : segment;
}

static inline TV_HOST_DEVICE int32_t tv_focus_kind(const tv_focus_kinds_args *a, int64_t row)
{
    int64_t first = tv_focus_first(row, a->windows, a->context, a->segment);
    int64_t length = tv_focus_length(row, a->windows, a->context, a->segment);
    int32_t kind = TV_FOCUS_NONE;
    for (int64_t t = first; t < first + length; t++) {
        if (a->ids[t] == TV_FOCUS_BOS)
            return TV_FOCUS_DOCUMENT;
        if (t % a->context > 0 && a->ids[t] == '\n' && a->ids[t - 1] == '\n')
            kind = TV_FOCUS_PARAGRAPH;
    }
    return kind;
}

TV_FMATH float tv_focus_tanh(float x) { return 2.0f * tv_sigmoid(2.0f * x) - 1.0f; }

// The gates on the states at one element.
typedef struct tv_focus_states {
    float topic, reset, dampen, keep;
} tv_focus_states;

TV_FMATH tv_focus_states tv_focus_states_of(const float *z, int64_t width)
{
    tv_focus_states s;
    s.topic = tv_sigmoid(z[TV_FOCUS_TOPIC * width] - 2.0f);
    s.reset = tv_sigmoid(z[TV_FOCUS_RESET * width] - 2.0f);
    s.dampen = tv_sigmoid(z[TV_FOCUS_DAMPEN * width] - 2.0f);
    s.keep = (1.0f - s.reset) * (1.0f - 0.5f * s.dampen);
    return s;
}

// A cell at one element, from the state that was kept.
typedef struct tv_focus_lstm {
    float in, forget, value, out, bent, c, h; // bent = tanh(c)
} tv_focus_lstm;

TV_FMATH tv_focus_lstm tv_focus_lstm_of(const float *z, int64_t width, float kept)
{
    tv_focus_lstm l;
    l.in = tv_sigmoid(z[0]);
    l.forget = tv_sigmoid(z[width] + 1.0f);
    l.value = tv_focus_tanh(z[2 * width]);
    l.out = tv_sigmoid(z[3 * width]);
    l.c = fmaf(l.forget, kept, l.in * l.value);
    l.bent = tv_focus_tanh(l.c);
    l.h = l.out * l.bent;
    return l;
}

// dz of the cell's four gates; the gradient of `kept` is returned.
TV_FMATH float tv_focus_lstm_back(const tv_focus_lstm *l, float kept, float dh, float dc, float *dz, int64_t width)
{
    float all = dc + dh * l->out * (1.0f - l->bent * l->bent);
    dz[0] = all * l->value * (l->in * (1.0f - l->in));
    dz[width] = all * kept * (l->forget * (1.0f - l->forget));
    dz[2 * width] = all * l->in * (1.0f - l->value * l->value);
    dz[3 * width] = dh * l->bent * (l->out * (1.0f - l->out));
    return all * l->forget;
}

// Element i of n of row w. Fast states lie at i, slow ones at n + i of a row of 2n.
TV_FMATH void tv_focus_cell_at(const tv_focus_cell_args *a, int64_t w, int64_t i)
{
    int64_t n = a->width, fast = w * 2 * n + i, slow = fast + n;
    const float *z = a->z + w * TV_FOCUS_GATES * n + i;
    tv_focus_states s = tv_focus_states_of(z, n);
    float kept_c = s.keep * a->c[slow], kept_h = s.keep * a->h[slow];
    tv_focus_lstm f = tv_focus_lstm_of(z + TV_FOCUS_FAST * n, n, s.keep * a->c[fast]);
    tv_focus_lstm l = tv_focus_lstm_of(z + TV_FOCUS_SLOW * n, n, kept_c);
    float h = fmaf(s.topic, l.h - kept_h, kept_h);
    a->next_c[fast] = f.c;
    a->next_h[fast] = f.h;
    a->next_c[slow] = fmaf(s.topic, l.c - kept_c, kept_c);
    a->next_h[slow] = h;
    if (a->tail) {
        a->tail[w * a->stride + i] = f.h;
        a->tail[w * a->stride + n + i] = h;
    }
    if (a->slow)
        a->slow[w * n + i] = h;
}

TV_FMATH void tv_focus_back_at(const tv_focus_back_args *a, int64_t w, int64_t i)
{
    int64_t n = a->width, fast = w * 2 * n + i, slow = fast + n;
    const float *z = a->z + w * TV_FOCUS_GATES * n + i;
    float *dz = a->dz + w * TV_FOCUS_GATES * n + i;
    float dh_fast = a->grad[fast], dh_slow = a->grad[slow], dc_fast = 0.0f, dc_slow = 0.0f;
    if (a->slow_grad)
        dh_slow = dh_slow + a->slow_grad[w * n + i];
    if (a->chained) {
        dh_fast = dh_fast + (a->dh[fast] + a->tail_grad[w * a->stride + i]);
        dh_slow = dh_slow + (a->dh[slow] + a->tail_grad[w * a->stride + n + i]);
        dc_fast = a->dc[fast];
        dc_slow = a->dc[slow];
    }
    tv_focus_states s = tv_focus_states_of(z, n);
    float kept_fast = s.keep * a->c[fast], kept_c = s.keep * a->c[slow], kept_h = s.keep * a->h[slow];
    tv_focus_lstm f = tv_focus_lstm_of(z + TV_FOCUS_FAST * n, n, kept_fast);
    tv_focus_lstm l = tv_focus_lstm_of(z + TV_FOCUS_SLOW * n, n, kept_c);
    float back_fast = tv_focus_lstm_back(&f, kept_fast, dh_fast, dc_fast, dz + TV_FOCUS_FAST * n, n);
    float back_c = dc_slow * (1.0f - s.topic) +
                   tv_focus_lstm_back(&l, kept_c, dh_slow * s.topic, dc_slow * s.topic, dz + TV_FOCUS_SLOW * n, n);
    float back_h = dh_slow * (1.0f - s.topic);
    float topic = dh_slow * (l.h - kept_h) + dc_slow * (l.c - kept_c);
    float keep = (back_fast * a->c[fast] + back_c * a->c[slow]) + back_h * a->h[slow];
    dz[TV_FOCUS_TOPIC * n] = topic * (s.topic * (1.0f - s.topic));
    dz[TV_FOCUS_RESET * n] = -(keep * (1.0f - 0.5f * s.dampen)) * (s.reset * (1.0f - s.reset));
    dz[TV_FOCUS_DAMPEN * n] = -(keep * (0.5f * (1.0f - s.reset))) * (s.dampen * (1.0f - s.dampen));
    a->dh[fast] = 0.0f;
    a->dh[slow] = back_h * s.keep;
    a->dc[fast] = back_fast * s.keep;
    a->dc[slow] = back_c * s.keep;
}

// Columns 0 .. 2n of row w: h, c of both cells.
static inline TV_HOST_DEVICE void tv_focus_load_at(const tv_focus_load_args *a, int64_t w, int64_t i)
{
    int64_t wide = 2 * a->width, at = w * wide + i;
    const int16_t *q = a->carried ? a->carried + w * 2 * wide + i : NULL;
    float h = q ? (float)q[0] / TV_FOCUS_H_SCALE : 0.0f;
    a->h[at] = h;
    a->c[at] = q ? (float)q[wide] / TV_FOCUS_C_SCALE : 0.0f;
    if (a->tail)
        a->tail[w * a->stride + i] = h;
    if (a->slow && i >= a->width)
        a->slow[w * a->width + i - a->width] = h;
}

static inline TV_HOST_DEVICE int16_t tv_focus_fixed(float v, float scale)
{
    return (int16_t)rintf(tv_float_clamp(v * scale, -32767.0f, 32767.0f));
}

static inline TV_HOST_DEVICE void tv_focus_save_at(const tv_focus_save_args *a, int64_t w, int64_t i)
{
    int64_t wide = 2 * a->width, at = w * wide + i;
    a->carried[w * 2 * wide + i] = tv_focus_fixed(a->h[at], TV_FOCUS_H_SCALE);
    a->carried[w * 2 * wide + wide + i] = tv_focus_fixed(a->c[at], TV_FOCUS_C_SCALE);
}

static inline TV_HOST_DEVICE void tv_focus_gates_at(const tv_focus_gates_args *a, int64_t w, int64_t i,
                                                    int64_t sums[TV_FOCUS_SUMS])
{
    int64_t n = a->width;
    const float *z = a->z + w * TV_FOCUS_GATES * n + i;
    tv_focus_states s = tv_focus_states_of(z, n);
    const float gates[TV_FOCUS_SUMS] = {s.topic, s.reset, s.dampen, tv_sigmoid(z[(TV_FOCUS_FAST + 1) * n] + 1.0f),
                                        tv_sigmoid(z[(TV_FOCUS_SLOW + 1) * n] + 1.0f)};
    for (int k = 0; k < TV_FOCUS_SUMS; k++)
        sums[k] += gates[k] == gates[k] ? (int64_t)rintf(gates[k] * TV_FOCUS_SUM_SCALE) : 0;
}

#endif
