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

static void run_farthest(const op_backend *on, far_case *c)
{
    const tv_vq_table *t = &c->codebook.table;
    size_t ints = (size_t)c->tokens * 4;
    op_call call = op_begin(on);
    tv_vq_farthest_args a = {.tokens = c->tokens, .cols = t->cols, .probes = 1, .base = t->base, .buckets = c->buckets};
    a.q = op_in(&call, c->q, (size_t)(c->tokens * t->cols)), a.scale = op_in(&call, c->scale, ints);
    a.unit = op_in(&call, c->unit, ints), a.item = op_in(&call, c->item, ints);
    a.start = op_in(&call, c->start, (size_t)(c->buckets + 1) * 4);
    a.row = op_in(&call, c->row, ints), a.score = op_in(&call, c->score, ints);
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
        run_farthest(on, &c);
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
        run_farthest(on, &c);
        op_same("a later unit as far", on, once, c.far, (size_t)c.buckets * sizeof *c.far);
        // From earlier ones it takes the place of those as far.
        for (int64_t t = 0; t < c.tokens; t++)
            c.unit[t] -= 6;
        run_farthest(on, &c);
        for (int64_t b = 0; b < c.buckets; b++)
            assert_int_equal(c.far[b].unit, once[b].found ? once[b].unit - 3 : 0);
    }
}

static void test_farthest(void **state)
{
    (void)state;
    op_on_each(check_farthest);
}

// In each bucket with a farthest query the first row that nobody uses takes its signs; nothing else changes.
static void check_restart(const op_backend *on)
{
    op_random random = {423, 0};
    int64_t total = 0;
    for (int i = 0; i < 60; i++) {
        far_case c = random_far(&random);
        vq_case *book = &c.codebook;
        int64_t cols = book->table.cols, packed = (cols + 4) / 5, restarts = 0, want = 0;
        search_own(on, &c);
        run_farthest(on, &c);
        vq_case before = *book;
        before.table.T = op_host_copy(book->table.T, book->T_bytes);
        before.table.E = op_host_copy(book->table.E, book->row_bytes);
        before.table.T_accum = op_host_copy(book->table.T_accum, book->accum_bytes);
        before.table.E_accum = op_host_copy(book->table.E_accum, book->row_bytes);
        before.usage = op_host_copy(book->usage, book->row_bytes * 2);
        op_call call = op_begin(on);
        tv_vq_restart_args a = {.table = vq_out(&call, &book->table), .buckets = c.buckets, .usage_start = 5};
        a.exponent = book->table.base;
        a.far = op_in(&call, c.far, (size_t)c.buckets * sizeof *c.far);
        a.usage = op_out(&call, book->usage, book->row_bytes * 2);
        a.restarts = op_out(&call, &restarts, 8);
        op_end(&call, on->backend->vq.restart(&a, NULL));
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_usage), cmocka_unit_test(test_farthest),
                                       cmocka_unit_test(test_restart)};
    return op_run("op_vq_usage", tests);
}
