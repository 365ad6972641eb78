// The graph of motifs: nodes from packed rows, messages along edges, a whole hop against its pieces, and their gradients.
#include <math.h>
#include <string.h>

#include "base/pack.h"
#include "base/tensor.h"
#include "vq_case.h"

enum { FLOAT = sizeof(float), INT = sizeof(int32_t) };

// Nodes, edges and layers. S sources, N nodes, d cols, r rank.
typedef struct graph {
    vq_case table;
    int64_t S, N, d, r, edges, limit; // limit: edges of a first part of the nodes
    int32_t *from, *start, *source, *dst, *source_start, *by_source;
    int8_t *attr, *message, *update, *down, *up, *scale_w8;
    uint8_t *bytes;
    float *x;
} graph;

static void random_edges(op_random *random, graph *g)
{
    int most = g->S == 0 ? 0 : op_int(random, 0, 1) ? 3 : TV_GRAPH_LIST_MAX;
    g->start = op_host((size_t)(g->N + 1) * INT);
    g->source = op_host((size_t)(g->N * TV_GRAPH_LIST_MAX) * INT);
    g->dst = op_host((size_t)(g->N * TV_GRAPH_LIST_MAX) * INT);
    g->by_source = op_host((size_t)(g->N * TV_GRAPH_LIST_MAX) * INT);
    g->source_start = op_host((size_t)(g->S + 2) * INT);
    for (int64_t v = 0; v < g->N; v++) {
        for (int k = op_int(random, 0, most); k > 0; k--) {
            // Half of them from one node, so that its list is long.
            g->source[g->edges] = op_int(random, 0, 1) ? 0 : op_int(random, 0, (int)g->S - 1);
            g->dst[g->edges++] = (int32_t)v;
        }
        g->start[v + 1] = (int32_t)g->edges;
    }
    g->attr = op_int8s(random, g->edges, -1, 1);
    g->limit = g->start[op_int(random, 0, (int)g->N)];
    int64_t at = 0;
    for (int64_t u = 0; u < g->S; u++) {
        for (int64_t e = 0; e < g->edges; e++)
            if (g->source[e] == u)
                g->by_source[at++] = (int32_t)e;
        g->source_start[u + 1] = (int32_t)at;
    }
}

static graph random_graph(op_random *random, int64_t nodes)
{
    graph g = {.table = vq_random_case(random, 60), .N = nodes};
    const tv_vq_table *t = &g.table.table;
    int64_t packed = (t->cols + 4) / 5, size = tv_vq_answer_bytes(t->cols);
    g.S = nodes + op_int(random, 0, 40);
    g.d = t->cols;
    g.r = op_int(random, 0, 3) ? op_int(random, 1, TV_GRAPH_RANK_MAX) : 0;
    random_edges(random, &g);
    g.bytes = op_host((size_t)(g.S * size));
    g.from = op_host((size_t)g.S * INT);
    for (int64_t i = 0; i < g.S; i++) {
        int32_t row = op_int(random, 0, (int)t->rows - 1);
        memcpy(g.bytes + i * size, &row, 4);
        memcpy(g.bytes + i * size + 8, t->T + row * packed, (size_t)packed);
        g.bytes[i * size + 8 + packed] = (uint8_t)t->E[row];
        g.from[i] = (int32_t)(g.S - 1 - i);
    }
    g.x = op_floats(random, g.S * g.d, 3.0f);
    g.message = op_int8s(random, g.d * g.d, -8, 8);
    g.update = op_int8s(random, g.d * g.d, -8, 8);
    g.down = op_int8s(random, g.r * g.d, -8, 8);
    g.up = op_int8s(random, g.r * g.d, -8, 8);
    g.scale_w8 = op_int8s(random, g.r, -8, 8);
    return g;
}

// ---- the ops -----------------------------------------------------------------------------------------------------------------

static void run_decode(const op_backend *on, const graph *g, int64_t count, int permuted, float *x, int32_t *fault)
{
    op_call call = op_begin(on);
    tv_graph_decode_args a = {.count = count, .cols = g->d, .base = g->table.table.base};
    a.mantissa_bits = g->table.table.mantissa_bits;
    a.bytes = op_in(&call, g->bytes, (size_t)(g->S * tv_vq_answer_bytes(g->d)));
    a.from = permuted ? op_in(&call, g->from, (size_t)g->S * INT) : NULL;
    a.x = op_out(&call, x, (size_t)(count * g->d) * FLOAT);
    a.fault = op_out(&call, fault, INT);
    op_end(&call, on->backend->graph.decode(&a, NULL));
}

static void run_aggregate(const op_backend *on, const graph *g, const float *m, float *sum)
{
    op_call call = op_begin(on);
    tv_graph_aggregate_args a = {.nodes = g->N, .cols = g->d};
    a.start = op_in(&call, g->start, (size_t)(g->N + 1) * INT);
    a.source = op_in(&call, g->source, (size_t)g->edges * INT);
    a.attr = op_in(&call, g->attr, (size_t)g->edges);
    a.m = op_in(&call, m, (size_t)(g->S * g->d) * FLOAT);
    a.a = op_out(&call, sum, (size_t)(g->N * g->d) * FLOAT);
    op_end(&call, on->backend->graph.aggregate(&a, NULL));
}

// dm of the first `sources`.
static void run_aggregate_backward(const op_backend *on, const graph *g, int64_t sources, int accumulate,
                                   const float *m, const float *da, float *dm, float *attr_grad)
{
    op_call call = op_begin(on);
    tv_graph_aggregate_backward_args a = {
        .sources = sources, .cols = g->d, .edges = g->limit, .accumulate = accumulate};
    a.source = op_in(&call, g->source, (size_t)g->edges * INT);
    a.dst = op_in(&call, g->dst, (size_t)g->edges * INT);
    a.attr = op_in(&call, g->attr, (size_t)g->edges);
    a.source_start = op_in(&call, g->source_start, (size_t)(g->S + 1) * INT);
    a.by_source = op_in(&call, g->by_source, (size_t)g->edges * INT);
    a.m = op_in(&call, m, (size_t)(g->S * g->d) * FLOAT);
    a.da = op_in(&call, da, (size_t)(g->N * g->d) * FLOAT);
    a.dm = op_out(&call, dm, (size_t)(sources * g->d) * FLOAT);
    a.attr_grad = op_out(&call, attr_grad, (size_t)g->edges * FLOAT);
    op_end(&call, on->backend->graph.aggregate_backward(&a, NULL));
}

static void run_scale(const op_backend *on, const graph *g, const float *l, float *y)
{
    op_call call = op_begin(on);
    tv_graph_scale_args a = {.nodes = g->N, .rank = g->r, .exponent = -3};
    a.w8 = op_in(&call, g->scale_w8, (size_t)g->r);
    a.l = op_in(&call, l, (size_t)(g->N * g->r) * FLOAT);
    a.y = op_out(&call, y, (size_t)(g->N * g->r) * FLOAT);
    op_end(&call, on->backend->graph.scale(&a, NULL));
}

// In place: dy becomes dl, l becomes dh.
static void run_scale_backward(const op_backend *on, const graph *g, float *l, float *dy)
{
    op_call call = op_begin(on);
    tv_graph_scale_backward_args a = {.nodes = g->N, .rank = g->r, .exponent = -3};
    a.w8 = op_in(&call, g->scale_w8, (size_t)g->r);
    a.dh = op_out(&call, l, (size_t)(g->N * g->r) * FLOAT);
    a.dl = op_out(&call, dy, (size_t)(g->N * g->r) * FLOAT);
    a.l = a.dh, a.dy = a.dl;
    op_end(&call, on->backend->graph.scale_backward(&a, NULL));
}

// What a hop writes.
typedef struct hop_result {
    float *y, *scale, *scale_a, *scale_l;
    int8_t *q, *qa, *ql;
    int32_t fault;
} hop_result;

static hop_result new_result(const graph *g)
{
    return (hop_result){.y = op_host((size_t)(g->N * g->d) * FLOAT),
                        .scale = op_host((size_t)g->S * FLOAT),
                        .scale_a = op_host((size_t)g->N * FLOAT),
                        .scale_l = op_host((size_t)g->N * FLOAT),
                        .q = op_host((size_t)(g->S * g->d)),
                        .qa = op_host((size_t)(g->N * g->d)),
                        .ql = op_host((size_t)(g->N * g->r))};
}

static hop_result run_hop(const op_backend *on, const graph *g, int packed, int training)
{
    op_call call = op_begin(on);
    hop_result k = new_result(g);
    size_t work = (size_t)tv_graph_hop_work_bytes(g->S, g->N, g->d, g->r);
    tv_graph_hop_args a = {.sources = g->S, .nodes = g->N, .cols = g->d, .rank = g->r, .base = g->table.table.base};
    a.mantissa_bits = g->table.table.mantissa_bits;
    a.bytes = packed ? op_in(&call, g->bytes, (size_t)(g->S * tv_vq_answer_bytes(g->d))) : NULL;
    a.from = packed ? op_in(&call, g->from, (size_t)g->S * INT) : NULL;
    a.x = packed ? NULL : op_in(&call, g->x, (size_t)(g->S * g->d) * FLOAT);
    a.start = op_in(&call, g->start, (size_t)(g->N + 1) * INT);
    a.source = op_in(&call, g->source, (size_t)g->edges * INT);
    a.attr = op_in(&call, g->attr, (size_t)g->edges);
    a.message = (tv_graph_layer){op_in(&call, g->message, (size_t)(g->d * g->d)), -6};
    a.update = (tv_graph_layer){op_in(&call, g->update, (size_t)(g->d * g->d)), -7};
    a.lora_down = (tv_graph_layer){op_in(&call, g->down, (size_t)(g->r * g->d)), -5};
    a.lora_up = (tv_graph_layer){op_in(&call, g->up, (size_t)(g->r * g->d)), -4};
    a.hop_scale = (tv_graph_layer){op_in(&call, g->scale_w8, (size_t)g->r), -3};
    a.y = op_out(&call, k.y, (size_t)(g->N * g->d) * FLOAT);
    if (training) {
        a.q = op_out(&call, k.q, (size_t)(g->S * g->d));
        a.qa = op_out(&call, k.qa, (size_t)(g->N * g->d));
        a.ql = op_out(&call, k.ql, (size_t)(g->N * g->r));
        a.scale = op_out(&call, k.scale, (size_t)g->S * FLOAT);
        a.scale_a = op_out(&call, k.scale_a, (size_t)g->N * FLOAT);
        a.scale_l = op_out(&call, k.scale_l, (size_t)g->N * FLOAT);
    }
    a.work = op_out(&call, op_host(work), work);
    a.fault = op_out(&call, &k.fault, INT);
    op_end(&call, on->backend->graph.hop(&a, NULL));
    return k;
}

// ---- a hop is its pieces -----------------------------------------------------------------------------------------------------

static void quantize(const op_backend *on, int64_t rows, int64_t cols, const float *x, int8_t *q, float *scale)
{
    int32_t fault = 0;
    op_call call = op_begin(on);
    tv_quantize_rows_args a = {.rows = rows, .cols = cols, .qmax = 127};
    a.x = op_in(&call, x, (size_t)(rows * cols) * FLOAT);
    a.q = op_out(&call, q, (size_t)(rows * cols));
    a.scale = op_out(&call, scale, (size_t)rows * FLOAT);
    a.fault = op_out(&call, &fault, INT);
    op_end(&call, on->backend->quantize_rows(&a, NULL));
}

typedef struct layer {
    const int8_t *w8;
    int64_t n, k;
    int exponent;
} layer;

static void product(const op_backend *on, int64_t m, const int8_t *q, const float *scale, layer w, int accumulate,
                    float *y)
{
    op_call call = op_begin(on);
    tv_gemm_args a = {.m = m, .n = w.n, .reduce = w.k, .exponent = w.exponent, .accumulate = accumulate};
    a.a = op_in(&call, q, (size_t)(m * w.k));
    a.b = op_in(&call, w.w8, (size_t)(w.n * w.k));
    a.scale = op_in(&call, scale, (size_t)m * FLOAT);
    a.y = op_out(&call, y, (size_t)(m * w.n) * FLOAT);
    op_end(&call, on->backend->gemm(&a, NULL));
}

static hop_result run_pieces(const op_backend *on, const graph *g, int packed)
{
    hop_result k = new_result(g);
    size_t values = (size_t)(g->S * g->d);
    float *x = packed ? op_host(values * FLOAT) : g->x, *m = op_host(values * FLOAT);
    float *sum = op_host((size_t)(g->N * g->d) * FLOAT), *l = op_host((size_t)(g->N * g->r) * FLOAT);
    if (packed)
        run_decode(on, g, g->S, 1, x, &k.fault);
    quantize(on, g->S, g->d, x, k.q, k.scale);
    product(on, g->S, k.q, k.scale, (layer){g->message, g->d, g->d, -6}, 0, m);
    run_aggregate(on, g, m, sum);
    quantize(on, g->N, g->d, sum, k.qa, k.scale_a);
    memcpy(k.y, x, (size_t)(g->N * g->d) * FLOAT);
    product(on, g->N, k.qa, k.scale_a, (layer){g->update, g->d, g->d, -7}, 1, k.y);
    if (g->r == 0)
        return k;
    product(on, g->N, k.q, k.scale, (layer){g->down, g->r, g->d, -5}, 0, l);
    float *scaled = op_host((size_t)(g->N * g->r) * FLOAT);
    run_scale(on, g, l, scaled);
    quantize(on, g->N, g->r, scaled, k.ql, k.scale_l);
    product(on, g->N, k.ql, k.scale_l, (layer){g->up, g->d, g->r, -4}, 1, k.y);
    return k;
}

static void same_results(const op_backend *on, const graph *g, const hop_result *want, const hop_result *got,
                         int training)
{
    op_same("y", on, want->y, got->y, (size_t)(g->N * g->d) * FLOAT);
    assert_int_equal(want->fault, got->fault);
    if (!training)
        return;
    op_same("q", on, want->q, got->q, (size_t)(g->S * g->d));
    op_same("scale", on, want->scale, got->scale, (size_t)g->S * FLOAT);
    op_same("qa", on, want->qa, got->qa, (size_t)(g->N * g->d));
    op_same("scale_a", on, want->scale_a, got->scale_a, (size_t)g->N * FLOAT);
    op_same("ql", on, want->ql, got->ql, (size_t)(g->N * g->r));
    if (g->r > 0)
        op_same("scale_l", on, want->scale_l, got->scale_l, (size_t)g->N * FLOAT);
}

static void check_pieces(const op_backend *on)
{
    op_random random = {601, 0};
    for (int i = 0; i < 40; i += op_stride()) {
        graph g = random_graph(&random, i);
        for (int packed = 0; packed < 2; packed++) {
            hop_result want = run_pieces(on, &g, packed);
            for (int training = 0; training < 2; training++) {
                hop_result got = run_hop(on, &g, packed, training);
                same_results(on, &g, &want, &got, training);
            }
        }
    }
}

static void test_pieces(void **state)
{
    (void)state;
    op_on_each(check_pieces);
}

// ---- against an oracle -------------------------------------------------------------------------------------------------------

static void check_messages(const op_backend *on)
{
    op_random random = {602, 0};
    for (int i = 0; i < 30; i += op_stride()) {
        graph g = random_graph(&random, 1 + i);
        size_t values = (size_t)(g.S * g.d) * FLOAT, nodes = (size_t)(g.N * g.d) * FLOAT;
        float *m = op_floats(&random, g.S * g.d, 2.0f), *da = op_floats(&random, g.N * g.d, 2.0f);
        float *sum = op_host(nodes), *dm = op_host(values), *attr_grad = op_host((size_t)g.edges * FLOAT + 1);
        double *want_sum = op_host(2 * nodes), *want_dm = op_host(2 * values);
        run_aggregate(on, &g, m, sum);
        g.limit = g.edges;
        run_aggregate_backward(on, &g, g.S, 0, m, da, dm, attr_grad);
        for (int64_t e = 0; e < g.edges; e++) {
            double dot = 0;
            for (int64_t c = 0; c < g.d; c++) {
                int64_t u = g.source[e] * g.d + c, v = g.dst[e] * g.d + c;
                want_sum[v] += g.attr[e] * (double)m[u];
                want_dm[u] += g.attr[e] * (double)da[v];
                dot += (double)da[v] * (double)m[u];
            }
            op_near("gradient of attr", dot, attr_grad[e], 1e-4);
        }
        for (int64_t c = 0; c < g.N * g.d; c++)
            op_near("sum of messages", want_sum[c], sum[c], 1e-4);
        for (int64_t c = 0; c < g.S * g.d; c++)
            op_near("gradient of a message", want_dm[c], dm[c], 1e-4);
    }
}

// Rows of the table as nodes; a hop with room for doubt only from its int8 operands.
static void check_values(const op_backend *on)
{
    op_random random = {603, 0};
    for (int i = 0; i < 20; i += op_stride()) {
        graph g = random_graph(&random, 1 + i);
        const tv_vq_table *t = &g.table.table;
        int64_t packed = (g.d + 4) / 5, size = tv_vq_answer_bytes(g.d);
        float *x = op_host((size_t)(g.S * g.d) * FLOAT);
        int32_t fault = 0;
        run_decode(on, &g, g.S, 1, x, &fault);
        assert_int_equal(fault, 0);
        for (int64_t v = 0; v < g.S; v++) {
            const uint8_t *at = g.bytes + g.from[v] * size;
            int8_t trits[TV_VQ_COLS_MAX];
            tv_unpack_row(at + 8, g.d, trits);
            int value = tv_lattice_value(t->mantissa_bits, (int8_t)at[8 + packed] - t->base);
            for (int64_t c = 0; c < g.d; c++)
                assert_true((double)x[v * g.d + c] == ldexp(trits[c] * value, t->base));
        }
    }
}

static void test_oracle(void **state)
{
    (void)state;
    op_on_each(check_messages);
    op_on_each(check_values);
}

// ---- against ref ---------------------------------------------------------------------------------------------------------------

static void compare_graph(const op_backend *on, op_random *random, int64_t nodes)
{
    graph g = random_graph(random, nodes);
    int64_t values = g.S * g.d, low = g.N * g.r, sources = op_int(random, 0, (int)g.S);
    int accumulate = op_int(random, 0, 1), training = op_int(random, 0, 1), packed = op_int(random, 0, 1);
    float *m = op_floats(random, values, 2.0f), *da = op_floats(random, g.N * g.d, 2.0f);
    float *l = op_floats(random, low, 2.0f), *dl = op_floats(random, low, 2.0f);
    float *start = op_floats(random, g.edges, 1.0f);
    float *x[2], *dm[2], *attr[2], *scaled[2], *ls[2], *dls[2];
    int32_t fault[2] = {0};
    hop_result hop[2];
    for (int side = 0; side < 2; side++) {
        const op_backend *at = side ? on : op_ref();
        x[side] = op_host((size_t)values * FLOAT), dm[side] = op_host((size_t)values * FLOAT);
        attr[side] = op_host_copy(start, (size_t)g.edges * FLOAT);
        scaled[side] = op_host((size_t)low * FLOAT);
        ls[side] = op_host_copy(l, (size_t)low * FLOAT), dls[side] = op_host_copy(dl, (size_t)low * FLOAT);
        run_decode(at, &g, g.S, packed, x[side], &fault[side]);
        run_aggregate_backward(at, &g, sources, accumulate, m, da, dm[side], attr[side]);
        run_scale(at, &g, l, scaled[side]);
        run_scale_backward(at, &g, ls[side], dls[side]);
        hop[side] = run_hop(at, &g, packed, training);
    }
    op_same("x", on, x[0], x[1], (size_t)values * FLOAT);
    op_same("dm", on, dm[0], dm[1], (size_t)(sources * g.d) * FLOAT);
    op_same("attr_grad", on, attr[0], attr[1], (size_t)g.edges * FLOAT);
    op_same("scale", on, scaled[0], scaled[1], (size_t)low * FLOAT);
    op_same("dh", on, ls[0], ls[1], (size_t)low * FLOAT);
    op_same("dl", on, dls[0], dls[1], (size_t)low * FLOAT);
    same_results(on, &g, &hop[0], &hop[1], training);
}

static void compare(const op_backend *on)
{
    op_random random = {605, 0};
    for (int i = 0; i < op_edge_count; i += op_stride())
        compare_graph(on, &random, op_edges[i]);
    compare_graph(on, &random, OP_LARGE_ROWS);
}

static void test_against_ref(void **state)
{
    (void)state;
    op_against_ref(compare);
}

// ---- what is refused -----------------------------------------------------------------------------------------------------------

static void check_damage(const op_backend *on)
{
    op_random random = {606, 0};
    for (int i = 0; i < 24; i++) {
        graph g = random_graph(&random, 3);
        const tv_vq_table *t = &g.table.table;
        int64_t packed = (g.d + 4) / 5;
        float *x = op_host((size_t)(g.S * g.d) * FLOAT);
        int32_t fault = 0, row = -1;
        if (i % 4 == 0)
            g.bytes[8 + op_int(&random, 0, (int)packed - 1)] = 243;
        else if (i % 4 == 1)
            memcpy(g.bytes, &row, 4);
        else
            g.bytes[8 + packed] = (uint8_t)(i % 4 == 2 ? t->base - 1 : t->base + tv_lattice_codes(t->mantissa_bits));
        run_decode(on, &g, g.S, 0, x, &fault);
        assert_int_equal(fault, 1);
        for (int64_t c = 0; c < g.d; c++)
            assert_true(x[c] == 0);
        assert_int_equal(run_hop(on, &g, 1, 0).fault, 1);
    }
}

static void test_damage(void **state)
{
    (void)state;
    op_on_each(check_damage);
}

static int clean_up(void **state)
{
    (void)state;
    op_host_free();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_pieces, clean_up), cmocka_unit_test_teardown(test_oracle, clean_up),
        cmocka_unit_test_teardown(test_against_ref, clean_up), cmocka_unit_test_teardown(test_damage, clean_up)};
    return op_run("op_graph", tests);
}
