// N-grams: where each entry's answer lies, and the strength of rows.
#include <math.h>
#include <string.h>

#include "op_test.h"

static void check_place(const op_backend *on)
{
    op_random random = {505, 0};
    for (int i = 0; i < 60; i += op_stride()) {
        int64_t entries = op_int(&random, 0, i == 0 ? 5000 : 90), count = 0, kept = 0;
        size_t ints = (size_t)entries * 4;
        int32_t *row = op_host(ints), *order = op_host(ints), *start = op_host(ints + 4), *slot = op_host(ints);
        int32_t *want = op_host(ints);
        for (int64_t e = 0; e < entries; e++) {
            row[e] = op_int(&random, -1, 20);
            want[e] = -1;
        }
        for (int r = 0; r <= 20; r++) {
            int64_t before = kept;
            for (int64_t e = 0; e < entries; e++)
                if (row[e] == r) {
                    order[kept++] = (int32_t)e;
                    want[e] = (int32_t)count;
                }
            start[count] = (int32_t)before;
            count += kept > before;
        }
        start[count] = (int32_t)kept;
        op_call call = op_begin(on);
        tv_memgram_place_args a = {.entries = entries, .count = count};
        a.row = op_in(&call, row, ints);
        a.order = op_in(&call, order, ints);
        a.start = op_in(&call, start, (size_t)(count + 1) * 4);
        a.slot = op_out(&call, slot, ints);
        op_end(&call, on->backend->memgram.place(&a, NULL));
        op_same("slot", on, want, slot, ints);
    }
}

static void test_place(void **state)
{
    (void)state;
    op_on_each(check_place);
}

static void check_read_strength(const op_backend *on)
{
    op_random random = {506, 0};
    for (int i = 0; i < op_edge_count; i += op_stride()) {
        int64_t count = op_edges[i], held = op_int(&random, 1, 50), first = op_int(&random, 0, 30);
        int8_t *strength = op_int8s(&random, held, 0, TV_MEMGRAM_STRENGTH_MAX);
        int32_t *row = op_host((size_t)count * 4), *out = op_host((size_t)count * 4);
        for (int64_t n = 0; n < count; n++)
            row[n] = op_int(&random, -2, (int)(first + held + 3));
        op_call call = op_begin(on);
        tv_memgram_strength_args a = {.count = count, .first_row = first, .held_rows = held};
        a.row = op_in(&call, row, (size_t)count * 4);
        int whole = i % 3 == 1;
        a.strength = whole ? NULL : op_in(&call, strength, (size_t)held);
        a.out = op_out(&call, out, (size_t)count * 4);
        op_end(&call, on->backend->memgram.strength(&a, NULL));
        for (int64_t n = 0; n < count; n++) {
            int64_t at = row[n] - first;
            int want = whole ? TV_MEMGRAM_STRENGTH_WHOLE : at >= 0 && at < held ? strength[at] : 0;
            assert_int_equal(out[n], at >= 0 && at < held ? want : 0);
        }
    }
}

// Votes of one or two units on each of `touched` rows.
static void check_raise(const op_backend *on)
{
    op_random random = {507, 0};
    for (int i = 0; i < 40; i += op_stride()) {
        int64_t held = op_int(&random, 1, 60), first = op_int(&random, 0, 9), cols = op_int(&random, 1, 64);
        int64_t size = tv_vq_vote_bytes(cols), count = 0, votes = 0;
        int8_t *strength = op_int8s(&random, held, 0, TV_MEMGRAM_STRENGTH_MAX),
               *want = op_host_copy(strength, (size_t)held);
        int32_t *distinct = op_host((size_t)held * 4), *start = op_host((size_t)(held + 1) * 4);
        int32_t *order = op_host((size_t)held * 8);
        uint8_t *bytes = op_host((size_t)(2 * held * size));
        for (int64_t r = 0; r < held; r++) {
            int more = op_int(&random, 0, 2), sum = want[r];
            start[count] = (int32_t)votes;
            if (more > 0)
                distinct[count++] = (int32_t)(first + r);
            for (int v = 0; v < more; v++, votes++) {
                int32_t tokens = op_int(&random, 0, 3) ? op_int(&random, 1, 9) : 2000000000;
                order[votes] = (int32_t)votes;
                memcpy(bytes + votes * size + 4, &tokens, 4);
                sum = sum + tokens > 127 || tokens > 127 ? 127 : sum + tokens;
            }
            want[r] = (int8_t)sum;
        }
        start[count] = (int32_t)votes;
        op_call call = op_begin(on);
        tv_memgram_raise_args a = {.count = count, .cols = cols, .first_row = first};
        a.order = op_in(&call, order, (size_t)votes * 4);
        a.distinct = op_in(&call, distinct, (size_t)count * 4);
        a.start = op_in(&call, start, (size_t)(count + 1) * 4);
        a.bytes = op_in(&call, bytes, (size_t)(votes * size));
        a.strength = op_out(&call, strength, (size_t)held);
        op_end(&call, on->backend->memgram.raise(&a, NULL));
        op_same("strength", on, want, strength, (size_t)held);
    }
}

static void check_decay(const op_backend *on)
{
    op_random random = {508, 0};
    for (int i = 0; i < op_edge_count; i += op_stride())
        for (int halve = 0; halve < 2; halve++) {
            int64_t rows = i + 1 < op_edge_count ? op_edges[i] : 70001, want[TV_MEMGRAM_HEALTH] = {0};
            int8_t *strength = op_int8s(&random, rows, 0, TV_MEMGRAM_STRENGTH_MAX),
                   *before = op_host_copy(strength, (size_t)rows);
            int64_t counts[TV_MEMGRAM_HEALTH] = {0};
            op_call call = op_begin(on);
            tv_memgram_decay_args a = {.rows = rows, .halve = halve};
            a.strength = op_out(&call, strength, (size_t)rows);
            a.counts = op_out(&call, i % 3 == 1 ? NULL : counts, sizeof counts);
            op_end(&call, on->backend->memgram.decay(&a, NULL));
            for (int64_t r = 0; r < rows; r++) {
                assert_int_equal(strength[r], halve ? before[r] / 2 : before[r]);
                want[before[r] == 0 ? 0 : 1 + (int)floor(log2(before[r]))]++;
            }
            if (i % 3 != 1)
                assert_memory_equal(counts, want, sizeof want);
        }
}

static void test_strength(void **state)
{
    (void)state;
    op_on_each(check_read_strength);
    op_on_each(check_raise);
    op_on_each(check_decay);
}

static int clean_up(void **state)
{
    (void)state;
    op_host_free();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(test_place, clean_up),
                                       cmocka_unit_test_teardown(test_strength, clean_up)};
    return op_run("op_memgram_rows", tests);
}
