// digits_pack, digits_unpack: the wire form.
#include <stdlib.h>

#include "base/pack.h"
#include "base/tensor.h"
#include "op_test.h"

static void run(const op_backend *on, int unpack, tv_digits_args in)
{
    size_t items = (size_t)(in.rows * in.cols), bytes = (size_t)(in.rows * tv_row_bytes(in.cols * in.digits));
    op_call call = op_begin(on);
    tv_digits_args a = in;
    a.q = unpack ? op_out(&call, in.q, items) : (int8_t *)(uintptr_t)op_in(&call, in.q, items);
    a.bytes = unpack ? (uint8_t *)(uintptr_t)op_in(&call, in.bytes, bytes) : op_out(&call, in.bytes, bytes);
    op_end(&call, unpack ? on->backend->digits_unpack(&a, NULL) : on->backend->digits_pack(&a, NULL));
}

// Balanced digits by repeated division with remainders in {-1, 0, 1}, then packed as trits.
static void check_oracle(const op_backend *on)
{
    static const int most[6] = {0, 1, 4, 13, 40, 121};
    op_random random = {31, 0};
    for (int k = 1; k <= 5; k++)
        for (int i = 0; i < op_edge_count; i++) {
            int64_t rows = 3, cols = op_edges[i], row_bytes = tv_row_bytes(cols * k);
            int8_t *q = op_int8s(&random, rows * cols, -most[k], most[k]), *back = op_host((size_t)(rows * cols));
            uint8_t *bytes = op_host((size_t)(rows * row_bytes)), *want = op_host((size_t)(rows * row_bytes));
            int8_t *trits = op_host((size_t)(cols * k));
            for (int64_t t = 0; t < rows; t++) {
                for (int64_t c = 0; c < cols; c++) {
                    int rest = q[t * cols + c];
                    for (int j = 0; j < k; j++) {
                        int trit = ((rest % 3) + 3) % 3 == 2 ? -1 : ((rest % 3) + 3) % 3;
                        trits[c * k + j] = (int8_t)trit;
                        rest = (rest - trit) / 3;
                    }
                    assert_int_equal(rest, 0);
                }
                tv_pack_row(trits, cols * k, want + t * row_bytes);
            }
            run(on, 0, (tv_digits_args){rows, cols, k, q, bytes});
            op_same("wire bytes", on, want, bytes, (size_t)(rows * row_bytes));
            run(on, 1, (tv_digits_args){rows, cols, k, back, bytes});
            op_same("values after the wire", on, q, back, (size_t)(rows * cols));
        }
}

static void test_oracle(void **state)
{
    (void)state;
    op_on_each(check_oracle);
}

// All values of every k, and bytes that are no valid packing give the same values everywhere.
static void check_bits(const op_backend *on)
{
    static const int most[6] = {0, 1, 4, 13, 40, 121};
    op_random random = {32, 0};
    for (int i = 0; i < 100; i++) {
        int k = 1 + i % 5;
        int64_t rows = op_int(&random, 0, 9), cols = op_size(&random), row_bytes = tv_row_bytes(cols * k);
        int8_t *q = op_int8s(&random, rows * cols, -most[k], most[k]);
        uint8_t *want = op_host((size_t)(rows * row_bytes)), *got = op_host((size_t)(rows * row_bytes));
        run(op_ref(), 0, (tv_digits_args){rows, cols, k, q, want});
        run(on, 0, (tv_digits_args){rows, cols, k, q, got});
        op_same("bytes", on, want, got, (size_t)(rows * row_bytes));
        uint8_t *noise = (uint8_t *)op_int8s(&random, rows * row_bytes, -128, 127);
        int8_t *want_q = op_host((size_t)(rows * cols)), *got_q = op_host((size_t)(rows * cols));
        run(op_ref(), 1, (tv_digits_args){rows, cols, k, want_q, noise});
        run(on, 1, (tv_digits_args){rows, cols, k, got_q, noise});
        op_same("values of any bytes", on, want_q, got_q, (size_t)(rows * cols));
    }
}

static void test_bits(void **state)
{
    (void)state;
    op_against_ref(check_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_oracle), cmocka_unit_test(test_bits)};
    return op_run("op_digits", tests);
}
