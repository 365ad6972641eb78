// The int8 products against float matrix products of the same shape by OpenBLAS, which is looked for at run time:
// the program itself does not need it.
#include <dlfcn.h>
#include <stdlib.h>

#include "bench.h"

enum { ROUNDS = 11, ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 }; // the last three: CBLAS

typedef void sgemm_function(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha,
                            const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);

typedef struct blas {
    void *library;
    sgemm_function *sgemm; // NULL when OpenBLAS is absent
    const char *core;      // which kernels it chose
} blas;

// A matrix of tokens x inputs by one of inputs x outputs.
typedef struct shape {
    int64_t tokens, inputs, outputs;
} shape;

// One product as out[m, n] = sum over reduce, with all its operands. float_* serve sgemm and lie in host memory.
typedef struct product {
    const char *name;
    int is_vote;
    int64_t m, n, reduce;
    tv_gemm_args gemm;
    tv_gemm_vote_args vote;
    float *float_a, *float_b, *float_c;
} product;

static blas blas_open(void)
{
    blas b = {.library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL), .core = "?"};
    if (b.library == NULL)
        return b;
    // POSIX promises that a symbol's address converts to a function pointer.
    *(void **)&b.sgemm = dlsym(b.library, "cblas_sgemm");
    void (*set_threads)(int) = NULL;
    char *(*core_name)(void) = NULL;
    *(void **)&set_threads = dlsym(b.library, "openblas_set_num_threads");
    *(void **)&core_name = dlsym(b.library, "openblas_get_corename");
    if (set_threads != NULL)
        set_threads(1);
    if (core_name != NULL)
        b.core = core_name();
    return b;
}

static void blas_close(blas *b)
{
    if (b->library != NULL)
        dlclose(b->library);
}

static tv_status run_int8(const tv_backend *backend, const product *p)
{
    TV_TRY(p->is_vote ? backend->gemm_vote(&p->vote, NULL) : backend->gemm(&p->gemm, NULL));
    return backend->sync(NULL);
}

static void run_float(const blas *b, const product *p)
{
    int m = (int)p->m, n = (int)p->n, k = (int)p->reduce;
    b->sgemm(ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, m, n, k, 1.0f, p->float_a, k, p->float_b, k, 0.0f, p->float_c, n);
}

// Float operands in host memory: any numbers do, sgemm's time does not depend on them. 0 when memory is short.
static int make_floats(product *p)
{
    p->float_a = calloc((size_t)(p->m * p->reduce), sizeof(float));
    p->float_b = calloc((size_t)(p->n * p->reduce), sizeof(float));
    p->float_c = calloc((size_t)(p->m * p->n), sizeof(float));
    if (p->float_a == NULL || p->float_b == NULL || p->float_c == NULL)
        return 0;
    for (int64_t i = 0; i < p->m * p->reduce; i++)
        p->float_a[i] = (float)(i % 255 - 127);
    for (int64_t i = 0; i < p->n * p->reduce; i++)
        p->float_b[i] = (float)(i % 129 - 64);
    return 1;
}

static void free_floats(product *p)
{
    free(p->float_c);
    free(p->float_b);
    free(p->float_a);
}

static void make_int8s(product *p, tv_bench_pool *pool)
{
    const int8_t *a = tv_bench_int8s(pool, p->m * p->reduce, -127, 127);
    const int8_t *b = tv_bench_int8s(pool, p->n * p->reduce, p->is_vote ? -127 : -64, p->is_vote ? 127 : 64);
    if (!p->is_vote) {
        p->gemm = (tv_gemm_args){.m = p->m,
                                 .n = p->n,
                                 .reduce = p->reduce,
                                 .a = a,
                                 .b = b,
                                 .scale = tv_bench_floats(pool, p->m, 1.0f),
                                 .exponent = -6,
                                 .y = tv_bench_zeros(pool, p->m * p->n * (int64_t)sizeof(float))};
        return;
    }
    p->vote = (tv_gemm_vote_args){.n = p->m,
                                  .k = p->n,
                                  .tokens = p->reduce,
                                  .gt = a,
                                  .xt = b,
                                  .g_sumsq = tv_bench_zeros(pool, p->m * (int64_t)sizeof(int32_t)),
                                  .x_sumsq = tv_bench_zeros(pool, p->n * (int64_t)sizeof(int32_t)),
                                  .rule = {.tau = 0.5f, .levels = 1, .vote_bits = 8},
                                  .votes = tv_bench_zeros(pool, p->m * p->n)};
}

static tv_status time_product(const tv_backend *backend, const blas *b, const product *p, FILE *out)
{
    double int8_seconds[ROUNDS], float_seconds[ROUNDS],
        operations = 2e-9 * (double)p->m * (double)p->n * (double)p->reduce;
    TV_TRY(run_int8(backend, p)); // the first run grows scratch and touches memory
    for (int round = 0; round < ROUNDS; round++) {
        double start = tv_bench_now();
        TV_TRY(run_int8(backend, p));
        int8_seconds[round] = tv_bench_now() - start;
        start = tv_bench_now();
        if (b->sgemm != NULL)
            run_float(b, p);
        float_seconds[round] = tv_bench_now() - start;
    }
    double ours = tv_bench_median(int8_seconds, ROUNDS), theirs = tv_bench_median(float_seconds, ROUNDS);
    fprintf(out, "%5lld x %5lld x %5lld  %-8s %9.1f", (long long)p->m, (long long)p->n, (long long)p->reduce, p->name,
            operations / ours);
    if (b->sgemm != NULL)
        fprintf(out, " %9.1f %7.2f", operations / theirs, theirs / ours);
    fprintf(out, "\n");
    return TV_OK;
}

static tv_status bench_product(const tv_backend *backend, const blas *b, product *p, FILE *out)
{
    tv_bench_pool pool = {.backend = backend};
    make_int8s(p, &pool);
    tv_status st = pool.status;
    if (st == TV_OK && b->sgemm != NULL && !make_floats(p))
        st = TV_FAIL(TV_MEMORY, "no memory for the float operands of the benchmark");
    if (st == TV_OK)
        st = time_product(backend, b, p, out);
    free_floats(p);
    tv_bench_pool_free(&pool);
    return st;
}

static tv_status bench_shape(const tv_backend *backend, const blas *b, const shape *s, FILE *out)
{
    product products[] = {
        {.name = "forward", .m = s->tokens, .n = s->outputs, .reduce = s->inputs},
        {.name = "grad-x", .m = s->tokens, .n = s->inputs, .reduce = s->outputs},
        {.name = "vote", .is_vote = 1, .m = s->outputs, .n = s->inputs, .reduce = s->tokens},
    };
    for (int i = 0; i < 3; i++)
        TV_TRY(bench_product(backend, b, &products[i], out));
    return TV_OK;
}

tv_status tv_bench_gemm(const tv_backend *backend, FILE *out)
{
    static const shape shapes[] = {{4096, 512, 1536}, {4096, 512, 512}, {2048, 2048, 2048}};
    blas b = blas_open();
    tv_status st = TV_OK;
    fprintf(out, "int8 products of %s\n", backend->describe());
    if (b.sgemm != NULL)
        fprintf(out, "against OpenBLAS sgemm, one thread, its %s kernels; medians of %d interleaved rounds\n", b.core,
                ROUNDS);
    else
        fprintf(out, "OpenBLAS is not installed, so there is nothing to compare with (Debian, Ubuntu: apt install "
                     "libopenblas-dev)\n");
    fprintf(out, "    m       n   reduce  product      GOP/s%s\n", b.sgemm != NULL ? "     sgemm   ratio" : "");
    for (int64_t i = 0; st == TV_OK && i < (int64_t)(sizeof shapes / sizeof *shapes); i++)
        st = bench_shape(backend, &b, &shapes[i], out);
    blas_close(&b);
    return st;
}
