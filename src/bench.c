#include "bench.h"

#include <stdlib.h>
#include <time.h>

#include "base/rng.h"

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

// 16 random bits of item i; `block` keeps the draws of eight items.
static uint32_t draw(tv_rng_block *block, int64_t i)
{
    if (i % 8 == 0)
        *block = tv_rng_at((tv_rng_key){.seed = 1}, (uint64_t)i / 8);
    return tv_rng_lane(*block, (int)(i % 8));
}

// Move a filled host array into backend memory; host may be NULL (out of memory).
static void *hand_over(tv_bench_pool *pool, void *host, int64_t bytes)
{
    void *memory = NULL;
    if (host == NULL)
        pool->status = TV_FAIL(TV_MEMORY, "no memory for a benchmark's array of %lld bytes", (long long)bytes);
    else
        memory = tv_bench_copy(pool, host, bytes);
    free(host);
    return memory;
}

int8_t *tv_bench_int8s(tv_bench_pool *pool, int64_t count, int low, int high)
{
    if (pool->status != TV_OK)
        return NULL;
    tv_rng_block block = {{0}};
    int8_t *host = malloc((size_t)count);
    for (int64_t i = 0; host != NULL && i < count; i++)
        host[i] = (int8_t)(low + (int)(draw(&block, i) * (uint32_t)(high - low + 1) >> 16));
    return hand_over(pool, host, count);
}

float *tv_bench_floats(tv_bench_pool *pool, int64_t count, float size)
{
    if (pool->status != TV_OK)
        return NULL;
    tv_rng_block block = {{0}};
    int64_t bytes = count * (int64_t)sizeof(float);
    float *host = malloc((size_t)bytes);
    for (int64_t i = 0; host != NULL && i < count; i++)
        host[i] = ((float)draw(&block, i) - 32767.5f) * (size / 32768.0f);
    return hand_over(pool, host, bytes);
}

void tv_bench_pool_free(tv_bench_pool *pool)
{
    while (pool->count > 0)
        pool->backend->free(pool->blocks[--pool->count]);
}
