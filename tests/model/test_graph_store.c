// The edges of the graph of motifs against a list that is searched from end to end: transitions, full lists, full runs, decay, votes; the index
// finds what the search finds; what no run can have made is refused.
#include "model_fixture.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "base/thread.h"
#include "model/graph_store.h"

enum { ROWS = 37, LIST = 3, MAX_EDGES = 100, MANY = 400 };

typedef struct setup {
    tv_config config;
    const tv_backend *backend;
    tv_params params;
    tv_plan plan;
    tv_part part;
    tv_graph_store store;
    uint32_t draws;
} setup;

static void open_rows(setup *s, int64_t rows, int64_t max_edges, int dense)
{
    static const tv_part_ops ops = {.kind = "graph"};
    memset(s, 0, sizeof *s);
    s->backend = fixture_backend("ref");
    s->config.codebook.rows = rows;
    s->config.graph =
        (tv_config_graph){.hops = 1, .edges_per_node = LIST, .max_edges = max_edges, .decay_every = 5, .dense = dense};
    s->part = (tv_part){.ops = &ops, .name = "graph"};
    tv_params_init(&s->params, 0);
    TEST_TRY(tv_graph_store_declare(&s->store, &s->part, &s->params, &s->config));
    tv_params_layout_args layout = {.backend = s->backend, .ranks = 1, .training = 1, .vote_bits = 8};
    TEST_TRY(tv_params_layout(&s->params, &layout));
    TEST_TRY(tv_params_initialise(&s->params, 1, 64));
    s->plan = (tv_plan){.tokens = 1, .context = 1, .training = 1, .config = &s->config, .params = &s->params};
    TEST_TRY(tv_graph_store_plan(&s->store, &s->plan));
    tv_graph_store_refresh(&s->store);
}

static void open_setup(setup *s, int64_t max_edges, int dense) { open_rows(s, ROWS, max_edges, dense); }

static void close_setup(setup *s)
{
    tv_graph_store_free(&s->store);
    tv_params_free(&s->params);
}

static int draw(setup *s, int below)
{
    tv_rng_key key = {9, TV_RNG_GENERATE, 3, 0};
    return (int)(tv_rng16(key, s->draws++) * (uint32_t)below >> 16);
}

// ---- the list ------------------------------------------------------------------------------------------------------------------

typedef struct item {
    int dst, src, attr, accum, score;
} item;

typedef struct list {
    item items[4 * MANY];
    int count;
} list;

static int by_edge(const void *a, const void *b)
{
    const item *x = a, *y = b;
    return x->dst != y->dst ? x->dst - y->dst : x->src - y->src;
}

static void take(list *l, int dst, int src)
{
    item *lowest = NULL;
    int into = 0;
    for (int i = 0; i < l->count; i++) {
        item *e = &l->items[i];
        if (e->dst != dst)
            continue;
        if (e->src == src) {
            e->score += e->score < TV_GRAPH_SCORE_MAX;
            return;
        }
        into++;
        if (lowest == NULL || e->score < lowest->score || (e->score == lowest->score && e->src < lowest->src))
            lowest = e;
    }
    item *at = into < LIST ? &l->items[l->count++] : lowest;
    *at = (item){dst, src, 1, 0, 1};
}

// One run loses its lowest (score, dst, src) until it fits.
static void fit(list *l, const tv_graph_store *store, int run)
{
    for (;;) {
        int inside = 0, worst = -1;
        for (int i = 0; i < l->count; i++) {
            const item *e = &l->items[i];
            if (tv_vq_bucket_of(ROWS, store->bits, e->dst) != run)
                continue;
            inside++;
            if (worst < 0 || e->score < l->items[worst].score ||
                (e->score == l->items[worst].score && by_edge(e, &l->items[worst]) < 0))
                worst = i;
        }
        if (inside <= store->room)
            return;
        l->items[worst] = l->items[--l->count];
    }
}

static void same(setup *s, list *l)
{
    const tv_graph_store *store = &s->store;
    int at = 0;
    qsort(l->items, (size_t)l->count, sizeof *l->items, by_edge);
    for (int64_t run = 0; run < store->runs; run++) {
        for (int64_t i = run * store->room; i < (run + 1) * store->room; i++) {
            int used = i - run * store->room < store->used[run];
            item want = used ? l->items[at++] : (item){0, 0, 0, 0, 0};
            assert_int_equal(store->dst[i], want.dst);
            assert_int_equal(store->src[i], want.src);
            assert_int_equal(store->attr[i], want.attr);
            assert_int_equal(store->accum[i], want.accum);
            assert_int_equal(store->score[i], want.score);
        }
    }
    assert_int_equal(at, l->count);
    for (int row = 0; row < ROWS; row++) {
        tv_graph_list found = tv_graph_store_find(store, row);
        int count = 0;
        for (int i = 0; i < l->count; i++)
            count += l->items[i].dst == row;
        assert_int_equal(found.count, count);
        for (int64_t i = 0; i < found.count; i++)
            assert_int_equal(store->dst[found.first + i], row);
    }
}

// ---- tests ---------------------------------------------------------------------------------------------------------------------

static void run_steps(int64_t max_edges, int dense, int expect_bits)
{
    static list want;
    setup s;
    tv_graph_record transitions[MANY];
    tv_graph_changes changes = {0};
    want.count = 0;
    open_setup(&s, max_edges, dense);
    assert_int_equal(s.store.bits, expect_bits);
    for (int step = 0; step < 40; step++) {
        int count = step % 7 == 6 ? 0 : 1 + draw(&s, MANY - 1);
        for (int i = 0; i < count; i++) {
            int often = draw(&s, 3); // the same few edges again and again, and others
            transitions[i] =
                (tv_graph_record){often ? draw(&s, 6) * 6 : draw(&s, ROWS), often ? draw(&s, 3) : draw(&s, ROWS), 1};
            take(&want, transitions[i].dst, transitions[i].src);
        }
        for (int run = 0; run < s.store.runs; run++)
            fit(&want, &s.store, run);
        for (int i = 0; (step + 1) % 5 == 0 && i < want.count; i++)
            want.items[i].score /= 2;
        TEST_TRY(tv_graph_store_learn(&s.store, transitions, count, &changes));
        tv_graph_store_decay(&s.store, step);
        tv_graph_store_refresh(&s.store);
        same(&s, &want);
        TEST_TRY(tv_graph_store_check(&s.store, &s.params));
    }
    assert_true(changes.made > 0 && changes.replaced > 0);
    assert_true((changes.evicted > 0) == (max_edges < ROWS * LIST));
    close_setup(&s);
}

static void test_transitions(void **state)
{
    (void)state;
    run_steps(MAX_EDGES, 0, 1); // two runs of 50
    run_steps(MAX_EDGES, 1, 1);
    run_steps(40, 0, 0); // one run
    run_steps(1000000, 0, 5);
    run_steps(1000000, 1, 5);
}

// Some steps with enough edges for several threads, on one core or on all that there are.
static void learn_much(setup *s, int one_core, tv_graph_changes *changes)
{
    enum { STEPS = 6, RECORDS = 1 << 17 };
    cpu_set_t all, first;
    tv_graph_record *transitions = malloc(RECORDS * sizeof *transitions);
    assert_non_null(transitions);
    open_rows(s, 1 << 17, 1 << 16, 0);
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&first);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&first) == 0; cpu++)
        if (CPU_ISSET(cpu, &all))
            CPU_SET(cpu, &first);
    if (one_core)
        assert_int_equal(sched_setaffinity(0, sizeof first, &first), 0);
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < RECORDS; i++)
            transitions[i] = (tv_graph_record){draw(s, 1 << 15) * 4, draw(s, 1 << 10), 1};
        TEST_TRY(tv_graph_store_learn(&s->store, transitions, RECORDS, changes));
    }
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    free(transitions);
}

// Edges and counts do not depend on the threads that change them.
static void test_threads(void **state)
{
    (void)state;
    setup one, many;
    tv_graph_changes of_one = {0}, of_many = {0};
    learn_much(&one, 1, &of_one);
    learn_much(&many, 0, &of_many);
    if (tv_thread_cores() == 1)
        print_message("one core here: both ran on one thread\n");
    assert_true(of_one.made > 0 && of_one.replaced > 0 && of_one.evicted > 0);
    assert_memory_equal(&of_one, &of_many, sizeof of_one);
    for (int i = 0; i < TV_GRAPH_SIDES; i++) {
        const tv_side *a = &one.params.sides[i], *b = &many.params.sides[i];
        assert_memory_equal(a->data, b->data, (size_t)(a->held_rows * a->spec.cols * tv_dtype_bytes(a->spec.dtype)));
    }
    close_setup(&one);
    close_setup(&many);
}

// Votes move attr_accum by the step, attr at its threshold; votes on edges that are not there do nothing.
static void test_votes(void **state)
{
    (void)state;
    setup s;
    tv_graph_changes changes = {0};
    tv_graph_record transitions[] = {{3, 1, 1}, {3, 2, 1}, {20, 5, 1}};
    tv_step_rule rule = {.rule = TV_RULE_RESTART, .units = 4, .quorum = 2, .threshold = 20, .eta_q = 8 << 16};
    tv_unit unit = {.params = &s.params, .seed = 3, .rule = &rule};
    open_setup(&s, MAX_EDGES, 0);
    TEST_TRY(tv_graph_store_learn(&s.store, transitions, 3, &changes));
    int64_t a = tv_graph_store_find(&s.store, 3).first, b = tv_graph_store_find(&s.store, 20).first;
    for (int step = 1; step <= 6; step++) {
        // The first edge gets votes of two units, the second of one, below the quorum; the third's cancel.
        tv_graph_record votes[] = {{20, 5, 1}, {3, 1, 1}, {20, 6, 1}, {3, 1, 1}, {3, 2, 1}, {4, 1, 1}, {20, 5, -1}};
        unit.step = (uint32_t)step;
        TEST_TRY(tv_graph_store_vote(&s.store, &unit, votes, 7, &changes));
        // -8, -16, then -24 <= -20: attr falls and 20 come back: -4, -12, then -20: falls again, 0
        static const int accum[] = {-8, -16, -4, -12, 0, -8}, attr[] = {1, 1, 0, 0, -1, -1};
        assert_int_equal(s.store.accum[a], accum[step - 1]);
        assert_int_equal(s.store.attr[a], attr[step - 1]);
        assert_int_equal(s.store.accum[a + 1], 0);
        assert_int_equal(s.store.accum[b], 0);
    }
    assert_int_equal(changes.flips, 2);
    rule.rule = TV_RULE_CLASSIC, rule.classic_step = 5;
    tv_graph_record votes[] = {{3, 1, -1}, {3, 1, -1}};
    TEST_TRY(tv_graph_store_vote(&s.store, &unit, votes, 2, &changes));
    assert_int_equal(s.store.accum[a], -3);
    rule.rule = TV_RULE_RESTART, rule.combine = TV_COMBINE_MEAN;
    TEST_TRY(tv_graph_store_vote(&s.store, &unit, votes, 2, &changes)); // 8 2 / 4
    assert_int_equal(s.store.accum[a], 1);
    close_setup(&s);
}

static void refuse(setup *s, const char *says)
{
    assert_int_equal(tv_graph_store_check(&s->store, &s->params), TV_CHECKPOINT);
    if (strstr(tv_status_message(), says) == NULL)
        fail_msg("'%s' does not say '%s'", tv_status_message(), says);
}

static void test_damage(void **state)
{
    (void)state;
    for (int dense = 0; dense < 2; dense++) {
        setup s;
        tv_graph_changes changes = {0};
        tv_graph_record transitions[] = {{3, 1, 1}, {3, 2, 1}, {4, 5, 1}, {3, 36, 1}};
        open_setup(&s, MAX_EDGES, dense);
        TEST_TRY(tv_graph_store_learn(&s.store, transitions, 4, &changes));
        TEST_TRY(tv_graph_store_check(&s.store, &s.params));
        tv_graph_store_refresh(&s.store);
        tv_graph_store *g = &s.store;
        g->src[2] = ROWS;
        refuse(&s, "an edge from motif 37, but the codebook has 37 rows");
        g->src[2] = -1;
        refuse(&s, "an edge from motif -1");
        g->src[2] = 2;
        refuse(&s, "out of order");
        g->src[2] = 36, g->dst[3] = 30;
        refuse(&s, "an edge into motif 30 among those into 0 .. 17");
        g->dst[3] = 3, g->src[3] = 37;
        refuse(&s, "an edge from motif 37");
        g->src[2] = 30, g->src[3] = 36;
        refuse(&s, "has more beside it than graph.edges_per_node 3");
        g->dst[3] = 4, g->attr[1] = 2;
        refuse(&s, "attr 2");
        g->attr[1] = 1, g->score[0] = -1;
        refuse(&s, "score -1");
        g->score[0] = 1, g->used[1] = 51;
        refuse(&s, "51 edges in a run of rows with room for 50");
        g->used[1] = 0;
        TEST_TRY(tv_graph_store_check(&s.store, &s.params));
        close_setup(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_transitions), cmocka_unit_test(test_threads),
                                       cmocka_unit_test(test_votes), cmocka_unit_test(test_damage)};
    return cmocka_run_group_tests_name("graph_store", tests, NULL, NULL);
}
