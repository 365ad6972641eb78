// What the tests of the model share: a small config, a model with its batch on a backend, one part alone.
#ifndef TV_TESTS_MODEL_FIXTURE_H
#define TV_TESTS_MODEL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/model.h"

// Fails the test with the status's message.
#define TEST_TRY(call) fixture_try((call), __FILE__, __LINE__)
void fixture_try(tv_status status, const char *file, int line);

// The backend called `name`, opened; skips the test (with the reason) when this build has none.
const tv_backend *fixture_backend(const char *name);

// width 20, 2 heads, ffn 23, context 7, 2 blocks, sequencer, T4 scales: nothing is a multiple of anything.
tv_config fixture_odd_config(void);

// A standard normal number of (seed, element), the same everywhere.
double fixture_normal(uint32_t seed, uint64_t element);

typedef struct fixture {
    const tv_backend *backend;
    tv_model model;
    tv_unit unit;
    int32_t *ids, *targets; // [max tokens] backend memory
    int32_t *fault;
} fixture;

// A planned, initialised and decoded model of one rank with int8 votes; random ids and targets below 256.
void fixture_open(fixture *f, const tv_backend *backend, const tv_config *config, int64_t tokens, int training);
void fixture_close(fixture *f);
// A copy of backend memory in host memory, for the caller to free.
void *fixture_copy(const tv_backend *backend, const void *memory, size_t bytes);

// One part alone, in training, with its table; the embedding's and head's ids and targets are random.
typedef struct part_fixture {
    const tv_backend *backend;
    tv_config config;
    tv_params params;
    tv_plan plan;
    tv_part *part;
    tv_unit unit;
    void *saved_slab, *scratch_slab;
    int32_t *ids, *targets, *fault;
    float *x, *dx; // [M, D]
} part_fixture;

// Takes over `part`. Weights are random trits with exponents spread over the window, norm weights of both signs; x and
// dx are normal.
void part_fixture_open(part_fixture *f, tv_part *part, const tv_config *config, int64_t tokens);
void part_fixture_close(part_fixture *f);

// Opens a table as rank `rank` of `ranks` holds it, what is split lying over `places` of them.
typedef void fixture_params(tv_params *params, int rank, int ranks, int places);
// Rows of the state's 9 arrays that each rank writes into a checkpoint: all of them, once; and the digest is that of one rank, opened with
// `alone` places.
void fixture_check_shares(fixture_params *open_params, int ranks, int places, int alone);

#endif
