// Saving and loading of a synthetic state against what the same disk does with as many plain bytes.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/pack.h"
#include "bench.h"
#include "io/atomic_file.h"
#include "io/checkpoint.h"

enum {
    COLS = 4096,
    ROWS = 4096,
    GROUP = 32,
    BASE = -9,
    PARTS = 4,
    ROUNDS = 5,
    BLOCK = 4 << 20,
    READ_BLOCK = 1 << 20,
    TENSORS_MOST = 4096,
    NAME_BYTES = 16
};

typedef struct bench {
    tv_comm *comm;
    char *folder; // made by this benchmark
    tv_state_array arrays[TENSORS_MOST * PARTS];
    char names[TENSORS_MOST][NAME_BYTES];
    int64_t count, bytes;
    char *copy; // [bytes] touched
} bench;

static int64_t array_bytes(const tv_state_array *a) { return a->count * tv_state_row_bytes(a); }

static uint64_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

// Valid values: the reader checks them.
static void fill(const tv_state_array *a, uint64_t *x)
{
    int64_t bytes = array_bytes(a), row = tv_state_row_bytes(a);
    uint8_t *to = a->data;
    int trits = strcmp(a->part, "T") == 0, exponents = strcmp(a->part, "E") == 0;
    for (int64_t i = 0; i < bytes; i += 4) {
        uint64_t bits = next_random(x);
        for (int j = 0; j < 4 && i + j < bytes; j++, bits >>= 16)
            to[i + j] = (uint8_t)(trits       ? (bits & 0xffff) % (TV_TRIT_BYTE_MAX + 1)
                                  : exponents ? (uint64_t)BASE + (bits & 0xffff) % 7
                                              : bits);
    }
    for (int64_t r = 0; trits && r < a->count; r++)
        to[r * row + row - 1] = (uint8_t)(120 + r % 3); // one trit and four pad digits, each 1
}

static tv_status add_array(bench *b, int64_t tensor, int part)
{
    static const char *const names[PARTS] = {"T", "E", "T_accum", "E_accum"};
    const int64_t cols[PARTS] = {(COLS + 4) / 5, COLS / GROUP, COLS, COLS / GROUP};
    tv_state_array *a = &b->arrays[b->count];
    *a = (tv_state_array){.name = b->names[tensor],
                          .part = names[part],
                          .group = "tensors",
                          .dtype = part == 0 ? TV_U8 : TV_I8,
                          .rows = ROWS,
                          .cols = cols[part],
                          .logical_cols = part == 0 ? COLS : cols[part],
                          .count = ROWS,
                          .b = BASE,
                          .scale_group = GROUP};
    a->data = malloc((size_t)array_bytes(a));
    if (!a->data)
        return TV_FAIL(TV_MEMORY, "no memory for a state of %" PRId64 " bytes", b->bytes);
    b->count++;
    return TV_OK;
}

static tv_status make_state(bench *b, int64_t bytes)
{
    uint64_t x = 88172645463325252u;
    for (int64_t t = 0; b->bytes < bytes && t < TENSORS_MOST; t++) {
        snprintf(b->names[t], NAME_BYTES, "tensor.%04" PRId64, t);
        for (int part = 0; part < PARTS; part++) {
            TV_TRY(add_array(b, t, part));
            fill(&b->arrays[b->count - 1], &x);
            b->bytes += array_bytes(&b->arrays[b->count - 1]);
        }
    }
    b->copy = malloc((size_t)b->bytes);
    if (!b->copy)
        return TV_FAIL(TV_MEMORY, "no memory for a state of %" PRId64 " bytes", b->bytes);
    memset(b->copy, 1, (size_t)b->bytes);
    return TV_OK;
}

static tv_status write_bytes(int fd, const char *path, const char *data, int64_t bytes)
{
    for (int64_t done = 0; done < bytes;) {
        int64_t most = bytes - done < BLOCK ? bytes - done : BLOCK;
        ssize_t n = write(fd, data + done, (size_t)most);
        if (n < 0)
            return TV_FAIL(TV_IO, "cannot write %s: %s", path, strerror(errno));
        done += n;
    }
    return TV_OK;
}

// The bar: the same bytes into one file, and fsync.
static tv_status write_plain(const bench *b, const char *path, double *seconds)
{
    double start = tv_bench_now();
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return TV_FAIL(TV_IO, "cannot create %s: %s", path, strerror(errno));
    tv_status st = TV_OK;
    for (int64_t i = 0; st == TV_OK && i < b->count; i++)
        st = write_bytes(fd, path, b->arrays[i].data, array_bytes(&b->arrays[i]));
    if (st == TV_OK && fsync(fd) != 0)
        st = TV_FAIL(TV_IO, "cannot sync %s: %s", path, strerror(errno));
    close(fd);
    *seconds = tv_bench_now() - start;
    return st;
}

static void drop_cache(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

static void copy_plain(const bench *b, double *seconds)
{
    double start = tv_bench_now();
    char *to = b->copy;
    for (int64_t i = 0; i < b->count; i++) {
        memcpy(to, b->arrays[i].data, (size_t)array_bytes(&b->arrays[i]));
        to += array_bytes(&b->arrays[i]);
    }
    *seconds = tv_bench_now() - start;
}

typedef struct save_times {
    double total, blocked;
} save_times;

// Advances like a training loop: it looks every 10 ms, and counts what its own calls take.
static tv_status run_save(const bench *b, tv_checkpoint_writer *writer, int64_t step, int background, save_times *times)
{
    tv_checkpoint_info info = {.step = step, .program = "trivote bench"};
    tv_save_args args = {.run_dir = b->folder,
                         .info = &info,
                         .arrays = b->arrays,
                         .count = b->count,
                         .background = background,
                         .keep = 1};
    tv_save_report report;
    double start = tv_bench_now();
    TV_TRY(tv_checkpoint_save_start(writer, &args));
    times->blocked = tv_bench_now() - start;
    while (tv_checkpoint_save_pending(writer)) {
        while (tv_checkpoint_save_busy(writer))
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        double mark = tv_bench_now();
        TV_TRY(tv_checkpoint_save_advance(writer, &report));
        times->blocked += tv_bench_now() - mark;
    }
    times->total = tv_bench_now() - start;
    return TV_OK;
}

static tv_status load(bench *b, const char *dir, double *seconds)
{
    tv_checkpoint *checkpoint = NULL;
    double start = tv_bench_now();
    TV_TRY(tv_checkpoint_open(dir, 1, &checkpoint));
    tv_status st = tv_checkpoint_read(checkpoint, b->arrays, b->count);
    tv_checkpoint_close(checkpoint);
    *seconds = tv_bench_now() - start;
    return st;
}

// The bar: one thread that reads and hashes in turn.
static tv_status read_plain(const char *path, double *seconds)
{
    double start = tv_bench_now();
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *block = malloc(READ_BLOCK);
    tv_hash_stream *stream = tv_hash_stream_new();
    tv_status st = fd >= 0 && block && stream ? TV_OK : TV_FAIL(TV_IO, "cannot read %s", path);
    for (ssize_t n = READ_BLOCK; st == TV_OK && n > 0;) {
        n = read(fd, block, READ_BLOCK);
        if (n < 0)
            st = TV_FAIL(TV_IO, "cannot read %s: %s", path, strerror(errno));
        else
            tv_hash_stream_add(stream, block, (size_t)n);
    }
    tv_hash_stream_free(stream);
    free(block);
    if (fd >= 0)
        close(fd);
    *seconds = tv_bench_now() - start;
    return st;
}

static void print_row(FILE *out, const char *name, double seconds, double bytes, double bar)
{
    fprintf(out, "%-46s %8.3f s %9.0f MB/s %7.2f x\n", name, seconds, bytes / seconds * 1e-6, seconds / bar);
}

// Contestants take turns.
typedef struct samples {
    double plain[ROUNDS], save[ROUNDS], async[ROUNDS], blocked[ROUNDS], copy[ROUNDS];
    double cold[ROUNDS], load_cold[ROUNDS], warm[ROUNDS], load_warm[ROUNDS];
} samples;

static tv_status time_saves(bench *b, tv_checkpoint_writer *writer, const char *plain, samples *s)
{
    for (int i = -1; i < ROUNDS; i++) { // the first round makes the memory and the disk ready
        int k = i < 0 ? 0 : i;
        save_times sync, async;
        TV_TRY(write_plain(b, plain, &s->plain[k]));
        TV_TRY(run_save(b, writer, 4 + 2 * i, 0, &sync));
        copy_plain(b, &s->copy[k]);
        TV_TRY(run_save(b, writer, 5 + 2 * i, 1, &async));
        s->save[k] = sync.total;
        s->async[k] = async.total;
        s->blocked[k] = async.blocked;
    }
    return TV_OK;
}

// The bar reads the same file: on a virtual machine the place on the disk and the memory that the page cache gets make a difference of two.
static tv_status time_loads(bench *b, samples *s)
{
    char dir[4096], shard[4200];
    snprintf(dir, sizeof dir, "%s/step-%09d", b->folder, 5 + 2 * (ROUNDS - 1));
    snprintf(shard, sizeof shard, "%s/shard-00000-of-00001.h5", dir);
    for (int i = -1; i < ROUNDS; i++) { // as above: the page cache's memory, too
        int k = i < 0 ? 0 : i;
        drop_cache(shard);
        TV_TRY(read_plain(shard, &s->cold[k]));
        TV_TRY(read_plain(shard, &s->warm[k]));
        drop_cache(shard);
        TV_TRY(load(b, dir, &s->load_cold[k]));
        TV_TRY(load(b, dir, &s->load_warm[k]));
    }
    return TV_OK;
}

static void print_table(const bench *b, samples *s, FILE *out)
{
    double bytes = (double)b->bytes, plain = tv_bench_median(s->plain, ROUNDS), copy = tv_bench_median(s->copy, ROUNDS),
           cold = tv_bench_median(s->cold, ROUNDS), warm = tv_bench_median(s->warm, ROUNDS);
    fprintf(out, "state of %" PRId64 " bytes in %" PRId64 " arrays, in %s; medians of %d rounds\n", b->bytes, b->count,
            b->folder, ROUNDS);
    print_row(out, "plain write and fsync", plain, bytes, plain);
    print_row(out, "save", tv_bench_median(s->save, ROUNDS), bytes, plain);
    print_row(out, "save beside training, until it is published", tv_bench_median(s->async, ROUNDS), bytes, plain);
    print_row(out, "copy in memory", copy, bytes, copy);
    print_row(out, "training stands still for a save beside it", tv_bench_median(s->blocked, ROUNDS), bytes, copy);
    print_row(out, "plain read and hash, from the disk", cold, bytes, cold);
    print_row(out, "load with all checks, from the disk", tv_bench_median(s->load_cold, ROUNDS), bytes, cold);
    print_row(out, "plain read and hash, from the page cache", warm, bytes, warm);
    print_row(out, "load with all checks, from the page cache", tv_bench_median(s->load_warm, ROUNDS), bytes, warm);
}

static tv_status run(bench *b, int64_t bytes, FILE *out)
{
    char plain[4096];
    samples s;
    tv_checkpoint_writer *writer = NULL;
    TV_TRY(make_state(b, bytes));
    TV_TRY(tv_comm_open_self(&b->comm));
    TV_TRY(tv_checkpoint_writer_open(b->comm, TV_WRITERS_RANK, &writer));
    snprintf(plain, sizeof plain, "%s/plain", b->folder);
    tv_status st = tv_checkpoint_writer_reserve(writer, b->arrays, b->count);
    if (st == TV_OK)
        st = time_saves(b, writer, plain, &s);
    tv_checkpoint_writer_close(writer); // a program that resumes has no copies of the state yet
    free(b->copy);
    b->copy = NULL;
    (void)unlink(plain);
    if (st == TV_OK)
        st = time_loads(b, &s);
    if (st == TV_OK)
        print_table(b, &s, out);
    return st;
}

// What the benchmark left: its last checkpoint, then the folder itself.
static void clean(const bench *b)
{
    char path[4200];
    for (int step = 0; step <= 5 + 2 * ROUNDS; step++) {
        snprintf(path, sizeof path, "%s/step-%09d", b->folder, step);
        if (access(path, F_OK) == 0)
            (void)tv_dir_remove(path);
    }
    (void)tv_dir_remove(b->folder);
}

tv_status tv_bench_save(int64_t bytes, const char *folder, FILE *out)
{
    bench *b = calloc(1, sizeof *b);
    if (!b || asprintf(&b->folder, "%s/trivote-bench-XXXXXX", folder) < 0) {
        free(b);
        return TV_FAIL(TV_MEMORY, "no memory for a benchmark");
    }
    tv_status st = mkdtemp(b->folder) ? run(b, bytes, out)
                                      : TV_FAIL(TV_IO, "cannot make a folder in %s: %s", folder, strerror(errno));
    clean(b);
    tv_comm_close(b->comm);
    for (int64_t i = 0; i < b->count; i++)
        free(b->arrays[i].data);
    free(b->copy);
    free(b->folder);
    free(b);
    return st;
}
