// The tile loop of the int8 products, for each instruction set (cpu_gemm.h).
//
// An item is a block of ROW_PANELS panels of a times COL_PANELS panels of b. Inside it: for each stretch of r, pack
// both blocks, then for each panel of b (in L1) go through the panels of a (in L2). When r fits in one stretch, sums
// live in one small tile, and a block of b stays packed while items of the same columns follow each other; else sums
// live in a block of int32.
#include "kernels/cpu/cpu_gemm.h"
#include "kernels/cpu/cpu_threads.h"

#include "base/tensor.h"

enum {
    ROW_PANELS = 16,
    COL_PANELS = 16,
    ROWS = ROW_PANELS * TV_GEMM_MR, // of a block
    COLS = COL_PANELS * TV_GEMM_NR,
    A_PANEL = TV_GEMM_PACK_ROWS * TV_GEMM_DEPTH * TV_GEMM_ITEM_BYTES, // bytes
    B_PANEL = TV_GEMM_NR * TV_GEMM_DEPTH * TV_GEMM_ITEM_BYTES,
    DIGITS_MAX = 2,
    START = 16 // items of a panel's corrections
};

// Scratch of a thread; every member is a multiple of 64 bytes long.
typedef struct workspace {
    _Alignas(64) char b[COL_PANELS][B_PANEL];
    char a[DIGITS_MAX][ROW_PANELS][A_PANEL];
    int32_t start[DIGITS_MAX][ROW_PANELS][START];
    int32_t tile[DIGITS_MAX][TV_GEMM_MR * TV_GEMM_NR];
    int32_t block[DIGITS_MAX][ROWS * COLS]; // last: touched only by long sums
} workspace;

// A block of the product and a stretch of r.
typedef struct span {
    int64_t row, col, r;
    int rows, cols, depth;
} span;

static inline int64_t stride_of(const tv_cpu_product *product)
{
    return product->stride != 0 ? product->stride : product->reduce;
}

static inline int clip(int64_t left, int most) { return left < most ? (int)left : most; }

static void pack_rows(const tv_cpu_product *product, const span *s, workspace *w)
{
    for (int digit = 0; digit < (product->a_lo != NULL ? 2 : 1); digit++) {
        const int8_t *a = digit == 0 ? product->a : product->a_lo;
        for (int p = 0; p * TV_GEMM_MR < s->rows; p++) {
            const tv_cpu_panel panel = {.from = a + (s->row + p * TV_GEMM_MR) * stride_of(product) + s->r,
                                        .stride = stride_of(product),
                                        .rows = clip(s->rows - p * TV_GEMM_MR, TV_GEMM_MR),
                                        .depth = s->depth,
                                        .to = w->a[digit][p]};
            TV_ISA_NAME(tv_cpu_pack_a)(&panel, w->start[digit][p]);
        }
    }
}

static void pack_cols(const tv_cpu_product *product, const span *s, workspace *w)
{
    for (int p = 0; p * TV_GEMM_NR < s->cols; p++) {
        const tv_cpu_panel panel = {.from = product->b + (s->col + p * TV_GEMM_NR) * stride_of(product) + s->r,
                                    .stride = stride_of(product),
                                    .rows = clip(s->cols - p * TV_GEMM_NR, TV_GEMM_NR),
                                    .depth = s->depth,
                                    .to = w->b[p]};
        TV_ISA_NAME(tv_cpu_pack_b)(&panel);
    }
}

// One micro-tile: panel `pa` of a, panel `pb` of b, all digits; hands it on when the sums are complete.
static void run_tile(const tv_cpu_product *product, const span *s, workspace *w, int pa, int pb)
{
    int whole = s->depth == product->reduce, digits = product->a_lo != NULL ? 2 : 1;
    int64_t stride = whole ? TV_GEMM_NR : COLS;
    int32_t *sums[DIGITS_MAX];
    for (int digit = 0; digit < digits; digit++) {
        sums[digit] = whole ? w->tile[digit] : w->block[digit] + pa * TV_GEMM_MR * COLS + pb * TV_GEMM_NR;
        const tv_cpu_micro micro = {.a = w->a[digit][pa],
                                    .b = w->b[pb],
                                    .depth = s->depth,
                                    .first = s->r == 0,
                                    .start = w->start[digit][pa],
                                    .sums = sums[digit],
                                    .stride = stride};
        TV_ISA_NAME(tv_cpu_micro_run)(&micro);
    }
    if (s->r + s->depth < product->reduce)
        return;
    const tv_cpu_tile tile = {.row = s->row + pa * TV_GEMM_MR,
                              .col = s->col + pb * TV_GEMM_NR,
                              .rows = clip(s->rows - pa * TV_GEMM_MR, TV_GEMM_MR),
                              .cols = clip(s->cols - pb * TV_GEMM_NR, TV_GEMM_NR),
                              .hi = sums[0],
                              .lo = digits == 2 ? sums[1] : NULL,
                              .stride = stride};
    product->done(product->args, &tile);
}

static void run_blocks(const void *args, int64_t first, int64_t last, int thread)
{
    const tv_cpu_product *product = args;
    workspace *w = tv_cpu_scratch(thread);
    int64_t row_blocks = tv_ceil_div(product->m, ROWS), packed_col = -1;
    for (int64_t item = first; item < last; item++) {
        span s = {.row = item % row_blocks * ROWS, .col = item / row_blocks * COLS};
        s.rows = clip(product->m - s.row, ROWS);
        s.cols = clip(product->n - s.col, COLS);
        do {
            s.depth = clip(product->reduce - s.r, TV_GEMM_DEPTH);
            pack_rows(product, &s, w);
            if (s.depth < product->reduce || s.col != packed_col)
                pack_cols(product, &s, w);
            packed_col = s.col;
            for (int pb = 0; pb * TV_GEMM_NR < s.cols; pb++)
                for (int pa = 0; pa * TV_GEMM_MR < s.rows; pa++)
                    run_tile(product, &s, w, pa, pb);
            s.r += s.depth;
        } while (s.r < product->reduce);
    }
}

tv_status TV_ISA_NAME(tv_cpu_product_run)(const tv_cpu_product *product)
{
    if (product->m <= 0 || product->n <= 0)
        return TV_OK;
    TV_TRY(tv_cpu_scratch_reserve(sizeof(workspace)));
    int64_t cost = clip(product->m, ROWS) * product->reduce / 128 * clip(product->n, COLS) / 4;
    tv_cpu_for(tv_ceil_div(product->m, ROWS) * tv_ceil_div(product->n, COLS), cost, run_blocks, product);
    return TV_OK;
}
