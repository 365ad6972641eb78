// Benchmarks of `trivote bench`, and what they share. Times are medians over rounds in which all contestants take
// turns, so that a busy machine slows them alike; compare ratios, not absolute numbers.
#ifndef TV_BENCH_H
#define TV_BENCH_H

#include <stdint.h>
#include <stdio.h>

#include "base/config.h"
#include "base/status.h"
#include "comm/comm.h"
#include "kernels/kernels.h"
#include "model/part.h"

// The three int8 products against OpenBLAS sgemm on one thread; a table to `out`. The backend is open.
tv_status tv_bench_gemm(const tv_backend *backend, FILE *out);
// The other hot ops against ref; a table to `out`. The backend is open.
tv_status tv_bench_ops(const tv_backend *backend, FILE *out);
// Collective. The vote exchange between the ranks against the bare sum of as many bytes; a table to `out`, from rank 0.
// The backend is open.
tv_status tv_bench_exchange(tv_comm *comm, const tv_backend *backend, FILE *out);

// The unpacking of weights, the quantisers and attention at the sizes of a large model, against the copy of a large array: times,
// bytes a second and, where they multiply, operations a second; a table each to `out`. Smaller sizes in host memory. The backend is open.
tv_status tv_bench_decode(const tv_backend *backend, FILE *out);
tv_status tv_bench_quantise(const tv_backend *backend, FILE *out);
tv_status tv_bench_attention(const tv_backend *backend, FILE *out);
// Collective. Whole training steps of a config on random text, by phase; a table to `out`, from rank 0. The config's texts and its
// run.backend are not used. The backend is open.
tv_status tv_bench_step(tv_comm *comm, const tv_backend *backend, const tv_config *config, FILE *out);
// Collective. Memory that training takes beyond what was planned and what an empty process of as many ranks takes, from the device's own
// count (in host memory: the resident pages of the process); a table to `out`, from rank 0.
tv_status tv_bench_memory(tv_comm *comm, const tv_backend *backend, const tv_config *config, FILE *out);

// Collective. A codebook's search, votes and ballot with one rank, queries and answers between several; a table to `out`, from rank 0. Of
// the config only codebook.rows counts; 0: as many as suit the backend. The backend is open.
tv_status tv_bench_codebook(tv_comm *comm, const tv_backend *backend, const tv_config *config, FILE *out);

// A table of n-grams: what a unit looks up, its votes and their ballot; a table to `out`. The backend is open.
tv_status tv_bench_memgram(const tv_backend *backend, FILE *out);

// The graph of motifs: a hop at once and as its pieces, what it adds to the tokens; a table to `out`. The backend is open.
tv_status tv_bench_graph(const tv_backend *backend, FILE *out);

// The conversation's cells: ops, and the part; a table to `out`. The backend is open.
tv_status tv_bench_focus(const tv_backend *backend, FILE *out);

// Collective. The mixture of experts: ops and layers with one rank, the exchange of rows with several; a table to `out`, from rank 0. The
// backend is open.
tv_status tv_bench_moe(tv_comm *comm, const tv_backend *backend, FILE *out);

// Collective. What a step pays to be watched over (comm/watch.h): nanoseconds of a collective's record, of a mark and of the guard; a table
// to `out`, from rank 0.
tv_status tv_bench_watch(tv_comm *comm, const tv_backend *backend, FILE *out);
// Saves and loads of a state of so many bytes in `folder`, against plain files there and a copy in memory; a table to `out`.
tv_status tv_bench_save(int64_t bytes, const char *folder, FILE *out);

// Rows that each rank sends to each, and what comes back.
typedef struct tv_bench_rows {
    const char *what;
    int64_t rows, there, back; // rows to a rank; bytes of a row there and of its answer, 0: none
} tv_bench_rows;
// Collective. Their exchange against the library's own all-to-all of as many bytes; lines to `out`, from rank 0.
tv_status tv_bench_exchange_rows(tv_comm *comm, const tv_backend *backend, const tv_bench_rows *rows, FILE *out);

double tv_bench_now(void);                             // seconds of a clock that only goes forward
double tv_bench_median(double *values, int64_t count); // sorts them; count >= 1

// Backend memory that is freed as a whole. Takes after a failure do nothing and return NULL; check status once at
// the end.
typedef struct tv_bench_pool {
    const tv_backend *backend;
    void *blocks[64];
    int64_t count;
    tv_status status;
} tv_bench_pool;

void *tv_bench_zeros(tv_bench_pool *pool, int64_t bytes);
int8_t *tv_bench_int8s(tv_bench_pool *pool, int64_t count, int low,
                       int high); // pseudo-random in [low, high]; so many, then again
float *tv_bench_floats(tv_bench_pool *pool, int64_t count, float size); // pseudo-random in (-size, size)
int32_t *tv_bench_numbers(tv_bench_pool *pool, int64_t count);          // 0 .. count - 1
// A copy of `bytes` of host memory.
void *tv_bench_copy(tv_bench_pool *pool, const void *host, int64_t bytes);
void tv_bench_pool_free(tv_bench_pool *pool);

// Bytes a second, read and written together, at which the backend copies an array that no cache holds: the ceiling of whatever moves memory.
tv_status tv_bench_copy_rate(const tv_backend *backend, double *bytes_per_second);

enum { TV_BENCH_ROUNDS = 7 };

// One call of an op on operands that are ready.
typedef struct tv_bench_job {
    const char *name;
    tv_status (*run)(const tv_backend *backend, const void *args);
    const void *args;
    double bytes;      // operands read once and results written once
    double operations; // multiplications and additions; 0 where they do not count
} tv_bench_job;
// Seconds of a call: the median of TV_BENCH_ROUNDS rounds of enough calls.
tv_status tv_bench_time_job(const tv_backend *backend, const tv_bench_job *job, double *seconds);

// A part alone, on one rank: its config (the defaults, and `keys` up to one without a name), how it is made, tokens of the unit.
typedef struct tv_bench_key {
    const char *key;
    int64_t value;
} tv_bench_key;
typedef struct tv_bench_part_args {
    const tv_bench_key *keys;
    tv_status (*create)(tv_part **part);
    int64_t tokens;
} tv_bench_part_args;
typedef struct tv_bench_part {
    const tv_backend *backend;
    tv_config config;
    tv_params params;
    tv_part *part;
    tv_plan plan;
    tv_unit unit;
    void *saved, *scratch;
    float *x, *dx;
    tv_bench_pool pool;
} tv_bench_part;
// tv_bench_part_close also after a failure.
tv_status tv_bench_part_open(tv_bench_part *part, const tv_backend *backend, const tv_bench_part_args *args);
void tv_bench_part_close(tv_bench_part *part);
// Seconds of a forward, and of both.
tv_status tv_bench_part_time(const tv_bench_part *part, double *forward, double *both);

// A trainer on random text of its own, which lies in a temporary file.
struct tv_trainer;
typedef struct tv_bench_run {
    tv_config config;
    char text[64]; // path of the file
    struct tv_trainer *trainer;
} tv_bench_run;
// Collective. tv_bench_run_close also after a failure.
tv_status tv_bench_run_open(tv_bench_run *run, tv_comm *comm, const tv_backend *backend, const tv_config *config);
void tv_bench_run_close(tv_bench_run *run);

#endif
