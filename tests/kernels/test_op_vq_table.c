// Codebooks: the initial state, rows on their way to those who asked, gradients.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/pack.h"
#include "base/tensor.h"
#include "vq_case.h"

static int64_t packed(const tv_vq_table *t) { return (t->cols + 4) / 5; }

// ---- initial state -------------------------------------------------------------------------------------------------------------

// Any split into places starts as the whole table does, which is init's state, or zeros, with the buckets' patterns in front.
static void check_init(const op_backend *on)
{
    op_random random = {411, 0};
    for (int i = 0; i < 40; i++) {
        vq_case c = vq_random_case(&random, 300), plain = c;
        int places = op_int(&random, 1, c.table.bits < 2 ? 1 << c.table.bits : 4), zeros = i % 3 == 0;
        plain.table.T = op_host(c.T_bytes), plain.table.E = op_host(c.row_bytes);
        plain.table.T_accum = op_host(c.accum_bytes), plain.table.E_accum = op_host(c.row_bytes);
        for (int o = 0; o < places; o++) {
            tv_vq_table block = vq_block(&c, places, o);
            op_call call = op_begin(on);
            tv_vq_init_args a = {.table = vq_out(&call, &block),
                                 .exponent = -3,
                                 .threshold = 90,
                                 .zeros = zeros,
                                 .seed = 5,
                                 .tensor_id = 9};
            op_end(&call, on->backend->vq.init(&a, NULL));
        }
        tv_init_args whole = {.rows = c.table.rows,
                              .cols = c.table.cols,
                              .group = (int)c.table.cols,
                              .exponent = -3,
                              .threshold = 90,
                              .seed = 5,
                              .tensor_id = 9};
        op_call call = op_begin(on);
        whole.T = op_out(&call, plain.table.T, c.T_bytes);
        whole.E = op_out(&call, plain.table.E, c.row_bytes);
        whole.T_accum = op_out(&call, plain.table.T_accum, c.accum_bytes);
        whole.E_accum = op_out(&call, plain.table.E_accum, c.row_bytes);
        op_end(&call, on->backend->init(&whole, NULL));
        op_same("E", on, plain.table.E, c.table.E, c.row_bytes);
        op_same("E_accum", on, plain.table.E_accum, c.table.E_accum, c.row_bytes);
        for (int64_t row = 0; row < c.table.rows; row++) {
            int8_t want[TV_VQ_COLS_MAX], got[TV_VQ_COLS_MAX];
            tv_unpack_row(plain.table.T + row * packed(&c.table), c.table.cols, want);
            assert_int_equal(tv_pack_find_invalid(c.table.T + row * packed(&c.table), c.table.cols), -1);
            tv_unpack_row(c.table.T + row * packed(&c.table), c.table.cols, got);
            for (int64_t d = 0; d < c.table.cols; d++) {
                int frozen = d < c.table.bits;
                int64_t bucket = tv_vq_bucket_of(c.table.rows, c.table.bits, row), at = row * c.table.cols + d;
                assert_int_equal(got[d], frozen ? tv_vq_pattern(bucket, (int)d) : zeros ? 0 : want[d]);
                assert_int_equal(c.table.T_accum[at], frozen ? 0 : plain.table.T_accum[at]);
            }
        }
    }
}

static void test_init(void **state)
{
    (void)state;
    op_on_each(check_init);
}

// ---- answers -------------------------------------------------------------------------------------------------------------------

typedef struct answers {
    int64_t count;
    size_t bytes;
    int32_t *row, *score, *got_row, *got_score, *from;
    uint8_t *wire;
    int8_t *w8;
    float *scale;
    int32_t fault[3]; // of answer, answer_unpack, rows
} answers;

static answers random_answers(op_random *random, const vq_case *c, const tv_vq_table *block)
{
    answers a = {.count = op_int(random, 0, 30)};
    size_t ints = (size_t)a.count * 4;
    a.bytes = (size_t)(a.count * tv_vq_answer_bytes(c->table.cols));
    a.row = op_host(ints), a.score = op_host(ints), a.got_row = op_host(ints), a.got_score = op_host(ints);
    a.from = op_host(ints), a.wire = op_host(a.bytes), a.w8 = op_host((size_t)(a.count * c->table.cols));
    a.scale = op_host(ints);
    for (int64_t i = 0; i < a.count; i++) {
        int any = op_int(random, 0, 5) > 0;
        a.row[i] = any ? (int32_t)(block->first_row + op_int(random, 0, (int)block->held_rows - 1)) : -1;
        a.score[i] = any ? op_int(random, -1000000, 1000000) : INT32_MIN;
        a.from[i] = op_int(random, 0, (int)a.count - 1);
    }
    return a;
}

static void run_answer(const op_backend *on, const tv_vq_table *block, answers *a)
{
    op_call call = op_begin(on);
    tv_vq_answer_args args = {.table = vq_in(&call, block), .count = a->count};
    args.row = op_in(&call, a->row, (size_t)a->count * 4);
    args.score = op_in(&call, a->score, (size_t)a->count * 4);
    args.bytes = op_out(&call, a->wire, a->bytes);
    args.fault = op_out(&call, &a->fault[0], 4);
    op_end(&call, on->backend->vq.answer(&args, NULL));
}

static void run_receive(const op_backend *on, const tv_vq_table *block, answers *a)
{
    op_call call = op_begin(on);
    tv_vq_answer_unpack_args unpack = {.count = a->count, .cols = block->cols, .rows = block->rows};
    unpack.base = block->base, unpack.mantissa_bits = block->mantissa_bits;
    unpack.bytes = op_in(&call, a->wire, a->bytes);
    unpack.row = op_out(&call, a->got_row, (size_t)a->count * 4);
    unpack.score = op_out(&call, a->got_score, (size_t)a->count * 4);
    unpack.fault = op_out(&call, &a->fault[1], 4);
    op_end(&call, on->backend->vq.answer_unpack(&unpack, NULL));
}

static void run_rows(const op_backend *on, const tv_vq_table *block, answers *a)
{
    op_call call = op_begin(on);
    tv_vq_rows_args rows = {.tokens = a->count, .cols = block->cols, .base = block->base};
    rows.mantissa_bits = block->mantissa_bits;
    rows.from = op_in(&call, a->from, (size_t)a->count * 4);
    rows.bytes = op_in(&call, a->wire, a->bytes);
    rows.w8 = op_out(&call, a->w8, (size_t)(a->count * block->cols));
    rows.scale = op_out(&call, a->scale, (size_t)a->count * 4);
    rows.fault = op_out(&call, &a->fault[2], 4);
    op_end(&call, on->backend->vq.rows(&rows, NULL));
}

static void check_answers(const op_backend *on)
{
    op_random random = {412, 0};
    for (int i = 0; i < 60; i++) {
        vq_case c = vq_random_case(&random, 300);
        int places = op_int(&random, 1, c.table.bits < 2 ? 1 << c.table.bits : 4);
        tv_vq_table block = vq_block(&c, places, op_int(&random, 0, places - 1));
        answers a = random_answers(&random, &c, &block);
        run_answer(on, &block, &a);
        run_receive(on, &block, &a);
        run_rows(on, &block, &a);
        op_same("row", on, a.row, a.got_row, (size_t)a.count * 4);
        op_same("score", on, a.score, a.got_score, (size_t)a.count * 4);
        for (int64_t t = 0; t < a.count; t++) {
            int8_t want[TV_VQ_COLS_MAX] = {0};
            if (a.row[a.from[t]] >= 0)
                vq_decode(&c, a.row[a.from[t]], want);
            assert_memory_equal(a.w8 + t * c.table.cols, want, (size_t)c.table.cols);
            assert_true(a.scale[t] == ldexpf(1.0f, c.table.base));
        }
        assert_int_equal(a.fault[0] | a.fault[1] | a.fault[2], 0);
    }
}

static void test_answers(void **state)
{
    (void)state;
    op_on_each(check_answers);
}

// A row of another place, and each way in which a received answer can be wrong.
static void check_bad_answers(const op_backend *on)
{
    op_random random = {413, 0};
    for (int i = 0; i < 24; i++) {
        vq_case c = vq_random_case(&random, 300);
        answers a = random_answers(&random, &c, &c.table);
        if (a.count == 0)
            continue;
        int64_t bad = op_int(&random, 0, (int)a.count - 1);
        int32_t outside = i % 2 ? (int32_t)c.table.rows : -2;
        answers beyond = a;
        beyond.row = op_host_copy(a.row, (size_t)a.count * 4);
        beyond.row[bad] = outside;
        run_answer(on, &c.table, &beyond);
        assert_int_equal(beyond.fault[0], 1);
        run_receive(on, &c.table, &beyond);
        assert_int_equal(beyond.got_row[bad], -1);
        assert_int_equal(beyond.fault[1], 0);

        run_answer(on, &c.table, &a);
        uint8_t *answer = a.wire + bad * tv_vq_answer_bytes(c.table.cols);
        if (i % 4 == 0)
            memcpy(answer, &outside, 4);
        else if (i % 4 == 1)
            answer[8 + op_int(&random, 0, (int)packed(&c.table) - 1)] = 243;
        else
            answer[8 + packed(&c.table)] =
                (uint8_t)(c.table.base + (i % 4 == 2 ? -1 : tv_lattice_codes(c.table.mantissa_bits)));
        run_receive(on, &c.table, &a);
        assert_int_equal(a.fault[1], 1);
        assert_int_equal(a.got_row[bad], -1);
        assert_int_equal(a.got_score[bad], INT32_MIN);
        a.from[bad] = -1;
        run_answer(on, &c.table, &a);
        run_rows(on, &c.table, &a);
        assert_int_equal(a.fault[2], 1);
        for (int64_t d = 0; d < c.table.cols; d++)
            assert_int_equal(a.w8[bad * c.table.cols + d], 0);
    }
}

static void test_bad_answers(void **state)
{
    (void)state;
    op_on_each(check_bad_answers);
}

// ---- gradients -----------------------------------------------------------------------------------------------------------------

static void check_gradient(const op_backend *on)
{
    op_random random = {414, 0};
    for (int i = 0; i < 40; i++) {
        tv_vq_gradient_args a = {.tokens = op_int(&random, 0, 9), .cols = op_int(&random, 1, 64), .base = -6};
        int64_t items = a.tokens * a.cols;
        a.beta = 0.25f, a.weight = 0.5f;
        int8_t *q = op_int8s(&random, items, -121, 121), *w8 = op_int8s(&random, items, -120, 120);
        float *scale = op_floats(&random, a.tokens, 0.02f), *g = op_floats(&random, items, 1.0f);
        float *row = op_host((size_t)items * 4), *z = op_host((size_t)items * 4), *loss = op_host((size_t)a.tokens * 4);
        op_call call = op_begin(on);
        a.q = op_in(&call, q, (size_t)items), a.w8 = op_in(&call, w8, (size_t)items);
        a.scale = op_in(&call, scale, (size_t)a.tokens * 4), a.g = op_in(&call, g, (size_t)items * 4);
        a.row_grad = op_out(&call, row, (size_t)items * 4), a.z_grad = op_out(&call, z, (size_t)items * 4);
        a.loss = op_out(&call, loss, (size_t)a.tokens * 4);
        op_end(&call, on->backend->vq.gradient(&a, NULL));
        for (int64_t t = 0; t < a.tokens; t++) {
            double sum = 0;
            for (int64_t d = t * a.cols; d < (t + 1) * a.cols; d++) {
                double e = w8[d] / 64.0 - q[d] * (double)scale[t];
                op_near("row gradient", (double)g[d] + 0.25 * e, (double)row[d], 1e-6);
                op_near("query gradient", (double)g[d] - 0.5 * e, (double)z[d], 1e-6);
                sum += e * e;
            }
            op_near("loss", sum, (double)loss[t], 1e-5);
        }
    }
}

static void test_gradient(void **state)
{
    (void)state;
    op_on_each(check_gradient);
}

// The bits of ref, with any outputs left out, and in place.
static void check_gradient_bits(const op_backend *on)
{
    op_random random = {419, 0};
    const op_backend *both[2] = {op_ref(), on};
    for (int i = 0; i < 60; i++) {
        tv_vq_gradient_args a = {.tokens = op_int(&random, 1, 700), .base = op_int(&random, -9, 0)};
        a.cols = i % 3 == 0 ? 64 : i % 3 == 1 ? 4 * op_int(&random, 1, 16) : op_int(&random, 1, 64);
        size_t items = (size_t)(a.tokens * a.cols), tokens = (size_t)a.tokens * 4;
        int8_t *q = op_int8s(&random, a.tokens * a.cols, -121, 121);
        int8_t *w8 = op_int8s(&random, a.tokens * a.cols, -120, 120);
        float *scale = op_floats(&random, a.tokens, 0.02f), *g = op_floats(&random, a.tokens * a.cols, 1.0f);
        float *row[2], *z[2], *loss[2];
        int in_place = i % 2, some = op_int(&random, 0, 7);
        a.beta = 0.3f, a.weight = 0.7f;
        for (int k = 0; k < 2; k++) {
            row[k] = op_host(items * 4), z[k] = op_host_copy(g, items * 4), loss[k] = op_host(tokens);
            op_call call = op_begin(both[k]);
            a.q = op_in(&call, q, items), a.w8 = op_in(&call, w8, items), a.scale = op_in(&call, scale, tokens);
            a.row_grad = some & 1 ? op_out(&call, row[k], items * 4) : NULL;
            a.z_grad = some & 2 ? op_out(&call, z[k], items * 4) : NULL;
            a.loss = some & 4 ? op_out(&call, loss[k], tokens) : NULL;
            a.g = some == 4 ? NULL : in_place && a.z_grad ? a.z_grad : op_in(&call, g, items * 4);
            op_end(&call, both[k]->backend->vq.gradient(&a, NULL));
        }
        op_same("row gradient", on, row[0], row[1], items * 4);
        op_same("query gradient", on, z[0], z[1], items * 4);
        op_same("loss", on, loss[0], loss[1], tokens);
    }
}

static void test_gradient_bits(void **state)
{
    (void)state;
    op_against_ref(check_gradient_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_init), cmocka_unit_test(test_answers),
                                       cmocka_unit_test(test_bad_answers), cmocka_unit_test(test_gradient),
                                       cmocka_unit_test(test_gradient_bits)};
    return op_run("op_vq_table", tests);
}
