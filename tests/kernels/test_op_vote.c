// gemm_vote and embed_vote.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "op_test.h"

typedef struct vote_case {
    int64_t n, k, tokens;
    int8_t *gt, *gt_lo, *xt;
    int32_t *g_sumsq, *x_sumsq;
    int64_t *g_sumsq2;
    tv_vote_rule rule;
    void *votes; // what they hold before
} vote_case;

static vote_case random_case(op_random *random, int64_t n, int64_t k, int64_t tokens)
{
    vote_case c = {.n = n, .k = k, .tokens = tokens};
    c.gt = op_int8s(random, n * tokens, -127, 127);
    c.gt_lo = op_int(random, 0, 2) == 0 ? op_int8s(random, n * tokens, -63, 63) : NULL;
    c.xt = op_int8s(random, k * tokens, -127, 127);
    c.g_sumsq = op_host((size_t)n * 4);
    c.g_sumsq2 = op_host((size_t)n * 8);
    c.x_sumsq = op_host((size_t)k * 4);
    for (int64_t i = 0; i < n * tokens; i++) {
        int64_t g = c.gt_lo ? 127 * c.gt[i] + c.gt_lo[i] : c.gt[i];
        c.g_sumsq2[i / tokens] += g * g;
        c.g_sumsq[i / tokens] += c.gt[i] * c.gt[i];
    }
    for (int64_t i = 0; i < k * tokens; i++)
        c.x_sumsq[i / tokens] += c.xt[i] * c.xt[i];
    static const int levels[] = {1, 3, 7, 15};
    static const float tau[] = {0.5f, 0.0f, 1.0f, 0.25f};
    c.rule = (tv_vote_rule){.tau = tau[op_int(random, 0, 3)],
                            .levels = levels[op_int(random, 0, 3)],
                            .vote_bits = op_int(random, 0, 1) ? 8 : 16,
                            .seed = op_next(random),
                            .tensor_id = op_next(random),
                            .step = op_next(random),
                            .unit = (uint32_t)op_int(random, 0, 4000)};
    int8_t *start = op_int8s(random, n * k, -100, 100);
    c.votes = op_host((size_t)(n * k) * 2);
    for (int64_t i = 0; i < n * k; i++)
        if (c.rule.vote_bits == 8)
            ((int8_t *)c.votes)[i] = start[i];
        else
            ((int16_t *)c.votes)[i] = (int16_t)(start[i] * 100);
    return c;
}

static void *run(const op_backend *on, const vote_case *c)
{
    size_t vote_bytes = (size_t)(c->n * c->k) * (size_t)(c->rule.vote_bits / 8);
    void *votes = op_host_copy(c->votes, vote_bytes);
    op_call call = op_begin(on);
    tv_gemm_vote_args a = {.n = c->n, .k = c->k, .tokens = c->tokens, .rule = c->rule};
    a.gt = op_in(&call, c->gt, (size_t)(c->n * c->tokens));
    a.gt_lo = op_in(&call, c->gt_lo, (size_t)(c->n * c->tokens));
    a.xt = op_in(&call, c->xt, (size_t)(c->k * c->tokens));
    a.g_sumsq = op_in(&call, c->gt_lo ? NULL : c->g_sumsq, (size_t)c->n * 4);
    a.g_sumsq2 = op_in(&call, c->gt_lo ? c->g_sumsq2 : NULL, (size_t)c->n * 8);
    a.x_sumsq = op_in(&call, c->x_sumsq, (size_t)c->k * 4);
    a.votes = op_out(&call, votes, vote_bytes);
    op_end(&call, on->backend->gemm_vote(&a, NULL));
    return votes;
}

static int vote_at(const void *votes, int bits, int64_t i)
{
    return bits == 8 ? ((const int8_t *)votes)[i] : ((const int16_t *)votes)[i];
}

// The vote that a z-score in double asks for; NAN near a border, where roundings of the formula may decide.
static double wanted_vote(const tv_vote_rule *rule, double sum, double deviation, uint32_t r16)
{
    double z = deviation > 0 ? sum / deviation : 0;
    if (rule->levels == 1) {
        if (sum != 0 && fabs(fabs(z) - (double)rule->tau) < 1e-5)
            return NAN;
        return fabs(z) > (double)rule->tau ? (z > 0) - (z < 0) : 0;
    }
    double shifted = z + r16 / 65536.0;
    if (z != 0 && fabs(shifted - nearbyint(shifted)) < 1e-4)
        return NAN;
    return fmax(-rule->levels, fmin(rule->levels, floor(shifted)));
}

static uint32_t level_draw(const tv_vote_rule *rule, int64_t element)
{
    tv_rng_key key = {rule->seed, 5 + 256 * rule->unit, rule->tensor_id, rule->step};
    return tv_rng16(key, (uint64_t)element);
}

static void check_oracle(const op_backend *on)
{
    op_random random = {51, 0};
    int64_t judged = 0, all = 0;
    for (int i = 0; i < 40; i += op_stride()) {
        vote_case c = random_case(&random, op_int(&random, 1, 20), op_int(&random, 1, 20), op_int(&random, 1, 300));
        void *votes = run(on, &c);
        for (int64_t n = 0; n < c.n; n++)
            for (int64_t k = 0; k < c.k; k++) {
                double sum = 0, g2 = 0, x2 = 0;
                for (int64_t t = 0; t < c.tokens; t++) {
                    double g = c.gt[n * c.tokens + t], x = c.xt[k * c.tokens + t];
                    if (c.gt_lo)
                        g = 127 * g + c.gt_lo[n * c.tokens + t];
                    sum += g * x, g2 += g * g, x2 += x * x;
                }
                int64_t e = n * c.k + k;
                double want = wanted_vote(&c.rule, sum, sqrt(g2 * x2 / (double)c.tokens), level_draw(&c.rule, e));
                int bits = c.rule.vote_bits, got = vote_at(votes, bits, e) - vote_at(c.votes, bits, e);
                all++;
                judged += !isnan(want);
                assert_true(isnan(want) || got == want);
            }
    }
    assert_true(judged > all * 9 / 10);
}

static void test_oracle(void **state)
{
    (void)state;
    op_on_each(check_oracle);
}

// Independent random data: z-scores have variance 1, so a threshold of 0.5 lets about 62 % vote, half of them up.
static void check_scores(const op_backend *on)
{
    op_random random = {52, 0};
    vote_case c = random_case(&random, 120, 120, 256);
    c.gt_lo = NULL;
    c.rule.levels = 1;
    c.rule.tau = 0.5f;
    void *votes = run(on, &c);
    int up = 0, down = 0;
    for (int64_t i = 0; i < c.n * c.k; i++) {
        int vote = vote_at(votes, c.rule.vote_bits, i) - vote_at(c.votes, c.rule.vote_bits, i);
        up += vote == 1;
        down += vote == -1;
    }
    assert_true(fabs(up / 14400.0 - 0.3085) < 0.015); // P(z > 0.5) of a normal variable
    assert_true(fabs(down / 14400.0 - 0.3085) < 0.015);
}

static void test_scores(void **state)
{
    (void)state;
    op_on_each(check_scores);
}

// The mean of level votes over many units is the z-score itself.
static void check_unbiased(const op_backend *on)
{
    op_random random = {53, 0};
    vote_case c = random_case(&random, 3, 4, 40);
    c.gt_lo = NULL;
    c.rule.levels = 7;
    double total[12] = {0};
    int units = 3000 / (op_stride() * op_stride());
    for (int unit = 0; unit < units; unit++) {
        c.rule.unit = (uint32_t)unit;
        void *votes = run(on, &c);
        for (int64_t e = 0; e < 12; e++)
            total[e] += vote_at(votes, c.rule.vote_bits, e) - vote_at(c.votes, c.rule.vote_bits, e);
    }
    for (int64_t e = 0; e < 12; e++) {
        double sum = 0;
        for (int64_t t = 0; t < 40; t++)
            sum += (double)c.gt[e / 4 * 40 + t] * c.xt[e % 4 * 40 + t];
        double z = sum / sqrt((double)c.g_sumsq[e / 4] * c.x_sumsq[e % 4] / 40);
        assert_true(fabs(z) < 6);
        assert_true(fabs(total[e] / units - z) < 0.05 * op_stride()); // five standard deviations of a coin's mean
    }
    op_host_free();
}

static void test_unbiased(void **state)
{
    (void)state;
    op_on_each(check_unbiased);
}

static void same(const op_backend *on, const vote_case *c)
{
    size_t bytes = (size_t)(c->n * c->k) * (size_t)(c->rule.vote_bits / 8);
    void *want = run(op_ref(), c), *got = run(on, c);
    op_same("votes", on, want, got, bytes);
    op_same("votes of a second run", on, got, run(on, c), bytes);
}

static void check_bits(const op_backend *on)
{
    op_random random = {54, 0};
    for (int i = 0; i < 3 * op_edge_count + 50; i += op_stride()) {
        int64_t size[3] = {op_size(&random), op_size(&random), op_size(&random)};
        if (i < 3 * op_edge_count) {
            size[0] = 17, size[1] = 35, size[2] = 66;
            size[i / op_edge_count] = op_edges[i % op_edge_count];
        } else if (i < 3 * op_edge_count + 2) {
            size[0] = 263, size[1] = 300, size[2] = 517;
        } else if (i % 2 == 0) {
            size[2] = 16 * (1 + size[2] / 4); // rows of whole 16-byte pieces have a path of their own on some backends
        }
        vote_case c = random_case(&random, size[0], size[1], size[2]);
        same(on, &c);
    }
}

static void test_bits(void **state)
{
    (void)state;
    op_against_ref(check_bits);
}

// What a GPU does otherwise: few tiles and many tokens (cut along the tokens), and more tiles than multiprocessors.
static void check_turns(const op_backend *on)
{
    op_random random = {57, 0};
    static const int64_t size[6][3] = {{130, 136, 8208}, {3, 20, 16384},  {264, 128, 5000},
                                       {600, 520, 2064}, {70, 301, 4096}, {2200, 1032, 144}};
    for (int i = 0; i < 24 && !on->backend->host_memory; i += op_stride()) {
        vote_case c = random_case(&random, size[i % 6][0], size[i % 6][1], size[i % 6][2]);
        c.gt_lo = i / 6 % 2 ? op_int8s(&random, c.n * c.tokens, -63, 63) : NULL;
        c.rule.levels = i < 12 ? 1 : c.rule.levels;
        same(on, &c);
        op_host_free();
    }
}

static void test_turns(void **state)
{
    (void)state;
    op_against_ref(check_turns);
}

typedef struct embed_case {
    int64_t tokens, width, table;
    int32_t *ids;
    int8_t *gt, *votes;
    tv_vote_rule rule;
} embed_case;

static embed_case random_embed(op_random *random, int64_t tokens, int64_t width, int64_t table)
{
    embed_case c = {.tokens = tokens, .width = width, .table = table};
    c.ids = op_host((size_t)tokens * 4);
    for (int64_t t = 0; t < tokens; t++)
        c.ids[t] = op_int(random, 0, (int)table - 1);
    c.gt = op_int8s(random, width * tokens, -127, 127);
    c.votes = op_int8s(random, table * width * 2, -100, 100);
    vote_case other = random_case(random, 1, 1, 1);
    c.rule = other.rule;
    return c;
}

static void *run_embed(const op_backend *on, const embed_case *c)
{
    size_t bytes = (size_t)(c->table * c->width) * (size_t)(c->rule.vote_bits / 8);
    void *votes = op_host_copy(c->votes, bytes);
    op_call call = op_begin(on);
    tv_embed_vote_args a = {.tokens = c->tokens, .width = c->width, .table = c->table, .rule = c->rule};
    a.ids = op_in(&call, c->ids, (size_t)c->tokens * 4);
    a.gt = op_in(&call, c->gt, (size_t)(c->tokens * c->width));
    a.votes = op_out(&call, votes, bytes);
    op_end(&call, on->backend->embed_vote(&a, NULL));
    return votes;
}

static void check_embed(const op_backend *on)
{
    op_random random = {55, 0};
    for (int i = 0; i < 40; i += op_stride()) {
        embed_case c = random_embed(&random, op_int(&random, 1, 200), op_int(&random, 1, 20), op_int(&random, 1, 30));
        void *votes = run_embed(on, &c);
        int bits = c.rule.vote_bits;
        for (int64_t e = 0; e < c.table * c.width; e++) {
            double sum = 0, squares = 0;
            for (int64_t t = 0; t < c.tokens; t++)
                if (c.ids[t] == e / c.width) {
                    double g = c.gt[e % c.width * c.tokens + t];
                    sum += g, squares += g * g;
                }
            double want = wanted_vote(&c.rule, sum, sqrt(squares), level_draw(&c.rule, e));
            int got = vote_at(votes, bits, e) - vote_at(c.votes, bits, e);
            assert_true(isnan(want) || got == want);
        }
    }
}

static void test_embed(void **state)
{
    (void)state;
    op_on_each(check_embed);
}

static void check_embed_bits(const op_backend *on)
{
    op_random random = {56, 0};
    for (int i = 0; i < 60; i += op_stride()) {
        int64_t tokens = i < 2 ? 2 * OP_LARGE_COLS : op_size(&random), width = i < 2 ? OP_LARGE_ROWS : op_size(&random);
        embed_case c = random_embed(&random, tokens, width, op_int(&random, 1, 264));
        size_t bytes = (size_t)(c.table * c.width) * (size_t)(c.rule.vote_bits / 8);
        op_same("votes", on, run_embed(op_ref(), &c), run_embed(on, &c), bytes);
    }
}

static void test_embed_bits(void **state)
{
    (void)state;
    op_against_ref(check_embed_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oracle),     cmocka_unit_test(test_scores), cmocka_unit_test(test_unbiased),
        cmocka_unit_test(test_bits),       cmocka_unit_test(test_turns),  cmocka_unit_test(test_embed),
        cmocka_unit_test(test_embed_bits),
    };
    return op_run("op_vote", tests);
}
