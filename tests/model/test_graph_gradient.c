// The graph of motifs on edges that are planted: forward, votes on every layer and on attr against a double-precision forward and its central
// differences; what a motif's node is depends on nothing else of the unit.
#include "model_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pack.h"
#include "model/codebook.h"
#include "model/graph.h"
#include "model/graph_part.h"

enum { ROWS = 40, COLS = 20, TOKENS = 28, CONTEXT = 7, WIDTH = 20, HOPS = 2, RANK = 6, LIST = 4 };

typedef struct setup {
    tv_config config;
    const tv_backend *backend;
    tv_params params;
    tv_part *codebook, *part;
    tv_plan plan;
    void *saved, *scratch;
    tv_unit unit;
    int32_t fault;
    float x[TOKENS * WIDTH], dx[TOKENS * WIDTH];
    int32_t motifs[TOKENS];
    double *weights[32]; // of the oracle
} setup;

static void plan_parts(setup *s, tv_arena *saved, tv_arena *scratch)
{
    s->plan.saved = *saved;
    s->plan.scratch = *scratch;
    TEST_TRY(s->codebook->ops->plan(s->codebook, &s->plan));
    TEST_TRY(s->part->ops->plan(s->part, &s->plan));
    *saved = s->plan.saved;
    *scratch = s->plan.scratch;
}

static void plan_all(setup *s)
{
    tv_arena saved, scratch;
    tv_arena_init(&saved, "saved");
    tv_arena_init(&scratch, "scratch");
    s->plan =
        (tv_plan){.tokens = TOKENS, .context = CONTEXT, .training = 1, .config = &s->config, .params = &s->params};
    plan_parts(s, &saved, &scratch);
    size_t saved_bytes = saved.high_water, scratch_bytes = scratch.high_water;
    TEST_TRY(s->backend->alloc(saved_bytes, &s->saved));
    TEST_TRY(s->backend->alloc(scratch_bytes, &s->scratch));
    tv_arena_bind(&saved, s->saved, saved_bytes);
    tv_arena_bind(&scratch, s->scratch, scratch_bytes);
    plan_parts(s, &saved, &scratch);
}

static tv_graph_store *store_of(setup *s) { return &((tv_graph_part *)s->part)->store; }

// Rows 0 .. 29 get 0 to 4 edges each from rows 0 .. 39; the last have none.
static void plant_edges(setup *s)
{
    tv_graph_store *store = store_of(s);
    tv_graph_store_refresh(store);
    for (int32_t dst = 0; dst < 30; dst++) {
        int64_t run = tv_vq_bucket_of(ROWS, store->bits, dst);
        for (int32_t k = 0; k < dst % 5; k++) {
            int64_t at = run * store->room + store->used[run]++;
            store->dst[at] = dst;
            store->src[at] = (dst * 7 + 3 + 9 * k) % 10 + 10 * k;
            store->attr[at] = (int8_t)((dst + k) % 3 - 1);
            store->score[at] = 1;
        }
    }
    TEST_TRY(tv_graph_store_check(store, &s->params));
    tv_graph_store_refresh(store);
}

static double *decode(const tv_param *param)
{
    int64_t cols = param->spec.cols;
    double *w = calloc((size_t)(param->spec.rows * cols), sizeof *w);
    assert_non_null(w);
    for (int64_t row = 0; row < param->spec.rows; row++) {
        int8_t trits[TV_VQ_COLS_MAX] = {0};
        if (param->spec.placement == TV_PLACE_TABLE)
            tv_unpack_row(tv_param_T(param, row), cols, trits);
        for (int64_t c = 0; c < cols; c++) {
            int e = param->spec.placement == TV_PLACE_TABLE ? *tv_param_E(param, row) : param->base;
            int t = param->spec.placement == TV_PLACE_TABLE ? trits[c] : param->w8[row * cols + c];
            w[row * cols + c] = ldexp(t, e);
        }
    }
    return w;
}

static void open_setup(setup *s)
{
    memset(s, 0, sizeof *s);
    s->backend = fixture_backend("ref");
    s->config = fixture_odd_config();
    s->config.codebook = (tv_config_codebook){
        .rows = ROWS, .width = COLS, .bucket_rows = 10, .exact_rows = 100, .probes = 1, .usage_halving = 1000};
    s->config.graph = (tv_config_graph){.hops = HOPS,
                                        .width = COLS,
                                        .edges_per_node = LIST,
                                        .max_edges = 4 * ROWS * LIST,
                                        .lora_rank = RANK,
                                        .decay_every = 1000};
    s->config.train.units = 1;
    tv_params_init(&s->params, 0);
    TEST_TRY(tv_codebook_create(&s->codebook));
    TEST_TRY(s->codebook->ops->declare(s->codebook, &s->params, &s->config));
    TEST_TRY(tv_graph_create(s->codebook, &s->part));
    TEST_TRY(s->part->ops->declare(s->part, &s->params, &s->config));
    tv_params_layout_args layout = {.backend = s->backend, .ranks = 1, .training = 1, .vote_bits = 8};
    TEST_TRY(tv_params_layout(&s->params, &layout));
    TEST_TRY(tv_params_initialise(&s->params, 5, 64));
    TEST_TRY(tv_params_decode(&s->params, 1, NULL));
    plan_all(s);
    plant_edges(s);
    s->unit = (tv_unit){.backend = s->backend,
                        .params = &s->params,
                        .tokens = TOKENS,
                        .context = CONTEXT,
                        .training = 1,
                        .levels = 1,
                        .seed = 5,
                        .fault = &s->fault};
    for (int i = 0; i < TOKENS * WIDTH; i++) {
        s->x[i] = (float)fixture_normal(1, (uint64_t)i);
        s->dx[i] = (float)fixture_normal(2, (uint64_t)i);
    }
    for (int t = 0; t < TOKENS; t++)
        s->motifs[t] = (int32_t)((t * t + 3 * t) % 31);
    for (int64_t i = 0; i < s->params.count; i++)
        s->weights[i] = decode(&s->params.items[i]);
}

static void close_setup(setup *s)
{
    for (int64_t i = 0; i < s->params.count; i++)
        free(s->weights[i]);
    s->part->ops->free(s->part);
    s->codebook->ops->free(s->codebook);
    s->backend->free(s->saved);
    s->backend->free(s->scratch);
    tv_params_free(&s->params);
}

static void give_motifs(setup *s) { memcpy((int32_t *)tv_codebook_motifs(s->codebook), s->motifs, sizeof s->motifs); }

// ---- the oracle ----------------------------------------------------------------------------------------------------------------

static int64_t find(const setup *s, const char *leaf, int hop)
{
    char name[64];
    snprintf(name, sizeof name, hop > 0 ? "graph.%s_%d" : "graph.%s", leaf, hop);
    for (int64_t i = 0; i < s->params.count; i++)
        if (strcmp(s->params.items[i].spec.name, name) == 0)
            return i;
    fail_msg("no tensor %s", name);
    return 0;
}

// y [rows] += W x
static void add_product(const setup *s, int64_t tensor, const double *x, double *y)
{
    int64_t rows = s->params.items[tensor].spec.rows, cols = s->params.items[tensor].spec.cols;
    for (int64_t n = 0; n < rows; n++)
        for (int64_t k = 0; k < cols; k++)
            y[n] += s->weights[tensor][n * cols + k] * x[k];
}

// Edge places with attr of real numbers, as attr_of(place) says.
static double attr_of(setup *s, int64_t place, double **at)
{
    static double moved[ROWS * LIST * 8];
    *at = &moved[place];
    return store_of(s)->attr[place] + moved[place];
}

// n [ROWS, COLS] after all hops, for every row.
static void oracle_nodes(setup *s, double *n)
{
    const tv_graph_store *store = store_of(s);
    memcpy(n, s->weights[tv_codebook_table(s->codebook)], sizeof(double) * ROWS * COLS);
    for (int h = 1; h <= HOPS; h++) {
        static double next[ROWS * COLS];
        for (int32_t v = 0; v < ROWS; v++) {
            double a[COLS] = {0}, low[RANK] = {0}, *at;
            tv_graph_list list = tv_graph_store_find(store, v);
            for (int64_t e = list.first; e < list.first + list.count; e++) {
                double m[COLS] = {0};
                add_product(s, find(s, "message", h), n + store->src[e] * COLS, m);
                for (int c = 0; c < COLS; c++)
                    a[c] += attr_of(s, e, &at) * m[c];
            }
            memcpy(next + v * COLS, n + v * COLS, sizeof(double) * COLS);
            add_product(s, find(s, "update", h), a, next + v * COLS);
            add_product(s, find(s, "lora_down", h), n + v * COLS, low);
            for (int j = 0; j < RANK; j++)
                low[j] *= s->weights[find(s, "hop_scale", 0)][(h - 1) * RANK + j];
            add_product(s, find(s, "lora_up", h), low, next + v * COLS);
        }
        memcpy(n, next, sizeof next);
    }
}

// y [TOKENS, WIDTH]: what the part adds.
static void oracle_output(setup *s, double *y)
{
    static double n[ROWS * COLS];
    oracle_nodes(s, n);
    memset(y, 0, sizeof(double) * TOKENS * WIDTH);
    for (int t = 0; t < TOKENS; t++)
        add_product(s, find(s, "up", 0), n + s->motifs[t] * COLS, y + t * WIDTH);
}

static double objective(setup *s)
{
    static double y[TOKENS * WIDTH];
    double sum = 0;
    oracle_output(s, y);
    for (int i = 0; i < TOKENS * WIDTH; i++)
        sum += (double)s->dx[i] * y[i];
    return sum;
}

static double difference(setup *s, double *at)
{
    const double step = 1e-4, keep = *at;
    *at = keep + step;
    double up = objective(s);
    *at = keep - step;
    double down = objective(s);
    *at = keep;
    return (up - down) / (2 * step);
}

// ---- tests -----------------------------------------------------------------------------------------------------------------------

static void run_forward(setup *s)
{
    give_motifs(s);
    TEST_TRY(s->part->ops->before_step(s->part, &s->unit));
    TEST_TRY(s->part->ops->forward(s->part, &s->unit, s->x));
    assert_int_equal(s->fault, 0);
}

static void test_forward(void **state)
{
    (void)state;
    static setup s;
    static double want[TOKENS * WIDTH];
    static float before[TOKENS * WIDTH];
    open_setup(&s);
    memcpy(before, s.x, sizeof before);
    run_forward(&s);
    oracle_output(&s, want);
    double error = 0, size = 0;
    for (int i = 0; i < TOKENS * WIDTH; i++) {
        double e = (double)s.x[i] - (double)before[i] - want[i];
        error += e * e;
        size += want[i] * want[i];
    }
    print_message("graph: relative error %.4f\n", sqrt(error / size));
    assert_true(sqrt(error / size) < 0.02);
    close_setup(&s);
}

// Clear gradients have their sign's vote.
static void check_votes(setup *s, int64_t tensor)
{
    const tv_param *param = &s->params.items[tensor];
    int64_t count = param->spec.rows * param->spec.cols, clear = 0;
    double *g = calloc((size_t)count, sizeof *g), square = 0;
    const int8_t *votes = param->votes;
    assert_non_null(g);
    for (int64_t i = 0; i < count; i++) {
        g[i] = difference(s, &s->weights[tensor][i]);
        square += g[i] * g[i];
    }
    double rms = sqrt(square / (double)count);
    for (int64_t i = 0; i < count; i++) {
        if (fabs(g[i]) < 0.3 * rms)
            continue;
        clear++;
        if (votes[i] != (g[i] > 0 ? 1 : -1))
            fail_msg("%s: element %d with gradient %g (rms %g) has vote %d", param->spec.name, (int)i, g[i], rms,
                     votes[i]);
    }
    print_message("%s: %d of %d gradients are clear\n", param->spec.name, (int)clear, (int)count);
    assert_true(clear > count / 4);
    free(g);
}

static void check_attr_votes(setup *s)
{
    const tv_graph_part *part = (const tv_graph_part *)s->part;
    const tv_graph_store *store = store_of(s);
    int clear = 0;
    double largest = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < part->votes.count; i++) {
            const tv_graph_record *vote = &part->votes.items[i];
            tv_graph_list list = tv_graph_store_find(store, vote->dst);
            for (int64_t e = list.first; e < list.first + list.count; e++) {
                double *at;
                attr_of(s, e, &at);
                if (store->src[e] != vote->src)
                    continue;
                double g = difference(s, at);
                largest = fmax(largest, fabs(g));
                if (pass == 0 || fabs(g) < 0.05 * largest)
                    continue;
                clear++;
                assert_int_equal(vote->value, g > 0 ? 1 : -1);
            }
        }
    }
    print_message("attr: %d of %d gradients are clear\n", clear, (int)part->votes.count);
    assert_true(part->votes.count > 20 && clear > 10);
}

static void test_votes(void **state)
{
    (void)state;
    static setup s;
    open_setup(&s);
    run_forward(&s);
    static float dx[TOKENS * WIDTH];
    memcpy(dx, s.dx, sizeof dx);
    TEST_TRY(s.part->ops->backward(s.part, &s.unit, s.dx));
    assert_memory_equal(dx, s.dx, sizeof dx); // the stream's gradient passes; motifs have none
    assert_int_equal(s.fault, 0);
    for (int h = 1; h <= HOPS; h++) {
        check_votes(&s, find(&s, "message", h));
        check_votes(&s, find(&s, "update", h));
        check_votes(&s, find(&s, "lora_down", h));
        check_votes(&s, find(&s, "lora_up", h));
    }
    check_votes(&s, find(&s, "hop_scale", 0));
    check_votes(&s, find(&s, "up", 0));
    check_attr_votes(&s);
    close_setup(&s);
}

// A motif adds the same, whatever else the unit holds and wherever it stands; a transition never crosses windows.
static void test_alone(void **state)
{
    (void)state;
    static setup s;
    static float all[TOKENS * WIDTH];
    open_setup(&s);
    memset(s.x, 0, sizeof s.x);
    run_forward(&s);
    memcpy(all, s.x, sizeof all);
    for (int t = 0; t < TOKENS; t++) {
        int32_t motif = s.motifs[t], keep[TOKENS];
        memcpy(keep, s.motifs, sizeof keep);
        for (int i = 0; i < TOKENS; i++)
            s.motifs[i] = motif;
        memset(s.x, 0, sizeof s.x);
        run_forward(&s);
        for (int i = 0; i < TOKENS; i++)
            assert_memory_equal(s.x + i * WIDTH, all + t * WIDTH, WIDTH * sizeof(float));
        memcpy(s.motifs, keep, sizeof keep);
    }
    run_forward(&s);
    TEST_TRY(s.part->ops->backward(s.part, &s.unit, s.dx));
    assert_int_equal(((tv_graph_part *)s.part)->transitions.count, TOKENS - TOKENS / CONTEXT);
    close_setup(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forward), cmocka_unit_test(test_votes),
                                       cmocka_unit_test(test_alone)};
    return cmocka_run_group_tests_name("graph_gradient", tests, NULL, NULL);
}
