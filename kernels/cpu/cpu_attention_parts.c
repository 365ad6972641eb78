#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu_attention.h"

#if defined(TV_ISA_AVX512)
typedef __m512 vector;
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define SPREAD _mm512_set1_ps
#define FMA _mm512_fmadd_ps
enum { LANES = 16 };
#else
typedef __m256 vector;
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define SPREAD _mm256_set1_ps
#define FMA _mm256_fmadd_ps
enum { LANES = 8 };
#endif
enum { VECTORS = TV_CHAIN_CHANNELS / LANES, BORDER = 64 };

static inline int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

static inline int64_t panel_bytes(const tv_head_shape *shape, int rows)
{
    return round_up(shape->width, 4) * rows * TV_GEMM_ITEM_BYTES;
}

tv_head_shape TV_ISA_NAME(tv_head_shape_of)(int64_t heads, int64_t context, int64_t width)
{
    // Room for a whole panel of keys, and for a group of chain rows that begins at the last key.
    tv_head_shape shape = {.heads = heads,
                           .context = context,
                           .width = width,
                           .keys = round_up(context + TV_CHAIN_ROWS, TV_GEMM_NR),
                           .channels = round_up(width, TV_CHAIN_CHANNELS),
                           .inv_sqrt = 1.0f / sqrtf((float)width)};
    return shape;
}

int TV_ISA_NAME(tv_head_fits)(int64_t width) { return width <= TV_GEMM_DEPTH; }

void *TV_ISA_NAME(tv_carve_take)(tv_carve *carve, int64_t items, size_t item_bytes)
{
    void *at = carve->base == NULL ? NULL : carve->base + carve->used;
    carve->used += (size_t)round_up(items * (int64_t)item_bytes, BORDER);
    return at;
}

void *TV_ISA_NAME(tv_carve_panels)(tv_carve *carve, const tv_head_shape *shape)
{
    return TV_ISA_NAME(tv_carve_take)(carve, shape->keys / TV_GEMM_NR, (size_t)panel_bytes(shape, TV_GEMM_NR));
}

static tv_cpu_panel head_panel(const tv_head_shape *shape, const int8_t *x8, int64_t token, int most, int64_t item)
{
    int64_t left = shape->context - token;
    tv_cpu_panel panel = {.from = x8 + (item + token * shape->heads) * shape->width,
                          .stride = shape->heads * shape->width,
                          .rows = left < most ? (int)left : most,
                          .depth = (int)shape->width};
    return panel;
}

void TV_ISA_NAME(tv_head_pack)(const tv_head_shape *shape, const int8_t *x8, int64_t item, void *panels)
{
    for (int64_t token = 0; token < shape->context; token += TV_GEMM_NR) {
        tv_cpu_panel panel = head_panel(shape, x8, token, TV_GEMM_NR, item);
        panel.to = (char *)panels + token / TV_GEMM_NR * panel_bytes(shape, TV_GEMM_NR);
        TV_ISA_NAME(tv_cpu_pack_b)(&panel);
    }
}

void TV_ISA_NAME(tv_head_floats)(const tv_head_shape *shape, const int8_t *x8, int64_t item, float *floats)
{
    for (int64_t i = 0; i < shape->context; i++) {
        const int8_t *restrict x = x8 + (item + i * shape->heads) * shape->width;
        float *restrict to = floats + i * shape->channels;
        for (int64_t c = 0; c < shape->width; c++)
            to[c] = (float)x[c];
        memset(to + shape->width, 0, (size_t)(shape->channels - shape->width) * sizeof *to);
    }
}

void TV_ISA_NAME(tv_head_gather)(const tv_head_shape *shape, const float *values, int64_t item, float *to)
{
    for (int64_t i = 0; i < shape->context; i++)
        to[i] = values[item + i * shape->heads];
    memset(to + shape->context, 0, (size_t)(shape->keys - shape->context) * sizeof *to);
}

void TV_ISA_NAME(tv_head_product_run)(const tv_head_product *product)
{
    _Alignas(BORDER) int32_t start[16];
    const tv_head_shape *shape = product->shape;
    tv_cpu_panel rows = head_panel(shape, product->x8, product->first, TV_GEMM_MR, product->item);
    rows.to = product->a_panel;
    TV_ISA_NAME(tv_cpu_pack_a)(&rows, start);
    for (int64_t key = 0; key < product->last; key += TV_GEMM_NR) {
        const tv_cpu_micro micro = {.a = rows.to,
                                    .b = (const char *)product->panels +
                                         key / TV_GEMM_NR * panel_bytes(shape, TV_GEMM_NR),
                                    .depth = (int)shape->width,
                                    .first = 1,
                                    .start = start,
                                    .sums = product->sums + key,
                                    .stride = shape->keys};
        TV_ISA_NAME(tv_cpu_micro_run)(&micro);
    }
}

// One block of channels of a chain; sums stay in registers.
static inline void chain_block(const tv_chain *chain, int64_t channel)
{
    vector sum[TV_CHAIN_ROWS][VECTORS];
    float *out = chain->out + channel;
    const float *w = chain->w, *x = chain->x + channel;
    int64_t row_stride = chain->row_stride, channels = chain->channels;
#pragma GCC unroll 8
    for (int r = 0; r < TV_CHAIN_ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            sum[r][v] = LOAD(out + r * channels + v * LANES);
    for (int64_t s = 0; s < chain->steps; s++) {
        vector value[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            value[v] = LOAD(x + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < TV_CHAIN_ROWS; r++) {
            vector weight = SPREAD(w[r * row_stride]);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                sum[r][v] = FMA(weight, value[v], sum[r][v]);
        }
        w += chain->step_stride;
        x += channels;
    }
#pragma GCC unroll 8
    for (int r = 0; r < TV_CHAIN_ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            STORE(out + r * channels + v * LANES, sum[r][v]);
}

void TV_ISA_NAME(tv_chain_run)(const tv_chain *chain)
{
    for (int64_t channel = 0; channel < chain->channels; channel += TV_CHAIN_CHANNELS)
        chain_block(chain, channel);
}
