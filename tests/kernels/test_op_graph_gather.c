// What the graph of motifs adds to the tokens: gather and add, and its gradient.
#include <string.h>

#include "op_test.h"

enum { FLOAT = sizeof(float), INT = sizeof(int32_t) };

typedef struct tokens {
    int64_t count, width, motifs;
    int32_t *slot, *order, *start;
    float *u, *x;
} tokens;

static tokens random_tokens(op_random *random, int64_t count)
{
    tokens k = {.count = count, .width = op_size(random), .motifs = op_int(random, 1, 40)};
    int64_t at = 0;
    k.slot = op_host((size_t)count * INT);
    k.order = op_host((size_t)count * INT);
    k.start = op_host((size_t)(k.motifs + 1) * INT);
    for (int64_t t = 0; t < count; t++) // many tokens of one motif, some of none
        k.slot[t] = op_int(random, 0, 1) ? 0 : op_int(random, -1, (int)k.motifs - 1);
    for (int64_t i = 0; i < k.motifs; i++) {
        for (int64_t t = 0; t < count; t++)
            if (k.slot[t] == i)
                k.order[at++] = (int32_t)t;
        k.start[i + 1] = (int32_t)at;
    }
    k.u = op_floats(random, k.motifs * k.width, 2.0f);
    k.x = op_floats(random, count * k.width, 2.0f);
    return k;
}

static void run_gather(const op_backend *on, const tokens *k, float *x)
{
    op_call call = op_begin(on);
    tv_graph_gather_args a = {.tokens = k->count, .width = k->width};
    a.slot = op_in(&call, k->slot, (size_t)k->count * INT);
    a.u = op_in(&call, k->u, (size_t)(k->motifs * k->width) * FLOAT);
    a.x = op_out(&call, x, (size_t)(k->count * k->width) * FLOAT);
    op_end(&call, on->backend->graph.gather(&a, NULL));
}

static void run_gather_backward(const op_backend *on, const tokens *k, float *du)
{
    op_call call = op_begin(on);
    tv_graph_gather_backward_args a = {.count = k->motifs, .width = k->width};
    a.order = op_in(&call, k->order, (size_t)k->count * INT);
    a.start = op_in(&call, k->start, (size_t)(k->motifs + 1) * INT);
    a.dx = op_in(&call, k->x, (size_t)(k->count * k->width) * FLOAT);
    a.du = op_out(&call, du, (size_t)(k->motifs * k->width) * FLOAT);
    op_end(&call, on->backend->graph.gather_backward(&a, NULL));
}

static void check_gather(const op_backend *on)
{
    op_random random = {604, 0};
    for (int i = 0; i < 30; i += op_stride()) {
        tokens k = random_tokens(&random, 5 * i);
        float *x = op_host_copy(k.x, (size_t)(k.count * k.width) * FLOAT);
        float *du = op_host((size_t)(k.motifs * k.width) * FLOAT);
        run_gather(on, &k, x);
        run_gather_backward(on, &k, du);
        for (int64_t j = 0; j < k.count * k.width; j++) {
            int32_t slot = k.slot[j / k.width];
            float want = slot < 0 ? k.x[j] : k.x[j] + k.u[slot * k.width + j % k.width];
            assert_true(x[j] == want);
        }
        for (int64_t j = 0; j < k.motifs * k.width; j++) {
            // sum32 by its definition
            float lane[32] = {0};
            int32_t first = k.start[j / k.width], end = k.start[j / k.width + 1];
            for (int32_t e = first; e < end; e++)
                lane[(e - first) % 32] += k.x[k.order[e] * k.width + j % k.width];
            for (int d = 16; d > 0; d /= 2)
                for (int l = 0; l < d; l++)
                    lane[l] = lane[l] + lane[l + d];
            assert_true(du[j] == lane[0]);
        }
    }
}

static void test_gather(void **state)
{
    (void)state;
    op_on_each(check_gather);
}

static void compare_tokens(const op_backend *on, op_random *random, int64_t count)
{
    tokens k = random_tokens(random, count);
    size_t bytes = (size_t)(k.count * k.width) * FLOAT, motifs = (size_t)(k.motifs * k.width) * FLOAT;
    float *x[2], *du[2];
    for (int side = 0; side < 2; side++) {
        x[side] = op_host_copy(k.x, bytes), du[side] = op_host(motifs);
        run_gather(side ? on : op_ref(), &k, x[side]);
        run_gather_backward(side ? on : op_ref(), &k, du[side]);
    }
    op_same("x", on, x[0], x[1], bytes);
    op_same("du", on, du[0], du[1], motifs);
}

static void compare(const op_backend *on)
{
    op_random random = {607, 0};
    for (int i = 0; i < op_edge_count; i += op_stride())
        compare_tokens(on, &random, op_edges[i]);
    compare_tokens(on, &random, 4 * OP_LARGE_ROWS);
}

static void test_against_ref(void **state)
{
    (void)state;
    op_against_ref(compare);
}

static int clean_up(void **state)
{
    (void)state;
    op_host_free();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(test_gather, clean_up),
                                       cmocka_unit_test_teardown(test_against_ref, clean_up)};
    return op_run("op_graph_gather", tests);
}
