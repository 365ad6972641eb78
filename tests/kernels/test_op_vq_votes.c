// Codebooks: entries grouped by row, a unit's votes, the ballot on touched rows.
#include <string.h>

#include "vq_case.h"

static int64_t packed(const tv_vq_table *t) { return (t->cols + 4) / 5; }

typedef struct group {
    int32_t *order, *distinct, *start, count;
} group;

static group run_group(const op_backend *on, const int32_t *row, int64_t entries)
{
    size_t ints = (size_t)entries * 4;
    group g = {op_host(ints), op_host(ints), op_host(ints + 4), -1};
    op_call call = op_begin(on);
    tv_vq_group_args a = {.entries = entries};
    a.row = op_in(&call, row, ints);
    a.order = op_out(&call, g.order, ints);
    a.distinct = op_out(&call, g.distinct, ints);
    a.start = op_out(&call, g.start, ints + 4);
    a.count = op_out(&call, &g.count, 4);
    op_end(&call, on->backend->vq.group(&a, NULL));
    return g;
}

static int32_t *random_rows(op_random *random, int64_t entries, int64_t rows, int gaps)
{
    int32_t *row = op_host((size_t)entries * 4);
    int64_t few = op_int(random, 0, 1) && rows > 5 ? 5 : rows;
    for (int64_t i = 0; i < entries; i++)
        row[i] = gaps && op_int(random, 0, 4) == 0 ? -1 : op_int(random, 0, (int)few - 1);
    return row;
}

static void check_group(const op_backend *on)
{
    op_random random = {415, 0};
    for (int i = 0; i < 60; i++) {
        int64_t entries = op_int(&random, 0, 80), kept = 0;
        int32_t *row = random_rows(&random, entries, 300, 1);
        group g = run_group(on, row, entries);
        for (int64_t e = 0; e < entries; e++)
            kept += row[e] >= 0;
        assert_int_equal(g.start[0], 0);
        assert_int_equal(g.start[g.count], kept);
        for (int32_t u = 0; u < g.count; u++) {
            assert_true(u == 0 || g.distinct[u - 1] < g.distinct[u]);
            assert_true(g.start[u] < g.start[u + 1]);
            for (int32_t e = g.start[u]; e < g.start[u + 1]; e++) {
                assert_int_equal(row[g.order[e]], g.distinct[u]);
                assert_true(e == g.start[u] || g.order[e - 1] < g.order[e]);
            }
        }
    }
}

static void test_group(void **state)
{
    (void)state;
    op_on_each(check_group);
}

// Votes of a unit, tv_vq_vote_bytes a touched row.
typedef struct unit_votes {
    group rows;
    int64_t bytes;
    uint8_t *wire;
} unit_votes;

static unit_votes run_votes(const op_backend *on, const vq_case *c, const int32_t *row, const int8_t *gt,
                            int64_t tokens, const tv_vote_rule *rule)
{
    unit_votes v = {.rows = run_group(on, row, tokens)};
    v.bytes = v.rows.count * tv_vq_vote_bytes(c->table.cols);
    v.wire = op_host((size_t)v.bytes);
    op_call call = op_begin(on);
    tv_vq_votes_args a = {.tokens = tokens, .cols = c->table.cols, .count = v.rows.count, .bits = c->table.bits};
    a.rule = *rule;
    a.gt = op_in(&call, gt, (size_t)(c->table.cols * tokens));
    a.order = op_in(&call, v.rows.order, (size_t)tokens * 4);
    a.distinct = op_in(&call, v.rows.distinct, (size_t)tokens * 4);
    a.start = op_in(&call, v.rows.start, (size_t)(tokens + 1) * 4);
    a.bytes = op_out(&call, v.wire, (size_t)v.bytes);
    op_end(&call, on->backend->vq.votes(&a, NULL));
    return v;
}

// The same votes as a dense one-hot vote over the whole table, but for the frozen channels.
static int16_t *dense_votes(const op_backend *on, const vq_case *c, const int32_t *row, const int8_t *gt,
                            int64_t tokens, const tv_vote_rule *rule)
{
    int16_t *votes = op_host(c->accum_bytes * 2);
    op_call call = op_begin(on);
    tv_embed_vote_args a = {.tokens = tokens, .width = c->table.cols, .table = c->table.rows, .rule = *rule};
    a.rule.vote_bits = 16;
    a.ids = op_in(&call, row, (size_t)tokens * 4);
    a.gt = op_in(&call, gt, (size_t)(c->table.cols * tokens));
    a.votes = op_out(&call, votes, c->accum_bytes * 2);
    op_end(&call, on->backend->embed_vote(&a, NULL));
    for (int64_t r = 0; r < c->table.rows; r++)
        memset(votes + r * c->table.cols, 0, (size_t)c->table.bits * 2);
    return votes;
}

static tv_vote_rule random_rule(op_random *random, uint32_t unit)
{
    static const int levels[] = {1, 3, 7, 15};
    return (tv_vote_rule){
        .tau = 0.5f, .levels = levels[op_int(random, 0, 3)], .seed = 3, .tensor_id = 8, .step = 2, .unit = unit};
}

static void check_votes(const op_backend *on)
{
    op_random random = {416, 0};
    for (int i = 0; i < 60; i++) {
        vq_case c = vq_random_case(&random, 300);
        int64_t tokens = op_int(&random, 1, 70), size = tv_vq_vote_bytes(c.table.cols);
        int32_t *row = random_rows(&random, tokens, c.table.rows, 0);
        int8_t *gt = op_int8s(&random, c.table.cols * tokens, -127, 127);
        tv_vote_rule rule = random_rule(&random, 5);
        unit_votes v = run_votes(on, &c, row, gt, tokens, &rule);
        const int16_t *dense = dense_votes(on, &c, row, gt, tokens, &rule);
        for (int32_t u = 0; u < v.rows.count; u++) {
            int32_t head[2];
            memcpy(head, v.wire + u * size, sizeof head);
            assert_int_equal(head[0], v.rows.distinct[u]);
            assert_int_equal(head[1], v.rows.start[u + 1] - v.rows.start[u]);
            for (int64_t d = 0; d < c.table.cols; d++)
                assert_int_equal((int8_t)v.wire[u * size + 8 + d], dense[head[0] * c.table.cols + d]);
        }
    }
}

static void test_votes(void **state)
{
    (void)state;
    op_on_each(check_votes);
}

static tv_vq_ballot_args random_ballot(op_random *random, int units)
{
    static const tv_rule rules[] = {TV_RULE_RESTART, TV_RULE_BUDGET, TV_RULE_CLASSIC};
    return (tv_vq_ballot_args){.rule = rules[op_int(random, 0, 2)],
                               .combine = op_int(random, 0, 1) ? TV_COMBINE_MEAN : TV_COMBINE_MAJORITY,
                               .units = units,
                               .quorum = op_int(random, 1, 2),
                               .threshold = op_int(random, 20, 60),
                               .eta_q = (uint32_t)op_int(random, 1 << 16, 1 << 21),
                               .classic_step = op_int(random, 1, 4),
                               .theta_min = op_int(random, 1, 20),
                               .eta_e_q = (uint32_t)op_int(random, 1 << 16, 1 << 20),
                               .exponent_threshold = op_int(random, 5, 25),
                               .seed = 3,
                               .tensor_id = 8,
                               .step = 2};
}

// What the dense ballots make of the whole table.
static void dense_ballot(const op_backend *on, vq_case *c, const int16_t *votes, const tv_vq_ballot_args *b)
{
    const tv_vq_table *t = &c->table;
    int64_t stats[3] = {0};
    for (int turn = 0; turn < 2; turn++) {
        op_call call = op_begin(on);
        const void *v = op_in(&call, votes, c->accum_bytes * 2);
        if ((turn == 0) == (b->rule == TV_RULE_CLASSIC)) {
            tv_ballot_e_args e = {
                .rows = t->rows, .cols = t->cols, .group = (int)t->cols, .base = t->base, .vote_bits = 16};
            e.mantissa_bits = t->mantissa_bits, e.eta_e_q = b->eta_e_q, e.threshold = b->exponent_threshold;
            e.seed = b->seed, e.tensor_id = b->tensor_id, e.step = b->step, e.votes = v;
            e.T = op_in(&call, t->T, c->T_bytes);
            e.E = op_out(&call, t->E, c->row_bytes);
            e.E_accum = op_out(&call, t->E_accum, c->row_bytes);
            e.stats = op_out(&call, stats + 2, 8);
            op_end(&call, on->backend->ballot_e(&e, NULL));
        } else {
            tv_ballot_args a = {
                .rows = t->rows, .cols = t->cols, .vote_bits = 16, .rule = b->rule, .combine = b->combine};
            a.units = b->units, a.quorum = b->quorum, a.threshold = b->threshold, a.eta_q = b->eta_q;
            a.classic_step = b->classic_step, a.theta = a.theta_min = b->theta_min, a.cut = -1;
            a.seed = b->seed, a.tensor_id = b->tensor_id, a.step = b->step, a.votes = v;
            a.T = op_out(&call, t->T, c->T_bytes);
            a.T_accum = op_out(&call, t->T_accum, c->accum_bytes);
            a.stats = op_out(&call, stats, 16);
            op_end(&call, on->backend->ballot(&a, NULL));
        }
    }
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

// One place's ballot on what the units gave.
static void place_ballot(const op_backend *on, vq_case *c, const tv_vq_table *block, const uint8_t *wire,
                         int64_t entries, tv_vq_ballot_args *b, int64_t stats[3])
{
    size_t bytes = (size_t)(entries * tv_vq_vote_bytes(block->cols)), ints = (size_t)entries * 4;
    int32_t *row = op_host(ints), fault = 0;
    op_call call = op_begin(on);
    tv_vq_votes_rows_args r = {
        .count = entries, .cols = block->cols, .first_row = block->first_row, .held_rows = block->held_rows};
    r.bytes = op_in(&call, wire, bytes);
    r.row = op_out(&call, row, ints);
    r.fault = op_out(&call, &fault, 4);
    op_end(&call, on->backend->vq.votes_rows(&r, NULL));
    assert_int_equal(fault, 0);
    group g = run_group(on, row, entries);
    call = op_begin(on);
    b->table = vq_out(&call, block);
    b->count = g.count;
    b->order = op_in(&call, g.order, ints);
    b->distinct = op_in(&call, g.distinct, ints);
    b->start = op_in(&call, g.start, ints + 4);
    b->bytes = op_in(&call, wire, bytes);
    b->usage = op_out(&call, c->usage + block->first_row, (size_t)block->held_rows * 2);
    b->stats = op_out(&call, stats, 24);
    op_end(&call, on->backend->vq.ballot(b, NULL));
}

// Touched rows move as the ballot over the whole table moves them, on any number of places; other rows do not.
static void check_ballot(const op_backend *on)
{
    op_random random = {417, 0};
    int64_t moved = 0;
    for (int i = 0; i < 60; i++) {
        vq_case from = vq_random_case(&random, 300), dense = copy_case(&from), c = copy_case(&from);
        int64_t cols = from.table.cols, size = tv_vq_vote_bytes(cols), tokens = op_int(&random, 1, 50), stats[3] = {0};
        int units = 2, places = op_int(&random, 1, from.table.bits < 2 ? 1 << from.table.bits : 4);
        int16_t *sum = op_host(from.accum_bytes * 2);
        int64_t *used = op_host((size_t)from.table.rows * 8);
        unit_votes votes[2];
        tv_vq_ballot_args b = random_ballot(&random, units);
        for (int u = 0; u < units; u++) {
            int32_t *row = random_rows(&random, tokens, from.table.rows, 0);
            int8_t *gt = op_int8s(&random, cols * tokens, -127, 127);
            tv_vote_rule rule = random_rule(&random, (uint32_t)u);
            votes[u] = run_votes(on, &from, row, gt, tokens, &rule);
            const int16_t *one = dense_votes(on, &from, row, gt, tokens, &rule);
            for (size_t k = 0; k < from.accum_bytes; k++)
                sum[k] = (int16_t)(sum[k] + one[k]);
            for (int64_t t = 0; t < tokens; t++)
                used[row[t]]++;
        }
        dense_ballot(on, &dense, sum, &b);
        for (int o = 0; o < places; o++) {
            tv_vq_table block = vq_block(&c, places, o);
            uint8_t *wire = op_host((size_t)(votes[0].bytes + votes[1].bytes));
            int64_t entries = 0;
            for (int u = 0; u < units; u++)
                for (int32_t k = 0; k < votes[u].rows.count; k++) {
                    int64_t at = votes[u].rows.distinct[k] - block.first_row;
                    if (at >= 0 && at < block.held_rows)
                        memcpy(wire + size * entries++, votes[u].wire + size * k, (size_t)size);
                }
            place_ballot(on, &c, &block, wire, entries, &b, stats);
        }
        for (int64_t r = 0; r < from.table.rows; r++) {
            const vq_case *want = used[r] ? &dense : &from;
            int64_t usage = from.usage[r] + used[r];
            assert_memory_equal(c.table.T + r * packed(&from.table), want->table.T + r * packed(&from.table),
                                (size_t)packed(&from.table));
            assert_memory_equal(c.table.T_accum + r * cols, want->table.T_accum + r * cols, (size_t)cols);
            assert_int_equal(c.table.E[r], want->table.E[r]);
            assert_int_equal(c.table.E_accum[r], want->table.E_accum[r]);
            assert_int_equal(c.usage[r], usage > TV_VQ_USAGE_MAX ? TV_VQ_USAGE_MAX : usage);
        }
        moved += stats[0] > 0 && stats[2] > 0;
    }
    assert_true(moved > 10);
}

static void test_ballot(void **state)
{
    (void)state;
    op_on_each(check_ballot);
}

static void same_group(const op_backend *on, const group *want, const group *got, int64_t entries)
{
    op_same("count", on, &want->count, &got->count, 4);
    op_same("order", on, want->order, got->order, (size_t)entries * 4);
    op_same("distinct", on, want->distinct, got->distinct, (size_t)entries * 4);
    op_same("start", on, want->start, got->start, (size_t)(entries + 1) * 4);
}

// Thousands of tokens, half of them on three rows: the bits of ref. Each vote goes to the ballot twice.
static void check_large(const op_backend *on)
{
    op_random random = {418, 0};
    const op_backend *both[2] = {op_ref(), on};
    for (int i = 0; i < 5; i++) {
        vq_case from = vq_random_case(&random, 3000), c[2];
        int64_t tokens = op_int(&random, 3000, 6000), size = tv_vq_vote_bytes(from.table.cols), stats[2][3] = {{0}};
        int32_t *row = random_rows(&random, tokens, from.table.rows, 0), *gaps = random_rows(&random, tokens, 3000, 1);
        int8_t *gt = op_int8s(&random, from.table.cols * tokens, -127, 127);
        tv_vote_rule rule = random_rule(&random, 5);
        tv_vq_ballot_args b = random_ballot(&random, 2);
        unit_votes votes[2];
        group with_gaps[2];
        for (int64_t t = 0; t < tokens; t += 2)
            row[t] = (int32_t)(t % 3) * 2;
        for (int k = 0; k < 2; k++) {
            with_gaps[k] = run_group(both[k], gaps, tokens);
            votes[k] = run_votes(both[k], &from, row, gt, tokens, &rule);
        }
        same_group(on, &with_gaps[0], &with_gaps[1], tokens);
        same_group(on, &votes[0].rows, &votes[1].rows, tokens);
        op_same("votes", on, votes[0].wire, votes[1].wire, (size_t)votes[0].bytes);
        int32_t count = votes[0].rows.count;
        uint8_t *wire = op_host((size_t)(2 * size * count));
        for (int k = 0; k < 2; k++) {
            memcpy(wire + k * size * count, votes[k].wire, (size_t)(size * count));
            c[k] = copy_case(&from);
        }
        for (int k = 0; k < 2; k++) {
            tv_vq_table block = vq_block(&c[k], 1, 0);
            place_ballot(both[k], &c[k], &block, wire, 2 * count, &b, stats[k]);
        }
        op_same("trits", on, c[0].table.T, c[1].table.T, from.T_bytes);
        op_same("exponents", on, c[0].table.E, c[1].table.E, from.row_bytes);
        op_same("counters", on, c[0].table.T_accum, c[1].table.T_accum, from.accum_bytes);
        op_same("exponents' counters", on, c[0].table.E_accum, c[1].table.E_accum, from.row_bytes);
        op_same("usage", on, c[0].usage, c[1].usage, from.row_bytes * 2);
        op_same("numbers", on, stats[0], stats[1], sizeof stats[0]);
    }
}

static void test_large(void **state)
{
    (void)state;
    op_against_ref(check_large);
}

// Votes that came to the wrong place, or for no token.
static void check_stray_votes(const op_backend *on)
{
    for (int i = 0; i < 4; i++) {
        int32_t heads[2][4] = {{10, 1}, {i == 0 ? 9 : i == 1 ? 20 : 19, i == 2 ? 0 : 3}}, row[2] = {0}, fault = 0;
        op_call call = op_begin(on);
        tv_vq_votes_rows_args a = {.count = 2, .cols = 7, .first_row = 10, .held_rows = 10};
        assert_int_equal(tv_vq_vote_bytes(7), sizeof heads[0]);
        a.bytes = op_in(&call, heads, sizeof heads);
        a.row = op_out(&call, row, sizeof row);
        a.fault = op_out(&call, &fault, 4);
        op_end(&call, on->backend->vq.votes_rows(&a, NULL));
        assert_int_equal(row[0], 10);
        assert_int_equal(row[1], i == 3 ? 19 : -1);
        assert_int_equal(fault, i != 3);
    }
}

static void test_stray_votes(void **state)
{
    (void)state;
    op_on_each(check_stray_votes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_group), cmocka_unit_test(test_votes),
                                       cmocka_unit_test(test_ballot), cmocka_unit_test(test_large),
                                       cmocka_unit_test(test_stray_votes)};
    return op_run("op_vq_votes", tests);
}
