// base/status.h: the list, the message of a thread, context, truncation.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/status.h"

static void test_list(void **state)
{
    (void)state;
    assert_int_equal(TV_OK, 0);
    assert_string_equal(tv_status_name(TV_OK), "OK");
    assert_string_equal(tv_status_name(TV_CONFIG), "CONFIG");
    assert_string_equal(tv_status_text(TV_MEMORY), "out of memory");
    assert_int_equal(tv_status_exit_code(TV_OK), 0);
    assert_int_equal(tv_status_exit_code(TV_USAGE), 2);
    assert_int_equal(tv_status_exit_code(TV_CONFIG), 2);
    assert_int_equal(tv_status_exit_code(TV_STOPPED), 75);
    for (int i = 1; i < TV_STATUS_COUNT; i++) {
        assert_true(strlen(tv_status_name((tv_status)i)) > 0 && strlen(tv_status_text((tv_status)i)) > 0);
        assert_in_range(tv_status_exit_code((tv_status)i), i == TV_HELP ? 0 : 1, 75);
    }
    assert_string_equal(tv_status_name(TV_STATUS_COUNT), "INTERNAL");
}

static void test_message_and_place(void **state)
{
    (void)state;
    char place[64];
    snprintf(place, sizeof place, "test_status.c:%d", __LINE__ + 1);
    tv_status st = TV_FAIL(TV_IO, "cannot read '%s' (%d bytes)", "a.txt", 7);
    assert_int_equal(st, TV_IO);
    assert_string_equal(tv_status_message(), "cannot read 'a.txt' (7 bytes)");
    assert_string_equal(tv_status_place(), place);
    // The arguments may be the message itself.
    st = TV_FAIL(TV_COMM, "twice: %s", tv_status_message());
    assert_int_equal(st, TV_COMM);
    assert_string_equal(tv_status_message(), "twice: cannot read 'a.txt' (7 bytes)");
    tv_status_set(TV_IO, "no_folder.c", 3, "x");
    assert_string_equal(tv_status_place(), "no_folder.c:3");
}

static void test_context(void **state)
{
    (void)state;
    tv_status_set(TV_CHECKPOINT, "a/b.c", 12, "wrong digest");
    assert_int_equal(tv_status_context(TV_CHECKPOINT, "tensor %s", "head"), TV_CHECKPOINT);
    assert_int_equal(tv_status_context(TV_CHECKPOINT, "shard %d", 3), TV_CHECKPOINT);
    assert_string_equal(tv_status_message(), "shard 3: tensor head: wrong digest");
    assert_string_equal(tv_status_place(), "b.c:12");
}

static void test_truncation(void **state)
{
    (void)state;
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    TV_FAIL(TV_IO, "%s", text);
    assert_int_equal(strlen(tv_status_message()), 1023);
    tv_status_context(TV_IO, "front");
    assert_int_equal(strlen(tv_status_message()), 1023);
    assert_memory_equal(tv_status_message(), "front: xxx", 10);
    tv_status_context(TV_IO, "%s", text);
    assert_int_equal(strlen(tv_status_message()), 1023);
    assert_null(strchr(tv_status_message(), 'f'));
    // A context that leaves room for one more byte.
    TV_FAIL(TV_IO, "end");
    tv_status_context(TV_IO, "%.1022s", text);
    assert_int_equal(strlen(tv_status_message()), 1023);
    assert_int_equal(tv_status_message()[1022], ':');
}

static void *other_thread(void *arg)
{
    const char **seen = arg;
    seen[0] = tv_status_message()[0] == '\0' && tv_status_place()[0] == '\0' ? "empty" : "not empty";
    TV_FAIL(TV_NUMERIC, "of the other thread");
    seen[1] = strcmp(tv_status_message(), "of the other thread") == 0 ? "own" : "not own";
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    const char *seen[2] = {NULL, NULL};
    TV_FAIL(TV_IO, "of the main thread");
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, other_thread, seen), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(seen[0], "empty");
    assert_string_equal(seen[1], "own");
    assert_string_equal(tv_status_message(), "of the main thread");
}

static tv_status return_early(tv_status status, int *reached)
{
    TV_TRY(status);
    *reached = 1;
    return TV_OK;
}

static tv_status leave_by_exit(tv_status status, int *reached, int *freed)
{
    tv_status st = TV_INTERNAL;
    TV_TRY_GOTO(st, done, status);
    *reached = 1;
done:
    *freed = 1;
    return st;
}

static void test_try(void **state)
{
    (void)state;
    int reached = 0, freed = 0;
    assert_int_equal(return_early(TV_COMM, &reached), TV_COMM);
    assert_int_equal(reached, 0);
    assert_int_equal(return_early(TV_OK, &reached), TV_OK);
    assert_int_equal(reached, 1);
    reached = 0;
    assert_int_equal(leave_by_exit(TV_IO, &reached, &freed), TV_IO);
    assert_true(!reached && freed);
    freed = 0;
    assert_int_equal(leave_by_exit(TV_OK, &reached, &freed), TV_OK);
    assert_true(reached && freed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),       cmocka_unit_test(test_message_and_place), cmocka_unit_test(test_context),
        cmocka_unit_test(test_truncation), cmocka_unit_test(test_threads),           cmocka_unit_test(test_try),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
