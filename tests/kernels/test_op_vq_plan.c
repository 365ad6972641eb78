// Codebooks, against ref: patterns of any length, more buckets than a pass of a sort takes, more tokens than one block of threads, and runs
// of rows so long that several blocks share them.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vq_case.h"

static const tv_vq_ops *vq_of(const op_backend *on) { return &on->backend->vq; }

// ---- where queries look ----------------------------------------------------------------------------------------------------

static void probe(const op_backend *on, tv_vq_probes_args a, const int8_t *q, int32_t *bucket)
{
    op_call call = op_begin(on);
    a.q = op_in(&call, q, (size_t)(a.tokens * a.cols));
    a.bucket = op_out(&call, bucket, (size_t)(a.tokens * a.probes) * 4);
    op_end(&call, vq_of(on)->probes(&a, NULL));
}

static void check_probes(const op_backend *on)
{
    op_random random = {421, 0};
    for (int i = 0; i < 60; i += op_stride()) {
        tv_vq_probes_args a = {.tokens = op_int(&random, 0, 300), .bits = op_int(&random, 0, TV_VQ_BITS_MAX)};
        a.cols = op_int(&random, a.bits > 0 ? a.bits : 1, 64);
        int most = a.bits < 6 ? 1 << a.bits : TV_VQ_PROBES_MAX, flat = op_int(&random, 0, 1);
        a.probes = op_int(&random, 1, i % 2 && most > 8 ? 8 : most);
        size_t bytes = (size_t)(a.tokens * a.probes) * 4;
        int8_t *q = op_int8s(&random, a.tokens * a.cols, flat ? -1 : -TV_VQ_QMAX, flat ? 1 : TV_VQ_QMAX);
        int32_t *want = op_host(bytes), *got = op_host(bytes);
        probe(op_ref(), a, q, want);
        probe(on, a, q, got);
        op_same("buckets", on, want, got, bytes);
    }
}

static void test_probes(void **state)
{
    (void)state;
    op_against_ref(check_probes);
}

// Buckets of pairs, below 2^bits; `crowded`: most of them are the same.
static int32_t *random_buckets(op_random *random, int64_t pairs, int bits, int crowded)
{
    int32_t *bucket = op_host((size_t)pairs * 4);
    for (int64_t i = 0; i < pairs; i++)
        bucket[i] = crowded && op_int(random, 0, 9) > 0 ? (1 << bits) / 3 : op_int(random, 0, (1 << bits) - 1);
    return bucket;
}

// ---- where queries go ------------------------------------------------------------------------------------------------------

static void send(const op_backend *on, tv_vq_send_args a, const int32_t *bucket, int32_t *item, int32_t *index,
                 int64_t *counts)
{
    size_t places = (size_t)a.places, sent = (size_t)a.tokens * places * 4;
    op_call call = op_begin(on);
    a.bucket = op_in(&call, bucket, (size_t)(a.tokens * a.probes) * 4);
    a.item = op_out(&call, item, sent);
    a.index = op_out(&call, index, sent);
    a.counts = op_out(&call, counts, places * sizeof *counts);
    op_end(&call, vq_of(on)->send(&a, NULL));
}

static void check_send(const op_backend *on)
{
    op_random random = {422, 0};
    for (int i = 0; i < 24; i += op_stride()) {
        tv_vq_send_args a = {.tokens = op_int(&random, 0, i % 4 ? 200 : 5000), .bits = op_int(&random, 0, 12)};
        a.probes = op_int(&random, 1, 8);
        a.places = op_int(&random, 1, a.bits < 5 ? 1 << a.bits : 32);
        size_t sent = (size_t)(a.tokens * a.places) * 4;
        int32_t *bucket = random_buckets(&random, a.tokens * a.probes, a.bits, i % 3 == 0);
        int32_t *item = op_host(sent), *index = op_host(sent), *want_item = op_host(sent), *want = op_host(sent);
        int64_t counts[32] = {0}, want_counts[32] = {0};
        send(op_ref(), a, bucket, want_item, want, want_counts);
        send(on, a, bucket, item, index, counts);
        op_same("items", on, want_item, item, sent);
        op_same("index", on, want, index, sent);
        op_same("counts", on, want_counts, counts, sizeof counts);
    }
}

static void test_send(void **state)
{
    (void)state;
    op_against_ref(check_send);
}

// ---- queries of each bucket --------------------------------------------------------------------------------------------------

static void plan(const op_backend *on, tv_vq_plan_args a, const int32_t *bucket, int32_t *item, int32_t *start)
{
    size_t pairs = (size_t)(a.tokens * a.probes) * 4;
    op_call call = op_begin(on);
    a.bucket = op_in(&call, bucket, pairs);
    a.item = op_out(&call, item, pairs);
    a.start = op_out(&call, start, (size_t)(a.buckets + 1) * 4);
    op_end(&call, vq_of(on)->plan(&a, NULL));
}

static void check_plan(const op_backend *on)
{
    op_random random = {423, 0};
    for (int i = 0; i < 40; i += op_stride()) {
        int bits = op_int(&random, 0, i % 5 ? 10 : 17);
        tv_vq_plan_args a = {.tokens = op_int(&random, 0, i % 4 ? 300 : 9000), .probes = op_int(&random, 1, 9)};
        int64_t all = (int64_t)1 << bits;
        a.first_bucket = i % 2 ? op_int(&random, 0, (int)all - 1) : 0;
        a.buckets = i % 2 ? op_int(&random, 0, (int)(all - a.first_bucket)) : all;
        size_t pairs = (size_t)(a.tokens * a.probes) * 4, starts = (size_t)(a.buckets + 1) * 4;
        int32_t *bucket = random_buckets(&random, a.tokens * a.probes, bits, i % 3 == 0);
        int32_t *item = op_host(pairs), *want_item = op_host(pairs), *start = op_host(starts), *want = op_host(starts);
        plan(op_ref(), a, bucket, want_item, want);
        plan(on, a, bucket, item, start);
        op_same("starts", on, want, start, starts);
        op_same("items", on, want_item, item, (size_t)want[a.buckets] * 4);
    }
}

static void test_plan(void **state)
{
    (void)state;
    op_against_ref(check_plan);
}

// ---- what they find ----------------------------------------------------------------------------------------------------------

static void search(const op_backend *on, const vq_case *c, tv_vq_search_args a, int32_t *row, int32_t *score)
{
    size_t pairs = (size_t)(a.tokens * a.probes) * 4;
    op_call call = op_begin(on);
    a.table = vq_in(&call, &c->table);
    a.q = op_in(&call, a.q, (size_t)(a.tokens * c->table.cols));
    a.scale = op_in(&call, a.scale, (size_t)a.tokens * sizeof(float));
    a.item = op_in(&call, a.item, pairs);
    a.start = op_in(&call, a.start, (size_t)(a.buckets + 1) * 4);
    a.row = op_out(&call, row, pairs);
    a.score = op_out(&call, score, pairs);
    op_end(&call, vq_of(on)->search(&a, NULL));
}

static void check_long_runs(const op_backend *on)
{
    op_random random = {424, 0};
    for (int i = 0; i < 10; i += op_stride()) {
        vq_case c = vq_random_case(&random, 9000);
        c.table.bits = c.table.bits > i % 3 ? i % 3 : c.table.bits;
        tv_vq_search_args a = {.tokens = op_int(&random, 1, 200), .probes = 1, .buckets = (int64_t)1 << c.table.bits};
        size_t bytes = (size_t)a.tokens * 4;
        int flat = i % 2; // many ties
        int32_t *bucket = random_buckets(&random, a.tokens, c.table.bits, 0);
        int32_t *item = op_host(bytes), *start = op_host((size_t)(a.buckets + 1) * 4);
        int32_t *row = op_host(bytes), *score = op_host(bytes), *want_row = op_host(bytes), *want = op_host(bytes);
        float *scale = op_floats(&random, a.tokens, 1.0f);
        for (int64_t t = 0; t < a.tokens; t++)
            scale[t] = ldexpf(fabsf(scale[t]), op_int(&random, -14, 4));
        for (int64_t r = 0; flat && r < c.table.rows; r++)
            c.table.E[r] = (int8_t)c.table.base;
        plan(op_ref(), (tv_vq_plan_args){.tokens = a.tokens, .probes = 1, .buckets = a.buckets}, bucket, item, start);
        a.q = op_int8s(&random, a.tokens * c.table.cols, flat ? -1 : -TV_VQ_QMAX, flat ? 1 : TV_VQ_QMAX);
        a.scale = scale, a.item = item, a.start = start;
        search(op_ref(), &c, a, want_row, want);
        search(on, &c, a, row, score);
        op_same("rows", on, want_row, row, bytes);
        op_same("scores", on, want, score, bytes);
    }
}

static void test_long_runs(void **state)
{
    (void)state;
    op_against_ref(check_long_runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_probes), cmocka_unit_test(test_send),
                                       cmocka_unit_test(test_plan), cmocka_unit_test(test_long_runs)};
    return op_run("op_vq_plan", tests);
}
