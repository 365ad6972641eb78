// The graph of motifs in training, on one rank: edges come from the text and are held within their bounds, scores are halved when it is time, a
// trained graph looks at no later byte, and edges that no run can have made are refused.
#include "run_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "model/graph_part.h"

static void open_run(run *r, const char *const *sets) { run_open(r, "tests/data/invariance-graph.yaml", sets, "cpu"); }

static tv_graph_part *graph_of(const run *r) { return (tv_graph_part *)run_part(r, "graph"); }

static int64_t count_edges(const tv_graph_store *s, int64_t *scores)
{
    int64_t edges = 0;
    *scores = 0;
    for (int64_t k = 0; k < s->runs; k++)
        for (int64_t i = k * s->room; i < k * s->room + s->used[k]; i++, edges++)
            *scores += s->score[i];
    return edges;
}

// With room for all, the first step's edges are its transitions: each once, scored by how often it came.
static void test_transitions(void **state)
{
    (void)state;
    const char *sets[] = {"graph.edges_per_node=32", "graph.max_edges=100000", "train.units=1", NULL};
    run r;
    int64_t scores;
    open_run(&r, sets);
    run_step(&r);
    int64_t context = r.config.model.context, windows = r.config.train.unit_windows;
    int64_t edges = count_edges(&graph_of(&r)->store, &scores);
    assert_int_equal(graph_of(&r)->transitions.count, windows * (context - 1));
    assert_int_equal(scores, windows * (context - 1));
    assert_true(edges > 10 && edges < scores);
    assert_true(run_figure(&r, "graph", "edges") == (double)edges && run_figure(&r, "graph", "made") == (double)edges);
    assert_true(run_figure(&r, "graph", "mean_score") == (double)scores / (double)edges &&
                run_figure(&r, "graph", "evicted") == 0);
    for (int64_t i = 0; i < graph_of(&r)->transitions.count; i++) {
        const tv_graph_record *t = &graph_of(&r)->transitions.items[i];
        tv_graph_list list = tv_graph_store_find(&graph_of(&r)->store, t->dst);
        int64_t k = list.first;
        while (k < list.first + list.count && graph_of(&r)->store.src[k] != t->src)
            k++;
        assert_true(k < list.first + list.count && graph_of(&r)->store.attr[k] == 1);
    }
    run_close(&r);
}

static void test_bounds(void **state)
{
    (void)state;
    const char *sets[] = {"graph.decay_every=1000", NULL};
    run r;
    int64_t scores;
    double replaced = 0, evicted = 0;
    open_run(&r, sets);
    for (int i = 0; i < 10; i++) {
        run_step(&r);
        replaced += run_figure(&r, "graph", "replaced");
        evicted += run_figure(&r, "graph", "evicted");
        assert_true(count_edges(&graph_of(&r)->store, &scores) <= r.config.graph.max_edges);
        TRY(tv_graph_store_check(&graph_of(&r)->store, &r.trainer.model.params));
    }
    assert_true(replaced > 0 && evicted > 0);
    run_close(&r);
}

static void test_decay(void **state)
{
    (void)state;
    const char *sets[] = {"graph.decay_every=3", NULL};
    run r;
    open_run(&r, sets);
    run_step(&r), run_step(&r);
    memset(graph_of(&r)->store.score, TV_GRAPH_SCORE_MAX, (size_t)graph_of(&r)->store.used[0]); // of the first run
    run_step(&r);
    for (int64_t i = 0; i < graph_of(&r)->store.used[0]; i++)
        assert_in_range(graph_of(&r)->store.score[i], 0, TV_GRAPH_SCORE_MAX / 2);
    run_step(&r);
    assert_true(run_figure(&r, "graph", "mean_score") >= 1);
    run_close(&r);
}

// ---- causality -----------------------------------------------------------------------------------------------------------------

static float *logits_of(run *r, const int32_t *ids, int64_t tokens)
{
    tv_model *model = &r->trainer.model;
    int32_t fault = 0;
    tv_unit unit = {.tokens = tokens, .context = r->config.model.context, .ids = ids, .fault = &fault, .levels = 1};
    TRY(tv_model_forward(model, &unit));
    assert_int_equal(fault, 0);
    size_t bytes = (size_t)(tokens * TV_VOCAB) * sizeof(float);
    float *copy = malloc(bytes);
    assert_non_null(copy);
    return memcpy(copy, model->logits, bytes);
}

// After some steps, so that there are edges: byte t + 1 changes, and no logit up to t moves; later ones do.
static void test_causal(void **state)
{
    (void)state;
    const char *sets[] = {NULL};
    enum { TOKENS = 64 };
    int32_t ids[TOKENS];
    run r;
    int64_t scores, context;
    open_run(&r, sets);
    context = r.config.model.context;
    for (int i = 0; i < 8; i++)
        run_step(&r);
    assert_true(count_edges(&graph_of(&r)->store, &scores) > 100);
    for (int i = 0; i < TOKENS; i++)
        ids[i] = 'a' + i * i % 23;
    float *before = logits_of(&r, ids, TOKENS);
    for (int64_t changed = 0; changed < TOKENS; changed++) {
        int64_t end = (changed / context + 1) * context;
        ids[changed] ^= 5;
        float *after = logits_of(&r, ids, TOKENS);
        ids[changed] ^= 5;
        assert_memory_equal(before, after, (size_t)(changed * TV_VOCAB) * sizeof(float));
        assert_memory_equal(before + end * TV_VOCAB, after + end * TV_VOCAB,
                            (size_t)((TOKENS - end) * TV_VOCAB) * sizeof(float));
        assert_memory_not_equal(before + changed * TV_VOCAB, after + changed * TV_VOCAB, TV_VOCAB * sizeof(float));
        free(after);
    }
    free(before);
    run_close(&r);
}

// The graph is used: without its edges the logits are others.
static void test_used(void **state)
{
    (void)state;
    const char *sets[] = {NULL};
    enum { TOKENS = 64 };
    int32_t ids[TOKENS];
    run r;
    open_run(&r, sets);
    for (int i = 0; i < 8; i++)
        run_step(&r);
    for (int i = 0; i < TOKENS; i++)
        ids[i] = 'a' + i * i % 23;
    float *with = logits_of(&r, ids, TOKENS);
    memset(graph_of(&r)->store.used, 0, (size_t)graph_of(&r)->store.runs * sizeof *graph_of(&r)->store.used);
    float *without = logits_of(&r, ids, TOKENS);
    assert_memory_not_equal(with, without, (size_t)(TOKENS * TV_VOCAB) * sizeof(float));
    free(with), free(without);
    run_close(&r);
}

static void test_refused(void **state)
{
    (void)state;
    const char *sets[] = {NULL};
    run r;
    open_run(&r, sets);
    run_step(&r);
    TRY(tv_model_loaded(&r.trainer.model));
    graph_of(&r)->store.src[0] = (int32_t)r.config.codebook.rows;
    assert_int_equal(tv_model_loaded(&r.trainer.model), TV_CHECKPOINT);
    assert_non_null(strstr(tv_status_message(), "an edge from motif 301, but the codebook has 301 rows"));
    run_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_transitions), cmocka_unit_test(test_bounds),
                                       cmocka_unit_test(test_decay),       cmocka_unit_test(test_causal),
                                       cmocka_unit_test(test_used),        cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests_name("graph", tests, NULL, NULL);
}
