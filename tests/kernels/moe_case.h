// Random segments for the tests of the experts' ops.
#ifndef TV_TESTS_MOE_CASE_H
#define TV_TESTS_MOE_CASE_H

#include "op_test.h"

typedef struct moe_case {
    int64_t experts, segment_count;
    tv_segment *segments;
    int64_t rows, columns; // behind the last segment's, with what lies between
    int32_t *item;         // [rows], some below 0; NULL: every row counts
} moe_case;

// 0 to 5 segments of 0 to `most` rows of up to 4 experts and 3 units, with unused rows and columns between some of them.
moe_case moe_random_case(op_random *random, int most);
const tv_segment *moe_in(op_call *call, const moe_case *c);
// One segment's columns of a transposed array [channels, columns] as an array of its own, [channels, rows that count].
int8_t *moe_columns(const moe_case *rows, const tv_segment *s, const int8_t *qt, int64_t channels);

#endif
