// A trainer of one rank on a config of tests/data, for tests of what parts do in training.
#ifndef TV_TESTS_RUN_FIXTURE_H
#define TV_TESTS_RUN_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/trainer.h"

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        if ((call) != TV_OK)                                                                                           \
            fail_msg("%s", tv_status_message());                                                                       \
    } while (0)

typedef struct run {
    tv_config config;
    tv_comm *comm;
    const tv_backend *backend;
    tv_trainer trainer;
} run;

// The backend that TV_TEST_BACKEND names, else "auto".
const char *run_backend_name(void);
// `file` with `sets`, "key=value", NULL behind the last.
void run_open(run *r, const char *file, const char *const *sets, const char *backend);
void run_close(run *r);
double run_step(run *r); // its loss
// What `part` tells as `name`; fails when it does not.
double run_figure(const run *r, const char *part, const char *name);
// Fail when there is none.
const tv_part *run_part(const run *r, const char *name);
const tv_param *run_tensor(const run *r, const char *name);
// NULL when there is none. leaf: NULL for the part's first.
const tv_side *run_side(const run *r, const char *part, const char *leaf);

#endif
