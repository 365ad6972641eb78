// Packed trits to int8 weights, row-major and transposed; unpack.
//
// A table of 256 words gives the five trits of a byte; words are stored five bytes apart, so a later store repairs
// the three bytes that an earlier one wrote too much. Rows go in squares of 64, so that the transposed form leaves
// as whole cache lines.
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"
#include "kernels/cpu/cpu_transpose.h"
#include "kernels/cpu/cpu_trits.h"

static void unpack_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_pack_args *a = args;
    tv_trit_table table;
    tv_trit_table_fill(&table);
    for (int64_t n = first; n < last; n++)
        tv_trits_unpack(&table, a->bytes + n * tv_row_bytes(a->cols), a->cols, a->trits + n * a->cols);
}

tv_status TV_ISA_NAME(unpack)(const tv_pack_args *args, void *stream)
{
    (void)stream;
    tv_cpu_for(args->rows, args->cols / 2, unpack_rows, args);
    return TV_OK;
}

// w *= L of its group, for one row.
static void scale_row(const tv_decode_args *a, const int8_t *E, int8_t *w)
{
    for (int64_t k = 0; k < a->cols; k += a->group) {
        int64_t count = a->cols - k < a->group ? a->cols - k : a->group;
        int8_t value = (int8_t)tv_lattice_value(a->mantissa_bits, E[k / a->group] - a->base);
        for (int64_t i = 0; i < count; i++)
            w[k + i] = (int8_t)(w[k + i] * value);
    }
}

// Rows of a square, decoded [rows, cols], to columns of w8t.
static void store_transposed(const tv_decode_args *a, const int8_t *w, int64_t row, int rows)
{
    int8_t square[TV_SQUARE][TV_SQUARE], edge[TV_SQUARE][TV_SQUARE] = {{0}};
    for (int64_t k = 0; k < a->cols; k += TV_SQUARE) {
        int cols = a->cols - k < TV_SQUARE ? (int)(a->cols - k) : TV_SQUARE;
        if (rows == TV_SQUARE && cols == TV_SQUARE) {
            tv_transpose_square(w + k, a->cols, square);
        } else {
            for (int i = 0; i < rows; i++)
                memcpy(edge[i], w + i * a->cols + k, (size_t)cols);
            tv_transpose_square(edge[0], TV_SQUARE, square);
        }
        tv_square_store(square, cols, rows, a->w8t + k * a->rows + row, a->rows);
    }
}

static void decode_squares(const void *args, int64_t first, int64_t last, int thread)
{
    const tv_decode_args *a = args;
    tv_trit_table table;
    tv_trit_table_fill(&table);
    for (int64_t item = first; item < last; item++) {
        int64_t row = item * TV_SQUARE;
        int rows = a->rows - row < TV_SQUARE ? (int)(a->rows - row) : TV_SQUARE;
        int8_t *w = a->w8 != NULL ? a->w8 + row * a->cols : tv_cpu_scratch(thread);
        for (int i = 0; i < rows; i++) {
            tv_trits_unpack(&table, a->T + (row + i) * tv_row_bytes(a->cols), a->cols, w + i * a->cols);
            scale_row(a, a->E + (row + i) * tv_row_groups(a->cols, a->group), w + i * a->cols);
        }
        if (a->w8t != NULL)
            store_transposed(a, w, row, rows);
    }
}

tv_status TV_ISA_NAME(decode)(const tv_decode_args *args, void *stream)
{
    (void)stream;
    if (args->rows <= 0 || args->cols <= 0)
        return TV_OK;
    if (args->w8 == NULL)
        TV_TRY(tv_cpu_scratch_reserve((size_t)args->cols * TV_SQUARE));
    tv_cpu_for(tv_ceil_div(args->rows, TV_SQUARE), args->cols * TV_SQUARE / 2, decode_squares, args);
    return TV_OK;
}
