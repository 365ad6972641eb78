// How rows are split over ranks.
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include "comm/vote_exchange.h"

// Blocks follow each other without gap or overlap, cover all rows, and none is longer than the common block.
static void test_blocks_cover_rows(void **state)
{
    (void)state;
    for (int64_t rows = 0; rows <= 40; rows++)
        for (int ranks = 1; ranks <= 9; ranks++) {
            int64_t next = 0, block = tv_split_block(rows, ranks);
            assert_true(block * ranks >= rows && (block == 0 || (block - 1) * ranks < rows));
            for (int r = 0; r < ranks; r++) {
                int64_t first = -1, count = -1;
                tv_split_rows(rows, r, ranks, &first, &count);
                assert_int_equal(first, next);
                assert_true(count >= 0 && count <= block);
                assert_true(count == 0 || first == r * block); // where reduce-scatter leaves the block
                next = first + count;
            }
            assert_int_equal(next, rows);
        }
}

static void test_known_splits(void **state)
{
    (void)state;
    const struct {
        int64_t rows;
        int rank, ranks;
        int64_t first, count;
    } cases[] = {
        {256, 0, 1, 0, 256}, {256, 2, 3, 172, 84}, {5, 2, 4, 4, 1},
        {5, 3, 4, 5, 0},     {1, 3, 4, 1, 0},      {(int64_t)1 << 40, 3, 4, (int64_t)3 << 38, (int64_t)1 << 38},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t first, count;
        tv_split_rows(cases[i].rows, cases[i].rank, cases[i].ranks, &first, &count);
        assert_int_equal(first, cases[i].first);
        assert_int_equal(count, cases[i].count);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_blocks_cover_rows), cmocka_unit_test(test_known_splits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
