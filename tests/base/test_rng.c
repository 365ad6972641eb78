// base/rng.h: Philox4x32-10 against the known answers published with Random123, and the layout of lanes.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"

// Random123, kat_vectors, "philox4x32 10": counter, key, answer.
static const struct {
    uint32_t counter[4], key[2], answer[4];
} known[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}},
    {{0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu},
     {0xffffffffu, 0xffffffffu},
     {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}},
    {{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
     {0xa4093822u, 0x299f31d0u},
     {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}},
};

static void test_known_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        tv_rng_block block = tv_philox(known[i].counter, known[i].key);
        for (int w = 0; w < 4; w++)
            assert_int_equal(block.word[w], known[i].answer[w]);
    }
}

// The same vectors through a stream's key: counter = (index low, index high, tensor id, step), key = (seed, purpose).
static void test_stream_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        tv_rng_key key = {.seed = known[i].key[0],
                          .purpose = known[i].key[1],
                          .tensor_id = known[i].counter[2],
                          .step = known[i].counter[3]};
        uint64_t index = (uint64_t)known[i].counter[1] << 32 | known[i].counter[0];
        tv_rng_block block = tv_rng_at(key, index);
        for (int w = 0; w < 4; w++)
            assert_int_equal(block.word[w], known[i].answer[w]);
        uint64_t want = (uint64_t)known[i].answer[1] << 32 | known[i].answer[0];
        assert_true(tv_rng64(key, index) == want);
    }
}

static void test_lanes(void **state)
{
    (void)state;
    static const uint32_t want[8] = {0xe8d5, 0x6627, 0xc58d, 0xe169, 0xac4c, 0xbc57, 0xdbd8, 0x9b00};
    tv_rng_key zero = {0};
    for (int lane = 0; lane < 8; lane++) {
        assert_int_equal(tv_rng_lane(tv_rng_at(zero, 0), lane), want[lane]);
        assert_int_equal(tv_rng16(zero, (uint64_t)lane), want[lane]);
    }
    // Elements past 2^32 blocks use the index's high word.
    uint64_t element = ((uint64_t)3 << 35) + 8 * 7 + 5;
    uint32_t counter[4] = {7, 3, 0, 0}, key[2] = {0, 0};
    assert_int_equal(tv_rng16(zero, element), tv_philox(counter, key).word[2] >> 16);
}

// 2^20 draws: mean, and chi-square over the 256 values of each byte; bounds of five standard deviations.
static void test_uniformity(void **state)
{
    (void)state;
    enum { DRAWS = 1 << 20 };
    tv_rng_key key = {.seed = 1, .purpose = TV_RNG_INIT_T, .tensor_id = 42, .step = 0};
    int64_t counts[2][256] = {{0}};
    double sum = 0.0;
    for (uint64_t e = 0; e < DRAWS; e++) {
        uint32_t r = tv_rng16(key, e);
        assert_true(r <= 0xFFFF);
        sum += r;
        counts[0][r & 255]++;
        counts[1][r >> 8]++;
    }
    assert_true(fabs(sum / DRAWS - 32767.5) < 5.0 * 18918.6 / sqrt(DRAWS));
    for (int half = 0; half < 2; half++) {
        double expected = DRAWS / 256.0, chi = 0.0;
        for (int v = 0; v < 256; v++)
            chi += ((double)counts[half][v] - expected) * ((double)counts[half][v] - expected) / expected;
        assert_true(fabs(chi - 255.0) < 5.0 * sqrt(2.0 * 255.0));
    }
}

// Streams that differ in one part of the key or counter share no more lanes than chance allows.
static void test_streams_differ(void **state)
{
    (void)state;
    tv_rng_key base = {.seed = 5, .purpose = 6, .tensor_id = 7, .step = 8}, other[4] = {base, base, base, base};
    other[0].seed++;
    other[1].purpose++;
    other[2].tensor_id++;
    other[3].step++;
    for (int i = 0; i < 4; i++) {
        int same = 0;
        for (uint64_t e = 0; e < 4096; e++)
            same += tv_rng16(base, e) == tv_rng16(other[i], e);
        assert_true(same < 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers), cmocka_unit_test(test_stream_key),     cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_uniformity),    cmocka_unit_test(test_streams_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
