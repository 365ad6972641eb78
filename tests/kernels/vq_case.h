// Random codebooks for the tests of their ops.
#ifndef TV_TESTS_VQ_CASE_H
#define TV_TESTS_VQ_CASE_H

#include "op_test.h"

// A whole table in host memory, with counters and usage.
typedef struct vq_case {
    tv_vq_table table; // the whole; its arrays are the test's
    int16_t *usage;
    size_t T_bytes, row_bytes, accum_bytes; // of T, of E and E_accum, of T_accum
} vq_case;

// Up to 300 rows, or from there to most_rows when that is more.
vq_case vq_random_case(op_random *random, int most_rows);
// The block of a place, its arrays inside the whole's.
tv_vq_table vq_block(const vq_case *c, int places, int place);
// Backend copies of a block, all of them inputs, T and E only, or all of them outputs.
tv_vq_table vq_in(op_call *call, const tv_vq_table *block);
tv_vq_table vq_out(op_call *call, const tv_vq_table *block);
// w8 of a row of the whole table.
void vq_decode(const vq_case *c, int64_t row, int8_t w8[TV_VQ_COLS_MAX]);

#endif
