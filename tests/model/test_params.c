// The parameter table: names, owners, addresses, initial state.
#include "model_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/pack.h"

static tv_tensor_spec named(const char *name, int64_t rows, int64_t cols)
{
    tv_tensor_spec spec = {.part = "test", .rows = rows, .cols = cols, .scale_type = TV_T32};
    snprintf(spec.name, sizeof spec.name, "%s", name);
    return spec;
}

// Four tensors of awkward shapes, one of them frozen.
static void declare_some(tv_params *params)
{
    tv_tensor_spec specs[] = {named("a", 23, 41), named("b", 2, 7), named("norm", 1, 41), named("table", 264, 33)};
    specs[2].ones = specs[2].frozen = 1;
    specs[3].lookup = 1;
    specs[1].residual = 1;
    tv_params_init(params, 0);
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        int64_t index = -1;
        TEST_TRY(tv_params_add(params, &specs[i], &index));
        assert_int_equal(index, i);
    }
}

static void test_name_clash(void **state)
{
    (void)state;
    tv_params params;
    declare_some(&params);
    tv_tensor_spec again = named("b", 3, 3);
    int64_t index = -1;
    assert_int_equal(tv_params_add(&params, &again, &index), TV_INTERNAL);
    assert_non_null(strstr(tv_status_message(), "'b'"));
    assert_int_equal(params.count, 4);
    tv_tensor_spec empty = named("c", 0, 3);
    assert_int_equal(tv_params_add(&params, &empty, &index), TV_INTERNAL);
    tv_params_free(&params);
}

typedef struct named_id {
    uint32_t id, number;
} named_id;

static int by_id(const void *a, const void *b)
{
    const named_id *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

// Two names with one id: among 400,000 there are about eighteen such pairs.
static void find_clash(char first[64], char second[64])
{
    enum { NAMES = 400000 };
    named_id *ids = malloc(NAMES * sizeof *ids);
    assert_non_null(ids);
    for (uint32_t i = 0; i < NAMES; i++) {
        snprintf(first, 64, "tensor.%u", (unsigned)i);
        ids[i] = (named_id){tv_hash_name(first), i};
    }
    qsort(ids, NAMES, sizeof *ids, by_id);
    for (uint32_t i = 1; i < NAMES; i++) {
        if (ids[i].id == ids[i - 1].id) {
            snprintf(first, 64, "tensor.%u", (unsigned)ids[i - 1].number);
            snprintf(second, 64, "tensor.%u", (unsigned)ids[i].number);
            free(ids);
            return;
        }
    }
    free(ids);
    fail_msg("no two names share an id");
}

static void test_id_clash(void **state)
{
    (void)state;
    char first[64], second[64];
    find_clash(first, second);
    tv_params params;
    tv_params_init(&params, 0);
    tv_tensor_spec a = named(first, 3, 3), b = named(second, 3, 3);
    int64_t index;
    TEST_TRY(tv_params_add(&params, &a, &index));
    assert_int_equal(tv_params_add(&params, &b, &index), TV_CONFIG);
    assert_non_null(strstr(tv_status_message(), first));
    assert_non_null(strstr(tv_status_message(), second));
    tv_params_free(&params);
}

static void test_reduced_length(void **state)
{
    (void)state;
    for (int m = 0; m <= 3; m += 3) {
        // Largest length whose sum of 127 * largest weight terms stays below 2^31.
        int64_t longest = m == 0 ? 264208 : 140911;
        tv_params params;
        tv_params_init(&params, m);
        int64_t index;
        tv_tensor_spec fits = named("fits", 1, longest), wide = named("wide", 1, longest + 1),
                       high = named("high", longest + 1, 1);
        TEST_TRY(tv_params_add(&params, &fits, &index));
        assert_int_equal(tv_params_add(&params, &wide, &index), TV_CONFIG);
        assert_int_equal(tv_params_add(&params, &high, &index), TV_CONFIG);
        high.lookup = 1; // looked up, never summed over
        TEST_TRY(tv_params_add(&params, &high, &index));
        tv_params_free(&params);
    }
}

static void lay_out(tv_params *params, const tv_backend *backend, int rank, int ranks, int sharded, int vote_bits)
{
    tv_params_layout_args args = {
        .backend = backend, .rank = rank, .ranks = ranks, .sharded = sharded, .training = 1, .vote_bits = vote_bits};
    TEST_TRY(tv_params_layout(params, &args));
}

static void check_cover(int ranks, int sharded, int vote_bits)
{
    tv_params params[4];
    for (int r = 0; r < ranks; r++) {
        declare_some(&params[r]);
        lay_out(&params[r], NULL, r, ranks, sharded, vote_bits);
    }
    for (int64_t i = 0; i < params[0].count; i++) {
        int64_t next = 0;
        const tv_param *zero = &params[0].items[i];
        assert_true(zero->block * ranks >= zero->spec.rows);
        assert_true(!sharded || vote_bits == 8 || zero->block * zero->spec.cols % 2 == 0);
        for (int r = 0; r < ranks; r++) {
            const tv_param *param = &params[r].items[i];
            assert_int_equal(param->block, zero->block);
            assert_int_equal(param->share_first, next);
            assert_in_range(param->share_count, 0, param->block);
            next += param->share_count;
            assert_int_equal(param->own_first, sharded ? param->share_first : 0);
            assert_int_equal(param->own_count, sharded ? param->share_count : param->spec.rows);
        }
        assert_int_equal(next, zero->spec.rows);
    }
    for (int r = 0; r < ranks; r++) {
        tv_params_free(&params[r]);
    }
}

static void test_cover(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 4; ranks++) {
        check_cover(ranks, 0, 8);
        check_cover(ranks, 1, 8);
        check_cover(ranks, 0, 16);
        check_cover(ranks, 1, 16);
    }
}

// Every buffer of the table: aligned, inside its slab, apart from all others.
typedef struct extent {
    uintptr_t first, last;
} extent;

static int64_t add_extent(extent *list, int64_t count, const void *place, int64_t bytes)
{
    if (place == NULL) {
        return count;
    }
    extent e = {(uintptr_t)place, (uintptr_t)place + (uintptr_t)bytes};
    assert_int_equal(e.first % TV_ARENA_ALIGN, 0);
    for (int64_t i = 0; i < count; i++) {
        assert_true(e.last <= list[i].first || list[i].last <= e.first);
    }
    list[count] = e;
    return count + 1;
}

static void check_addresses(const tv_params *params)
{
    extent list[64];
    int64_t count = 0;
    for (int64_t i = 0; i < params->count; i++) {
        const tv_param *p = &params->items[i];
        int64_t padded = params->ranks * p->block, cols = p->spec.cols, groups = tv_row_groups(cols, 32);
        int64_t items = padded * cols + padded * cols % 2;
        count = add_extent(list, count, p->T, padded * tv_row_bytes(cols));
        count = add_extent(list, count, p->E, padded * groups);
        count = add_extent(list, count, p->T_accum, p->own_count * cols);
        count = add_extent(list, count, p->E_accum, p->own_count * groups);
        count = add_extent(list, count, p->w8, p->spec.rows * cols);
        count = add_extent(list, count, p->w8t, p->spec.rows * cols);
        count = add_extent(list, count, p->votes, items * params->vote_bits / 8);
        assert_true((p->votes == NULL) == p->spec.frozen && (p->T_accum == NULL) == p->spec.frozen);
        if (p->votes != NULL) {
            uintptr_t slab = (uintptr_t)params->vote_slab, votes = (uintptr_t)p->votes;
            assert_true(votes >= slab &&
                        votes + (uintptr_t)(items * params->vote_bits / 8) <= slab + params->vote_bytes);
        }
    }
    assert_true(count > 0);
}

// Measuring without a backend gives the sizes that a real layout takes.
static void test_measure(void **state)
{
    (void)state;
    const tv_backend *backend = fixture_backend("ref");
    for (int variant = 0; variant < 8; variant++) {
        int ranks = 1 + variant / 2, sharded = variant % 2, bits = variant % 3 == 0 ? 16 : 8;
        tv_params measured, real;
        declare_some(&measured);
        declare_some(&real);
        lay_out(&measured, NULL, ranks - 1, ranks, sharded, bits);
        lay_out(&real, backend, ranks - 1, ranks, sharded, bits);
        assert_true(real.state_bytes > 0 && real.decoded_bytes > 0 && real.vote_bytes > 0);
        assert_int_equal(measured.state_bytes, real.state_bytes);
        assert_int_equal(measured.decoded_bytes, real.decoded_bytes);
        assert_int_equal(measured.vote_bytes, real.vote_bytes);
        assert_null(measured.state_slab);
        check_addresses(&real);
        tv_params_free(&real);
        tv_params_free(&measured);
    }
}

// T, E of all rows and the counters of the own rows equal those of one rank, for any number of ranks.
static void test_initial_state(void **state)
{
    (void)state;
    const tv_backend *backend = fixture_backend("ref");
    tv_params alone;
    declare_some(&alone);
    lay_out(&alone, backend, 0, 1, 0, 8);
    TEST_TRY(tv_params_initialise(&alone, 9, 64));
    for (int ranks = 2; ranks <= 4; ranks++) {
        for (int rank = 0; rank < ranks; rank++) {
            tv_params params;
            declare_some(&params);
            lay_out(&params, backend, rank, ranks, rank % 2 == 0, 8);
            TEST_TRY(tv_params_initialise(&params, 9, 64));
            for (int64_t i = 0; i < params.count; i++) {
                const tv_param *a = &alone.items[i], *b = &params.items[i];
                int64_t rows = a->spec.rows, cols = a->spec.cols, groups = tv_row_groups(cols, 32);
                assert_memory_equal(a->T, b->T, (size_t)(rows * tv_row_bytes(cols)));
                assert_memory_equal(a->E, b->E, (size_t)(rows * groups));
                if (b->T_accum != NULL && b->own_count > 0) {
                    assert_memory_equal(a->T_accum + b->own_first * cols, b->T_accum, (size_t)(b->own_count * cols));
                    assert_memory_equal(a->E_accum + b->own_first * groups, b->E_accum,
                                        (size_t)(b->own_count * groups));
                }
            }
            tv_params_free(&params);
        }
    }
    tv_params_free(&alone);
}

// A third of the trits each way, counters spread over (-H, H), exponents as numerics.md says.
static void test_initial_values(void **state)
{
    (void)state;
    const tv_backend *backend = fixture_backend("ref");
    tv_params params;
    declare_some(&params);
    lay_out(&params, backend, 0, 1, 0, 8);
    TEST_TRY(tv_params_initialise(&params, 9, 64));
    TEST_TRY(tv_params_validate(&params, NULL));
    // log2 sqrt(1.5 / 41) = -2.39; log2 sqrt(1.5 / 7) - 1 = -2.11; 0; log2 sqrt(1.5) = 0.29
    const int exponents[] = {-2, -2, 0, 0};
    for (int64_t i = 0; i < params.count; i++) {
        assert_int_equal(params.items[i].E[0], exponents[i]);
        assert_int_equal(params.items[i].base, exponents[i] - 3);
    }
    const tv_param *table = &params.items[3];
    int64_t counts[3] = {0}, count = table->spec.rows * table->spec.cols, sum = 0;
    int8_t trits[33];
    for (int64_t row = 0; row < table->spec.rows; row++) {
        tv_unpack_row(table->T + row * tv_row_bytes(33), 33, trits);
        for (int k = 0; k < 33; k++) {
            counts[trits[k] + 1]++;
            int accum = table->T_accum[row * 33 + k];
            assert_in_range(accum + 63, 0, 126);
            sum += accum;
        }
    }
    // Standard deviations over 8,712 draws: 44 for a count, 3,400 for the sum of counters.
    for (int j = 0; j < 3; j++) {
        assert_in_range(counts[j], count / 3 - 180, count / 3 + 180);
    }
    assert_in_range(sum + 14000, 0, 28000);
    tv_params_free(&params);
}

static void test_state_size(void **state)
{
    (void)state;
    tv_params params;
    tv_params_init(&params, 0);
    tv_tensor_spec big = named("big", 512, 1000);
    int64_t index;
    TEST_TRY(tv_params_add(&params, &big, &index));
    lay_out(&params, NULL, 0, 1, 0, 8);
    double bytes_a_weight = (double)params.state_bytes / (512.0 * 1000.0);
    assert_true(bytes_a_weight >= 1.2 && bytes_a_weight <= 1.30);
    tv_params_free(&params);
}

static void test_validate(void **state)
{
    (void)state;
    const tv_backend *backend = fixture_backend("ref");
    tv_params params;
    declare_some(&params);
    lay_out(&params, backend, 0, 1, 0, 8);
    TEST_TRY(tv_params_initialise(&params, 9, 64));
    uint8_t keep = params.items[1].T[1];
    params.items[1].T[1] = 250;
    assert_int_equal(tv_params_validate(&params, NULL), TV_NUMERIC);
    assert_non_null(strstr(tv_status_message(), "'b'"));
    params.items[1].T[1] = keep;
    TEST_TRY(tv_params_validate(&params, NULL));
    params.items[3].E[0] = (int8_t)(params.items[3].base + 7);
    assert_int_equal(tv_params_validate(&params, NULL), TV_NUMERIC);
    assert_non_null(strstr(tv_status_message(), "'table'"));
    tv_params_free(&params);
}

// Decoded weights are trit times 2^(E - b), and their transpose.
static void test_decode(void **state)
{
    (void)state;
    const tv_backend *backend = fixture_backend("ref");
    tv_params params;
    declare_some(&params);
    lay_out(&params, backend, 0, 1, 0, 8);
    TEST_TRY(tv_params_initialise(&params, 9, 64));
    params.items[0].E[1] = (int8_t)(params.items[0].base + 5); // row 0, columns 32..40
    TEST_TRY(tv_params_decode(&params, 1, NULL));
    const tv_param *a = &params.items[0];
    int8_t trits[41];
    tv_unpack_row(a->T, 41, trits);
    for (int k = 0; k < 41; k++) {
        assert_int_equal(a->w8[k], trits[k] * (k < 32 ? 8 : 32));
        assert_int_equal(a->w8t[k * 23], a->w8[k]);
    }
    assert_null(params.items[2].w8t);
    assert_null(params.items[3].w8t);
    memset(params.items[0].w8, 0, 41);
    memset(params.items[2].w8, 0, 41);
    TEST_TRY(tv_params_decode(&params, 0, NULL)); // frozen ones keep what they have
    assert_int_equal(a->w8[3], trits[3] * 8);
    assert_int_equal(params.items[2].w8[0], 0);
    tv_params_free(&params);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_name_clash),     cmocka_unit_test(test_id_clash),   cmocka_unit_test(test_reduced_length),
        cmocka_unit_test(test_cover),          cmocka_unit_test(test_measure),    cmocka_unit_test(test_initial_state),
        cmocka_unit_test(test_initial_values), cmocka_unit_test(test_state_size), cmocka_unit_test(test_validate),
        cmocka_unit_test(test_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
