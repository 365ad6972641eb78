// Codebooks: buckets, where a query looks, and what it finds there.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vq_case.h"

// A batch of queries on a table, and the place that answers.
typedef struct search_case {
    vq_case codebook;
    int64_t tokens;
    int probes, places, place;
    int8_t *q;
    float *scale;
    // results
    int32_t *bucket, *sent, *index, *item, *start, *row, *score, *best_row, *best_score, *best_from;
    int64_t *counts, first_bucket, buckets;
} search_case;

static search_case random_search(op_random *random, int most_rows, int most_tokens)
{
    search_case c = {.codebook = vq_random_case(random, most_rows), .tokens = op_int(random, 0, most_tokens)};
    const tv_vq_table *t = &c.codebook.table;
    int all = 1 << t->bits, flat = op_int(random, 0, 1); // flat: many ties
    c.probes = op_int(random, 1, all < TV_VQ_PROBES_MAX ? all : TV_VQ_PROBES_MAX);
    c.places = op_int(random, 1, all < 4 ? all : 4);
    c.place = op_int(random, 0, c.places - 1);
    c.q = op_int8s(random, c.tokens * t->cols, flat ? -1 : -TV_VQ_QMAX, flat ? 1 : TV_VQ_QMAX);
    c.scale = op_floats(random, c.tokens, 1.0f);
    for (int64_t i = 0; i < c.tokens; i++)
        c.scale[i] = ldexpf(fabsf(c.scale[i]), op_int(random, -14, 4));
    int64_t pairs = c.tokens * c.probes;
    c.first_bucket = tv_vq_place_first(t->bits, c.places, c.place);
    c.buckets = tv_vq_place_first(t->bits, c.places, c.place + 1) - c.first_bucket;
    c.bucket = op_host((size_t)pairs * 4), c.item = op_host((size_t)pairs * 4);
    c.row = op_host((size_t)pairs * 4), c.score = op_host((size_t)pairs * 4);
    c.sent = op_host((size_t)(c.tokens * c.places) * 4), c.index = op_host((size_t)(c.tokens * c.places) * 4);
    c.counts = op_host((size_t)c.places * 8), c.start = op_host((size_t)(c.buckets + 1) * 4);
    c.best_row = op_host((size_t)c.tokens * 4), c.best_score = op_host((size_t)c.tokens * 4);
    c.best_from = op_host((size_t)c.tokens * 4);
    return c;
}

static void run_probes(const op_backend *on, search_case *c)
{
    const tv_vq_table *t = &c->codebook.table;
    size_t pairs = (size_t)(c->tokens * c->probes) * 4, sent = (size_t)(c->tokens * c->places) * 4;
    op_call call = op_begin(on);
    tv_vq_probes_args probes = {.tokens = c->tokens, .cols = t->cols, .bits = t->bits, .probes = c->probes};
    probes.q = op_in(&call, c->q, (size_t)(c->tokens * t->cols));
    probes.bucket = op_out(&call, c->bucket, pairs);
    op_end(&call, on->backend->vq.probes(&probes, NULL));
    call = op_begin(on);
    tv_vq_send_args send = {.tokens = c->tokens, .bits = t->bits, .probes = c->probes, .places = c->places};
    send.bucket = op_in(&call, c->bucket, pairs);
    send.item = op_out(&call, c->sent, sent);
    send.index = op_out(&call, c->index, sent);
    send.counts = op_out(&call, c->counts, (size_t)c->places * 8);
    op_end(&call, on->backend->vq.send(&send, NULL));
}

static void run_search(const op_backend *on, search_case *c)
{
    size_t pairs = (size_t)(c->tokens * c->probes) * 4, starts = (size_t)(c->buckets + 1) * 4;
    tv_vq_table block = vq_block(&c->codebook, c->places, c->place);
    op_call call = op_begin(on);
    tv_vq_plan_args plan = {.tokens = c->tokens, .probes = c->probes};
    plan.first_bucket = c->first_bucket, plan.buckets = c->buckets;
    plan.bucket = op_in(&call, c->bucket, pairs);
    plan.item = op_out(&call, c->item, pairs);
    plan.start = op_out(&call, c->start, starts);
    op_end(&call, on->backend->vq.plan(&plan, NULL));
    call = op_begin(on);
    tv_vq_search_args search = {.table = vq_in(&call, &block), .tokens = c->tokens, .probes = c->probes};
    search.first_bucket = c->first_bucket, search.buckets = c->buckets;
    search.q = op_in(&call, c->q, (size_t)(c->tokens * block.cols));
    search.scale = op_in(&call, c->scale, (size_t)c->tokens * 4);
    search.item = op_in(&call, c->item, pairs);
    search.start = op_in(&call, c->start, starts);
    search.row = op_out(&call, c->row, pairs);
    search.score = op_out(&call, c->score, pairs);
    op_end(&call, on->backend->vq.search(&search, NULL));
    call = op_begin(on);
    tv_vq_best_args best = {.tokens = c->tokens, .slots = c->probes};
    best.row = op_in(&call, c->row, pairs);
    best.score = op_in(&call, c->score, pairs);
    best.best_row = op_out(&call, c->best_row, (size_t)c->tokens * 4);
    best.best_score = op_out(&call, c->best_score, (size_t)c->tokens * 4);
    best.best_from = op_out(&call, c->best_from, (size_t)c->tokens * 4);
    op_end(&call, on->backend->vq.best(&best, NULL));
}

// Buckets and places cut the rows into runs without a gap, of nearly equal size.
static void test_cuts(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 2, 7, 128, 1000, 65537};
    for (int i = 0; i < 6; i++)
        for (int bits = 0; bits < 10 && sizes[i] >> bits > 0; bits++) {
            int64_t rows = sizes[i], row = 0;
            for (int64_t b = 0; b < 1 << bits; b++) {
                int64_t end = tv_vq_bucket_first(rows, bits, b + 1), size = end - row;
                assert_true(size == rows >> bits || size == (rows >> bits) + 1);
                for (; row < end; row++)
                    assert_int_equal(tv_vq_bucket_of(rows, bits, row), b);
            }
            assert_int_equal(row, rows);
            for (int places = 1; places <= 1 << bits && places <= 8; places++)
                for (int64_t b = 0; b < 1 << bits; b++) {
                    int place = tv_vq_place_of(bits, places, b);
                    assert_in_range(place, 0, places - 1);
                    assert_true(tv_vq_place_first(bits, places, place) <= b);
                    assert_true(b < tv_vq_place_first(bits, places, place + 1));
                }
        }
    assert_int_equal(tv_vq_bits(65536, 1024, 65536), 0);
    assert_int_equal(tv_vq_bits(10000000, 1024, 65536), 13);
}

static int64_t probe_cost(const search_case *c, int64_t t, int32_t bucket)
{
    int64_t cost = 0;
    for (int d = 0; d < c->codebook.table.bits; d++) {
        int q = c->q[t * c->codebook.table.cols + d];
        cost += (q >= 0) != (tv_vq_pattern(bucket, d) > 0) ? abs(q) : 0;
    }
    return cost;
}

// Against a scan of all buckets: those chosen come in order, and none left out comes before the last.
static void check_probes(const op_backend *on)
{
    op_random random = {401, 0};
    for (int i = 0; i < 60; i++) {
        search_case c = random_search(&random, 300, 20);
        int32_t all = 1 << c.codebook.table.bits;
        run_probes(on, &c);
        for (int64_t t = 0; t < c.tokens; t++) {
            const int32_t *bucket = c.bucket + t * c.probes;
            int chosen[128] = {0};
            for (int j = 0; j < c.probes; j++) {
                assert_in_range(bucket[j], 0, all - 1);
                chosen[bucket[j]]++;
            }
            assert_int_equal(probe_cost(&c, t, bucket[0]), 0);
            for (int32_t b = 0; b < all; b++) {
                int64_t last = probe_cost(&c, t, bucket[c.probes - 1]), cost = probe_cost(&c, t, b);
                assert_true(chosen[b] == 1 ||
                            (chosen[b] == 0 && (cost > last || (cost == last && b > bucket[c.probes - 1]))));
            }
            for (int j = 1; j < c.probes; j++) {
                int64_t before = probe_cost(&c, t, bucket[j - 1]), cost = probe_cost(&c, t, bucket[j]);
                assert_true(before < cost || (before == cost && bucket[j - 1] < bucket[j]));
            }
        }
    }
}

static void test_probes(void **state)
{
    (void)state;
    op_on_each(check_probes);
}

// A query travels once to each place that holds one of its buckets.
static void check_send(const op_backend *on)
{
    op_random random = {402, 0};
    for (int i = 0; i < 60; i++) {
        search_case c = random_search(&random, 300, 20);
        run_probes(on, &c);
        int64_t next = 0;
        for (int o = 0; o < c.places; o++) {
            int64_t before = next;
            for (int64_t t = 0; t < c.tokens; t++) {
                int wanted = 0;
                for (int j = 0; j < c.probes; j++)
                    wanted |= tv_vq_place_of(c.codebook.table.bits, c.places, c.bucket[t * c.probes + j]) == o;
                assert_int_equal(c.index[t * c.places + o], wanted ? next : -1);
                if (wanted)
                    assert_int_equal(c.sent[next++], t);
            }
            assert_int_equal(c.counts[o], next - before);
        }
    }
}

static void test_send(void **state)
{
    (void)state;
    op_on_each(check_send);
}

// Score of a row for a query, in 64 bits.
static int64_t score_of(const search_case *c, int64_t t, int64_t row)
{
    int8_t w8[TV_VQ_COLS_MAX];
    int64_t cols = c->codebook.table.cols, dot = 0, norm = 0;
    double units = rint(ldexp((double)c->scale[t], 8 - c->codebook.table.base));
    int64_t sq = units < 1 ? 1 : units > 1023 ? 1023 : (int64_t)units;
    vq_decode(&c->codebook, row, w8);
    for (int64_t i = 0; i < cols; i++) {
        dot += c->q[t * cols + i] * w8[i];
        norm += w8[i] * w8[i];
    }
    return 2 * sq * dot - 256 * norm;
}

// The best row of a bucket by a scan of the whole table; -1 when the bucket is not at the place.
static int64_t scan(const search_case *c, int64_t t, int32_t bucket, int64_t *score)
{
    const tv_vq_table *table = &c->codebook.table;
    int64_t best = -1;
    *score = INT32_MIN;
    for (int64_t row = 0; row < table->rows; row++)
        if (tv_vq_bucket_of(table->rows, table->bits, row) == bucket &&
            tv_vq_place_of(table->bits, c->places, bucket) == c->place) {
            int64_t s = score_of(c, t, row);
            if (best < 0 || s > *score)
                best = row, *score = s;
        }
    return best;
}

static void check_search_token(const search_case *c, int64_t t)
{
    int64_t best = -1, top = INT32_MIN, from = -1;
    for (int j = 0; j < c->probes; j++) {
        int64_t pair = t * c->probes + j, score, row = scan(c, t, c->bucket[pair], &score);
        assert_int_equal(c->row[pair], row);
        assert_int_equal(c->score[pair], score);
        if (row >= 0 && (best < 0 || score > top || (score == top && row < best)))
            best = row, top = score, from = pair;
    }
    assert_int_equal(c->best_row[t], best);
    assert_int_equal(c->best_score[t], top);
    assert_int_equal(c->best_from[t], from);
}

static void check_search(const op_backend *on)
{
    op_random random = {403, 0};
    for (int i = 0; i < 60; i++) {
        search_case c = random_search(&random, 300, 20);
        run_probes(on, &c);
        run_search(on, &c);
        int32_t pairs = c.start[c.buckets];
        assert_int_equal(c.start[0], 0);
        for (int64_t b = 0; b < c.buckets; b++)
            for (int32_t r = c.start[b]; r < c.start[b + 1]; r++) {
                assert_int_equal(c.bucket[c.item[r]], c.first_bucket + b);
                assert_true(r == c.start[b] || c.item[r - 1] < c.item[r]);
            }
        for (int64_t p = 0; p < c.tokens * c.probes; p++)
            pairs -= tv_vq_place_of(c.codebook.table.bits, c.places, c.bucket[p]) == c.place;
        assert_int_equal(pairs, 0);
        for (int64_t t = 0; t < c.tokens; t++)
            check_search_token(&c, t);
    }
}

static void test_search(void **state)
{
    (void)state;
    op_on_each(check_search);
}

// A search of all buckets finds what the exact search of one bucket does.
static void check_exact(const op_backend *on)
{
    op_random random = {404, 0};
    for (int i = 0; i < 60; i++) {
        search_case c = random_search(&random, 300, 20);
        if (c.codebook.table.bits > 6)
            continue; // more buckets than a query may have
        search_case all = c, exact = c;
        all.probes = 1 << c.codebook.table.bits;
        exact.probes = 1;
        exact.codebook.table.bits = 0;
        search_case *both[] = {&all, &exact};
        for (int k = 0; k < 2; k++) {
            search_case *s = both[k];
            size_t pairs = (size_t)(c.tokens * s->probes) * 4, tokens = (size_t)c.tokens * 4;
            s->places = 1, s->place = 0, s->first_bucket = 0, s->buckets = 1 << s->codebook.table.bits;
            s->bucket = op_host(pairs), s->item = op_host(pairs), s->row = op_host(pairs), s->score = op_host(pairs);
            s->start = op_host((size_t)(s->buckets + 1) * 4);
            s->best_row = op_host(tokens), s->best_score = op_host(tokens), s->best_from = op_host(tokens);
            run_probes(on, s);
            run_search(on, s);
        }
        op_same("row", on, exact.best_row, all.best_row, (size_t)c.tokens * 4);
        op_same("score", on, exact.best_score, all.best_score, (size_t)c.tokens * 4);
    }
}

static void test_exact(void **state)
{
    (void)state;
    op_on_each(check_exact);
}

// Candidates from several places, through an index with gaps.
static void check_best_index(const op_backend *on)
{
    static const int32_t row[] = {7, 3, 9, -1, 2}, score[] = {5, 5, 6, 100, -8};
    static const int32_t index[] = {0, 1, -1, /**/ 2, 0, 1, /**/ 3, -1, 4, /**/ -1, 3, -1};
    static const int32_t want_row[] = {3, 9, 2, -1}, want_from[] = {1, 2, 4, -1};
    static const int32_t want_score[] = {5, 6, -8, INT32_MIN};
    int32_t got_row[4], got_score[4], got_from[4];
    op_call call = op_begin(on);
    tv_vq_best_args a = {.tokens = 4, .slots = 3};
    a.index = op_in(&call, index, sizeof index);
    a.row = op_in(&call, row, sizeof row);
    a.score = op_in(&call, score, sizeof score);
    a.best_row = op_out(&call, got_row, sizeof got_row);
    a.best_score = op_out(&call, got_score, sizeof got_score);
    a.best_from = op_out(&call, got_from, sizeof got_from);
    op_end(&call, on->backend->vq.best(&a, NULL));
    op_same("rows", on, want_row, got_row, sizeof got_row);
    op_same("scores", on, want_score, got_score, sizeof got_score);
    op_same("entries", on, want_from, got_from, sizeof got_from);
}

static void test_best_index(void **state)
{
    (void)state;
    op_on_each(check_best_index);
}

// The same as ref, with runs of queries and blocks of rows longer than those that are worked on at once.
static void check_bits(const op_backend *on)
{
    op_random random = {77, 0};
    for (int i = 0; i < 24; i += op_stride()) {
        search_case c = random_search(&random, i % 2 ? 300 : 1300, i % 3 ? 90 : 700);
        size_t pairs = (size_t)(c.tokens * c.probes) * 4;
        run_probes(op_ref(), &c);
        run_search(op_ref(), &c);
        int32_t *row = op_host_copy(c.row, pairs), *score = op_host_copy(c.score, pairs);
        run_search(on, &c);
        op_same("rows", on, row, c.row, pairs);
        op_same("scores", on, score, c.score, pairs);
    }
}

static void test_bits(void **state)
{
    (void)state;
    op_against_ref(check_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cuts),  cmocka_unit_test(test_probes),
                                       cmocka_unit_test(test_send),  cmocka_unit_test(test_search),
                                       cmocka_unit_test(test_exact), cmocka_unit_test(test_best_index),
                                       cmocka_unit_test(test_bits)};
    return op_run("op_vq_search", tests);
}
