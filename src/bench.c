#include "bench.h"

#include <stdlib.h>
#include <time.h>

#include "base/rng.h"

#define ROUND_SECONDS 5e-3 // calls of a round together, at least
#define REPEATS_MOST 200

double tv_bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

double tv_bench_median(double *values, int64_t count)
{
    qsort(values, (size_t)count, sizeof *values, compare_doubles);
    return values[count / 2];
}

static void *take(tv_bench_pool *pool, int64_t bytes)
{
    void *memory = NULL;
    if (pool->status != TV_OK)
        return NULL;
    if (pool->count == (int64_t)(sizeof pool->blocks / sizeof *pool->blocks)) {
        pool->status = TV_FAIL(TV_INTERNAL, "a benchmark takes more than %lld arrays", (long long)pool->count);
        return NULL;
    }
    pool->status = pool->backend->alloc((size_t)bytes, &memory);
    if (pool->status == TV_OK)
        pool->blocks[pool->count++] = memory;
    return memory;
}

void *tv_bench_zeros(tv_bench_pool *pool, int64_t bytes)
{
    void *memory = take(pool, bytes);
    if (memory != NULL)
        pool->status = pool->backend->zero(memory, (size_t)bytes, NULL);
    return memory;
}

void *tv_bench_copy(tv_bench_pool *pool, const void *host, int64_t bytes)
{
    void *memory = take(pool, bytes);
    if (memory != NULL)
        pool->status = pool->backend->copy(memory, host, (size_t)bytes, TV_COPY_TO_DEVICE, NULL);
    return memory;
}

int32_t *tv_bench_numbers(tv_bench_pool *pool, int64_t count)
{
    int32_t *numbers = malloc((size_t)count * sizeof *numbers);
    if (numbers == NULL) {
        pool->status = TV_FAIL(TV_MEMORY, "no memory for %lld numbers", (long long)count);
        return NULL;
    }
    for (int64_t i = 0; i < count; i++)
        numbers[i] = (int32_t)i;
    int32_t *copy = tv_bench_copy(pool, numbers, count * (int64_t)sizeof *numbers);
    free(numbers);
    return copy;
}

// 16 random bits of item i; `block` keeps the draws of eight items.
static uint32_t draw(tv_rng_block *block, int64_t i)
{
    if (i % 8 == 0)
        *block = tv_rng_at((tv_rng_key){.seed = 1}, (uint64_t)i / 8);
    return tv_rng_lane(*block, (int)(i % 8));
}

#define DRAWN_MOST ((int64_t)1 << 24) // items; a larger array repeats them

// A backend array of `bytes` that begins with the `filled` ones of a host array and repeats them; host may be NULL (out of memory).
static void *hand_over(tv_bench_pool *pool, void *host, int64_t filled, int64_t bytes)
{
    char *memory = NULL;
    if (host == NULL)
        pool->status = TV_FAIL(TV_MEMORY, "no memory for a benchmark's array of %lld bytes", (long long)filled);
    else
        memory = take(pool, bytes);
    if (memory != NULL)
        pool->status = pool->backend->copy(memory, host, (size_t)filled, TV_COPY_TO_DEVICE, NULL);
    while (memory != NULL && pool->status == TV_OK && filled < bytes) {
        int64_t more = bytes - filled < filled ? bytes - filled : filled;
        pool->status = pool->backend->copy(memory + filled, memory, (size_t)more, TV_COPY_DEVICE, NULL);
        filled += more;
    }
    free(host);
    return memory;
}

int8_t *tv_bench_int8s(tv_bench_pool *pool, int64_t count, int low, int high)
{
    if (pool->status != TV_OK)
        return NULL;
    tv_rng_block block = {{0}};
    int64_t drawn = count < DRAWN_MOST ? count : DRAWN_MOST;
    int8_t *host = malloc((size_t)drawn);
    for (int64_t i = 0; host != NULL && i < drawn; i++)
        host[i] = (int8_t)(low + (int)(draw(&block, i) * (uint32_t)(high - low + 1) >> 16));
    return hand_over(pool, host, drawn, count);
}

float *tv_bench_floats(tv_bench_pool *pool, int64_t count, float size)
{
    if (pool->status != TV_OK)
        return NULL;
    tv_rng_block block = {{0}};
    int64_t drawn = count < DRAWN_MOST ? count : DRAWN_MOST, item = sizeof(float);
    float *host = malloc((size_t)(drawn * item));
    for (int64_t i = 0; host != NULL && i < drawn; i++)
        host[i] = ((float)draw(&block, i) - 32767.5f) * (size / 32768.0f);
    return hand_over(pool, host, drawn * item, count * item);
}

void tv_bench_pool_free(tv_bench_pool *pool)
{
    while (pool->count > 0)
        pool->backend->free(pool->blocks[--pool->count]);
}

static tv_status time_copy(const tv_backend *backend, char *to, const char *from, int64_t bytes, double *seconds)
{
    double start = tv_bench_now();
    TV_TRY(backend->copy(to, from, (size_t)bytes, TV_COPY_DEVICE, NULL));
    TV_TRY(backend->sync(NULL));
    *seconds = tv_bench_now() - start;
    return TV_OK;
}

tv_status tv_bench_copy_rate(const tv_backend *backend, double *bytes_per_second)
{
    double times[TV_BENCH_ROUNDS] = {1};
    tv_bench_pool pool = {.backend = backend};
    int64_t bytes = backend->host_memory ? (int64_t)1 << 28 : (int64_t)1 << 31;
    char *from = tv_bench_zeros(&pool, bytes), *to = tv_bench_zeros(&pool, bytes);
    tv_status st = pool.status;
    for (int i = -1; st == TV_OK && i < TV_BENCH_ROUNDS; i++)
        st = time_copy(backend, to, from, bytes, &times[i < 0 ? 0 : i]);
    *bytes_per_second = 2 * (double)bytes / tv_bench_median(times, TV_BENCH_ROUNDS);
    tv_bench_pool_free(&pool);
    return st;
}

static tv_status time_calls(const tv_backend *backend, const tv_bench_job *job, int64_t repeats, double *seconds)
{
    double start = tv_bench_now();
    for (int64_t i = 0; i < repeats; i++)
        TV_TRY(job->run(backend, job->args));
    TV_TRY(backend->sync(NULL));
    *seconds = (tv_bench_now() - start) / (double)repeats;
    return TV_OK;
}

tv_status tv_bench_time_job(const tv_backend *backend, const tv_bench_job *job, double *seconds)
{
    double times[TV_BENCH_ROUNDS], once;
    TV_TRY(time_calls(backend, job, 1, &once)); // the first run grows scratch and touches memory
    TV_TRY(time_calls(backend, job, 1, &once));
    int64_t repeats = once * REPEATS_MOST < ROUND_SECONDS ? REPEATS_MOST : 1 + (int64_t)(ROUND_SECONDS / once);
    for (int i = 0; i < TV_BENCH_ROUNDS; i++)
        TV_TRY(time_calls(backend, job, repeats, &times[i]));
    *seconds = tv_bench_median(times, TV_BENCH_ROUNDS);
    return TV_OK;
}
