// The whole model: same bits on every backend, causal, no window sees another, planned sizes.
#include "model_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOWS = 5, CONTEXT = 7, TOKENS = WINDOWS * CONTEXT };

static const size_t logits_bytes = (size_t)TOKENS * TV_VOCAB * sizeof(float);

// The same bytes in the memories of two models.
static void assert_same(const fixture *a, const void *in_a, const fixture *b, const void *in_b, size_t bytes)
{
    void *first = fixture_copy(a->backend, in_a, bytes), *second = fixture_copy(b->backend, in_b, bytes);
    assert_memory_equal(first, second, bytes);
    free(first);
    free(second);
}

static size_t vote_bytes(const tv_param *param) { return (size_t)(param->spec.rows * param->spec.cols); }

static void compare_votes(const fixture *a, const fixture *b)
{
    const tv_params *params = &a->model.params;
    for (int64_t i = 0; i < params->count; i++) {
        const tv_param *param = &params->items[i];
        if (param->votes == NULL)
            continue;
        void *first = fixture_copy(a->backend, param->votes, vote_bytes(param));
        void *second = fixture_copy(b->backend, b->model.params.items[i].votes, vote_bytes(param));
        if (memcmp(first, second, vote_bytes(param)) != 0)
            fail_msg("votes of '%s' differ", param->spec.name);
        free(first);
        free(second);
    }
}

static int64_t count_votes(const fixture *f)
{
    const tv_params *params = &f->model.params;
    int64_t votes = 0;
    for (int64_t i = 0; i < params->count; i++) {
        const tv_param *param = &params->items[i];
        if (param->votes == NULL)
            continue;
        int8_t *v = fixture_copy(f->backend, param->votes, vote_bytes(param));
        for (size_t j = 0; j < vote_bytes(param); j++)
            votes += v[j] != 0;
        free(v);
    }
    return votes;
}

static int32_t fault_of(const fixture *f)
{
    int32_t fault;
    TEST_TRY(f->backend->copy(&fault, f->fault, sizeof fault, TV_COPY_TO_HOST, NULL));
    return fault;
}

// The backend to compare with ref: TV_TEST_BACKEND's, else cpu.
static const char *other_name(void)
{
    const char *name = getenv("TV_TEST_BACKEND");
    return name != NULL && name[0] != '\0' ? name : "cpu";
}

// Two units of votes on ref and on the other backend: logits, losses, gradients and votes in the same bits.
static void backends_agree(const tv_config *config, int64_t windows, int levels)
{
    const tv_backend *other = fixture_backend(other_name());
    int64_t tokens = windows * config->model.context;
    size_t logit_bytes = (size_t)(tokens * TV_VOCAB) * sizeof(float);
    fixture a, b;
    fixture_open(&a, fixture_backend("ref"), config, tokens, 1);
    fixture_open(&b, other, config, tokens, 1);
    a.unit.levels = b.unit.levels = levels;
    for (uint32_t unit = 0; unit < 2; unit++) {
        a.unit.index = b.unit.index = unit;
        TEST_TRY(tv_model_forward(&a.model, &a.unit));
        TEST_TRY(tv_model_forward(&b.model, &b.unit));
        assert_same(&a, a.model.logits, &b, b.model.logits, logit_bytes);
        assert_same(&a, a.model.loss, &b, b.model.loss, (size_t)tokens * sizeof(float));
        assert_same(&a, a.model.window_loss, &b, b.model.window_loss, (size_t)windows * sizeof(float));
        TEST_TRY(tv_model_backward(&a.model, &a.unit));
        TEST_TRY(tv_model_backward(&b.model, &b.unit));
        assert_same(&a, a.model.logits, &b, b.model.logits, logit_bytes);
        assert_same(&a, a.model.dx, &b, b.model.dx, (size_t)(tokens * config->model.width) * sizeof(float));
        compare_votes(&a, &b);
    }
    assert_true(count_votes(&a) > 1000);
    assert_true(fault_of(&a) == 0 && fault_of(&b) == 0);
    fixture_close(&b);
    fixture_close(&a);
    other->close();
}

static void test_backends(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    backends_agree(&config, WINDOWS, 1);
    backends_agree(&config, WINDOWS, 7);
}

static void test_backends_latent(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    config.model.latent_kv = 11;
    config.model.scale_mantissa_bits = 2;
    config.model.head_exponent = -2;
    backends_agree(&config, WINDOWS, 1);
}

// Tables of n-grams; codes: with motifs behind them.
static tv_config memgram_config(int codes)
{
    tv_config config = fixture_odd_config();
    config.memgram =
        (tv_config_memgram){.rows = 301, .orders = {2, 3, 5}, .order_count = 3, .strength = codes, .decay_every = 1000};
    if (codes) {
        config.train.units = 2;
        config.codebook = (tv_config_codebook){
            .rows = 90, .width = 30, .bucket_rows = 10, .exact_rows = 20, .probes = 2, .usage_halving = 1000};
    }
    return config;
}

// Windows of 7 in segments of 2: the last one is shorter. rows: of a table that names the slow cell's state, or 0.
static tv_config focus_config(int rows)
{
    tv_config config = fixture_odd_config();
    config.focus = (tv_config_focus){.width = 9, .segment = 2, .bptt = 64, .codebook_rows = rows};
    config.train.units = 2;
    config.codebook =
        (tv_config_codebook){.width = 30, .bucket_rows = 10, .exact_rows = 20, .probes = 2, .usage_halving = 1000};
    return config;
}

static void test_focus_backends(void **state)
{
    (void)state;
    tv_config config = focus_config(0);
    for (config.focus.bptt = 1; config.focus.bptt < 5; config.focus.bptt++)
        backends_agree(&config, WINDOWS, config.focus.bptt % 2 ? 1 : 7);
    config = focus_config(30);
    backends_agree(&config, WINDOWS, 1);
}

static void test_backends_memgram(void **state)
{
    (void)state;
    for (int codes = 0; codes < 2; codes++) {
        tv_config config = memgram_config(codes);
        backends_agree(&config, WINDOWS, 1);
        backends_agree(&config, WINDOWS, 7);
    }
}

// A graph of motifs that is still without edges.
static tv_config graph_config(void)
{
    tv_config config = memgram_config(1);
    config.graph = (tv_config_graph){
        .hops = 2, .width = 30, .edges_per_node = 3, .max_edges = 300, .lora_rank = 5, .decay_every = 1000};
    return config;
}

static void test_backends_graph(void **state)
{
    (void)state;
    const tv_backend *other = fixture_backend(other_name());
    int has_graph = other->graph.hop != NULL;
    other->close();
    tv_config config = graph_config();
    if (has_graph)
        backends_agree(&config, WINDOWS, 1);
}

// Sizes past the tiles and vectors of a fast backend.
static void test_backends_larger(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    config.model.width = 96;
    config.model.heads = 3;
    config.model.ffn = 130;
    config.model.context = 45;
    config.model.blocks = 1;
    config.model.scale_type = TV_T32;
    backends_agree(&config, 3, 1);
}

static float *copy_logits(const fixture *f)
{
    float *copy = malloc(logits_bytes);
    assert_non_null(copy);
    memcpy(copy, f->model.logits, logits_bytes);
    return copy;
}

// Changing one byte moves no logit before it and none of another window, and does move its own.
static void check_causal(const tv_config *config)
{
    fixture f;
    fixture_open(&f, fixture_backend("ref"), config, TOKENS, 0);
    TEST_TRY(tv_model_forward(&f.model, &f.unit));
    float *before = copy_logits(&f);
    for (int64_t changed = 0; changed < TOKENS; changed += 3) {
        int32_t keep = f.ids[changed];
        f.ids[changed] = (keep + 101) % 256;
        TEST_TRY(tv_model_forward(&f.model, &f.unit));
        int64_t window_end = (changed / CONTEXT + 1) * CONTEXT;
        for (int64_t t = 0; t < TOKENS; t++) {
            int same = memcmp(before + t * TV_VOCAB, f.model.logits + t * TV_VOCAB, TV_VOCAB * sizeof(float)) == 0;
            assert_int_equal(same, t < changed || t >= window_end); // attention sees every earlier byte of its window
        }
        f.ids[changed] = keep;
    }
    free(before);
    fixture_close(&f);
}

static void test_causal(void **state)
{
    (void)state;
    tv_config plain = fixture_odd_config(), grams = memgram_config(0), motifs = memgram_config(1),
              graph = graph_config();
    check_causal(&plain);
    check_causal(&grams);
    check_causal(&motifs);
    check_causal(&graph);
}

static void test_focus_causal(void **state)
{
    (void)state;
    tv_config config = focus_config(0);
    check_causal(&config);
    config.focus.segment = 3;
    check_causal(&config);
    config = focus_config(30);
    check_causal(&config);
}

// One window alone gives the logits that it has in the batch, in training as in evaluation.
static void check_batch(const tv_config *config)
{
    fixture f, g;
    fixture_open(&f, fixture_backend("ref"), config, TOKENS, 1);
    fixture_open(&g, fixture_backend("ref"), config, TOKENS, 0);
    TEST_TRY(tv_model_forward(&f.model, &f.unit));
    const size_t window_bytes = CONTEXT * TV_VOCAB * sizeof(float);
    for (int64_t w = 0; w < WINDOWS; w++) {
        g.unit.tokens = CONTEXT;
        g.unit.ids = g.ids + w * CONTEXT;
        g.unit.targets = g.targets + w * CONTEXT;
        TEST_TRY(tv_model_forward(&g.model, &g.unit));
        assert_memory_equal(f.model.logits + w * CONTEXT * TV_VOCAB, g.model.logits, window_bytes);
        assert_memory_equal(f.model.window_loss + w, g.model.window_loss, sizeof(float));
        // The start of a window, as generation asks for it: fewer tokens, no targets.
        g.unit.tokens = g.unit.context = 3;
        g.unit.targets = NULL;
        TEST_TRY(tv_model_forward(&g.model, &g.unit));
        assert_memory_equal(f.model.logits + w * CONTEXT * TV_VOCAB, g.model.logits, 3 * TV_VOCAB * sizeof(float));
        g.unit.context = CONTEXT;
    }
    fixture_close(&g);
    fixture_close(&f);
}

static void test_batch(void **state)
{
    (void)state;
    tv_config plain = fixture_odd_config(), latent = plain, motifs = memgram_config(1);
    latent.model.latent_kv = 11;
    check_batch(&plain);
    check_batch(&latent);
    check_batch(&motifs);
}

// A unit of no tokens, which a rank runs while others need its experts, changes nothing.
static void check_no_tokens(const tv_config *config, const char *name)
{
    fixture f;
    fixture_open(&f, fixture_backend(name), config, TOKENS, 1);
    f.unit.tokens = 0;
    TEST_TRY(tv_model_forward(&f.model, &f.unit));
    TEST_TRY(tv_model_backward(&f.model, &f.unit));
    f.unit.training = 0;
    TEST_TRY(tv_model_forward(&f.model, &f.unit));
    TEST_TRY(f.backend->sync(NULL));
    assert_int_equal(count_votes(&f), 0);
    assert_int_equal(fault_of(&f), 0);
    fixture_close(&f);
}

static void test_no_tokens(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    check_no_tokens(&config, "ref");
    check_no_tokens(&config, other_name());
    config.moe.experts = 5;
    config.moe.top_k = 2;
    config.moe.width = 9;
    config.moe.shared = 6;
    config.moe.wire_digits = 3;
    check_no_tokens(&config, "ref");
    check_no_tokens(&config, other_name());
}

static void test_focus_windows(void **state)
{
    (void)state;
    tv_config config = focus_config(0);
    check_batch(&config);
    check_no_tokens(&config, "ref");
    check_no_tokens(&config, other_name());
    config = focus_config(30);
    check_batch(&config);
}

// A unit's votes do not depend on what ran before it in the same buffers.
static void test_repeatable(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    fixture a, b;
    fixture_open(&a, fixture_backend("ref"), &config, TOKENS, 1);
    fixture_open(&b, fixture_backend("ref"), &config, TOKENS, 1);
    TEST_TRY(tv_model_forward(&a.model, &a.unit));
    TEST_TRY(tv_model_backward(&a.model, &a.unit));
    b.unit.ids = b.targets; // another batch first
    TEST_TRY(tv_model_forward(&b.model, &b.unit));
    TEST_TRY(tv_model_backward(&b.model, &b.unit));
    TEST_TRY(tv_params_clear_votes(&b.model.params, NULL));
    assert_int_equal(count_votes(&b), 0);
    b.unit.ids = b.ids;
    TEST_TRY(tv_model_forward(&b.model, &b.unit));
    TEST_TRY(tv_model_backward(&b.model, &b.unit));
    compare_votes(&a, &b);
    fixture_close(&b);
    fixture_close(&a);
}

// A plan without a backend gives the sizes of a real one, without memory; evaluation needs less.
static void test_measure(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    const tv_backend *backend = fixture_backend("ref");
    size_t saved[2] = {0};
    for (int training = 0; training < 2; training++) {
        tv_model measured, real;
        tv_params_layout_args layout = {.ranks = 2, .rank = 1, .training = training, .vote_bits = 8};
        TEST_TRY(tv_model_create(&measured, &config));
        TEST_TRY(tv_model_plan(&measured, &layout, TOKENS));
        layout.backend = backend;
        TEST_TRY(tv_model_create(&real, &config));
        TEST_TRY(tv_model_plan(&real, &layout, TOKENS));
        assert_true(tv_model_saved_bytes(&real) > 0 && tv_model_scratch_bytes(&real) > 0);
        assert_int_equal(tv_model_saved_bytes(&measured), tv_model_saved_bytes(&real));
        assert_int_equal(tv_model_scratch_bytes(&measured), tv_model_scratch_bytes(&real));
        assert_int_equal(measured.params.state_bytes, real.params.state_bytes);
        assert_null(measured.x);
        assert_non_null(real.x);
        saved[training] = tv_model_saved_bytes(&real);
        tv_model_free(&real);
        tv_model_free(&measured);
    }
    assert_true(saved[0] < saved[1]);
}

// What a block saves, as docs/model.md says; 256 tokens, so that no buffer needs padding.
static void test_saved_bytes(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    config.model.context = 256;
    const size_t D = 20, H = 2, F = 23, r = 11;
    for (int latent = 0; latent < 2; latent++) {
        size_t saved[2];
        config.model.latent_kv = latent ? (int64_t)r : 0;
        for (int more = 0; more < 2; more++) {
            config.model.blocks = 1 + more;
            tv_model model;
            tv_params_layout_args layout = {.ranks = 1, .training = 1, .vote_bits = 8};
            TEST_TRY(tv_model_create(&model, &config));
            TEST_TRY(tv_model_plan(&model, &layout, 256));
            saved[more] = tv_model_saved_bytes(&model);
            tv_model_free(&model);
        }
        size_t a_token = (8 * D + 36 * H + 16) + (2 * D + 3 * F + 24) + (latent ? r + 4 : 0);
        assert_int_equal(saved[1] - saved[0], 256 * a_token);
    }
}

static void test_table(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    config.model.blocks = 1;
    tv_model model;
    TEST_TRY(tv_model_create(&model, &config));
    const char *names[] = {"embed.table",
                           "sequencer.out",
                           "block.0.attention.norm",
                           "block.0.attention.q",
                           "block.0.attention.k",
                           "block.0.attention.v",
                           "block.0.attention.q_norm",
                           "block.0.attention.k_norm",
                           "block.0.attention.out",
                           "block.0.ffn.norm",
                           "block.0.ffn.gate_up",
                           "block.0.ffn.down",
                           "head.norm",
                           "head.out"};
    assert_int_equal(model.params.count, sizeof names / sizeof *names);
    for (int64_t i = 0; i < model.params.count; i++)
        assert_string_equal(model.params.items[i].spec.name, names[i]);
    tv_model_free(&model);
    config.model.sequencer = 0;
    config.model.blocks = 0;
    TEST_TRY(tv_model_create(&model, &config));
    assert_int_equal(model.params.count, 3);
    tv_model_free(&model);
}

static void test_refusals(void **state)
{
    (void)state;
    tv_config config = fixture_odd_config();
    fixture f;
    fixture_open(&f, fixture_backend("ref"), &config, TOKENS, 0);
    f.unit.tokens = TOKENS + CONTEXT;
    assert_int_equal(tv_model_forward(&f.model, &f.unit), TV_INTERNAL);
    f.unit.tokens = TOKENS - 1;
    assert_int_equal(tv_model_forward(&f.model, &f.unit), TV_INTERNAL);
    f.unit.tokens = TOKENS;
    f.unit.context = TOKENS;
    assert_int_equal(tv_model_forward(&f.model, &f.unit), TV_INTERNAL);
    f.unit.context = CONTEXT;
    f.unit.training = 1;
    assert_int_equal(tv_model_forward(&f.model, &f.unit), TV_INTERNAL);
    f.unit.training = 0;
    TEST_TRY(tv_model_forward(&f.model, &f.unit));
    assert_int_equal(tv_model_backward(&f.model, &f.unit), TV_INTERNAL);
    fixture_close(&f);
    tv_model_free(NULL);
}

// The first argument, a pattern, picks tests by name.
int main(int argc, char **argv)
{
    const struct CMUnitTest comparisons[] = {

        cmocka_unit_test(test_backends),         cmocka_unit_test(test_backends_latent),

        cmocka_unit_test(test_backends_memgram), cmocka_unit_test(test_backends_graph),
        cmocka_unit_test(test_backends_larger),  cmocka_unit_test(test_no_tokens),
        cmocka_unit_test(test_focus_backends)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backends),
        cmocka_unit_test(test_backends_latent),
        cmocka_unit_test(test_backends_memgram),
        cmocka_unit_test(test_backends_graph),
        cmocka_unit_test(test_backends_larger),
        cmocka_unit_test(test_causal),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_repeatable),
        cmocka_unit_test(test_measure),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_saved_bytes),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_no_tokens),
        cmocka_unit_test(test_focus_backends),
        cmocka_unit_test(test_focus_causal),
        cmocka_unit_test(test_focus_windows),
    };
    const tv_backend *other;
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    if (getenv("TV_TEST_BACKEND") == NULL)
        return cmocka_run_group_tests(tests, NULL, NULL);
    if (tv_backend_find(other_name(), &other) != TV_OK || other->open(0, 1, 1) != TV_OK) {
        printf("skipped: no NVIDIA GPU (%s)\n", tv_status_message());
        return 77;
    }
    other->close();
    return cmocka_run_group_tests(comparisons, NULL, NULL);
}
