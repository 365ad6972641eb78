// rotary, attention, attention_backward.
#include <math.h>
#include <stdlib.h>

#include "attention_case.h"
#include "kernels/block_sum.h"

typedef struct rotary_case {
    int64_t tokens, heads, width, context;
    float *cosine, *sine, *x;
} rotary_case;

static rotary_case random_rotary(op_random *random)
{
    rotary_case c = {
        .heads = op_int(random, 0, 5), .width = 2 * op_int(random, 1, 40), .context = op_int(random, 1, 20)};
    c.tokens = c.context * op_int(random, 0, 4);
    int64_t angles = c.context * c.width / 2;
    c.cosine = op_host((size_t)angles * 4);
    c.sine = op_host((size_t)angles * 4);
    for (int64_t i = 0; i < angles; i++) {
        double angle = (double)op_float(random, 3.2f);
        c.cosine[i] = (float)cos(angle);
        c.sine[i] = (float)sin(angle);
    }
    c.x = op_floats(random, c.tokens * c.heads * c.width, 2.0f);
    return c;
}

static float *run_rotary(const op_backend *on, const rotary_case *c, const float *from, int inverse)
{
    size_t bytes = (size_t)(c->tokens * c->heads * c->width) * 4, angle_bytes = (size_t)(c->context * c->width / 2) * 4;
    float *x = op_host_copy(from, bytes);
    op_call call = op_begin(on);
    tv_rotary_args a = {
        .tokens = c->tokens, .heads = c->heads, .width = c->width, .context = c->context, .inverse = inverse};
    a.cos_table = op_in(&call, c->cosine, angle_bytes);
    a.sin_table = op_in(&call, c->sine, angle_bytes);
    a.x = op_out(&call, x, bytes);
    op_end(&call, on->backend->rotary(&a, NULL));
    return x;
}

// Pairs are complex numbers times e^(i angle); the inverse turns them back.
static void check_rotary(const op_backend *on)
{
    op_random random = {81, 0};
    for (int i = 0; i < 30; i += op_stride()) {
        rotary_case c = random_rotary(&random);
        float *y = run_rotary(on, &c, c.x, 0), *back = run_rotary(on, &c, y, 1);
        int64_t half = c.width / 2;
        for (int64_t j = 0; j < c.tokens * c.heads * c.width; j++) {
            int64_t channel = j % c.width, token = j / (c.heads * c.width), pair = channel % half;
            double size = hypot((double)c.x[j - channel + pair], (double)c.x[j - channel + pair + half]);
            double angle = atan2((double)c.x[j - channel + pair + half], (double)c.x[j - channel + pair]);
            int64_t row = token % c.context * half + pair;
            angle += atan2((double)c.sine[row], (double)c.cosine[row]);
            op_near("rotated", channel < half ? size * cos(angle) : size * sin(angle), (double)y[j], 1e-6);
            op_near("turned back", (double)c.x[j], (double)back[j], 2e-6);
        }
    }
}

static void test_rotary(void **state)
{
    (void)state;
    op_on_each(check_rotary);
}

static void check_rotary_bits(const op_backend *on)
{
    op_random random = {82, 0};
    for (int i = 0; i < 100; i += op_stride()) {
        rotary_case c = random_rotary(&random);
        if (i < 2) {
            c.tokens = c.context * (1 + OP_LARGE_ROWS / c.context);
            c.heads = 1 + OP_LARGE_COLS / c.width;
            c.x = op_floats(&random, c.tokens * c.heads * c.width, 2.0f);
        }
        op_same_floats("x", on, run_rotary(op_ref(), &c, c.x, i % 2), run_rotary(on, &c, c.x, i % 2),
                       c.tokens * c.heads * c.width);
    }
}

static void test_rotary_bits(void **state)
{
    (void)state;
    op_against_ref(check_rotary_bits);
}

// Softmax attention in double on plain matrices [M, H, d].
static void exact_attention(const attention_case *c, double *const x[4], double *out)
{
    for (int64_t t = 0; t < c->tokens; t++)
        for (int64_t h = 0; h < c->heads; h++) {
            double total = 0, *o = out + (t * c->heads + h) * c->width;
            for (int64_t d = 0; d < c->width; d++)
                o[d] = 0;
            for (int64_t s = t - t % c->context; s <= t; s++) {
                double score = 0;
                for (int64_t d = 0; d < c->width; d++)
                    score += x[0][(t * c->heads + h) * c->width + d] * x[1][(s * c->heads + h) * c->width + d];
                double weight = exp(score / sqrt((double)c->width));
                total += weight;
                for (int64_t d = 0; d < c->width; d++)
                    o[d] += weight * x[2][(s * c->heads + h) * c->width + d];
            }
            for (int64_t d = 0; d < c->width; d++)
                o[d] /= total;
        }
}

// What one row of weights w[context] of a blocksum may be off by, added to slack[width]: the integers of a block of 32 are off by at most
// half, so a weight by 2^-15 2^e <= 2^-14 of its block's largest, and a weight of 0 by nothing.
static void add_slack(const attention_case *c, int operand, int64_t first, const double *w, double *slack)
{
    for (int64_t block = 0; block < c->context; block += TV_BLOCK_ROWS) {
        int64_t end = block + TV_BLOCK_ROWS < c->context ? block + TV_BLOCK_ROWS : c->context;
        double top = 0;
        for (int64_t j = block; j < end; j++)
            top = fmax(top, fabs(w[j]));
        for (int64_t j = block; j < end; j++)
            for (int64_t d = 0; d < c->width && w[j] != 0; d++)
                slack[d] += ldexp(top, -14) * abs(c->operand[operand][(first + j * c->heads) * c->width + d]);
    }
}

// One window and head in double: p and ds [context, context], 0 where the mask is. `first` is the item of its first token.
typedef struct exact_weights {
    int64_t first;
    double *p, *ds;
} exact_weights;

static double row_dot(const attention_case *c, const double *a, const double *b, int64_t i, int64_t j)
{
    double sum = 0;
    for (int64_t d = 0; d < c->width; d++)
        sum += a[i * c->width + d] * b[j * c->width + d];
    return sum;
}

static exact_weights weights_of(const attention_case *c, double *const x[4], int64_t first)
{
    int64_t n = c->context;
    exact_weights w = {first, op_host((size_t)(n * n) * sizeof(double)), op_host((size_t)(n * n) * sizeof(double))};
    for (int64_t i = 0; i < n; i++) {
        double total = 0, delta = 0, *p = w.p + i * n, *ds = w.ds + i * n;
        int64_t query = first + i * c->heads;
        for (int64_t j = 0; j <= i; j++) {
            p[j] = exp(row_dot(c, x[0], x[1], query, first + j * c->heads) / sqrt((double)c->width));
            total += p[j];
        }
        for (int64_t j = 0; j <= i; j++) {
            p[j] /= total;
            ds[j] = row_dot(c, x[3], x[2], query, first + j * c->heads);
            delta += p[j] * ds[j];
        }
        for (int64_t j = 0; j <= i; j++)
            ds[j] = p[j] * (ds[j] - delta);
    }
    return w;
}

// slack[0..3] [M, H, d]: of out, dq, dk and dv, each from the weights that its blocks have. w holds one row or column of them.
static void slack_of(const attention_case *c, const exact_weights *x, double *w, double *const slack[4])
{
    int64_t n = c->context;
    double inv_sqrt = 1 / sqrt((double)c->width);
    for (int64_t t = 0; t < n; t++) {
        int64_t token = x->first + t * c->heads, row = token * c->width;
        for (int which = 0; which < 4; which++) {
            for (int64_t s = 0; s < n; s++) {
                int64_t other = x->first + s * c->heads;
                w[s] = which == 0   ? x->p[t * n + s] * (double)c->scale[2][other]
                       : which == 1 ? x->ds[t * n + s] * (double)c->scale[1][other] * inv_sqrt
                       : which == 2 ? x->ds[s * n + t] * (double)c->scale[0][other] * inv_sqrt
                                    : x->p[s * n + t] * (double)c->scale[3][other];
            }
            static const int operand[4] = {2, 1, 0, 3};
            add_slack(c, operand[which], x->first, w, slack[which] + row);
        }
    }
}

static double *new_doubles(int64_t count) { return op_host((size_t)count * sizeof(double)); }

// The case in double and what its results may be off by.
typedef struct exact_case {
    double *x[4], *slack[4];
} exact_case;

static exact_case exact_of(const attention_case *c)
{
    int64_t items = c->tokens * c->heads * c->width;
    exact_case exact;
    for (int i = 0; i < 4; i++) {
        exact.x[i] = new_doubles(items);
        for (int64_t j = 0; j < items; j++)
            exact.x[i][j] = c->operand[i][j] * (double)c->scale[i][j / c->width];
        exact.slack[i] = new_doubles(items);
    }
    for (int64_t window = 0; window < c->tokens; window += c->context)
        for (int64_t head = 0; head < c->heads; head++) {
            exact_weights w = weights_of(c, exact.x, window * c->heads + head);
            slack_of(c, &w, new_doubles(c->context), exact.slack);
        }
    return exact;
}

// Within `rounding` of float32, relative and absolute, plus the slack of the blocks.
static void near_blocks(const char *what, double want, float got, double slack, double rounding)
{
    if (!(fabs((double)got - want) <= slack + rounding * (1 + fabs(want))))
        fail_msg("%s: got %.9g, wanted %.9g +- %.3g", what, (double)got, want, slack);
}

static void check_forward(const op_backend *on)
{
    op_random random = {83, 0};
    for (int i = 0; i < 30; i += op_stride()) {
        attention_case c = attention_random(&random, op_int(&random, 1, 3), op_int(&random, 1, 70),
                                            op_int(&random, 1, 3), op_int(&random, 1, 40));
        int64_t items = c.tokens * c.heads * c.width;
        exact_case exact = exact_of(&c);
        double *out = new_doubles(items);
        exact_attention(&c, exact.x, out);
        attention_result got, plain;
        attention_forward(on, &c, 0, &got);
        for (int64_t j = 0; j < items; j++)
            near_blocks("out", out[j], got.out[j], exact.slack[0][j], 1e-5);
        for (int64_t j = 0; j < c.tokens * c.heads; j++) { // norm counts the largest as 1
            assert_true(got.norm[j] >= 1.0f && got.norm[j] <= (float)c.context);
            assert_true(j / c.heads % c.context != 0 || got.norm[j] == 1.0f);
        }
        attention_forward(on, &c, 1, &plain);
        op_same_floats("out in evaluation", on, got.out, plain.out, items);
    }
}

static void test_forward(void **state)
{
    (void)state;
    op_on_each(check_forward);
}

// dq, dk, dv against finite differences of <g, attention(q, k, v)> in double. The first case has two blocks.
static void check_backward(const op_backend *on)
{
    op_random random = {84, 0};
    for (int i = 0; i < 6; i++) {
        attention_case c = i == 0 ? attention_random(&random, 1, 37, 1, 3)
                                  : attention_random(&random, 2, op_int(&random, 1, 7), 2, op_int(&random, 1, 5));
        int64_t items = c.tokens * c.heads * c.width;
        exact_case exact = exact_of(&c);
        double *out = new_doubles(items);
        attention_result got;
        attention_forward(on, &c, 0, &got);
        attention_backward(on, &c, &got);
        const float *gradient[3] = {got.dq, got.dk, got.dv};
        for (int which = 0; which < 3; which++)
            for (int64_t j = 0; j < items; j++) {
                double keep = exact.x[which][j], slope = 0;
                for (int side = -1; side <= 1; side += 2) {
                    exact.x[which][j] = keep + side * 1e-5;
                    exact_attention(&c, exact.x, out);
                    for (int64_t k = 0; k < items; k++)
                        slope += side * out[k] * exact.x[3][k] / 2e-5;
                }
                exact.x[which][j] = keep;
                near_blocks(which == 0   ? "dq"
                            : which == 1 ? "dk"
                                         : "dv",
                            slope, gradient[which][j], exact.slack[which + 1][j], 1e-5);
            }
    }
}

static void test_backward(void **state)
{
    (void)state;
    op_on_each(check_backward);
}

static void check_bits(const op_backend *on)
{
    op_random random = {85, 0};
    for (int i = 0; i < op_edge_count; i += op_stride()) {
        attention_case by_context = attention_random(&random, 1 + i % 2, op_edges[i], 2, 24);
        attention_same(on, &by_context);
        attention_case by_width = attention_random(&random, 2, 19, 1 + i % 3, op_edges[i]);
        attention_same(on, &by_width);
    }
    static const int64_t widths[] = {1, 10, 48, 100};
    for (int i = 0; i < 24; i += op_stride()) { // around whole blocks
        attention_case c = attention_random(&random, 1 + i % 2, 32 * (1 + i / 6) - 1 + i % 3, 1 + i % 3, widths[i % 4]);
        attention_same(on, &c);
    }
    for (int i = 0; i < 10; i += op_stride()) {
        attention_case c = attention_random(&random, op_int(&random, 0, 3), op_int(&random, 1, 150),
                                            op_int(&random, 0, 4), op_int(&random, 1, 80));
        attention_same(on, &c);
    }
}

static void test_bits(void **state)
{
    (void)state;
    op_against_ref(check_bits);
}

// Heads of width 64, which a backend may do in tiles: whole tiles and tails, and a softmax so sharp that weights go down to 0.
static void check_tile_bits(const op_backend *on)
{
    static const int64_t contexts[] = {1, 8, 17, 31, 32, 33, 63, 64, 65, 100, 128, 200, 256, 289, 512};
    op_random random = {86, 0};
    for (int i = (int)(sizeof contexts / sizeof contexts[0]) - 1; i >= 0; i -= op_stride()) {
        int64_t windows = contexts[i] < 200 ? 3 : 1;
        attention_case c = attention_random(&random, windows, contexts[i], 1 + i % 2, 64);
        for (int64_t j = 0; i % 3 == 0 && j < c.tokens * c.heads; j++)
            c.scale[0][j] *= 200.0f;
        attention_same(on, &c);
    }
}

static void test_tile_bits(void **state)
{
    (void)state;
    op_against_ref(check_tile_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rotary),   cmocka_unit_test(test_rotary_bits), cmocka_unit_test(test_forward),
        cmocka_unit_test(test_backward), cmocka_unit_test(test_bits),        cmocka_unit_test(test_tile_bits),
    };
    return op_run("op_attention", tests);
}
