#include "vq_case.h"

#include "base/pack.h"
#include "base/tensor.h"

vq_case vq_random_case(op_random *random, int most_rows)
{
    vq_case c = {.usage = NULL};
    tv_vq_table *t = &c.table;
    t->rows = t->held_rows = op_int(random, most_rows > 300 ? 300 : 1, most_rows);
    t->cols = op_int(random, 0, 2) == 0 ? 64 : op_int(random, 1, 64);
    while (t->bits < 7 && t->bits < t->cols && t->rows >> (t->bits + 1) > 0 && op_int(random, 0, 4) > 0)
        t->bits++;
    t->base = op_int(random, -9, 0);
    t->mantissa_bits = op_int(random, 0, 3);
    c.T_bytes = (size_t)(t->rows * ((t->cols + 4) / 5));
    c.row_bytes = (size_t)t->rows;
    c.accum_bytes = (size_t)(t->rows * t->cols);
    t->T = op_trits(random, t->rows, t->cols);
    t->E = op_int8s(random, t->rows, t->base, t->base + tv_lattice_codes(t->mantissa_bits) - 1);
    t->T_accum = op_int8s(random, t->rows * t->cols, -20, 20);
    t->E_accum = op_int8s(random, t->rows, -20, 20);
    c.usage = op_host(c.row_bytes * sizeof *c.usage);
    for (int64_t i = 0; i < t->rows; i++)
        c.usage[i] = (int16_t)(op_int(random, 0, 2) == 0 ? 0 : op_int(random, 0, 1) ? op_int(random, 0, 9) : 32760);
    return c;
}

tv_vq_table vq_block(const vq_case *c, int places, int place)
{
    tv_vq_table block = c->table;
    int64_t packed = (block.cols + 4) / 5;
    int64_t first = tv_vq_bucket_first(block.rows, block.bits, tv_vq_place_first(block.bits, places, place));
    int64_t end = tv_vq_bucket_first(block.rows, block.bits, tv_vq_place_first(block.bits, places, place + 1));
    block.first_row = first;
    block.held_rows = end - first;
    block.T += first * packed;
    block.E += first;
    block.T_accum += first * block.cols;
    block.E_accum += first;
    return block;
}

tv_vq_table vq_in(op_call *call, const tv_vq_table *block)
{
    tv_vq_table t = *block;
    t.T = (uint8_t *)op_in(call, block->T, (size_t)(t.held_rows * ((t.cols + 4) / 5)));
    t.E = (int8_t *)op_in(call, block->E, (size_t)t.held_rows);
    t.T_accum = t.E_accum = NULL;
    return t;
}

tv_vq_table vq_out(op_call *call, const tv_vq_table *block)
{
    tv_vq_table t = *block;
    t.T = op_out(call, block->T, (size_t)(t.held_rows * ((t.cols + 4) / 5)));
    t.E = op_out(call, block->E, (size_t)t.held_rows);
    t.T_accum = op_out(call, block->T_accum, (size_t)(t.held_rows * t.cols));
    t.E_accum = op_out(call, block->E_accum, (size_t)t.held_rows);
    return t;
}

void vq_decode(const vq_case *c, int64_t row, int8_t w8[TV_VQ_COLS_MAX])
{
    const tv_vq_table *t = &c->table;
    int value = tv_lattice_value(t->mantissa_bits, t->E[row] - t->base);
    tv_unpack_row(t->T + row * ((t->cols + 4) / 5), t->cols, w8);
    for (int64_t i = 0; i < t->cols; i++)
        w8[i] = (int8_t)(w8[i] * value);
}
