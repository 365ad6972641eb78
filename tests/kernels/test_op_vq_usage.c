// Codebooks: how often rows are used, the farthest query of a bucket, and rows that start again.
#include <math.h>
#include <string.h>

#include "base/pack.h"
#include "vq_case.h"

static void check_usage(const op_backend *on)
{
    op_random random = {421, 0};
    for (int i = 0; i < 40; i++) {
        vq_case c = vq_random_case(&random, 300);
        int64_t counts[17] = {0}, want[17] = {0}, rows = c.table.rows;
        int16_t *usage = op_host_copy(c.usage, (size_t)rows * 2);
        int halve = i % 2;
        op_call call = op_begin(on);
        tv_vq_usage_args a = {.rows = rows, .halve = halve};
        a.usage = op_out(&call, usage, (size_t)rows * 2);
        a.counts = i % 3 == 0 ? NULL : op_out(&call, counts, sizeof counts);
        op_end(&call, on->backend->vq.usage(&a, NULL));
        for (int64_t r = 0; r < rows; r++) {
            assert_int_equal(usage[r], halve ? c.usage[r] / 2 : c.usage[r]);
            want[0] += c.usage[r] > 0;
            want[1] += c.usage[r];
            for (int k = 0; k < 15; k++)
                want[2 + k] += c.usage[r] >= 1 << k && c.usage[r] < 2 << k;
        }
        if (a.counts)
            assert_memory_equal(counts, want, sizeof want);
    }
}

static void test_usage(void **state)
{
    (void)state;
    op_on_each(check_usage);
}

// Queries of several units, each with what the search of its own bucket gave.
typedef struct far_case {
    vq_case codebook;
    int64_t tokens, buckets;
    int8_t *q;
    float *scale;
    int32_t *unit, *bucket, *item, *start, *row, *score;
    tv_vq_far *far;
} far_case;

static far_case random_far(op_random *random)
{
    far_case c = {.codebook = vq_random_case(random, 300), .tokens = op_int(random, 0, 40)};
    int64_t cols = c.codebook.table.cols;
    size_t ints = (size_t)c.tokens * 4;
    int narrow = op_int(random, 0, 1); // many ties
    c.buckets = 1 << c.codebook.table.bits;
    c.q = op_int8s(random, c.tokens * cols, narrow ? -1 : -121, narrow ? 1 : 121);
    c.scale = op_host(ints), c.unit = op_host(ints), c.bucket = op_host(ints), c.item = op_host(ints);
    c.row = op_host(ints), c.score = op_host(ints), c.start = op_host((size_t)(c.buckets + 1) * 4);
    c.far = op_host((size_t)c.buckets * sizeof *c.far);
    for (int64_t t = 0; t < c.tokens; t++) {
        c.scale[t] = ldexpf(1.0f, c.codebook.table.base - (narrow ? 0 : op_int(random, 0, 3)));
        c.unit[t] = (int32_t)(t * 3 / c.tokens) + 4;
    }
    for (int64_t b = 0; b < c.buckets; b++)
        c.far[b].found = 0;
    return c;
}

static void search_own(const op_backend *on, far_case *c)
{
    const tv_vq_table *t = &c->codebook.table;
    size_t ints = (size_t)c->tokens * 4, starts = (size_t)(c->buckets + 1) * 4, queries = (size_t)(c->tokens * t->cols);
    op_call call = op_begin(on);
    tv_vq_probes_args probes = {.tokens = c->tokens, .cols = t->cols, .bits = t->bits, .probes = 1};
    probes.q = op_in(&call, c->q, queries);
    probes.bucket = op_out(&call, c->bucket, ints);
    op_end(&call, on->backend->vq.probes(&probes, NULL));
    call = op_begin(on);
    tv_vq_plan_args plan = {.tokens = c->tokens, .probes = 1, .buckets = c->buckets};
    plan.bucket = op_in(&call, c->bucket, ints);
    plan.item = op_out(&call, c->item, ints);
    plan.start = op_out(&call, c->start, starts);
    op_end(&call, on->backend->vq.plan(&plan, NULL));
    call = op_begin(on);
    tv_vq_search_args a = {.table = vq_in(&call, t), .tokens = c->tokens, .probes = 1, .buckets = c->buckets};
    a.q = op_in(&call, c->q, queries), a.scale = op_in(&call, c->scale, ints);
    a.item = op_in(&call, c->item, ints), a.start = op_in(&call, c->start, starts);
    a.row = op_out(&call, c->row, ints), a.score = op_out(&call, c->score, ints);
    op_end(&call, on->backend->vq.search(&a, NULL));
}

static void run_farthest(const op_backend *on, far_case *c, int probes)
{
    const tv_vq_table *t = &c->codebook.table;
    size_t ints = (size_t)c->tokens * 4, pairs = ints * (size_t)probes;
    op_call call = op_begin(on);
    tv_vq_farthest_args a = {
        .tokens = c->tokens, .cols = t->cols, .probes = probes, .base = t->base, .buckets = c->buckets};
    a.q = op_in(&call, c->q, (size_t)(c->tokens * t->cols)), a.scale = op_in(&call, c->scale, ints);
    a.unit = op_in(&call, c->unit, ints), a.item = op_in(&call, c->item, pairs);
    a.start = op_in(&call, c->start, (size_t)(c->buckets + 1) * 4);
    a.row = op_in(&call, c->row, pairs), a.score = op_in(&call, c->score, pairs);
    a.far = op_out(&call, c->far, (size_t)c->buckets * sizeof *c->far);
    op_end(&call, on->backend->vq.farthest(&a, NULL));
}

// 2^16 / 2^2b times the squared distance of query t to the row that it found, in real numbers: exact, for it is an integer below 2^53
// where the scale is a power of two.
static double distance_of(const far_case *c, int64_t t)
{
    int8_t w8[TV_VQ_COLS_MAX];
    double sum = 0, units = ldexp((double)c->scale[t], 8 - c->codebook.table.base);
    vq_decode(&c->codebook, c->row[t], w8);
    for (int64_t d = 0; d < c->codebook.table.cols; d++) {
        double e = units * c->q[t * c->codebook.table.cols + d] - 256.0 * w8[d];
        sum += e * e;
    }
    return sum;
}

// Against a scan; the queries of the units in one call or in three, it is the same.
static void check_farthest(const op_backend *on)
{
    op_random random = {422, 0};
    for (int i = 0; i < 60; i++) {
        far_case c = random_far(&random);
        search_own(on, &c);
        run_farthest(on, &c, 1);
        for (int64_t b = 0; b < c.buckets; b++) {
            int64_t best = -1;
            for (int64_t t = 0; t < c.tokens; t++)
                if (c.bucket[t] == b && (best < 0 || distance_of(&c, t) > distance_of(&c, best)))
                    best = t;
            assert_int_equal(c.far[b].found, best >= 0);
            assert_int_equal(c.far[b].unit, best < 0 ? 0 : c.unit[best]);
            if (best < 0)
                continue;
            assert_true((double)c.far[b].distance == distance_of(&c, best));
            for (int d = 0; d < TV_VQ_COLS_MAX; d++) {
                int q = d < c.codebook.table.cols ? c.q[best * c.codebook.table.cols + d] : 0;
                assert_int_equal(c.far[b].trit[d], (q > 0) - (q < 0));
            }
        }
        // A second batch of the same queries, from later units: nearer or as far, it changes nothing.
        tv_vq_far *once = op_host_copy(c.far, (size_t)c.buckets * sizeof *c.far);
        for (int64_t t = 0; t < c.tokens; t++)
            c.unit[t] += 3;
        run_farthest(on, &c, 1);
        op_same("a later unit as far", on, once, c.far, (size_t)c.buckets * sizeof *c.far);
        // From earlier ones it takes the place of those as far.
        for (int64_t t = 0; t < c.tokens; t++)
            c.unit[t] -= 6;
        run_farthest(on, &c, 1);
        for (int64_t b = 0; b < c.buckets; b++)
            assert_int_equal(c.far[b].unit, once[b].found ? once[b].unit - 3 : 0);
    }
}

static void test_farthest(void **state)
{
    (void)state;
    op_on_each(check_farthest);
}

static vq_case copy_case(const vq_case *from)
{
    vq_case c = *from;
    c.table.T = op_host_copy(from->table.T, c.T_bytes);
    c.table.E = op_host_copy(from->table.E, c.row_bytes);
    c.table.T_accum = op_host_copy(from->table.T_accum, c.accum_bytes);
    c.table.E_accum = op_host_copy(from->table.E_accum, c.row_bytes);
    c.usage = op_host_copy(from->usage, c.row_bytes * 2);
    return c;
}

// Returns how many rows it started again.
static int64_t run_restart(const op_backend *on, far_case *c)
{
    vq_case *book = &c->codebook;
    int64_t restarts = 0;
    op_call call = op_begin(on);
    tv_vq_restart_args a = {.table = vq_out(&call, &book->table), .buckets = c->buckets, .usage_start = 5};
    a.exponent = book->table.base;
    a.far = op_in(&call, c->far, (size_t)c->buckets * sizeof *c->far);
    a.usage = op_out(&call, book->usage, book->row_bytes * 2);
    a.restarts = op_out(&call, &restarts, 8);
    op_end(&call, on->backend->vq.restart(&a, NULL));
    return restarts;
}

// In each bucket with a farthest query the first row that nobody uses takes its signs; nothing else changes.
static void check_restart(const op_backend *on)
{
    op_random random = {423, 0};
    int64_t total = 0;
    for (int i = 0; i < 60; i++) {
        far_case c = random_far(&random);
        vq_case *book = &c.codebook;
        int64_t cols = book->table.cols, packed = (cols + 4) / 5, want = 0;
        search_own(on, &c);
        run_farthest(on, &c, 1);
        vq_case before = copy_case(book);
        int64_t restarts = run_restart(on, &c);
        int64_t last = -1;
        for (int64_t r = 0; r < book->table.rows; r++) {
            int64_t b = tv_vq_bucket_of(book->table.rows, book->table.bits, r);
            int starts = c.far[b].found && before.usage[r] == 0 && last != b;
            int8_t trits[TV_VQ_COLS_MAX];
            tv_unpack_row(book->table.T + r * packed, cols, trits);
            for (int64_t d = 0; starts && d < cols; d++) {
                int pattern = d < book->table.bits;
                assert_int_equal(trits[d], pattern ? tv_vq_pattern(b, (int)d) : c.far[b].trit[d]);
                assert_int_equal(book->table.T_accum[r * cols + d], 0);
            }
            assert_int_equal(book->usage[r], starts ? 5 : before.usage[r]);
            assert_int_equal(book->table.E[r], starts ? book->table.base : before.table.E[r]);
            assert_int_equal(book->table.E_accum[r], starts ? 0 : before.table.E_accum[r]);
            if (!starts) {
                assert_memory_equal(book->table.T + r * packed, before.table.T + r * packed, (size_t)packed);
                assert_memory_equal(book->table.T_accum + r * cols, before.table.T_accum + r * cols, (size_t)cols);
            }
            last = starts ? b : last;
            want += starts;
        }
        assert_int_equal(restarts, want);
        total += want;
    }
    assert_true(total > 20);
}

static void test_restart(void **state)
{
    (void)state;
    op_on_each(check_restart);
}

// Many rows, at both borders of 16 bytes.
static void large_usage(const op_backend *on, op_random *random, int offset, int halve, int16_t *usage, int64_t *counts)
{
    int64_t rows = 70001;
    for (int64_t i = 0; i < rows; i++)
        usage[i] = (int16_t)(op_next(random) % 3 == 0 ? 0 : op_next(random) % 32768 >> op_next(random) % 16);
    for (int k = 0; k < 17; k++)
        counts[k] = 100 + k;
    op_call call = op_begin(on);
    tv_vq_usage_args a = {.rows = rows - offset, .halve = halve};
    a.usage = (int16_t *)op_out(&call, usage, (size_t)rows * 2) + offset;
    a.counts = op_out(&call, counts, 17 * sizeof *counts);
    op_end(&call, on->backend->vq.usage(&a, NULL));
}

static void check_large_usage(const op_backend *on)
{
    for (int i = 0; i < 4; i++) {
        op_random random[2] = {{424, 0}, {424, 0}};
        int64_t counts[2][17];
        int16_t *usage[2];
        for (int k = 0; k < 2; k++) {
            usage[k] = op_host(70001 * sizeof(int16_t));
            large_usage(k == 0 ? op_ref() : on, &random[k], i % 2, i / 2, usage[k], counts[k]);
        }
        op_same("usage", on, usage[0], usage[1], 70001 * sizeof(int16_t));
        op_same("counts", on, counts[0], counts[1], sizeof counts[0]);
    }
}

// Thousands of queries with several slots, any rows and scores; few rows are without use.
static far_case large_far(op_random *random, int probes)
{
    far_case c = {.codebook = vq_random_case(random, 3000), .tokens = op_int(random, 1000, 3000)};
    int64_t cols = c.codebook.table.cols;
    size_t ints = (size_t)c.tokens * 4, pairs = ints * (size_t)probes;
    c.buckets = 1 << c.codebook.table.bits;
    c.q = op_int8s(random, c.tokens * cols, -121, 121);
    c.scale = op_host(ints), c.unit = op_host(ints), c.start = op_host((size_t)(c.buckets + 1) * 4);
    c.bucket = op_host(pairs), c.item = op_host(pairs), c.row = op_host(pairs), c.score = op_host(pairs);
    c.far = op_host((size_t)c.buckets * sizeof *c.far);
    for (int64_t t = 0; t < c.tokens; t++) {
        c.scale[t] = ldexpf(1.0f + (float)op_int(random, 0, 99) / 128, c.codebook.table.base + op_int(random, -4, 3));
        c.unit[t] = op_int(random, 0, 5);
    }
    for (int64_t t = 1; t < c.tokens; t += 2) { // as far as the query before
        memcpy(c.q + t * cols, c.q + (t - 1) * cols, (size_t)cols);
        c.scale[t] = c.scale[t - 1];
    }
    for (int64_t p = 0; p < c.tokens * probes; p++) {
        c.bucket[p] = op_int(random, 0, (int)c.buckets); // the last is none
        c.row[p] = op_int(random, -1, 3);
        c.score[p] = op_int(random, -1, 1) * 1000;
    }
    for (int64_t r = 0; r < c.codebook.table.rows; r++)
        c.codebook.usage[r] = op_int(random, 0, 400) > 0;
    return c;
}

static void plan_far(far_case *c, int probes)
{
    size_t pairs = (size_t)(c->tokens * probes) * 4;
    op_call call = op_begin(op_ref());
    tv_vq_plan_args plan = {.tokens = c->tokens, .probes = probes, .buckets = c->buckets};
    plan.bucket = op_in(&call, c->bucket, pairs);
    plan.item = op_out(&call, c->item, pairs);
    plan.start = op_out(&call, c->start, (size_t)(c->buckets + 1) * 4);
    op_end(&call, op_ref()->backend->vq.plan(&plan, NULL));
}

// Against ref, twice: the second time with a far query in most buckets.
static void check_large_far(const op_backend *on)
{
    op_random random = {425, 0};
    for (int i = 0; i < 6; i++) {
        int probes = op_int(&random, 1, 3);
        far_case want = large_far(&random, probes), got;
        size_t fars = (size_t)want.buckets * sizeof *want.far;
        plan_far(&want, probes);
        got = want;
        got.far = op_host(fars);
        for (int turn = 0; turn < 2; turn++) {
            run_farthest(op_ref(), &want, probes);
            run_farthest(on, &got, probes);
            op_same("farthest", on, want.far, got.far, fars);
            for (int64_t t = 0; t < want.tokens; t++) {
                want.unit[t] = (want.unit[t] + 3) % 6;
                want.score[t * probes] -= op_int(&random, 0, 1);
            }
        }
        vq_case *book = &want.codebook, *other = &got.codebook;
        *other = copy_case(book);
        assert_int_equal(run_restart(op_ref(), &want), run_restart(on, &got));
        op_same("trits", on, book->table.T, other->table.T, book->T_bytes);
        op_same("exponents", on, book->table.E, other->table.E, book->row_bytes);
        op_same("counters", on, book->table.T_accum, other->table.T_accum, book->accum_bytes);
        op_same("exponents' counters", on, book->table.E_accum, other->table.E_accum, book->row_bytes);
        op_same("usage", on, book->usage, other->usage, book->row_bytes * 2);
    }
}

static void test_large(void **state)
{
    (void)state;
    op_against_ref(check_large_usage);
    op_against_ref(check_large_far);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_usage), cmocka_unit_test(test_farthest),
                                       cmocka_unit_test(test_restart), cmocka_unit_test(test_large)};
    return op_run("op_vq_usage", tests);
}
