// base/state.h: the digest does not depend on sharding or on the arrays' order, and changes with everything else.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/state.h"

enum { ARRAYS = 4, ROWS = 7 };

static uint8_t trits[ROWS * 3];
static int8_t exponents[ROWS * 2];
static int16_t usage[5 * 4];
static int32_t edges[3];

static void setup_arrays(tv_state_array *arrays)
{
    for (size_t i = 0; i < sizeof trits; i++)
        trits[i] = (uint8_t)(i * 11 % 243);
    for (size_t i = 0; i < sizeof exponents; i++)
        exponents[i] = (int8_t)(i % 7 - 3);
    for (size_t i = 0; i < sizeof usage / sizeof *usage; i++)
        usage[i] = (int16_t)(i * 1000);
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++)
        edges[i] = (int32_t)(i * 100000) - 1;
    arrays[0] = (tv_state_array){.name = "block.1.q",
                                 .part = "T",
                                 .group = "tensors",
                                 .dtype = TV_U8,
                                 .rows = ROWS,
                                 .cols = 3,
                                 .logical_cols = 13,
                                 .count = ROWS,
                                 .data = trits,
                                 .b = -7,
                                 .scale_group = 8};
    arrays[1] = (tv_state_array){.name = "block.1.q",
                                 .part = "E",
                                 .group = "tensors",
                                 .dtype = TV_I8,
                                 .rows = ROWS,
                                 .cols = 2,
                                 .logical_cols = 2,
                                 .count = ROWS,
                                 .data = exponents,
                                 .b = -7,
                                 .scale_group = 8};
    arrays[2] = (tv_state_array){.name = "block.0.moe",
                                 .part = "usage",
                                 .group = "tables",
                                 .dtype = TV_I16,
                                 .rows = 5,
                                 .cols = 4,
                                 .logical_cols = 4,
                                 .count = 5,
                                 .data = usage};
    arrays[3] = (tv_state_array){.name = "graph",
                                 .part = "edges",
                                 .group = "tables",
                                 .dtype = TV_I32,
                                 .rows = 1,
                                 .cols = 3,
                                 .logical_cols = 3,
                                 .count = 1,
                                 .data = edges,
                                 .replicated = 1};
}

static tv_hash128 digest_of(const tv_state_array *arrays, int64_t count)
{
    tv_hash128 sums[ARRAYS], digest = {0, 0};
    tv_state_hash(arrays, count, sums);
    assert_int_equal(tv_state_digest(arrays, count, sums, &digest), TV_OK);
    return digest;
}

// Byte for byte as the header lays it out, assembled by hand and hashed in one call.
static unsigned char *put(unsigned char *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++, value >>= 8)
        *at++ = (unsigned char)value;
    return at;
}

static unsigned char *put_record(unsigned char *at, const tv_state_array *a)
{
    size_t length = strlen(a->name) + 1;
    memcpy(at, a->name, length);
    at += length;
    length = strlen(a->part) + 1;
    memcpy(at, a->part, length);
    at += length;
    tv_hash128 sum = {0, 0};
    size_t row_bytes = (size_t)(a->cols * tv_dtype_bytes(a->dtype));
    for (int64_t r = 0; r < a->rows; r++) {
        tv_hash128 hash = tv_hash_row((const char *)a->data + (size_t)r * row_bytes, row_bytes, r);
        sum.low += hash.low;
        sum.high += hash.high;
    }
    at = put(put(at, (uint64_t)a->rows, 8), (uint64_t)a->cols, 8);
    at = put(put(at, (uint64_t)a->dtype, 4), (uint64_t)(int64_t)a->b, 4);
    at = put(put(at, (uint64_t)a->m, 4), (uint64_t)a->scale_group, 4);
    return put(put(at, sum.low, 8), sum.high, 8);
}

static void test_layout(void **state)
{
    (void)state;
    tv_state_array arrays[ARRAYS];
    setup_arrays(arrays);
    unsigned char records[1024], *at = records;
    static const int sorted[ARRAYS] = {2, 1, 0, 3}; // block.0.moe, block.1.q E, block.1.q T, graph
    for (int i = 0; i < ARRAYS; i++)
        at = put_record(at, &arrays[sorted[i]]);
    assert_true(tv_hash_equal(digest_of(arrays, ARRAYS), tv_hash_bytes(records, (size_t)(at - records))));
}

static void test_order(void **state)
{
    (void)state;
    tv_state_array arrays[ARRAYS], shuffled[ARRAYS];
    setup_arrays(arrays);
    tv_hash128 want = digest_of(arrays, ARRAYS);
    for (int turn = 0; turn < ARRAYS; turn++) {
        for (int i = 0; i < ARRAYS; i++)
            shuffled[i] = arrays[(i + turn) % ARRAYS];
        assert_true(tv_hash_equal(digest_of(shuffled, ARRAYS), want));
        for (int i = 0; i < ARRAYS; i++)
            shuffled[i] = arrays[(ARRAYS - 1 - i + turn) % ARRAYS];
        assert_true(tv_hash_equal(digest_of(shuffled, ARRAYS), want));
    }
}

// `ranks` ranks with equal blocks (the last ones may be empty): their sums, added, give the digest of the whole.
static void test_sharding(void **state)
{
    (void)state;
    tv_state_array arrays[ARRAYS];
    setup_arrays(arrays);
    tv_hash128 want = digest_of(arrays, ARRAYS);
    for (int64_t ranks = 1; ranks <= 9; ranks++) {
        tv_hash128 total[ARRAYS] = {{0, 0}}, sums[ARRAYS], digest;
        for (int64_t rank = 0; rank < ranks; rank++) {
            tv_state_array block[ARRAYS];
            for (int i = 0; i < ARRAYS; i++) {
                int64_t share = tv_ceil_div(arrays[i].rows, ranks), first = rank * share;
                block[i] = arrays[i];
                block[i].first_row = first < arrays[i].rows ? first : arrays[i].rows;
                block[i].count = arrays[i].rows - block[i].first_row;
                if (block[i].count > share)
                    block[i].count = share;
                block[i].data = (char *)arrays[i].data + block[i].first_row * tv_state_row_bytes(&arrays[i]);
            }
            tv_state_hash(block, ARRAYS, sums);
            for (int i = 0; i < ARRAYS; i++) {
                total[i].low += sums[i].low;
                total[i].high += sums[i].high;
            }
        }
        assert_int_equal(tv_state_digest(arrays, ARRAYS, total, &digest), TV_OK);
        assert_true(tv_hash_equal(digest, want));
    }
}

static void test_every_byte_counts(void **state)
{
    (void)state;
    tv_state_array arrays[ARRAYS];
    setup_arrays(arrays);
    tv_hash128 want = digest_of(arrays, ARRAYS);
    for (int i = 0; i < ARRAYS; i++) {
        unsigned char *data = arrays[i].data;
        for (int64_t byte = 0; byte < arrays[i].rows * tv_state_row_bytes(&arrays[i]); byte++) {
            data[byte] ^= 1;
            assert_false(tv_hash_equal(digest_of(arrays, ARRAYS), want));
            data[byte] ^= 1;
        }
    }
    assert_true(tv_hash_equal(digest_of(arrays, ARRAYS), want));
}

static void assert_changed(const tv_state_array *arrays, int64_t count, tv_hash128 old)
{
    assert_false(tv_hash_equal(digest_of(arrays, count), old));
}

static void test_every_field_counts(void **state)
{
    (void)state;
    tv_state_array arrays[ARRAYS], changed[ARRAYS];
    setup_arrays(arrays);
    tv_hash128 want = digest_of(arrays, ARRAYS);
#define CHANGE(assignment)                                                                                             \
    memcpy(changed, arrays, sizeof arrays);                                                                            \
    assignment;                                                                                                        \
    assert_changed(changed, ARRAYS, want)
    CHANGE(changed[0].name = "block.1.r");
    CHANGE(changed[0].part = "U");
    CHANGE(changed[0].rows = ROWS + 1);
    CHANGE((changed[2].rows = 10, changed[2].cols = 2, changed[2].count = 10)); // the same bytes in another shape
    CHANGE((changed[2].dtype = TV_I8, changed[2].cols = 8));                    // the same rows as another type
    CHANGE(changed[0].b = -6);
    CHANGE(changed[0].m = 1);
    CHANGE(changed[0].scale_group = 16);
    CHANGE((changed[0].name = "block.1.", changed[0].part = "qT")); // the border between name and part
    CHANGE(changed[0].first_row = 1);
#undef CHANGE
    assert_changed(arrays, ARRAYS - 1, want);
    assert_changed(arrays, 0, want);
    // What only says where bytes lie must not change the digest.
    memcpy(changed, arrays, sizeof arrays);
    changed[0].group = "elsewhere";
    changed[0].replicated = 1;
    changed[0].logical_cols = 14;
    assert_true(tv_hash_equal(digest_of(changed, ARRAYS), want));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_sharding),
        cmocka_unit_test(test_every_byte_counts),
        cmocka_unit_test(test_every_field_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
