// Rows of tokens for their experts, gathered and on the wire, and what becomes of them.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "op_test.h"

// ---- rows ----------------------------------------------------------------------------------------------------------------

typedef struct rows_case {
    int64_t tokens, rows, cols;
    int slots, digits;
    int32_t *item, *expert;
    int8_t *q;
    float *scale, *factor;
} rows_case;

static rows_case random_rows(op_random *random, int64_t tokens, int64_t cols)
{
    rows_case c = {.tokens = tokens, .cols = cols, .slots = op_int(random, 1, 3), .digits = op_int(random, 1, 5)};
    static const int most[] = {0, 1, 4, 13, 40, 121};
    c.rows = tokens * c.slots;
    c.item = op_host((size_t)c.rows * 4);
    c.expert = op_host((size_t)c.rows * 4);
    for (int64_t r = 0; r < c.rows; r++) {
        c.item[r] = (int32_t)((r * 7919) % c.rows); // every pair once when 7919 does not divide the rows
        c.expert[r] = op_int(random, 0, 300);
    }
    c.q = op_int8s(random, tokens * cols, -most[c.digits], most[c.digits]);
    c.scale = op_floats(random, tokens, 2.0f);
    for (int64_t t = 0; t < tokens; t++)
        c.scale[t] = fabsf(c.scale[t]);
    c.factor = op_int(random, 0, 1) ? op_floats(random, c.rows, 1.0f) : NULL;
    for (int64_t r = 0; c.factor && r < c.rows; r++)
        c.factor[r] = fabsf(c.factor[r]);
    return c;
}

typedef struct rows_result {
    int8_t *q;
    float *scale;
    uint8_t *bytes;
    int32_t fault;
} rows_result;

static rows_result run_gather(const op_backend *on, const rows_case *c)
{
    rows_result y = {op_host((size_t)(c->rows * c->cols)), op_host((size_t)c->rows * 4), NULL, 0};
    op_call call = op_begin(on);
    tv_rows_gather_args a = {.rows = c->rows, .cols = c->cols, .slots = c->slots};
    a.item = op_in(&call, c->item, (size_t)c->rows * 4);
    a.q = op_in(&call, c->q, (size_t)(c->tokens * c->cols));
    a.scale = op_in(&call, c->scale, (size_t)c->tokens * 4);
    a.factor = op_in(&call, c->factor, (size_t)c->rows * 4);
    a.out_q = op_out(&call, y.q, (size_t)(c->rows * c->cols));
    a.out_scale = op_out(&call, y.scale, (size_t)c->rows * 4);
    op_end(&call, on->backend->rows_gather(&a, NULL));
    return y;
}

// by_row: slots 0, the rows as they lie.
static rows_result run_pack(const op_backend *on, const rows_case *c, int by_row)
{
    int64_t rows = by_row ? c->tokens : c->rows;
    size_t bytes = (size_t)(rows * tv_wire_row_bytes(c->cols, c->digits));
    rows_result y = {.bytes = op_host(bytes)};
    op_call call = op_begin(on);
    tv_rows_pack_args a = {
        .rows = rows, .cols = c->cols, .slots = by_row ? 0 : c->slots, .digits = c->digits, .unit = 5};
    a.item = by_row ? NULL : op_in(&call, c->item, (size_t)c->rows * 4);
    a.expert = by_row ? NULL : op_in(&call, c->expert, (size_t)c->rows * 4);
    a.q = op_in(&call, c->q, (size_t)(c->tokens * c->cols));
    a.scale = op_in(&call, c->scale, (size_t)c->tokens * 4);
    a.factor = by_row ? NULL : op_in(&call, c->factor, (size_t)c->rows * 4);
    a.bytes = op_out(&call, y.bytes, bytes);
    op_end(&call, on->backend->rows_pack(&a, NULL));
    return y;
}

typedef struct unpack_case {
    int64_t rows, cols;
    int digits;
    const uint8_t *bytes;
    const tv_segment *segments;
    int64_t segment_count;
    int32_t first_expert;
} unpack_case;

static rows_result run_unpack(const op_backend *on, const unpack_case *c)
{
    rows_result y = {op_host((size_t)(c->rows * c->cols)), op_host((size_t)c->rows * 4), NULL, 0};
    op_call call = op_begin(on);
    tv_rows_unpack_args a = {.rows = c->rows, .cols = c->cols, .digits = c->digits, .segment_count = c->segment_count};
    a.bytes = op_in(&call, c->bytes, (size_t)(c->rows * tv_wire_row_bytes(c->cols, c->digits)));
    a.segments = op_in(&call, c->segments, (size_t)c->segment_count * sizeof *c->segments);
    a.first_expert = c->first_expert;
    a.q = op_out(&call, y.q, (size_t)(c->rows * c->cols));
    a.scale = op_out(&call, y.scale, (size_t)c->rows * 4);
    a.fault = op_out(&call, &y.fault, 4);
    op_end(&call, on->backend->rows_unpack(&a, NULL));
    return y;
}

// A gather is what packing and unpacking give, and both give the tokens' values.
static void check_rows(const op_backend *on)
{
    op_random random = {305, 0};
    for (int i = 0; i < 40; i++) {
        rows_case c = random_rows(&random, op_int(&random, 1, 30), op_int(&random, 1, 70));
        int64_t row_bytes = tv_wire_row_bytes(c.cols, c.digits);
        rows_result gathered = run_gather(on, &c), packed = run_pack(on, &c, 0);
        unpack_case u = {.rows = c.rows, .cols = c.cols, .digits = c.digits, .bytes = packed.bytes};
        rows_result back = run_unpack(on, &u);
        assert_true(row_bytes % 4 == 0 && row_bytes <= (c.cols * c.digits + 4) / 5 + 3 + TV_WIRE_TAIL_BYTES);
        assert_int_equal(back.fault, 0);
        op_same("rows", on, gathered.q, back.q, (size_t)(c.rows * c.cols));
        op_same("scales", on, gathered.scale, back.scale, (size_t)c.rows * 4);
        for (int64_t r = 0; r < c.rows; r++) {
            int64_t t = c.item[r] / c.slots;
            int32_t tail[3];
            float scale = c.factor ? c.scale[t] * c.factor[c.item[r]] : c.scale[t];
            op_same("row", on, c.q + t * c.cols, back.q + r * c.cols, (size_t)c.cols);
            memcpy(tail, packed.bytes + (r + 1) * row_bytes - 12, 12);
            op_same("scale", on, &scale, tail, 4);
            assert_int_equal(tail[1], c.expert[c.item[r]]);
            assert_int_equal(tail[2], 5);
        }
    }
}

static void test_rows(void **state)
{
    (void)state;
    op_on_each(check_rows);
}

static void check_rows_bits(const op_backend *on)
{
    op_random random = {306, 0};
    for (int i = 0; i < 80; i += op_stride()) {
        rows_case c = random_rows(&random, i < 2 ? OP_LARGE_ROWS : op_size(&random), i < 2 ? 1024 : op_size(&random));
        for (int64_t r = 0; i % 2 && r < c.rows; r += 3)
            c.item[r] = -(int32_t)(r / c.slots) - 1; // rows of a dense plan; they are never packed
        rows_result want = run_gather(op_ref(), &c), got = run_gather(on, &c);
        op_same("gathered", on, want.q, got.q, (size_t)(c.rows * c.cols));
        op_same("gathered scales", on, want.scale, got.scale, (size_t)c.rows * 4);
        for (int by_row = 0; by_row < 2; by_row++) {
            if (i % 2 && !by_row)
                continue;
            int64_t rows = by_row ? c.tokens : c.rows, bytes = rows * tv_wire_row_bytes(c.cols, c.digits);
            want = run_pack(op_ref(), &c, by_row);
            got = run_pack(on, &c, by_row);
            op_same("packed", on, want.bytes, got.bytes, (size_t)bytes);
            unpack_case u = {.rows = rows, .cols = c.cols, .digits = c.digits, .bytes = want.bytes};
            rows_result back = run_unpack(op_ref(), &u), mine = run_unpack(on, &u);
            op_same("unpacked", on, back.q, mine.q, (size_t)(rows * c.cols));
            op_same("unpacked scales", on, back.scale, mine.scale, (size_t)rows * 4);
        }
    }
}

static void test_rows_bits(void **state)
{
    (void)state;
    op_against_ref(check_rows_bits);
}

// Rows of two segments; in each round one of them is spoilt in another way, and only that one is lost.
static void check_refused(const op_backend *on)
{
    enum { ROWS = 9, COLS = 33, DIGITS = 3, SPOILT = 6, WAYS = 8 };
    op_random random = {307, 0};
    tv_segment segments[] = {{.first = 0, .rows = 4, .expert = 1, .unit = 5},
                             {.first = 4, .rows = 5, .expert = 0, .unit = 5}};
    rows_case c = random_rows(&random, ROWS, COLS);
    int32_t *item = op_host(ROWS * 4), *expert = op_host(ROWS * 4);
    for (int r = 0; r < ROWS; r++) {
        item[r] = r;
        expert[r] = r < 4 ? 11 : 10;
    }
    c.slots = 1, c.rows = ROWS, c.digits = DIGITS, c.item = item, c.expert = expert, c.factor = NULL;
    c.q = op_int8s(&random, ROWS * COLS, -13, 13);
    int64_t row_bytes = tv_wire_row_bytes(COLS, DIGITS);
    rows_result packed = run_pack(op_ref(), &c, 0);
    for (int way = 0; way < WAYS; way++) {
        uint8_t *bytes = op_host_copy(packed.bytes, (size_t)(ROWS * row_bytes));
        uint8_t *row = bytes + SPOILT * row_bytes, *tail = row + row_bytes - 12;
        static const float scales[] = {-1.0f, NAN, INFINITY};
        static const int32_t numbers[] = {11, 12, -1};
        if (way < 3)
            memcpy(tail, &scales[way], 4);
        else if (way < 6)
            memcpy(tail + 4, &numbers[way - 3], 4);
        else if (way == 6)
            memcpy(tail + 8, &(int32_t){6}, 4);
        else
            row[7] = 243;
        unpack_case u = {ROWS, COLS, DIGITS, bytes, segments, 2, 10};
        rows_result y = run_unpack(on, &u);
        assert_int_equal(y.fault, 1);
        for (int r = 0; r < ROWS; r++)
            for (int k = 0; k < COLS; k++)
                assert_int_equal(y.q[r * COLS + k], r == SPOILT ? 0 : c.q[r * COLS + k]);
        assert_true(y.scale[SPOILT] == 0.0f);
    }
    unpack_case whole = {ROWS, COLS, DIGITS, packed.bytes, segments, 2, 10};
    assert_int_equal(run_unpack(on, &whole).fault, 0);
}

static void test_refused(void **state)
{
    (void)state;
    op_on_each(check_refused);
}

// ---- combine -------------------------------------------------------------------------------------------------------------

typedef struct combine_case {
    int64_t tokens, cols, rows;
    int slots, accumulate;
    int32_t *place;
    int8_t *q;
    float *gate, *scale, *y, *dy, *grad;
} combine_case;

static combine_case random_combine(op_random *random, int64_t tokens, int64_t cols)
{
    combine_case c = {
        .tokens = tokens, .cols = cols, .slots = op_int(random, 1, 4), .accumulate = op_int(random, 0, 1)};
    c.rows = tokens * c.slots + op_int(random, 0, 3);
    c.place = op_host((size_t)(tokens * c.slots) * 4);
    for (int64_t i = 0; i < tokens * c.slots; i++)
        c.place[i] = op_int(random, 0, (int)c.rows - 1);
    c.q = op_int8s(random, c.rows * cols, -121, 121);
    c.gate = op_int(random, 0, 1) ? op_floats(random, tokens * c.slots, 1.0f) : NULL;
    c.scale = op_floats(random, c.rows, 0.1f);
    c.y = op_floats(random, tokens * cols, 3.0f);
    c.dy = op_floats(random, tokens * cols, 3.0f);
    return c;
}

static combine_case run_combine(const op_backend *on, const combine_case *from)
{
    combine_case c = *from;
    size_t pairs = (size_t)(c.tokens * c.slots) * 4, values = (size_t)(c.tokens * c.cols) * 4;
    c.y = op_host_copy(from->y, values);
    c.grad = op_host(pairs);
    op_call call = op_begin(on);
    tv_moe_combine_args a = {.tokens = c.tokens, .cols = c.cols, .slots = c.slots, .accumulate = c.accumulate};
    a.place = op_in(&call, c.place, pairs);
    a.gate = op_in(&call, c.gate, pairs);
    a.q = op_in(&call, c.q, (size_t)(c.rows * c.cols));
    a.scale = op_in(&call, c.scale, (size_t)c.rows * 4);
    a.y = op_out(&call, c.y, values);
    op_end(&call, on->backend->moe_combine(&a, NULL));
    op_call back = op_begin(on);
    tv_moe_combine_backward_args b = {.tokens = c.tokens, .cols = c.cols, .slots = c.slots};
    b.place = op_in(&back, c.place, pairs);
    b.q = op_in(&back, c.q, (size_t)(c.rows * c.cols));
    b.scale = op_in(&back, c.scale, (size_t)c.rows * 4);
    b.dy = op_in(&back, c.dy, values);
    b.grad = op_out(&back, c.grad, pairs);
    op_end(&back, on->backend->moe_combine_backward(&b, NULL));
    return c;
}

static void check_combine(const op_backend *on)
{
    op_random random = {308, 0};
    for (int i = 0; i < 40; i++) {
        combine_case from = random_combine(&random, op_int(&random, 1, 12), op_int(&random, 1, 80)),
                     c = run_combine(on, &from);
        for (int64_t t = 0; t < c.tokens; t++) {
            for (int64_t k = 0; k < c.cols; k++) {
                double want = c.accumulate ? (double)from.y[t * c.cols + k] : 0;
                for (int j = 0; j < c.slots; j++) {
                    int64_t p = t * c.slots + j, r = c.place[p];
                    want += (c.gate ? (double)c.gate[p] : 1.0) * (double)c.scale[r] * c.q[r * c.cols + k];
                }
                op_near("sum", want, (double)c.y[t * c.cols + k], 2e-6);
            }
            for (int j = 0; j < c.slots; j++) {
                double want = 0;
                int64_t p = t * c.slots + j, r = c.place[p];
                for (int64_t k = 0; k < c.cols; k++)
                    want += (double)c.dy[t * c.cols + k] * (double)c.scale[r] * c.q[r * c.cols + k];
                op_near("gate gradient", want, (double)c.grad[p], 2e-5);
            }
        }
    }
}

static void test_combine(void **state)
{
    (void)state;
    op_on_each(check_combine);
}

static void check_combine_bits(const op_backend *on)
{
    op_random random = {309, 0};
    for (int i = 0; i < 60; i += op_stride()) {
        combine_case from =
            random_combine(&random, i < 2 ? OP_LARGE_ROWS : op_size(&random), i < 2 ? 1024 + i : op_size(&random));
        combine_case want = run_combine(op_ref(), &from), got = run_combine(on, &from);
        op_same_floats("sums", on, want.y, got.y, from.tokens * from.cols);
        op_same_floats("gate gradients", on, want.grad, got.grad, from.tokens * from.slots);
    }
}

static void test_combine_bits(void **state)
{
    (void)state;
    op_against_ref(check_combine_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_rows_bits),
                                       cmocka_unit_test(test_refused), cmocka_unit_test(test_combine),
                                       cmocka_unit_test(test_combine_bits)};
    return op_run("op_moe_rows", tests);
}
