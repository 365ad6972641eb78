// Forward and grad-x: sums of the product engine become floats (kernels.h, tv_gemm_args).
#include "kernels/cpu/cpu_gemm.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/op_parts.h"

typedef struct forward {
    const tv_gemm_args *gemm;
    float power; // 2^exponent
} forward;

// v[c] = (float)acc[c] * scale for one row of a tile. Two digits join in int64, so that they are rounded once.
static inline void row_values(const tv_cpu_tile *tile, int row, float scale, float v[TV_GEMM_NR])
{
    const int32_t *hi = tile->hi + row * tile->stride;
    if (tile->lo == NULL) {
        for (int c = 0; c < TV_GEMM_NR; c++)
            v[c] = (float)hi[c] * scale;
        return;
    }
    const int32_t *lo = tile->lo + row * tile->stride;
    for (int c = 0; c < TV_GEMM_NR; c++)
        v[c] = (float)(127 * (int64_t)hi[c] + lo[c]) * scale;
}

static void finish_tile(const void *args, const tv_cpu_tile *tile)
{
    const forward *f = args;
    const tv_gemm_args *g = f->gemm;
    for (int row = 0; row < tile->rows; row++) {
        float v[TV_GEMM_NR], *y = g->y + (tile->row + row) * g->n + tile->col;
        row_values(tile, row, g->scale[tile->row + row] * f->power, v);
        if (g->accumulate)
            for (int c = 0; c < tile->cols; c++)
                y[c] = y[c] + v[c];
        else if (tile->cols == TV_GEMM_NR)
            for (int c = 0; c < TV_GEMM_NR; c++)
                y[c] = v[c];
        else
            for (int c = 0; c < tile->cols; c++)
                y[c] = v[c];
    }
}

tv_status TV_ISA_NAME(gemm)(const tv_gemm_args *args, void *stream)
{
    (void)stream;
    if (args->reduce <= 0)
        return TV_OK;
    const forward f = {.gemm = args, .power = tv_exp2i(args->exponent)};
    const tv_cpu_product product = {.m = args->m,
                                    .n = args->n,
                                    .reduce = args->reduce,
                                    .a = args->a,
                                    .a_lo = args->a_lo,
                                    .b = args->b,
                                    .done = finish_tile,
                                    .args = &f};
    return TV_ISA_NAME(tv_cpu_product_run)(&product);
}

tv_status TV_ISA_NAME(moe_gemm)(const tv_moe_gemm_args *a, void *stream)
{
    for (int64_t i = 0; i < a->segment_count; i++) {
        const tv_gemm_args product = tv_moe_gemm_segment(a, i);
        TV_TRY(TV_ISA_NAME(gemm)(&product, stream));
    }
    return TV_OK;
}
