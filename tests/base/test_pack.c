// base/pack.h: packed trits against the definition, byte = sum_j (t_j + 1) 3^j.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/pack.h"
#include "base/rng.h"

enum { GUARD = 0x55 };

static void test_digit_table(void **state)
{
    (void)state;
    for (int v = 0; v < 256; v++) {
        int rest = v;
        for (int j = 0; j < 5; j++, rest /= 3)
            assert_int_equal(tv_trit_digits[v][j], v > 242 ? 1 : rest % 3);
    }
}

static void test_every_byte(void **state)
{
    (void)state;
    for (int v = 0; v < 243; v++) {
        uint8_t byte = (uint8_t)v, again = GUARD;
        int8_t trits[5];
        tv_unpack_row(&byte, 5, trits);
        int value = 0, power = 1;
        for (int j = 0; j < 5; j++, power *= 3) {
            assert_in_range(trits[j] + 1, 0, 2);
            value += (trits[j] + 1) * power;
        }
        assert_int_equal(value, v);
        tv_pack_row(trits, 5, &again);
        assert_int_equal(again, v);
        assert_int_equal(tv_pack_find_invalid(&byte, 5), -1);
    }
}

// One row of random trits there and back, with guards behind both arrays.
static void check_row(int64_t cols, uint32_t seed)
{
    int64_t bytes = (cols + 4) / 5;
    int8_t *trits = malloc((size_t)cols + 8), *back = malloc((size_t)cols + 8);
    uint8_t *packed = malloc((size_t)bytes + 8);
    assert_true(trits && back && packed);
    memset(back, GUARD, (size_t)cols + 8);
    memset(packed, GUARD, (size_t)bytes + 8);
    tv_rng_key key = {.seed = seed, .purpose = TV_RNG_SAMPLER};
    for (int64_t i = 0; i < cols; i++)
        trits[i] = (int8_t)((int)(tv_rng16(key, (uint64_t)i) % 3) - 1);

    tv_pack_row(trits, cols, packed);
    for (int64_t b = 0; b < bytes; b++) {
        int want = 0, power = 1;
        for (int64_t j = 5 * b; j < 5 * b + 5; j++, power *= 3)
            want += (j < cols ? trits[j] + 1 : 1) * power; // pad digits are 1
        assert_int_equal(packed[b], want);
    }
    tv_unpack_row(packed, cols, back);
    if (cols > 0)
        assert_memory_equal(trits, back, (size_t)cols);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(packed[bytes + i], GUARD);
        assert_int_equal(back[cols + i], GUARD);
    }
    assert_int_equal(tv_pack_find_invalid(packed, cols), -1);
    free(trits);
    free(back);
    free(packed);
}

static void test_rows(void **state)
{
    (void)state;
    for (int64_t cols = 0; cols <= 12; cols++)
        for (uint32_t seed = 0; seed < 50; seed++)
            check_row(cols, seed);
    for (int64_t cols = 310; cols <= 330; cols++)
        check_row(cols, 1);
    check_row(4096, 2);
    check_row(10007, 3);
}

static void test_invalid_bytes(void **state)
{
    (void)state;
    enum { BYTES = 200 };
    uint8_t bytes[BYTES];
    memset(bytes, 121, sizeof bytes);
    assert_int_equal(tv_pack_find_invalid(bytes, 5 * BYTES), -1);
    for (int at = 0; at < BYTES; at++) {
        for (int v = 243; v < 256; v++) {
            bytes[at] = (uint8_t)v;
            assert_int_equal(tv_pack_find_invalid(bytes, 5 * BYTES), at);
        }
        bytes[at] = 121;
    }
    bytes[100] = bytes[150] = 255;
    assert_int_equal(tv_pack_find_invalid(bytes, 5 * BYTES), 100);
    assert_int_equal(tv_pack_find_invalid(bytes, 500), -1);
    assert_int_equal(tv_pack_find_invalid(bytes, 0), -1);
}

static void test_invalid_pads(void **state)
{
    (void)state;
    for (int64_t cols = 1; cols <= 9; cols++) {
        int64_t last = (cols + 4) / 5 - 1, used = cols - 5 * last;
        for (int v = 0; v < 243; v++) {
            uint8_t bytes[2] = {121, 121};
            bytes[last] = (uint8_t)v;
            int rest = v, bad = 0;
            for (int j = 0; j < 5; j++, rest /= 3)
                bad |= j >= used && rest % 3 != 1;
            assert_int_equal(tv_pack_find_invalid(bytes, cols), bad ? last : -1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digit_table),   cmocka_unit_test(test_every_byte),   cmocka_unit_test(test_rows),
        cmocka_unit_test(test_invalid_bytes), cmocka_unit_test(test_invalid_pads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
