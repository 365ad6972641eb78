// Every part's forward, backward and votes against a double-precision forward and its central differences.
#include "model_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/attention.h"
#include "model/codebook.h"
#include "model/embed.h"
#include "model/ffn.h"
#include "model/focus.h"
#include "model/head.h"
#include "model/memgram.h"
#include "model/moe.h"
#include "model/sequencer.h"
#include "model_oracle.h"

// int8 operands round by about 0.5 % of a row's rms each; a part's chain has up to eight of them.
#define FORWARD_TOLERANCE 0.02
#define GRADIENT_TOLERANCE 0.02
#define STEP 1e-5

typedef struct check {
    part_fixture f;
    oracle o;
    oracle_forward *forward; // NULL: the head's loss
    int residual;            // the part adds to the stream
    int plain_weights;       // one scale a tensor
    double *x, *dy;          // [M, D]
    int64_t values;
} check;

static double objective(const check *c)
{
    if (c->forward == NULL) {
        return oracle_head_loss(&c->o, c->x);
    }
    double *y = calloc((size_t)c->values, sizeof *y), sum = 0;
    assert_non_null(y);
    c->forward(&c->o, c->x, y);
    for (int64_t i = 0; i < c->values; i++) {
        sum += c->dy[i] * y[i];
    }
    free(y);
    return sum;
}

static double difference(const check *c, double *at)
{
    double keep = *at;
    *at = keep + STEP;
    double up = objective(c);
    *at = keep - STEP;
    double down = objective(c);
    *at = keep;
    return (up - down) / (2 * STEP);
}

static void take_signs(int8_t *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        values[i] = (int8_t)((values[i] > 0) - (values[i] < 0));
    }
}

// Trits instead of trits times scales that span the window: a row of digits has one scale, and values of a column that is
// 64 times smaller than the others would be rounded away.
static void use_plain_weights(tv_params *params)
{
    for (int64_t i = 0; i < params->count; i++) {
        tv_param *param = &params->items[i];
        int64_t count = param->spec.rows * param->spec.cols;
        if (param->w8 != NULL) {
            take_signs(param->w8, count);
        }
        if (param->w8t != NULL) {
            take_signs(param->w8t, count);
        }
    }
}

static void check_open(check *c, tv_part *part, const tv_config *config, int64_t windows)
{
    int64_t tokens = windows * config->model.context;
    part_fixture_open(&c->f, part, config, tokens);
    if (c->plain_weights) {
        use_plain_weights(&c->f.params);
    }
    c->f.unit.tau = 0; // a plain sign for every weight
    c->o = oracle_new(&c->f.config, &c->f.params, tokens);
    c->o.ids = c->f.ids;
    c->o.targets = c->f.targets;
    c->values = tokens * config->model.width;
    c->x = calloc((size_t)c->values, sizeof(double));
    c->dy = calloc((size_t)c->values, sizeof(double));
    assert_non_null(c->x);
    assert_non_null(c->dy);
    for (int64_t i = 0; i < c->values; i++) {
        c->x[i] = c->f.x[i];
        c->dy[i] = c->f.dx[i];
    }
}

static void check_close(check *c)
{
    free(c->dy);
    free(c->x);
    oracle_free(&c->o);
    part_fixture_close(&c->f);
}

// |got - minus - want| / |want| over the stream's values.
static double relative_error(const check *c, const float *got, const double *minus, const double *want)
{
    double error = 0, size = 0;
    for (int64_t i = 0; i < c->values; i++) {
        double e = got[i] - (minus != NULL ? minus[i] : 0) - want[i];
        error += e * e;
        size += want[i] * want[i];
    }
    assert_true(size > 0);
    return sqrt(error / size);
}

static void check_forward(check *c)
{
    TEST_TRY(c->f.part->ops->forward(c->f.part, &c->f.unit, c->f.x));
    if (c->forward == NULL) {
        double loss = 0;
        tv_head_outputs outputs = tv_head_get_outputs(c->f.part);
        for (int64_t t = 0; t < c->f.unit.tokens; t++) {
            loss += outputs.loss[t];
        }
        double want = oracle_head_loss(&c->o, c->x);
        assert_true(fabs(loss - want) < 0.005 * want);
        return;
    }
    double *want = calloc((size_t)c->values, sizeof *want);
    assert_non_null(want);
    c->forward(&c->o, c->x, want);
    for (int64_t i = 0; c->residual && i < c->values; i++) {
        want[i] -= c->x[i];
    }
    double error = relative_error(c, c->f.x, c->residual ? c->x : NULL, want);
    print_message("%s: forward differs by %.4f\n", c->f.part->name, error);
    assert_true(error < FORWARD_TOLERANCE);
    free(want);
}

static void check_dx(check *c)
{
    double *want = calloc((size_t)c->values, sizeof *want);
    assert_non_null(want);
    for (int64_t i = 0; i < c->values; i++) {
        want[i] = difference(c, &c->x[i]) - (c->residual ? c->dy[i] : 0);
    }
    double error = relative_error(c, c->f.dx, c->residual ? c->dy : NULL, want);
    print_message("%s: dx differs by %.4f\n", c->f.part->name, error);
    assert_true(error < GRADIENT_TOLERANCE);
    free(want);
}

// Votes are the signs of the weights' gradients, wherever these stand clear of the rounding.
static void check_votes(check *c, const tv_param *param, double *weights)
{
    int64_t count = param->spec.rows * param->spec.cols, clear = 0, wrong = 0;
    double *g = calloc((size_t)count, sizeof *g), square = 0;
    assert_non_null(g);
    for (int64_t i = 0; i < count; i++) {
        g[i] = difference(c, &weights[i]);
        square += g[i] * g[i];
    }
    double rms = sqrt(square / (double)count);
    const int8_t *votes = param->votes;
    for (int64_t i = 0; i < count; i++) {
        assert_in_range(votes[i] + 1, 0, 2);
        if (fabs(g[i]) > 0.3 * rms) {
            clear++;
            wrong += votes[i] != (g[i] > 0 ? 1 : -1);
        }
    }
    print_message("%s: %d of %d gradients are clear, %d votes differ\n", param->spec.name, (int)clear, (int)count,
                  (int)wrong);
    assert_true(clear > 50);
    assert_int_equal(wrong, 0);
    free(g);
}

// A dead zone silences votes and changes no other.
static void check_dead_zone(check *c, const float *dy)
{
    const tv_param *param = &c->f.params.items[c->f.params.count - 1];
    int64_t count = param->spec.rows * param->spec.cols, silent = 0;
    int8_t *plain = malloc((size_t)count);
    assert_non_null(plain);
    memcpy(plain, param->votes, (size_t)count);
    TEST_TRY(tv_params_clear_votes(&c->f.params, NULL));
    c->f.unit.tau = 0.5f;
    memcpy(c->f.dx, dy, (size_t)c->values * sizeof *dy);
    TEST_TRY(c->f.part->ops->backward(c->f.part, &c->f.unit, c->f.dx));
    const int8_t *votes = param->votes;
    for (int64_t i = 0; i < count; i++) {
        assert_true(votes[i] == 0 || votes[i] == plain[i]);
        silent += votes[i] == 0;
    }
    assert_in_range(silent, count / 10, count * 9 / 10);
    free(plain);
}

static void check_part(check *c)
{
    float *dy = malloc((size_t)c->values * sizeof *dy);
    assert_non_null(dy);
    memcpy(dy, c->f.dx, (size_t)c->values * sizeof *dy);
    check_forward(c);
    TEST_TRY(c->f.part->ops->backward(c->f.part, &c->f.unit, c->f.dx));
    assert_int_equal(*c->f.fault, 0);
    if (c->forward != oracle_embed) {
        check_dx(c);
    }
    for (int64_t i = 0; i < c->f.params.count; i++) {
        const tv_tensor_spec *spec = &c->f.params.items[i].spec;
        if (!spec->frozen && spec->placement != TV_PLACE_TABLE) {
            check_votes(c, &c->f.params.items[i], c->o.weights[i]);
        } else {
            assert_null(c->f.params.items[i].votes);
        }
    }
    if (c->residual) {
        check_dead_zone(c, dy);
    }
    free(dy);
    check_close(c);
}

static void test_embed(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    tv_part *part = NULL;
    TEST_TRY(tv_embed_create(&part));
    check c = {.forward = oracle_embed};
    check_open(&c, part, &config, 4);
    check_part(&c);
}

static void test_sequencer(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    tv_part *part = NULL;
    TEST_TRY(tv_sequencer_create(&part));
    check c = {.forward = oracle_sequencer, .residual = 1};
    check_open(&c, part, &config, 4);
    check_part(&c);
}

static void attention_with(int64_t latent_kv, int64_t mantissa_bits)
{
    tv_config config = fixture_odd_config();
    config.model.latent_kv = latent_kv;
    config.model.scale_mantissa_bits = mantissa_bits;
    tv_part *part = NULL;
    TEST_TRY(tv_attention_create(1, &part));
    check c = {.forward = oracle_attention, .residual = 1};
    check_open(&c, part, &config, 4);
    check_part(&c);
}

static void test_attention(void **state)
{
    (void)state;
    attention_with(0, 0);
}

static void test_attention_latent(void **state)
{
    (void)state;
    attention_with(12, 0);
}

static void test_attention_mantissa(void **state)
{
    (void)state;
    attention_with(0, 3);
}

static void test_ffn(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    tv_part *part = NULL;
    TEST_TRY(tv_ffn_create(1, &part));
    check c = {.forward = oracle_ffn, .residual = 1};
    check_open(&c, part, &config, 4);
    check_part(&c);
}

// dense: small units run every expert on every token.
static void moe_with(int64_t dense)
{
    tv_config config = fixture_odd_config();
    config.moe.experts = 5;
    config.moe.top_k = 2;
    config.moe.width = 9;
    config.moe.wire_digits = 5;
    config.moe.dense_dispatch_max_tokens = dense ? 128 : 0;
    tv_part *part = NULL;
    TEST_TRY(tv_moe_create(1, &part));
    check c = {.forward = oracle_moe, .residual = 1, .plain_weights = 1};
    check_open(&c, part, &config, 4);
    check_part(&c);
}

static void test_moe(void **state)
{
    (void)state;
    moe_with(0);
}

static void test_moe_dense(void **state)
{
    (void)state;
    moe_with(1);
}

// Without the commitment, which the oracle does not know.
static void test_codebook(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    config.codebook.rows = config.codebook.exact_rows = 11;
    config.codebook.probes = 1;
    config.codebook.width = 13;
    config.codebook.beta = 0;
    config.loss.commitment_weight = 0;
    tv_part *part = NULL;
    TEST_TRY(tv_codebook_create(&part));
    check c = {.forward = oracle_codebook, .residual = 1};
    check_open(&c, part, &config, 4);
    check_part(&c);
}

// Counters of the table's rows move against the gradient, and only those of rows that were looked up.
static void check_row_votes(check *c)
{
    const tv_step_rule rule = {.units = 1, .quorum = 1, .threshold = 64, .eta_q = 8 << 16, .exponent_threshold = 64};
    const tv_param *table = &c->f.params.items[2];
    int64_t count = table->spec.rows * table->spec.cols, clear = 0, still = 0;
    double *g = calloc((size_t)count, sizeof *g), square = 0;
    assert_non_null(g);
    assert_string_equal(table->spec.name, "memgram.struct");
    memset(table->T_accum, 0, (size_t)count);
    for (int64_t i = 0; i < count; i++) {
        g[i] = difference(c, &c->o.weights[2][i]);
        square += g[i] * g[i];
    }
    c->f.unit.rule = &rule;
    TEST_TRY(c->f.part->ops->after_step(c->f.part, &c->f.unit));
    double rms = sqrt(square / (double)count);
    for (int64_t i = 0; i < count; i++) {
        assert_true(table->T_accum[i] == 0 || table->T_accum[i] == 8 || table->T_accum[i] == -8);
        if (g[i] == 0)
            assert_int_equal(table->T_accum[i], 0);
        still += g[i] == 0;
        clear += fabs(g[i]) > 0.3 * rms;
        if (fabs(g[i]) > 0.3 * rms)
            assert_int_equal(table->T_accum[i], g[i] > 0 ? -8 : 8);
    }
    print_message("%s: %d of %d gradients are clear\n", table->spec.name, (int)clear, (int)count);
    assert_true(clear > count / 4 && still > 0 && still < count);
    free(g);
}

static void test_memgram(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    config.memgram =
        (tv_config_memgram){.rows = 53, .orders = {2, 3}, .order_count = 2, .strength = 1, .decay_every = 1000};
    tv_part *part = NULL;
    TEST_TRY(tv_memgram_create(NULL, &part));
    check c = {.forward = oracle_memgram, .residual = 1};
    check_open(&c, part, &config, 4);
    TEST_TRY(part->ops->before_step(part, &c.f.unit));
    check_forward(&c);
    TEST_TRY(part->ops->backward(part, &c.f.unit, c.f.dx));
    assert_int_equal(*c.f.fault, 0);
    check_dx(&c);
    for (int64_t i = 1; i < c.f.params.count; i += 2) // down, up
        check_votes(&c, &c.f.params.items[i], c.o.weights[i]);
    check_row_votes(&c);
    check_close(&c);
}

// Every segment's gradient reaches back to the window's start; segments with each boundary; with a table behind the slow cell, or none.
static void focus_with(int64_t rows)
{
    tv_config config = fixture_odd_config();
    config.model.context = 12;
    config.model.width = 28;
    config.focus = (tv_config_focus){.width = 6, .segment = 3, .bptt = 64, .codebook_rows = rows};
    config.codebook = (tv_config_codebook){.exact_rows = rows, .bucket_rows = 1, .probes = 1, .width = 13};
    tv_part *part = NULL;
    TEST_TRY(tv_focus_create(&part));
    check c = {.forward = oracle_focus, .residual = 1, .plain_weights = 1};
    check_open(&c, part, &config, 4);
    int32_t *ids = c.f.ids;
    ids[0] = ids[17] = ids[25] = 256;
    ids[4] = ids[5] = ids[14] = ids[15] = ids[41] = ids[42] = '\n';
    check_forward(&c);
    TEST_TRY(part->ops->backward(part, &c.f.unit, c.f.dx));
    assert_int_equal(*c.f.fault, 0);
    check_dx(&c);
    for (int64_t i = 0; i < c.f.params.count; i++)
        if (c.f.params.items[i].votes != NULL)
            check_votes(&c, &c.f.params.items[i], c.o.weights[i]);
    check_close(&c);
}

static void test_focus(void **state)
{
    (void)state;
    focus_with(0);
    focus_with(11);
}

static void test_head(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    config.model.head_exponent = -1;
    tv_part *part = NULL;
    TEST_TRY(tv_head_create(&part));
    check c = {.forward = NULL};
    check_open(&c, part, &config, 2);
    check_part(&c);
}

// The first argument, a pattern, picks tests by name.
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_sequencer),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_latent),
        cmocka_unit_test(test_attention_mantissa),
        cmocka_unit_test(test_ffn),
        cmocka_unit_test(test_moe),
        cmocka_unit_test(test_moe_dense),
        cmocka_unit_test(test_codebook),
        cmocka_unit_test(test_memgram),
        cmocka_unit_test(test_focus),
        cmocka_unit_test(test_head),
    };
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
