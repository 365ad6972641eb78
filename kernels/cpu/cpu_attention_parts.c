#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu_attention.h"
#include "kernels/cpu/cpu_rows.h"

enum { BORDER = 64 };

static inline int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

static inline int64_t panel_bytes(const tv_head_shape *shape, int rows)
{
    return round_up(shape->width, 4) * rows * TV_GEMM_ITEM_BYTES;
}

tv_head_shape TV_ISA_NAME(tv_head_shape_of)(int64_t heads, int64_t context, int64_t width)
{
    // Room for whole blocks and panels of keys, and for a group of rows that begins at the last key.
    tv_head_shape shape = {.heads = heads,
                           .context = context,
                           .width = width,
                           .keys = round_up(context + TV_SUM_ROWS, TV_BLOCK_ROWS),
                           .blocks = round_up(context + TV_SUM_ROWS, TV_BLOCK_ROWS) / TV_BLOCK_ROWS,
                           .channels = round_up(width, TV_SUM_CHANNELS),
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

void TV_ISA_NAME(tv_head_pairs)(const tv_head_shape *shape, const int8_t *x8, int64_t item, uint32_t *pairs)
{
    for (int64_t i = 0; i < shape->context; i += 2) {
        const int8_t *restrict low = x8 + (item + i * shape->heads) * shape->width;
        const int8_t *restrict high = low + shape->heads * shape->width;
        uint32_t *restrict to = pairs + i / 2 * shape->channels;
        if (i + 1 < shape->context)
            for (int64_t c = 0; c < shape->width; c++)
                to[c] = (uint16_t)low[c] | (uint32_t)high[c] << 16;
        else
            for (int64_t c = 0; c < shape->width; c++)
                to[c] = (uint16_t)low[c];
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

void TV_ISA_NAME(tv_block_row)(const float *w, int64_t count, int16_t *Q, float *from)
{
    for (int64_t b = 0; b < count / TV_BLOCK_ROWS; b++) {
        const float *restrict weight = w + b * TV_BLOCK_ROWS;
        int16_t *restrict to = Q + b * TV_BLOCK_ROWS;
        tv_block_scale scale = tv_block_scale_of(tv_row_absmax_bits(weight, TV_BLOCK_ROWS));
        for (int k = 0; k < TV_BLOCK_ROWS; k++)
            to[k] = (int16_t)tv_block_integer(weight[k], scale.to_integer);
        from[b] = scale.from_integer;
    }
}

// 32 of the columns.
static void pack_strip(const tv_block_columns *columns, int64_t key)
{
    const float *restrict w = columns->w + key;
    uint32_t *restrict pairs = columns->pairs + key;
    float *restrict from = columns->from + key;
    int64_t stride = columns->stride;
    uint32_t top[TV_BLOCK_ROWS] = {0};
    float to[TV_BLOCK_ROWS];
    for (int64_t r = 0; r < columns->rows; r++)
        for (int k = 0; k < TV_BLOCK_ROWS; k++) {
            uint32_t bits = tv_abs_bits(w[r * stride + k]);
            top[k] = bits > top[k] ? bits : top[k];
        }
    for (int k = 0; k < TV_BLOCK_ROWS; k++) {
        tv_block_scale scale = tv_block_scale_of(top[k]);
        to[k] = scale.to_integer;
        from[k] = scale.from_integer;
    }
    for (int64_t r = 0; r < columns->rows; r += 2) {
        const float *restrict low = w + r * stride, *restrict high = r + 1 < columns->rows ? low + stride : low;
        for (int k = 0; k < TV_BLOCK_ROWS; k++)
            pairs[r / 2 * stride + k] = (tv_block_integer(low[k], to[k]) & 0xFFFFu) | tv_block_integer(high[k], to[k])
                                                                                          << 16;
    }
}

// A last row without a second one is its own: x is 0 there.
void TV_ISA_NAME(tv_block_columns_pack)(const tv_block_columns *columns)
{
    for (int64_t key = 0; key < columns->keys; key += TV_BLOCK_ROWS)
        pack_strip(columns, key);
}

void TV_ISA_NAME(tv_head_sums_run)(const tv_head_sums *sums, int64_t item, int64_t first, int64_t last)
{
    const tv_head_shape *shape = sums->shape;
    int64_t count = last - first, whole = round_up(count, TV_SUM_ROWS);
    memset(sums->integers + count * shape->keys, 0, (size_t)((whole - count) * shape->keys) * sizeof(int16_t));
    memset(sums->from + count * shape->blocks, 0, (size_t)((whole - count) * shape->blocks) * sizeof(float));
    for (int64_t group = 0; group < count; group += TV_SUM_ROWS) {
        int64_t end = group + TV_SUM_ROWS < count ? group + TV_SUM_ROWS : count;
        const tv_block_sum sum = {.w = (const uint32_t *)(sums->integers + group * shape->keys),
                                  .row_stride = shape->keys / 2,
                                  .pair_stride = 1,
                                  .pairs = (first + end + 1) / 2,
                                  .from = sums->from + group * shape->blocks,
                                  .from_stride = shape->blocks,
                                  .x = sums->x,
                                  .out = sums->room,
                                  .channels = shape->channels};
        memset(sums->room, 0, (size_t)(TV_SUM_ROWS * shape->channels) * sizeof(float));
        TV_ISA_NAME(tv_block_sum_run)(&sum);
        for (int64_t i = group; i < end; i++) {
            float *restrict out = sums->out + (item + (first + i) * shape->heads) * shape->width;
            const float *restrict row = sums->room + (i - group) * shape->channels;
            float factor = sums->factor[i * sums->factor_stride];
            for (int64_t c = 0; c < shape->width; c++)
                out[c] = row[c] * factor;
        }
    }
}
