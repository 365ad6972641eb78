// The graph of motifs on every backend against ref: hops in all their forms, lists of any length, widths around the edges of tiles.
#include <math.h>
#include <string.h>

#include "base/tensor.h"
#include "op_test.h"

enum { SHAPES = 60, FLOAT = sizeof(float), INT = sizeof(int32_t) };

// A list of numbers below `most` for each of `lists` ones; some lists are long.
typedef struct lists {
    int64_t count, items;
    int32_t *start, *item;
} lists;

static lists random_lists(op_random *random, int64_t count, int most, int longest)
{
    lists l = {.count = count, .start = op_host((size_t)(count + 1) * INT)};
    l.item = op_host((size_t)(count * longest + 1) * INT);
    for (int64_t i = 0; i < count; i++) {
        int length = op_int(random, 0, op_int(random, 0, 9) == 0 ? longest : longest < 8 ? longest : 8);
        for (int k = 0; most > 0 && k < length; k++)
            l.item[l.items++] = op_int(random, 0, op_int(random, 0, 3) == 0 ? 0 : most - 1); // the first is in many
        l.start[i + 1] = (int32_t)l.items;
    }
    return l;
}

// ---- a hop -------------------------------------------------------------------------------------------------------------------

typedef struct hop_case {
    tv_graph_hop_args args; // host arrays
    lists edges;
    int64_t answers;
    int keep; // what a backward wants
} hop_case;

static uint8_t *random_answers(op_random *random, const hop_case *c, int any_bad)
{
    int64_t cols = c->args.cols, size = tv_vq_answer_bytes(cols), packed = tv_row_bytes(cols);
    uint8_t *bytes = op_host((size_t)(c->answers * size)), *trits = op_trits(random, c->answers, cols);
    for (int64_t i = 0; i < c->answers; i++) {
        int32_t row = (int32_t)i;
        uint8_t *at = bytes + i * size;
        int bad = any_bad && op_int(random, 0, 19) == 0 ? op_int(random, 1, 4) : 0;
        if (bad == 1)
            row = -1;
        memcpy(at, &row, sizeof row);
        memcpy(at + 8, trits + i * packed, (size_t)packed);
        if (op_int(random, 0, 9) == 0) // a row of zeros
            memset(at + 8, TV_TRIT_BYTE_MAX / 2, (size_t)packed);
        if (bad == 2)
            at[8 + op_int(random, 0, (int)packed - 1)] = (uint8_t)op_int(random, TV_TRIT_BYTE_MAX + 1, 255);
        int code = bad == 3   ? -1
                   : bad == 4 ? tv_lattice_codes(c->args.mantissa_bits)
                              : op_int(random, 0, tv_lattice_codes(c->args.mantissa_bits) - 1);
        at[8 + packed] = (uint8_t)(int8_t)(c->args.base + code);
    }
    return bytes;
}

static tv_graph_layer random_layer(op_random *random, int64_t weights)
{
    return (tv_graph_layer){.w8 = op_int8s(random, weights, -120, 120), .exponent = op_int(random, -12, 1)};
}

static hop_case random_hop(op_random *random, int most_sources)
{
    hop_case c = {.keep = op_int(random, 0, 1)};
    tv_graph_hop_args *a = &c.args;
    int small = op_int(random, 0, 2) == 0, bad = op_int(random, 0, 3) == 0;
    a->sources = op_int(random, 0, small ? 20 : most_sources);
    a->nodes = op_int(random, 0, 4) == 0 ? a->sources : op_int(random, 0, (int)a->sources);
    a->cols = op_int(random, 0, 1) ? 64 : op_int(random, 1, 64);
    a->rank = op_int(random, 0, 3) == 0 ? 0 : op_int(random, 1, TV_GRAPH_RANK_MAX);
    a->base = op_int(random, -12, 2), a->mantissa_bits = op_int(random, 0, 3);
    c.edges = random_lists(random, a->nodes, (int)a->sources, TV_GRAPH_LIST_MAX);
    a->start = c.edges.start, a->source = c.edges.item;
    a->attr = op_int8s(random, c.edges.items, -1, 1);
    a->message = random_layer(random, a->cols * a->cols), a->update = random_layer(random, a->cols * a->cols);
    a->lora_down = random_layer(random, a->rank * a->cols), a->lora_up = random_layer(random, a->cols * a->rank);
    a->hop_scale = random_layer(random, a->rank);
    if (op_int(random, 0, 1)) {
        float *x = op_floats(random, a->sources * a->cols, ldexpf(1.0f, op_int(random, -20, 20)));
        for (int64_t i = 0; bad && i < a->sources / 9; i++)
            x[op_int(random, 0, (int)(a->sources * a->cols) - 1)] = i % 2 ? NAN : INFINITY;
        for (int64_t i = 0; i < a->sources; i += 7)
            memset(x + i * a->cols, 0, (size_t)a->cols * FLOAT);
        a->x = x;
        return c;
    }
    c.answers = a->sources;
    if (op_int(random, 0, 1) && a->sources > 0) {
        int32_t *from = op_host((size_t)a->sources * INT);
        c.answers = op_int(random, 1, 2 * (int)a->sources);
        for (int64_t i = 0; i < a->sources; i++)
            from[i] = op_int(random, 0, (int)c.answers - 1);
        a->from = from;
    }
    a->bytes = random_answers(random, &c, bad);
    return c;
}

static tv_graph_layer layer_in(op_call *call, const tv_graph_layer *layer, int64_t weights)
{
    return (tv_graph_layer){.w8 = op_in(call, layer->w8, (size_t)weights), .exponent = layer->exponent};
}

typedef struct hop_result {
    float *y, *scale, *scale_a, *scale_l;
    int8_t *q, *qa, *ql;
    int32_t fault;
} hop_result;

static void set_result(const hop_case *c, tv_graph_hop_args *a, op_call *call, hop_result *r)
{
    size_t S = (size_t)a->sources, N = (size_t)a->nodes, d = (size_t)a->cols, rank = (size_t)a->rank;
    r->fault = 0;
    r->y = op_host(N * d * FLOAT);
    a->y = op_out(call, r->y, N * d * FLOAT);
    a->fault = op_out(call, &r->fault, INT);
    if (!c->keep)
        return;
    r->q = op_host(S * d), r->qa = op_host(N * d), r->ql = op_host(N * rank);
    r->scale = op_host(S * FLOAT), r->scale_a = op_host(N * FLOAT), r->scale_l = op_host(N * FLOAT);
    a->q = op_out(call, r->q, S * d), a->qa = op_out(call, r->qa, N * d), a->ql = op_out(call, r->ql, N * rank);
    a->scale = op_out(call, r->scale, S * FLOAT), a->scale_a = op_out(call, r->scale_a, N * FLOAT);
    a->scale_l = op_out(call, r->scale_l, N * FLOAT);
}

static hop_result run_hop(const op_backend *on, const hop_case *c)
{
    hop_result r = {.y = NULL};
    tv_graph_hop_args a = c->args;
    size_t work = (size_t)tv_graph_hop_work_bytes(a.sources, a.nodes, a.cols, a.rank);
    op_call call = op_begin(on);
    a.bytes = op_in(&call, a.bytes, (size_t)(c->answers * tv_vq_answer_bytes(a.cols)));
    a.from = op_in(&call, a.from, (size_t)a.sources * INT);
    a.x = op_in(&call, a.x, (size_t)(a.sources * a.cols) * FLOAT);
    a.start = op_in(&call, a.start, (size_t)(a.nodes + 1) * INT);
    a.source = op_in(&call, a.source, (size_t)c->edges.items * INT);
    a.attr = op_in(&call, a.attr, (size_t)c->edges.items);
    a.message = layer_in(&call, &a.message, a.cols * a.cols), a.update = layer_in(&call, &a.update, a.cols * a.cols);
    a.lora_down = layer_in(&call, &a.lora_down, a.rank * a.cols);
    a.lora_up = layer_in(&call, &a.lora_up, a.rank * a.cols);
    a.hop_scale = layer_in(&call, &a.hop_scale, a.rank);
    a.work = op_out(&call, op_host(work), work);
    set_result(c, &a, &call, &r);
    op_end(&call, on->backend->graph.hop(&a, NULL));
    return r;
}

static void compare_hop(const op_backend *on, const hop_case *c)
{
    const tv_graph_hop_args *a = &c->args;
    size_t S = (size_t)a->sources, N = (size_t)a->nodes, d = (size_t)a->cols, rank = (size_t)a->rank;
    hop_result want = run_hop(op_ref(), c), got = run_hop(on, c);
    op_same_floats("y", on, want.y, got.y, (int64_t)(N * d));
    op_same("fault", on, &want.fault, &got.fault, INT);
    if (!c->keep)
        return;
    op_same("q", on, want.q, got.q, S * d);
    op_same("scales of q", on, want.scale, got.scale, S * FLOAT);
    op_same("sums", on, want.qa, got.qa, N * d);
    op_same("scales of sums", on, want.scale_a, got.scale_a, N * FLOAT);
    op_same("low rank", on, want.ql, got.ql, N * rank);
    op_same("scales of the low rank", on, want.scale_l, got.scale_l, N * FLOAT);
}

static void check_hops(const op_backend *on)
{
    op_random random = {611, 0};
    for (int i = 0; i < SHAPES; i += op_stride()) {
        hop_case c = random_hop(&random, i == 0 ? 3000 : 300);
        compare_hop(on, &c);
    }
}

static void test_hops(void **state)
{
    (void)state;
    op_against_ref(check_hops);
}

// ---- its pieces ----------------------------------------------------------------------------------------------------------------

static float *run_decode(const op_backend *on, const hop_case *c, int32_t *fault)
{
    const tv_graph_hop_args *hop = &c->args;
    size_t bytes = (size_t)(hop->sources * hop->cols) * FLOAT;
    float *x = op_host(bytes);
    *fault = 0;
    op_call call = op_begin(on);
    tv_graph_decode_args a = {.count = hop->sources, .cols = hop->cols, .base = hop->base};
    a.mantissa_bits = hop->mantissa_bits;
    a.bytes = op_in(&call, hop->bytes, (size_t)(c->answers * tv_vq_answer_bytes(hop->cols)));
    a.from = op_in(&call, hop->from, (size_t)hop->sources * INT);
    a.x = op_out(&call, x, bytes), a.fault = op_out(&call, fault, INT);
    op_end(&call, on->backend->graph.decode(&a, NULL));
    return x;
}

static void check_decode(const op_backend *on)
{
    op_random random = {612, 0};
    for (int i = 0; i < SHAPES; i += op_stride()) {
        hop_case c = random_hop(&random, 300);
        int32_t want_fault, got_fault;
        if (c.args.bytes == NULL)
            continue;
        float *want = run_decode(op_ref(), &c, &want_fault), *got = run_decode(on, &c, &got_fault);
        op_same("x", on, want, got, (size_t)(c.args.sources * c.args.cols) * FLOAT);
        op_same("fault", on, &want_fault, &got_fault, INT);
    }
}

// What aggregate and its gradient work on. Arrays of floats begin `shift` floats behind a border of 16 bytes.
typedef struct edge_case {
    int64_t sources, nodes, cols, counted, rows; // counted: edges of the gradient; rows of dm
    int shift, accumulate;
    lists edges, by_source;
    int32_t *dst;
    int8_t *attr;
    float *m, *da, *attr_grad;
} edge_case;

static void list_by_source(edge_case *c)
{
    lists *by = &c->by_source;
    by->start = op_host((size_t)(c->sources + 1) * INT), by->item = op_host((size_t)c->edges.items * INT);
    for (int64_t u = 0; u < c->sources; u++) {
        for (int64_t e = 0; e < c->edges.items; e++)
            if (c->edges.item[e] == u)
                by->item[by->items++] = (int32_t)e;
        by->start[u + 1] = (int32_t)by->items;
    }
}

static edge_case random_edges(op_random *random)
{
    edge_case c = {.sources = op_int(random, 0, 90), .shift = op_int(random, 0, 3) == 0};
    c.nodes = op_int(random, 0, (int)c.sources), c.accumulate = op_int(random, 0, 1);
    c.cols = op_int(random, 0, 3) > 0 ? 64 : op_int(random, 1, 64);
    c.edges = random_lists(random, c.nodes, (int)c.sources, TV_GRAPH_LIST_MAX);
    int64_t counted_nodes = op_int(random, 0, 1) ? c.nodes : op_int(random, 0, (int)c.nodes);
    c.counted = c.edges.start[counted_nodes];
    c.rows = op_int(random, 0, 1) ? c.sources : op_int(random, 0, (int)c.sources);
    c.dst = op_host((size_t)c.edges.items * INT);
    for (int64_t v = 0; v < c.nodes; v++)
        for (int64_t e = c.edges.start[v]; e < c.edges.start[v + 1]; e++)
            c.dst[e] = (int32_t)v;
    c.attr = op_int8s(random, c.edges.items, -1, 1);
    c.m = op_floats(random, c.sources * c.cols + 1, 3.0f), c.da = op_floats(random, c.nodes * c.cols + 1, 1.0f);
    c.attr_grad = op_floats(random, c.edges.items, 1.0f);
    list_by_source(&c);
    return c;
}

static float *run_aggregate(const op_backend *on, const edge_case *c)
{
    size_t out = (size_t)(c->nodes * c->cols + 1) * FLOAT;
    float *sums = op_host(out);
    op_call call = op_begin(on);
    tv_graph_aggregate_args a = {.nodes = c->nodes, .cols = c->cols};
    a.start = op_in(&call, c->edges.start, (size_t)(c->nodes + 1) * INT);
    a.source = op_in(&call, c->edges.item, (size_t)c->edges.items * INT);
    a.attr = op_in(&call, c->attr, (size_t)c->edges.items);
    a.m = (const float *)op_in(&call, c->m, (size_t)(c->sources * c->cols + 1) * FLOAT) + c->shift;
    a.a = (float *)op_out(&call, sums, out) + c->shift;
    op_end(&call, on->backend->graph.aggregate(&a, NULL));
    return sums;
}

static float *run_aggregate_backward(const op_backend *on, const edge_case *c, float *attr_grad)
{
    size_t ints = (size_t)c->edges.items * INT, out = (size_t)(c->rows * c->cols + 1) * FLOAT;
    float *dm = op_host(out);
    op_call call = op_begin(on);
    tv_graph_aggregate_backward_args a = {.sources = c->rows, .cols = c->cols, .edges = c->counted};
    a.accumulate = c->accumulate;
    a.source = op_in(&call, c->edges.item, ints), a.dst = op_in(&call, c->dst, ints);
    a.attr = op_in(&call, c->attr, (size_t)c->edges.items);
    a.source_start = op_in(&call, c->by_source.start, (size_t)(c->sources + 1) * INT);
    a.by_source = op_in(&call, c->by_source.item, ints);
    a.m = (const float *)op_in(&call, c->m, (size_t)(c->sources * c->cols + 1) * FLOAT) + c->shift;
    a.da = (const float *)op_in(&call, c->da, (size_t)(c->nodes * c->cols + 1) * FLOAT) + c->shift;
    a.dm = (float *)op_out(&call, dm, out) + c->shift;
    a.attr_grad = op_out(&call, attr_grad, (size_t)c->edges.items * FLOAT);
    op_end(&call, on->backend->graph.aggregate_backward(&a, NULL));
    return dm;
}

static void check_edges(const op_backend *on)
{
    op_random random = {613, 0};
    for (int i = 0; i < SHAPES; i += op_stride()) {
        edge_case c = random_edges(&random);
        size_t grads = (size_t)c.edges.items * FLOAT;
        float *want_grad = op_host_copy(c.attr_grad, grads), *got_grad = op_host_copy(c.attr_grad, grads);
        op_same("sums", on, run_aggregate(op_ref(), &c), run_aggregate(on, &c), (size_t)(c.nodes * c.cols + 1) * FLOAT);
        float *want = run_aggregate_backward(op_ref(), &c, want_grad), *got = run_aggregate_backward(on, &c, got_grad);
        op_same("gradients of messages", on, want, got, (size_t)(c.rows * c.cols + 1) * FLOAT);
        op_same("gradients of attributes", on, want_grad, got_grad, grads);
    }
}

static void run_scale(const op_backend *on, int64_t nodes, int64_t rank, float *l, float *dy)
{
    op_random random = {615, (uint64_t)(nodes + rank)};
    size_t bytes = (size_t)(nodes * rank) * FLOAT;
    int8_t *w8 = op_int8s(&random, rank, -120, 120);
    op_call call = op_begin(on);
    tv_graph_scale_backward_args b = {.nodes = nodes, .rank = rank, .exponent = -3};
    b.w8 = op_in(&call, w8, (size_t)rank);
    b.l = b.dh = op_out(&call, l, bytes), b.dy = b.dl = op_out(&call, dy, bytes); // in place
    op_end(&call, on->backend->graph.scale_backward(&b, NULL));
    call = op_begin(on);
    tv_graph_scale_args a = {.nodes = nodes, .rank = rank, .exponent = -3};
    a.w8 = op_in(&call, w8, (size_t)rank);
    a.l = a.y = op_out(&call, l, bytes);
    op_end(&call, on->backend->graph.scale(&a, NULL));
}

static void check_scale(const op_backend *on)
{
    op_random random = {614, 0};
    for (int i = 0; i < op_edge_count; i += op_stride()) {
        int64_t nodes = op_edges[i], rank = op_int(&random, 0, TV_GRAPH_RANK_MAX);
        size_t bytes = (size_t)(nodes * rank) * FLOAT;
        float *l[2] = {op_floats(&random, nodes * rank, 3.0f)}, *dy[2] = {op_floats(&random, nodes * rank, 1.0f)};
        l[1] = op_host_copy(l[0], bytes), dy[1] = op_host_copy(dy[0], bytes);
        run_scale(op_ref(), nodes, rank, l[0], dy[0]);
        run_scale(on, nodes, rank, l[1], dy[1]);
        op_same("scaled", on, l[0], l[1], bytes);
        op_same("gradient", on, dy[0], dy[1], bytes);
    }
}

static void test_pieces(void **state)
{
    (void)state;
    op_against_ref(check_decode);
    op_against_ref(check_edges);
    op_against_ref(check_scale);
}

// ---- tokens ----------------------------------------------------------------------------------------------------------------------

typedef struct token_case {
    int64_t tokens, motifs, width;
    int shift;
    int32_t *slot;
    lists by_motif;
    float *u, *x;
} token_case;

// Motif 0 has far more tokens than the others.
static token_case random_tokens(op_random *random, int i)
{
    static const int64_t widths[] = {64, 1, 33, 66, 96, 128, 130, 256, 1028};
    token_case c = {.tokens = op_int(random, 0, 300), .motifs = op_int(random, 1, 40), .shift = i % 4 == 3};
    c.width = widths[i % (int)(sizeof widths / sizeof *widths)];
    c.slot = op_host((size_t)c.tokens * INT);
    c.by_motif.start = op_host((size_t)(c.motifs + 1) * INT), c.by_motif.item = op_host((size_t)c.tokens * INT);
    for (int64_t t = 0; t < c.tokens; t++)
        c.slot[t] = op_int(random, -1, op_int(random, 0, 1) ? 0 : (int)c.motifs - 1);
    for (int64_t m = 0; m < c.motifs; m++) {
        for (int64_t t = 0; t < c.tokens; t++)
            if (c.slot[t] == m)
                c.by_motif.item[c.by_motif.items++] = (int32_t)t;
        c.by_motif.start[m + 1] = (int32_t)c.by_motif.items;
    }
    c.u = op_floats(random, c.motifs * c.width + 1, 1.0f), c.x = op_floats(random, c.tokens * c.width + 1, 1.0f);
    return c;
}

static float *run_gather(const op_backend *on, const token_case *c)
{
    size_t bytes = (size_t)(c->tokens * c->width + 1) * FLOAT;
    float *x = op_host_copy(c->x, bytes);
    op_call call = op_begin(on);
    tv_graph_gather_args a = {.tokens = c->tokens, .width = c->width};
    a.slot = op_in(&call, c->slot, (size_t)c->tokens * INT);
    a.u = (const float *)op_in(&call, c->u, (size_t)(c->motifs * c->width + 1) * FLOAT) + c->shift;
    a.x = (float *)op_out(&call, x, bytes) + c->shift;
    op_end(&call, on->backend->graph.gather(&a, NULL));
    return x;
}

static float *run_gather_backward(const op_backend *on, const token_case *c)
{
    size_t bytes = (size_t)(c->motifs * c->width + 1) * FLOAT;
    float *du = op_host(bytes);
    op_call call = op_begin(on);
    tv_graph_gather_backward_args a = {.count = c->motifs, .width = c->width};
    a.order = op_in(&call, c->by_motif.item, (size_t)c->tokens * INT);
    a.start = op_in(&call, c->by_motif.start, (size_t)(c->motifs + 1) * INT);
    a.dx = (const float *)op_in(&call, c->x, (size_t)(c->tokens * c->width + 1) * FLOAT) + c->shift;
    a.du = (float *)op_out(&call, du, bytes) + c->shift;
    op_end(&call, on->backend->graph.gather_backward(&a, NULL));
    return du;
}

static void check_tokens(const op_backend *on)
{
    op_random random = {616, 0};
    for (int i = 0; i < 36; i += op_stride()) {
        token_case c = random_tokens(&random, i);
        op_same("tokens", on, run_gather(op_ref(), &c), run_gather(on, &c), (size_t)(c.tokens * c.width + 1) * FLOAT);
        op_same("motifs", on, run_gather_backward(op_ref(), &c), run_gather_backward(on, &c),
                (size_t)(c.motifs * c.width + 1) * FLOAT);
    }
}

static void test_tokens(void **state)
{
    (void)state;
    op_against_ref(check_tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hops), cmocka_unit_test(test_pieces),
                                       cmocka_unit_test(test_tokens)};
    return op_run("op_graph_shapes", tests);
}
