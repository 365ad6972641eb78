// What the tests of the compute ops share: the backends to run on, guarded backend memory, random fills, comparisons.
//
// A test puts its inputs into host arrays, hands them to op_in and op_out, calls the op with the pointers it got back, and ends
// with op_end. So the same program serves a backend whose memory is not the host's.
#ifndef TV_TESTS_OP_TEST_H
#define TV_TESTS_OP_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "kernels/kernels.h"

// ---- backends ------------------------------------------------------------------------------------------------------------

typedef struct op_backend {
    const tv_backend *backend;
    const char *label; // "ref", "cpu avx2", for messages
} op_backend;

const op_backend *op_ref(void);

typedef void op_check(const op_backend *on);
// Run a check on every backend of the build that can run here and every instruction set of this machine, opened with two
// threads. The environment variable TV_TEST_BACKEND leaves only the backend that it names.
void op_on_each(op_check *check);
// The same for every backend but ref, each with 1, 2, 3 and 4 threads (one pass where they mean nothing): for
// comparisons with ref.
void op_against_ref(op_check *check);
// 1, after printing why, when TV_TEST_BACKEND names a backend that cannot run here.
int op_skipped(void);
// For main: the tests, or exit code 77 when they are skipped.
#define op_run(name, tests) (op_skipped() ? 77 : cmocka_run_group_tests_name(name, tests, NULL, NULL))

// ---- one call of an op -----------------------------------------------------------------------------------------------------

#define OP_ARRAYS_MAX 24

typedef struct op_array {
    void *slab, *host; // backend memory with its guards; the test's array
    size_t bytes;
    int is_output;
} op_array;

typedef struct op_call {
    const op_backend *on;
    op_array array[OP_ARRAYS_MAX];
    int count;
} op_call;

op_call op_begin(const op_backend *on);
// Backend copies of a host array. NULL gives NULL. op_end fails the test when an input changed.
const void *op_in(op_call *call, const void *host, size_t bytes);
// As op_in; op_end copies the result back into `host`.
void *op_out(op_call *call, void *host, size_t bytes);
// Check the status and the guard bytes around every array, copy outputs back, free.
void op_end(op_call *call, tv_status status);

// ---- host memory and random fills --------------------------------------------------------------------------------------------

typedef struct op_random {
    uint32_t seed;
    uint64_t index;
} op_random;

uint32_t op_next(op_random *random);
int op_int(op_random *random, int low, int high); // both included
float op_float(op_random *random, float size);    // in (-size, size)

// Zeroed memory that lives until op_host_free, which tests call when they end.
void *op_host(size_t bytes);
void *op_host_copy(const void *from, size_t bytes);
void op_host_free(void);
int8_t *op_int8s(op_random *random, int64_t count, int low, int high);
float *op_floats(op_random *random, int64_t count, float size);
uint8_t *op_trits(op_random *random, int64_t rows, int64_t cols); // valid packed trits

// 0, 1, 2, 3, 5, 15 .. 129: sizes around the edges of tiles
extern const int64_t op_edges[];
extern const int op_edge_count;
#define OP_EDGES_MAX 129
int op_stride(void);                // 1; 5 when TV_TEST_QUICK is set: every fifth case, for slow tools
int64_t op_size(op_random *random); // one of the edges, or an odd size up to 301
// Comparisons with ref end with one case of about this many rows and columns, so that every thread gets work.
#define OP_LARGE_ROWS 421
#define OP_LARGE_COLS 1003

// ---- comparisons --------------------------------------------------------------------------------------------------------------

// Fail with the label and the first byte or item that differs. op_same_floats lets any NaN equal any NaN.
void op_same(const char *what, const op_backend *on, const void *want, const void *got, size_t bytes);
void op_same_floats(const char *what, const op_backend *on, const float *want, const float *got, int64_t count);
// |got - want| <= tolerance * (1 + |want|)
void op_near(const char *what, double want, double got, double tolerance);

#endif
