// base/arena.h: measure, bind, carve; borders, overflow, marks. The slab's bytes must stay untouched.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"

enum { PLACES = 5, FILL = 0xA7 };
static const int64_t counts[PLACES] = {1, 100, 0, 33, 7};
static const size_t items[PLACES] = {1, 4, 8, 8, 3};

static void take_all(tv_arena *arena, void **places)
{
    for (int i = 0; i < PLACES; i++)
        places[i] = tv_arena_take(arena, counts[i], items[i]);
}

static void test_measure_then_bind(void **state)
{
    (void)state;
    tv_arena arena;
    void *places[PLACES];
    tv_arena_init(&arena, "test");
    take_all(&arena, places);
    for (int i = 0; i < PLACES; i++)
        assert_null(places[i]);
    // 1 -> 256, 400 -> 512 more, nothing, 264 -> 512 more, then 21.
    assert_int_equal(arena.high_water, 256 + 512 + 512 + 21);
    assert_int_equal(tv_arena_check(&arena), TV_OK);

    size_t size = arena.high_water;
    unsigned char *slab = aligned_alloc(TV_ARENA_ALIGN, size + TV_ARENA_ALIGN - size % TV_ARENA_ALIGN);
    assert_non_null(slab);
    memset(slab, FILL, size);
    tv_arena_bind(&arena, slab, size);
    take_all(&arena, places);
    static const size_t offsets[PLACES] = {0, 256, 768, 768, 1280};
    for (int i = 0; i < PLACES; i++) {
        assert_ptr_equal(places[i], slab + offsets[i]);
        assert_int_equal((uintptr_t)places[i] % TV_ARENA_ALIGN, 0);
    }
    assert_int_equal(tv_arena_check(&arena), TV_OK);
    assert_int_equal(arena.used_bytes, size);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(slab[i], FILL);

    // One byte more does not fit; what was taken stays.
    assert_null(tv_arena_take(&arena, 1, 1));
    assert_int_equal(arena.used_bytes, size);
    assert_int_equal(tv_arena_check(&arena), TV_MEMORY);
    assert_non_null(strstr(tv_status_message(), "test"));
    free(slab);
}

static void test_empty_take_at_the_end(void **state)
{
    (void)state;
    tv_arena arena;
    tv_arena_init(&arena, "test");
    tv_arena_take(&arena, 1, 1);
    tv_arena_take(&arena, 0, 16);
    assert_int_equal(arena.high_water, TV_ARENA_ALIGN);
    unsigned char *slab = aligned_alloc(TV_ARENA_ALIGN, TV_ARENA_ALIGN);
    assert_non_null(slab);
    tv_arena_bind(&arena, slab, arena.high_water);
    assert_ptr_equal(tv_arena_take(&arena, 1, 1), slab);
    assert_ptr_equal(tv_arena_take(&arena, 0, 16), slab + TV_ARENA_ALIGN);
    assert_int_equal(tv_arena_check(&arena), TV_OK);
    free(slab);
}

static void test_marks(void **state)
{
    (void)state;
    tv_arena arena;
    tv_arena_init(&arena, "test");
    tv_arena_take(&arena, 10, 1);
    size_t mark = tv_arena_mark(&arena);
    tv_arena_take(&arena, 1000, 1);
    tv_arena_reset(&arena, mark);
    assert_int_equal(tv_arena_mark(&arena), mark);
    tv_arena_take(&arena, 500, 1);
    assert_int_equal(arena.used_bytes, 256 + 500);
    assert_int_equal(arena.high_water, 256 + 1000);

    unsigned char *slab = aligned_alloc(TV_ARENA_ALIGN, 2048);
    assert_non_null(slab);
    tv_arena_bind(&arena, slab, 2048);
    assert_int_equal(arena.used_bytes, 0);
    tv_arena_take(&arena, 10, 1);
    mark = tv_arena_mark(&arena);
    void *first = tv_arena_take(&arena, 1, 1);
    tv_arena_reset(&arena, mark);
    assert_ptr_equal(tv_arena_take(&arena, 300, 4), first);
    free(slab);
}

static void test_size_overflow(void **state)
{
    (void)state;
    static const struct {
        int64_t count;
        size_t item_bytes;
    } cases[] = {{INT64_MAX, 4}, {INT64_MAX, SIZE_MAX}, {-1, 1},
                 {INT64_MIN, 1}, {2, SIZE_MAX / 2 + 1}, {1, SIZE_MAX - 100}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tv_arena arena;
        tv_arena_init(&arena, "plan");
        tv_arena_take(&arena, 1000, 1);
        assert_null(tv_arena_take(&arena, cases[i].count, cases[i].item_bytes));
        assert_int_equal(arena.used_bytes, 1000);
        assert_int_equal(tv_arena_check(&arena), TV_MEMORY);
        assert_non_null(strstr(tv_status_message(), "plan"));
    }
    // The border itself: used_bytes near SIZE_MAX cannot be rounded up.
    tv_arena arena;
    tv_arena_init(&arena, "plan");
    tv_arena_take(&arena, 1, SIZE_MAX - 10);
    assert_int_equal(tv_arena_check(&arena), TV_OK);
    tv_arena_take(&arena, 0, 1);
    assert_int_equal(tv_arena_check(&arena), TV_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_measure_then_bind),
        cmocka_unit_test(test_empty_take_at_the_end),
        cmocka_unit_test(test_marks),
        cmocka_unit_test(test_size_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
