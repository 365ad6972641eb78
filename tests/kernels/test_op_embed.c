// embed, trigram, trigram_backward.
#include <math.h>
#include <string.h>

#include "op_test.h"

static float *run_embed(const op_backend *on, tv_embed_args in, int64_t table)
{
    float *x = op_host((size_t)(in.tokens * in.width) * sizeof *x);
    op_call call = op_begin(on);
    tv_embed_args a = in;
    a.ids = op_in(&call, in.ids, (size_t)in.tokens * 4);
    a.w8 = op_in(&call, in.w8, (size_t)(table * in.width));
    a.x = op_out(&call, x, (size_t)(in.tokens * in.width) * sizeof *x);
    op_end(&call, on->backend->embed(&a, NULL));
    return x;
}

static void check_embed(const op_backend *on)
{
    op_random random = {61, 0};
    for (int i = 0; i < 60; i += op_stride()) {
        tv_embed_args in = {
            .tokens = op_size(&random), .width = op_size(&random), .exponent = op_int(&random, -30, 30)};
        if (i == 0)
            in.tokens = OP_LARGE_ROWS, in.width = OP_LARGE_COLS;
        int32_t *ids = op_host((size_t)in.tokens * 4);
        for (int64_t t = 0; t < in.tokens; t++)
            ids[t] = op_int(&random, 0, 263);
        in.ids = ids;
        in.w8 = op_int8s(&random, 264 * in.width, -120, 120);
        float *x = run_embed(on, in, 264);
        for (int64_t j = 0; j < in.tokens * in.width; j++)
            assert_true((double)x[j] == ldexp(in.w8[ids[j / in.width] * in.width + j % in.width], in.exponent));
        op_same_floats("x", on, run_embed(op_ref(), in, 264), x, in.tokens * in.width);
    }
}

static void test_embed(void **state)
{
    (void)state;
    op_on_each(check_embed);
}

// `start` is what `out` holds before; sizes by direction.
static float *run_trigram(const op_backend *on, int backward, tv_trigram_args in, const float *start)
{
    int64_t in_count = in.tokens * in.channels * (backward ? 3 : 1),
            out_count = in.tokens * in.channels * (backward ? 1 : 3);
    float *out = op_host_copy(start, (size_t)out_count * sizeof *out);
    op_call call = op_begin(on);
    tv_trigram_args a = in;
    a.in = op_in(&call, in.in, (size_t)in_count * sizeof *out);
    a.out = op_out(&call, out, (size_t)out_count * sizeof *out);
    op_end(&call, backward ? on->backend->trigram_backward(&a, NULL) : on->backend->trigram(&a, NULL));
    return out;
}

static void check_trigram(const op_backend *on)
{
    op_random random = {62, 0};
    for (int i = 0; i < 40; i += op_stride()) {
        int64_t context = op_int(&random, 1, 9), windows = op_int(&random, 0, 4), channels = op_int(&random, 1, 40);
        int64_t tokens = context * windows;
        tv_trigram_args in = {tokens, channels, context, op_floats(&random, tokens * channels, 1.0f), NULL};
        float *dirty = op_floats(&random, tokens * channels * 3, 1.0f), *y = run_trigram(on, 0, in, dirty);
        for (int64_t j = 0; j < tokens * 3 * channels; j++) { // y item -> token, part, channel
            int64_t t = j / (3 * channels), part = j / channels % 3, from = t - 2 + part;
            float want = from >= t - t % context ? in.in[from * channels + j % channels] : 0.0f;
            assert_memory_equal(&want, &y[j], sizeof want);
        }
        // The backward is the transpose: <dy, forward(x)> = <backward(dy), x>.
        tv_trigram_args back = {tokens, channels, context, op_floats(&random, tokens * channels * 3, 1.0f), NULL};
        float *zero = op_host((size_t)(tokens * channels) * sizeof *zero), *dx = run_trigram(on, 1, back, zero);
        double left = 0, right = 0;
        for (int64_t j = 0; j < tokens * 3 * channels; j++)
            left += (double)back.in[j] * (double)y[j];
        for (int64_t j = 0; j < tokens * channels; j++)
            right += (double)dx[j] * (double)in.in[j];
        op_near("transpose", left, right, 1e-5);
    }
}

static void test_trigram(void **state)
{
    (void)state;
    op_on_each(check_trigram);
}

// The order of the three terms, on values where it shows, and accumulation into what is there.
static void check_order(const op_backend *on)
{
    float dy[9] = {0, 0, 1.0f, /* t + 1 */ 0, 0x1p30f, 0, /* t + 2 */ -0x1p30f, 0, 0}, start[3] = {8, 16, 32};
    tv_trigram_args in = {3, 1, 3, dy, NULL};
    float *dx = run_trigram(on, 1, in, start);
    assert_true(dx[0] == 8.0f); // (1 + 2^30) - 2^30 loses the 1
    assert_true(dx[1] == 16.0f && dx[2] == 32.0f);
}

static void test_order(void **state)
{
    (void)state;
    op_on_each(check_order);
}

static void check_trigram_bits(const op_backend *on)
{
    op_random random = {63, 0};
    for (int i = 0; i < 60; i += op_stride()) {
        int64_t context = op_int(&random, 1, 40), tokens = context * op_int(&random, 0, 6), channels = op_size(&random);
        if (i == 0)
            tokens = context * OP_LARGE_ROWS, channels = 65;
        for (int backward = 0; backward < 2; backward++) {
            float *x = op_floats(&random, tokens * channels * 3, 1.0f),
                  *start = op_floats(&random, tokens * channels * 3, 1.0f);
            tv_trigram_args in = {tokens, channels, context, x, NULL};
            op_same_floats(backward ? "dx" : "y", on, run_trigram(op_ref(), backward, in, start),
                           run_trigram(on, backward, in, start), tokens * channels * (backward ? 1 : 3));
        }
    }
}

static void test_trigram_bits(void **state)
{
    (void)state;
    op_against_ref(check_trigram_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_embed), cmocka_unit_test(test_trigram),
                                       cmocka_unit_test(test_order), cmocka_unit_test(test_trigram_bits)};
    return op_run("op_embed", tests);
}
