// base/hash.h: known answers (from the xxhsum program: -H2 for XXH3-128, -H0 for XXH32), row sums, text form, streams.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"

enum { LONG_BYTES = 5000 };

static void fill(unsigned char *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        data[i] = (unsigned char)(i * 7 + 3);
}

static void assert_hash(tv_hash128 hash, const char *want)
{
    char hex[TV_HASH_HEX];
    tv_hash_format(hash, hex);
    assert_string_equal(hex, want);
}

static void test_known_answers(void **state)
{
    (void)state;
    unsigned char data[LONG_BYTES];
    fill(data, sizeof data);
    assert_hash(tv_hash_bytes("", 0), "99aa06d3014798d86001c324468d497f");
    assert_hash(tv_hash_bytes("abc", 3), "06b05ab6733a618578af5f94892f3950");
    assert_hash(tv_hash_bytes(data, sizeof data), "c98ae385d09887cc799aaddd7339581d");
    assert_int_equal(tv_hash_name(""), 0x02cc5d05u);
    assert_int_equal(tv_hash_name("embed"), 0x96a1b37cu);
    assert_int_equal(tv_hash_name("block.0.attention.q"), 0xbcf994a1u);
    tv_hash128 empty = tv_hash_bytes("", 0);
    assert_true(empty.high == 0x99aa06d3014798d8u && empty.low == 0x6001c324468d497fu);
}

static void test_row_known_answers(void **state)
{
    (void)state;
    unsigned char data[LONG_BYTES];
    fill(data, sizeof data);
    assert_hash(tv_hash_row("row", 3, 0x0102030405060708), "aa4f495e077f145c43c85fd27ad4fa07");
    assert_hash(tv_hash_row(data, sizeof data, 77), "77cb7516f0d7b85fad7163a2abd95920");
    assert_hash(tv_hash_row(NULL, 0, 5), "bece7561abd0b38b64b5c1b28fbe6b34");
}

// A row's hash is the hash of the row and its number joined, for every length around the place where the method
// changes.
static void test_row_lengths(void **state)
{
    (void)state;
    unsigned char data[1100 + 8];
    static const unsigned char number[8] = {0xEF, 0xCD, 0xAB, 0x89, 0x67, 0x45, 0x23, 0x01};
    for (size_t bytes = 0; bytes <= 1100; bytes++) {
        fill(data, bytes);
        tv_hash128 hash = tv_hash_row(data, bytes, 0x0123456789ABCDEF);
        memcpy(data + bytes, number, sizeof number);
        assert_true(tv_hash_equal(hash, tv_hash_bytes(data, bytes + 8)));
    }
}

// The sum over blocks, added in any order, is the sum over all rows; a swap of two rows or one changed byte shows.
static void test_rows_add(void **state)
{
    (void)state;
    enum { ROWS = 37, ROW_BYTES = 13 };
    unsigned char data[ROWS * ROW_BYTES];
    fill(data, sizeof data);
    tv_hash128 whole = {0, 0}, by_hand = {0, 0};
    tv_hash_rows_add(&whole, data, ROWS, ROW_BYTES, 1000);
    for (int64_t r = ROWS - 1; r >= 0; r--) {
        tv_hash128 hash = tv_hash_row(data + r * ROW_BYTES, ROW_BYTES, 1000 + r);
        by_hand.low += hash.low;
        by_hand.high += hash.high;
    }
    assert_true(tv_hash_equal(whole, by_hand));
    for (int64_t cut = 0; cut <= ROWS; cut++) {
        tv_hash128 sum = {0, 0};
        tv_hash_rows_add(&sum, data + cut * ROW_BYTES, ROWS - cut, ROW_BYTES, 1000 + cut);
        tv_hash_rows_add(&sum, data, cut, ROW_BYTES, 1000);
        assert_true(tv_hash_equal(whole, sum));
    }
    tv_hash128 moved = {0, 0};
    tv_hash_rows_add(&moved, data, ROWS, ROW_BYTES, 1001);
    assert_false(tv_hash_equal(whole, moved));

    unsigned char row[ROW_BYTES];
    memcpy(row, data, ROW_BYTES);
    memcpy(data, data + ROW_BYTES, ROW_BYTES);
    memcpy(data + ROW_BYTES, row, ROW_BYTES);
    tv_hash128 swapped = {0, 0};
    tv_hash_rows_add(&swapped, data, ROWS, ROW_BYTES, 1000);
    assert_false(tv_hash_equal(whole, swapped));
    tv_hash128 nothing = whole;
    tv_hash_rows_add(&nothing, NULL, 0, ROW_BYTES, 0);
    assert_true(tv_hash_equal(whole, nothing));
}

static void test_format_and_parse(void **state)
{
    (void)state;
    tv_hash128 hash = {.low = 0x000000000000000Fu, .high = 0x0123456789abcdefu}, back = {1, 2};
    assert_hash(hash, "0123456789abcdef000000000000000f");
    assert_int_equal(tv_hash_parse("0123456789abcdef000000000000000f", &back), 0);
    assert_true(tv_hash_equal(hash, back));
    assert_int_equal(tv_hash_parse("0123456789ABCDEF000000000000000F", &back), 0);
    assert_true(tv_hash_equal(hash, back));
    static const char *const wrong[] = {"",
                                        "0123",
                                        "0123456789abcdef000000000000000",
                                        "0123456789abcdef000000000000000f0",
                                        "0123456789abcdef000000000000000g",
                                        " 123456789abcdef000000000000000f",
                                        "0x23456789abcdef000000000000000f"};
    back = (tv_hash128){1, 2};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(tv_hash_parse(wrong[i], &back), -1);
    assert_true(back.low == 1 && back.high == 2);
    assert_false(tv_hash_equal((tv_hash128){1, 2}, (tv_hash128){1, 3}));
    assert_false(tv_hash_equal((tv_hash128){1, 2}, (tv_hash128){0, 2}));
}

static void test_stream(void **state)
{
    (void)state;
    unsigned char data[LONG_BYTES];
    fill(data, sizeof data);
    tv_hash_stream *stream = tv_hash_stream_new();
    assert_non_null(stream);
    assert_true(tv_hash_equal(tv_hash_stream_value(stream), tv_hash_bytes("", 0)));
    for (size_t at = 0, step = 1; at < sizeof data; at += step, step = step * 2 + 1) {
        if (step > sizeof data - at)
            step = sizeof data - at;
        tv_hash_stream_add(stream, data + at, step);
        tv_hash_stream_add(stream, NULL, 0);
        assert_true(tv_hash_equal(tv_hash_stream_value(stream), tv_hash_bytes(data, at + step)));
    }
    assert_hash(tv_hash_stream_value(stream), "c98ae385d09887cc799aaddd7339581d");
    tv_hash_stream_free(stream);
    tv_hash_stream_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),    cmocka_unit_test(test_row_known_answers),
        cmocka_unit_test(test_row_lengths),      cmocka_unit_test(test_rows_add),
        cmocka_unit_test(test_format_and_parse), cmocka_unit_test(test_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
