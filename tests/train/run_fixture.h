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
// Its histogram of this name; of no bins when it does not tell it.
tv_histogram run_histogram(const run *r, const char *part, const char *name);
// Fail when there is none.
const tv_part *run_part(const run *r, const char *name);
const tv_param *run_tensor(const run *r, const char *name);
// NULL when there is none. leaf: NULL for the part's first.
const tv_side *run_side(const run *r, const char *part, const char *leaf);

// The backend's memory in host memory, malloc'd.
void *run_copy(const run *r, const void *from, int64_t bytes);
// A table and the use of its rows, the part's int8 or int16 side state `leaf`, as they were; in host memory.
typedef struct run_picture {
    int64_t rows, cols;
    uint8_t *T;
    int8_t *E, *T_accum, *E_accum;
    int16_t *use;
} run_picture;
run_picture run_take_picture(const run *r, const char *table, const char *part, const char *leaf);
void run_free_picture(run_picture *p);
// 1 when anything but the row's use differs.
int run_row_moved(const run_picture *a, const run_picture *b, int64_t row);

#endif
