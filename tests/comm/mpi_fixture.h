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
#include "kernels/kernels.h"

extern tv_comm *fixture_comm;
extern const tv_backend *fixture_backend; // whose memory the tv_comm_device functions work on

// Opens communicator and backend, runs the tests and closes them. argv[1] is the number of ranks there must be: a
// launcher that starts lone processes must not pass. argv[2] is the backend's name, ref without it. Returns the exit
// status, 77 where the backend cannot run.
int fixture_main(int argc, char **argv, int (*run)(void));

// Fails the test with the recorded message when `call` fails.
#define assert_ok(call) fixture_expect((call), TV_OK, __FILE__, __LINE__)
#define assert_status(expected, call) fixture_expect((call), (expected), __FILE__, __LINE__)
void fixture_expect(tv_status got, tv_status expected, const char *file, int line);
// The last message contains `part`.
#define assert_message(part) fixture_expect_message((part), __FILE__, __LINE__)
void fixture_expect_message(const char *part, const char *file, int line);

// Brings the backend up on this rank; device is its number, and places the ranks that do so on this host. Returns 0, or
// 77 on all ranks, with a word, where it cannot run.
int fixture_backend_open(tv_comm *comm, const char *name, int device, int places);

// A copy of host memory in the backend's, and the way back, which frees it.
void *memory_give(const void *host, int64_t bytes);
void memory_take(void *memory, void *host, int64_t bytes);

#endif
