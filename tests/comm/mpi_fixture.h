// The communicator of an MPI test program, opened once, and its main.
#ifndef TV_TESTS_MPI_FIXTURE_H
#define TV_TESTS_MPI_FIXTURE_H

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include "comm/comm_impl.h"

extern tv_comm *fixture_comm;

// Opens the communicator, runs the tests and closes it. argv[1] is the number of ranks there must be: a launcher that
// starts lone processes must not pass. Returns the exit status.
int fixture_main(int argc, char **argv, int (*run)(void));

// Fails the test with the recorded message when `call` fails.
#define assert_ok(call) fixture_expect((call), TV_OK, __FILE__, __LINE__)
#define assert_status(expected, call) fixture_expect((call), (expected), __FILE__, __LINE__)
void fixture_expect(tv_status got, tv_status expected, const char *file, int line);
// The last message contains `part`.
#define assert_message(part) fixture_expect_message((part), __FILE__, __LINE__)
void fixture_expect_message(const char *part, const char *file, int line);

#endif
