// Every update rule walks downhill: a tiny model learns a fixed batch by votes and ballots alone.
#include "model_fixture.h"

#include <math.h>
#include <string.h>

enum { WINDOWS = 32, CONTEXT = 16, TOKENS = WINDOWS * CONTEXT, STEPS = 120 };

static const char text[] = "the cat sat on the mat and the dog lay by the door; a bird sang in the tree while the rain "
                           "fell on the roof of the old "
                           "house. in the morning the sun rose over the hills and the cat went out to see the bird. "
                           "the dog slept on. nobody came to "
                           "the house that day, and nobody left it. in the evening the rain came back, the cat sat on "
                           "the mat, and the dog lay by the "
                           "door. so it was on the next day, and on the day after that, until the man came home from "
                           "the sea with a fish for the cat "
                           "and a bone for the dog.";
_Static_assert(sizeof text > (WINDOWS - 1) * 13 + CONTEXT + 1, "windows start 13 bytes apart");

static tv_config tiny_config(void)
{
    tv_config config;
    memset(&config, 0, sizeof config);
    config.model = (tv_config_model){.width = 32,
                                     .blocks = 1,
                                     .heads = 2,
                                     .context = CONTEXT,
                                     .ffn = 48,
                                     .sequencer = 1,
                                     .scale_type = TV_T32,
                                     .rope_base = 10000.0};
    config.loss.cross_entropy_weight = 1;
    return config;
}

static double mean_loss(const fixture *f)
{
    double sum = 0;
    for (int w = 0; w < WINDOWS; w++) {
        sum += f->model.window_loss[w];
    }
    return sum / TOKENS;
}

// The smallest theta that lets at most `most` of the movable counters be larger.
static int budget_theta(const fixture *f, const tv_ballot_args *like, int theta_min, double most)
{
    int64_t histogram[256] = {0};
    tv_ballot_args args = *like;
    args.histogram = histogram;
    TEST_TRY(f->backend->ballot_histogram(&args, NULL));
    int64_t above = 0;
    int theta = 255;
    while (theta > theta_min && (double)(above + histogram[theta]) <= most) {
        above += histogram[theta--];
    }
    return theta;
}

typedef struct update {
    tv_rule rule;
    uint32_t step, eta_q, eta_e_q;
    int classic_step;
    double rho;
} update;

static void apply(const fixture *f, const tv_param *param, const update *u, int64_t *flips)
{
    int64_t stats[2] = {0}, moved = 0;
    tv_ballot_args t = {.rows = param->spec.rows,
                        .cols = param->spec.cols,
                        .T = param->T,
                        .T_accum = param->T_accum,
                        .votes = param->votes,
                        .vote_bits = 8,
                        .rule = u->rule,
                        .combine = TV_COMBINE_MAJORITY,
                        .units = 1,
                        .quorum = 1,
                        .threshold = u->rule == TV_RULE_CLASSIC ? 3 : 64,
                        .eta_q = u->eta_q,
                        .classic_step = u->classic_step,
                        .cut = -1,
                        .seed = f->unit.seed,
                        .tensor_id = param->id,
                        .step = u->step,
                        .stats = stats};
    tv_ballot_e_args e = {.rows = param->spec.rows,
                          .cols = param->spec.cols,
                          .group = param->group,
                          .base = param->base,
                          .mantissa_bits = param->mantissa_bits,
                          .T = param->T,
                          .E = param->E,
                          .E_accum = param->E_accum,
                          .votes = param->votes,
                          .vote_bits = 8,
                          .eta_e_q = u->eta_e_q,
                          .threshold = 8,
                          .seed = f->unit.seed,
                          .tensor_id = param->id,
                          .step = u->step,
                          .stats = &moved};
    if (u->rule == TV_RULE_CLASSIC) {
        TEST_TRY(f->backend->ballot_e(&e, NULL));
    }
    if (u->rule == TV_RULE_BUDGET) {
        t.theta_min = 1;
        t.theta = budget_theta(f, &t, t.theta_min, u->rho * (double)(t.rows * t.cols));
    }
    TEST_TRY(f->backend->ballot(&t, NULL));
    if (u->rule != TV_RULE_CLASSIC) {
        TEST_TRY(f->backend->ballot_e(&e, NULL));
    }
    *flips += stats[0];
}

// `direction` -1 turns every vote round.
static void train_step(fixture *f, const update *u, int direction, int64_t *flips)
{
    f->unit.step = u->step;
    TEST_TRY(tv_params_clear_votes(&f->model.params, NULL));
    TEST_TRY(tv_model_forward(&f->model, &f->unit));
    TEST_TRY(tv_model_backward(&f->model, &f->unit));
    for (int64_t i = 0; i < f->model.params.count; i++) {
        const tv_param *param = &f->model.params.items[i];
        if (param->votes == NULL) {
            continue;
        }
        int8_t *votes = param->votes;
        for (int64_t j = 0; j < param->spec.rows * param->spec.cols; j++) {
            votes[j] = (int8_t)(direction * votes[j]);
        }
        apply(f, param, u, flips);
    }
    TEST_TRY(tv_params_decode(&f->model.params, 0, NULL));
}

// Loss on the batch before and after STEPS steps.
static void train(tv_rule rule, int direction, double *first, double *last)
{
    fixture f;
    tv_config config = tiny_config();
    fixture_open(&f, fixture_backend("ref"), &config, TOKENS, 1);
    for (int i = 0; i < TOKENS; i++) {
        f.ids[i] = (unsigned char)text[i % CONTEXT + i / CONTEXT * 13];
        f.targets[i] = (unsigned char)text[i % CONTEXT + i / CONTEXT * 13 + 1];
    }
    if (rule == TV_RULE_CLASSIC) {
        TEST_TRY(tv_params_initialise(&f.model.params, f.unit.seed, 3));
    }
    if (rule == TV_RULE_BUDGET) {
        f.unit.levels = 7; // small units want levels
    }
    TEST_TRY(tv_model_forward(&f.model, &f.unit));
    *first = mean_loss(&f);
    int64_t flips = 0;
    for (uint32_t step = 0; step < STEPS; step++) {
        double fraction = 1.0 - (double)step / STEPS;
        update u = {.rule = rule, .step = step, .classic_step = 1, .rho = 0.03 * fraction};
        u.eta_q = (uint32_t)(65536 * 16 * fraction);
        u.eta_e_q = 1311; // 0.02
        train_step(&f, &u, direction, &flips);
    }
    TEST_TRY(tv_model_forward(&f.model, &f.unit));
    *last = mean_loss(&f);
    print_message("rule %d, direction %+d: loss %.3f -> %.3f, %lld flips\n", (int)rule, direction, *first, *last,
                  (long long)flips);
    assert_int_equal(*f.fault, 0);
    assert_true(isfinite(*last) && flips > 0);
    fixture_close(&f);
}

static void test_restart(void **state)
{
    (void)state;
    double first, last;
    train(TV_RULE_RESTART, 1, &first, &last);
    assert_true(first > 5 && first < 7 && last < 1.0);
}

static void test_budget(void **state)
{
    (void)state;
    double first, last;
    train(TV_RULE_BUDGET, 1, &first, &last);
    assert_true(first > 5 && first < 7 && last < 1.0);
}

static void test_classic(void **state)
{
    (void)state;
    double first, last;
    train(TV_RULE_CLASSIC, 1, &first, &last);
    assert_true(first > 5 && first < 7 && last < 1.0);
}

// The same votes turned round climb: the fall above is the sign's doing.
static void test_wrong_sign(void **state)
{
    (void)state;
    double first, last;
    train(TV_RULE_RESTART, -1, &first, &last);
    assert_true(last > first + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_restart), cmocka_unit_test(test_budget),
                                       cmocka_unit_test(test_classic), cmocka_unit_test(test_wrong_sign)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
