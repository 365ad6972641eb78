// pack, unpack, decode, init, validate, row_hash.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/tensor.h"
#include "op_test.h"

static void run_pack(const op_backend *on, int64_t rows, int64_t cols, const int8_t *trits, uint8_t *bytes)
{
    op_call call = op_begin(on);
    tv_pack_args a = {rows, cols, op_out(&call, bytes, (size_t)(rows * tv_row_bytes(cols))),
                      (int8_t *)(uintptr_t)op_in(&call, trits, (size_t)(rows * cols))};
    op_end(&call, on->backend->pack(&a, NULL));
}

static void run_unpack(const op_backend *on, int64_t rows, int64_t cols, const uint8_t *bytes, int8_t *trits)
{
    op_call call = op_begin(on);
    tv_pack_args a = {rows, cols, (uint8_t *)(uintptr_t)op_in(&call, bytes, (size_t)(rows * tv_row_bytes(cols))),
                      op_out(&call, trits, (size_t)(rows * cols))};
    op_end(&call, on->backend->unpack(&a, NULL));
}

// byte = sum (t_j + 1) 3^j with pad trits 0, by floating-point powers.
static void check_pack(const op_backend *on)
{
    op_random random = {1, 0};
    for (int i = 0; i < op_edge_count; i += op_stride()) {
        int64_t rows = 3, cols = op_edges[i], row_bytes = tv_row_bytes(cols);
        int8_t *trits = op_int8s(&random, rows * cols, -1, 1), *back = op_host((size_t)(rows * cols));
        uint8_t *bytes = op_host((size_t)(rows * row_bytes));
        run_pack(on, rows, cols, trits, bytes);
        for (int64_t n = 0; n < rows; n++)
            for (int64_t b = 0; b < row_bytes; b++) {
                double want = 0;
                for (int64_t j = 0; j < 5; j++)
                    want += (5 * b + j < cols ? trits[n * cols + 5 * b + j] + 1 : 1) * pow(3, (double)j);
                assert_int_equal(bytes[n * row_bytes + b], (int)want);
            }
        run_unpack(on, rows, cols, bytes, back);
        op_same("unpacked trits", on, trits, back, (size_t)(rows * cols));
    }
}

static void test_pack(void **state)
{
    (void)state;
    op_on_each(check_pack);
}

typedef struct weights {
    int64_t rows, cols;
    int group, base, m;
    uint8_t *T;
    int8_t *E;
} weights;

static weights random_weights(op_random *random, int64_t rows, int64_t cols, tv_scale_type type, int m)
{
    weights w = {.rows = rows, .cols = cols, .group = tv_scale_group(type), .m = m};
    w.base = op_int(random, -60, 60);
    w.T = op_trits(random, rows, cols);
    w.E = op_int8s(random, rows * tv_row_groups(cols, w.group), w.base, w.base + tv_lattice_codes(m) - 1);
    return w;
}

static void run_decode(const op_backend *on, const weights *w, int8_t *w8, int8_t *w8t)
{
    op_call call = op_begin(on);
    size_t items = (size_t)(w->rows * w->cols);
    tv_decode_args a = {.rows = w->rows, .cols = w->cols, .group = w->group, .base = w->base, .mantissa_bits = w->m};
    a.T = op_in(&call, w->T, (size_t)(w->rows * tv_row_bytes(w->cols)));
    a.E = op_in(&call, w->E, (size_t)(w->rows * tv_row_groups(w->cols, w->group)));
    a.w8 = op_out(&call, w8, items);
    a.w8t = op_out(&call, w8t, items);
    op_end(&call, on->backend->decode(&a, NULL));
}

// Weight through the definition of the lattice: (2^m + fraction) 2^octave, as floating point.
static void check_decode(const op_backend *on)
{
    op_random random = {2, 0};
    for (int type = 0; type < TV_SCALE_TYPE_COUNT; type++)
        for (int m = 0; m <= 3; m++) {
            weights w = random_weights(&random, 7, 2 * tv_scale_group((tv_scale_type)type) + 3, (tv_scale_type)type, m);
            int8_t *w8 = op_host((size_t)(w.rows * w.cols)), *w8t = op_host((size_t)(w.rows * w.cols));
            run_decode(on, &w, w8, w8t);
            for (int64_t n = 0; n < w.rows; n++)
                for (int64_t k = 0; k < w.cols; k++) {
                    int byte = w.T[n * tv_row_bytes(w.cols) + k / 5];
                    int trit = (int)fmod(floor(byte / pow(3, (double)(k % 5))), 3) - 1;
                    int code = w.E[n * tv_row_groups(w.cols, w.group) + k / w.group] - w.base, steps = (int)ldexp(1, m);
                    double want = trit * ldexp(steps + code % steps, code / steps);
                    assert_true(w8[n * w.cols + k] == want);
                    assert_true(w8t[k * w.rows + n] == want);
                }
        }
}

static void test_decode(void **state)
{
    (void)state;
    op_on_each(check_decode);
}

static void check_decode_bits(const op_backend *on)
{
    op_random random = {3, 0};
    for (int i = 0; i < 80; i += op_stride()) {
        int64_t rows = i == 0 ? OP_LARGE_ROWS : op_size(&random), cols = i == 0 ? OP_LARGE_COLS : op_size(&random);
        weights w = random_weights(&random, rows, cols, (tv_scale_type)(i % TV_SCALE_TYPE_COUNT), i % 4);
        size_t items = (size_t)(w.rows * w.cols);
        int8_t *out[6];
        for (int j = 0; j < 6; j++)
            out[j] = op_host(items);
        run_decode(op_ref(), &w, out[0], out[1]);
        run_decode(on, &w, out[2], out[3]);
        op_same("w8", on, out[0], out[2], items);
        op_same("w8t", on, out[1], out[3], items);
        run_decode(on, &w, out[4], NULL);
        run_decode(on, &w, NULL, out[5]);
        op_same("w8 alone", on, out[0], out[4], items);
        op_same("w8t alone", on, out[1], out[5], items);
        int8_t *trits = op_host(items), *want = op_host(items);
        run_unpack(on, w.rows, w.cols, w.T, trits);
        run_unpack(op_ref(), w.rows, w.cols, w.T, want);
        op_same("trits", on, want, trits, items);
        uint8_t *packed = op_host((size_t)(w.rows * tv_row_bytes(w.cols)));
        run_pack(on, w.rows, w.cols, trits, packed);
        op_same("packed", on, w.T, packed, (size_t)(w.rows * tv_row_bytes(w.cols)));
    }
}

static void test_decode_bits(void **state)
{
    (void)state;
    op_against_ref(check_decode_bits);
}

typedef struct initial {
    uint8_t *T;
    int8_t *E, *T_accum, *E_accum;
} initial;

static initial run_init(const op_backend *on, tv_init_args a, int with_accum)
{
    size_t bytes = (size_t)(a.rows * tv_row_bytes(a.cols)), groups = (size_t)(a.rows * tv_row_groups(a.cols, a.group));
    initial out = {op_host(bytes), op_host(groups), NULL, NULL};
    if (with_accum) {
        out.T_accum = op_host((size_t)(a.rows * a.cols));
        out.E_accum = op_host(groups);
        memset(out.E_accum, 9, groups);
    }
    op_call call = op_begin(on);
    a.T = op_out(&call, out.T, bytes);
    a.E = op_out(&call, out.E, groups);
    a.T_accum = op_out(&call, out.T_accum, (size_t)(a.rows * a.cols));
    a.E_accum = op_out(&call, out.E_accum, groups);
    op_end(&call, on->backend->init(&a, NULL));
    return out;
}

// Every trit and counter from its own draw; each trit value a third of the time; a block of rows equals the same rows of the whole.
static void check_init(const op_backend *on)
{
    tv_init_args a = {
        .rows = 40, .cols = 333, .group = 8, .exponent = -4, .threshold = 64, .seed = 11, .tensor_id = 99};
    initial whole = run_init(on, a, 1);
    int count[3] = {0, 0, 0}, lowest = 127, highest = -127;
    int8_t *trits = op_host(40 * 333);
    run_unpack(on, 40, 333, whole.T, trits);
    for (int e = 0; e < 40 * 333; e++) {
        tv_rng_key t_key = {11, TV_RNG_INIT_T, 99, 0}, a_key = {11, TV_RNG_INIT_ACCUM, 99, 0};
        assert_int_equal(trits[e], (int)floor(tv_rng16(t_key, (uint64_t)e) * 3 / 65536.0) - 1);
        assert_int_equal(whole.T_accum[e], (int)floor(tv_rng16(a_key, (uint64_t)e) * 127 / 65536.0) - 63);
        count[trits[e] + 1]++;
        lowest = whole.T_accum[e] < lowest ? whole.T_accum[e] : lowest;
        highest = whole.T_accum[e] > highest ? whole.T_accum[e] : highest;
    }
    for (int i = 0; i < 3; i++)
        assert_true(abs(count[i] - 4440) < 200); // four standard deviations
    assert_int_equal(lowest, -63);
    assert_int_equal(highest, 63);
    for (int i = 0; i < 40 * 42; i++) {
        assert_int_equal(whole.E[i], -4);
        assert_int_equal(whole.E_accum[i], 0);
    }
    a.first_row = 13;
    a.rows = 9;
    initial block = run_init(on, a, 1);
    op_same("rows of a block", on, whole.T + 13 * tv_row_bytes(333), block.T, (size_t)(9 * tv_row_bytes(333)));
    op_same("counters of a block", on, whole.T_accum + 13 * 333, block.T_accum, 9 * 333);
    a.ones = 1;
    initial ones = run_init(on, a, 0);
    run_unpack(on, 9, 333, ones.T, trits);
    for (int e = 0; e < 9 * 333; e++)
        assert_int_equal(trits[e], 1);
}

static void test_init(void **state)
{
    (void)state;
    op_on_each(check_init);
}

static void check_init_bits(const op_backend *on)
{
    op_random random = {4, 0};
    for (int i = 0; i < 40; i += op_stride()) {
        tv_init_args a = {.rows = op_int(&random, 0, 9),
                          .cols = op_size(&random),
                          .first_row = op_int(&random, 0, 1 << 30),
                          .group = tv_scale_group((tv_scale_type)(i % TV_SCALE_TYPE_COUNT)),
                          .exponent = op_int(&random, -20, 20),
                          .ones = i % 7 == 0,
                          .threshold = op_int(&random, 1, 127),
                          .seed = op_next(&random),
                          .tensor_id = op_next(&random)};
        initial want = run_init(op_ref(), a, 1), got = run_init(on, a, 1);
        op_same("T", on, want.T, got.T, (size_t)(a.rows * tv_row_bytes(a.cols)));
        op_same("T_accum", on, want.T_accum, got.T_accum, (size_t)(a.rows * a.cols));
        op_same("E", on, want.E, got.E, (size_t)(a.rows * tv_row_groups(a.cols, a.group)));
        op_same("E_accum", on, want.E_accum, got.E_accum, (size_t)(a.rows * tv_row_groups(a.cols, a.group)));
    }
}

static void test_init_bits(void **state)
{
    (void)state;
    op_against_ref(check_init_bits);
}

static void run_validate(const op_backend *on, const weights *w, int64_t counts[2])
{
    op_call call = op_begin(on);
    tv_validate_args a = {.rows = w->rows, .cols = w->cols, .group = w->group, .base = w->base, .mantissa_bits = w->m};
    a.T = op_in(&call, w->T, (size_t)(w->rows * tv_row_bytes(w->cols)));
    a.E = op_in(&call, w->E, (size_t)(w->rows * tv_row_groups(w->cols, w->group)));
    a.counts = op_out(&call, counts, 2 * sizeof *counts);
    op_end(&call, on->backend->validate(&a, NULL));
}

static void check_validate(const op_backend *on)
{
    op_random random = {5, 0};
    for (int m = 0; m <= 3; m++) {
        weights w = random_weights(&random, 20, 63, TV_T16, m); // 13 bytes a row, the last with 3 trits; 4 groups a row
        int64_t counts[2] = {100, 200};
        run_validate(on, &w, counts);
        assert_int_equal(counts[0], 100);
        assert_int_equal(counts[1], 200);
        w.T[0] = 243;
        w.T[5 * 13 + 4] = 255;
        w.T[7 * 13 + 12] = 0;                                   // pad digits 0, 0
        w.T[9 * 13 + 12] = 2 + 3 * 2 + 9 * 2 + 27 * 1 + 81 * 2; // pad digits 1, 2
        w.T[11 * 13 + 12] = 243;                                // counts once
        w.T[13 * 13 + 12] = 27 + 81;                            // three trits 0 0 0, good pads
        w.E[3] = (int8_t)(w.base - 1);
        w.E[4] = (int8_t)(w.base + tv_lattice_codes(m));
        w.E[5] = (int8_t)(w.base + tv_lattice_codes(m) - 1);
        w.E[6] = (int8_t)w.base;
        run_validate(on, &w, counts);
        assert_int_equal(counts[0], 105);
        assert_int_equal(counts[1], 202);
    }
}

static void test_validate(void **state)
{
    (void)state;
    op_on_each(check_validate);
}

static void check_row_hash(const op_backend *on)
{
    op_random random = {6, 0};
    for (int i = 0; i < op_edge_count; i += op_stride()) {
        int64_t rows = 5, row_bytes = op_edges[i];
        int8_t *data = op_int8s(&random, rows * row_bytes, -128, 127);
        tv_hash128 sum = {~0ull, 7}, want = sum;
        op_call call = op_begin(on);
        tv_row_hash_args a = {rows, 1000, (size_t)row_bytes, op_in(&call, data, (size_t)(rows * row_bytes)), &sum};
        op_end(&call, on->backend->row_hash(&a, NULL));
        for (int64_t r = rows - 1; row_bytes && r >= 0; r--) {
            tv_hash128 h = tv_hash_row(data + r * row_bytes, (size_t)row_bytes, 1000 + r);
            want.low += h.low;
            want.high += h.high;
        }
        assert_true(tv_hash_equal(sum, want));
    }
}

static void test_row_hash(void **state)
{
    (void)state;
    op_on_each(check_row_hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack),     cmocka_unit_test(test_decode),    cmocka_unit_test(test_decode_bits),
        cmocka_unit_test(test_init),     cmocka_unit_test(test_init_bits), cmocka_unit_test(test_validate),
        cmocka_unit_test(test_row_hash),
    };
    return op_run("op_weights", tests);
}
