// `trivote bench gemm` on a GPU: the three int8 products beside cuBLASLt's bf16 and int8 products of the same shape.
//
// Every round runs all contestants in turn, REPEATS launches each between two events; the table has medians over the rounds. Operands are
// random over the whole range: products of zeros run faster than real ones.
#include <stdlib.h>

#include "kernels/cuda/bench_cublaslt.cuh"
#include "kernels/cuda/bench_cuda.h"
#include "kernels/cuda/cuda_ops.h"

#define ROUNDS 15
#define REPEATS 4
#define WORKSPACE_BYTES ((size_t)64 << 20)

typedef enum contestant { OURS, BF16, INT8, CONTESTANTS } contestant;

// One product as out[m, n] = sum over reduce, and what is needed to run it each way.
typedef struct product {
    const char *name;
    int is_vote;
    int64_t m, n, reduce;
    int a_transposed, b_transposed; // where a bf16 trainer has the operands
    tv_gemm_args gemm;
    tv_gemm_vote_args vote;
    tv_lt_product rival[CONTESTANTS];
} product;

// Device memory that is freed as a whole.
typedef struct pool {
    void *block[16];
    int count;
} pool;

static tv_status take(pool *p, size_t bytes, void **out)
{
    TV_TRY(alloc_cuda(bytes, out));
    p->block[p->count++] = *out;
    return TV_OK;
}

static void free_pool(pool *p)
{
    while (p->count > 0)
        free_cuda(p->block[--p->count]);
}

// Any fixed scramble does: neighbours get unlike bits.
__device__ static uint32_t scramble(uint64_t i)
{
    uint32_t x = (uint32_t)i * 0x9E3779B9u ^ (uint32_t)(i >> 32);
    x ^= x >> 16, x *= 0x85EBCA6Bu, x ^= x >> 13, x *= 0xC2B2AE35u;
    return x ^ x >> 16;
}

// Evenly spread over -top .. top, as int8 or as bf16 in -1 .. 1.
__global__ static void fill_kernel(int8_t *q, uint16_t *bf16, int64_t count, int top, uint32_t salt)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        int value = (int)(scramble((uint64_t)i + ((uint64_t)salt << 40)) % (uint32_t)(2 * top + 1)) - top;
        if (q)
            q[i] = (int8_t)value;
        if (bf16)
            bf16[i] = (uint16_t)(tv_float_bits((float)value / (float)top) >> 16);
    }
}

// [rows, reduce] as int8 and as bf16.
static tv_status make_operand(pool *p, int64_t count, uint32_t salt, int8_t **q, uint16_t **bf16)
{
    TV_TRY(take(p, (size_t)count, (void **)q));
    TV_TRY(take(p, 2 * (size_t)count, (void **)bf16));
    fill_kernel<<<1024, 256>>>(*q, *bf16, count, 127, salt);
    TV_CUDA_TRY(cudaGetLastError());
    return TV_OK;
}

static tv_status make_ours(pool *p, product *pr, const int8_t *a, const int8_t *b, void *y)
{
    if (!pr->is_vote) {
        float *scale = NULL;
        TV_TRY(take(p, (size_t)pr->m * sizeof(float), (void **)&scale));
        tv_fill_args fill = {};
        fill.count = pr->m, fill.value = 1.0f, fill.y = scale;
        TV_TRY(fill_cuda(&fill, NULL));
        pr->gemm.m = pr->m, pr->gemm.n = pr->n, pr->gemm.reduce = pr->reduce;
        pr->gemm.a = a, pr->gemm.b = b, pr->gemm.scale = scale, pr->gemm.exponent = -6;
        pr->gemm.y = (float *)y;
        return TV_OK;
    }
    int32_t *squares = NULL; // 2 reduce sum squares of about 5418 a value: half of the sums vote
    int64_t longest = pr->m > pr->n ? pr->m : pr->n;
    TV_TRY(take(p, (size_t)longest * sizeof(int32_t), (void **)&squares));
    TV_CUDA_TRY(cudaMemset(squares, 0x02, (size_t)longest * sizeof(int32_t)));
    pr->vote.n = pr->m, pr->vote.k = pr->n, pr->vote.tokens = pr->reduce;
    pr->vote.gt = a, pr->vote.xt = b, pr->vote.g_sumsq = squares, pr->vote.x_sumsq = squares, pr->vote.votes = y;
    pr->vote.rule.tau = 0.5f, pr->vote.rule.levels = 1, pr->vote.rule.vote_bits = 8;
    return TV_OK;
}

static tv_status make_product(pool *p, const tv_lt *lt, product *pr)
{
    int8_t *a = NULL, *b = NULL;
    uint16_t *a_bf16 = NULL, *b_bf16 = NULL;
    void *y = NULL, *workspace = NULL;
    TV_TRY(make_operand(p, pr->m * pr->reduce, 1, &a, &a_bf16));
    TV_TRY(make_operand(p, pr->n * pr->reduce, 2, &b, &b_bf16));
    TV_TRY(take(p, (size_t)(pr->m * pr->n) * sizeof(float), &y));
    TV_TRY(take(p, WORKSPACE_BYTES, &workspace));
    TV_CUDA_TRY(cudaMemset(y, 0, (size_t)(pr->m * pr->n) * sizeof(float)));
    TV_TRY(make_ours(p, pr, a, b, y));
    for (int c = BF16; lt->library != NULL && c < CONTESTANTS; c++) {
        tv_lt_product *r = &pr->rival[c];
        r->m = pr->m, r->n = pr->n, r->reduce = pr->reduce, r->int8 = c == INT8;
        r->a_transposed = c == BF16 && pr->a_transposed, r->b_transposed = c == BF16 && pr->b_transposed;
        r->a = c == INT8 ? (void *)a : a_bf16, r->b = c == INT8 ? (void *)b : b_bf16, r->y = y;
        r->workspace = workspace, r->workspace_bytes = WORKSPACE_BYTES;
        TV_TRY(tv_lt_prepare(lt, r));
    }
    return TV_OK;
}

static tv_status run_once(const tv_lt *lt, const product *pr, int who)
{
    if (who != OURS)
        return tv_lt_run(lt, &pr->rival[who]);
    return pr->is_vote ? gemm_vote_cuda(&pr->vote, NULL) : gemm_cuda(&pr->gemm, NULL);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static tv_status time_one(const tv_lt *lt, const product *pr, int who, cudaEvent_t from, cudaEvent_t to,
                          double *seconds)
{
    float ms = 0;
    TV_TRY(run_once(lt, pr, who));
    TV_CUDA_TRY(cudaEventRecord(from));
    for (int i = 0; i < REPEATS; i++)
        TV_TRY(run_once(lt, pr, who));
    TV_CUDA_TRY(cudaEventRecord(to));
    TV_CUDA_TRY(cudaEventSynchronize(to));
    TV_CUDA_TRY(cudaEventElapsedTime(&ms, from, to));
    *seconds = ms * 1e-3 / REPEATS;
    return TV_OK;
}

static tv_status time_product(const tv_lt *lt, const product *pr, cudaEvent_t from, cudaEvent_t to, FILE *out)
{
    double seconds[CONTESTANTS][ROUNDS], rate[CONTESTANTS] = {0};
    int contestants = lt->library != NULL ? CONTESTANTS : 1;
    for (int round = 0; round < ROUNDS; round++)
        for (int c = 0; c < contestants; c++)
            TV_TRY(time_one(lt, pr, c, from, to, &seconds[c][round]));
    for (int c = 0; c < contestants; c++) {
        qsort(seconds[c], ROUNDS, sizeof(double), by_size);
        rate[c] = 2e-12 * (double)pr->m * (double)pr->n * (double)pr->reduce / seconds[c][ROUNDS / 2];
    }
    fprintf(out, "%6lld x %6lld x %6lld  %-8s %8.0f", (long long)pr->m, (long long)pr->n, (long long)pr->reduce,
            pr->name, rate[OURS]);
    if (contestants > 1)
        fprintf(out, " %8.0f %6.2f %8.0f %6.2f", rate[BF16], rate[OURS] / rate[BF16], rate[INT8],
                rate[OURS] / rate[INT8]);
    fprintf(out, "\n");
    return TV_OK;
}

static tv_status bench_product(const tv_lt *lt, product *pr, cudaEvent_t from, cudaEvent_t to, FILE *out)
{
    pool memory = {};
    tv_status st = make_product(&memory, lt, pr);
    if (st == TV_OK)
        st = time_product(lt, pr, from, to, out);
    for (int c = BF16; lt->library != NULL && c < CONTESTANTS; c++)
        tv_lt_release(lt, &pr->rival[c]);
    free_pool(&memory);
    return st;
}

// The products of a matrix of tokens x inputs by one of inputs x outputs.
static tv_status bench_shape(const tv_lt *lt, const int64_t shape[3], cudaEvent_t from, cudaEvent_t to, FILE *out)
{
    int64_t tokens = shape[0], inputs = shape[1], outputs = shape[2];
    const struct {
        const char *name;
        int is_vote, a_transposed, b_transposed;
        int64_t m, n, reduce;
    } rows[] = {{"forward", 0, 0, 0, tokens, outputs, inputs},
                {"grad-x", 0, 0, 1, tokens, inputs, outputs},
                {"vote", 1, 1, 1, outputs, inputs, tokens}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        product pr = {};
        pr.name = rows[i].name, pr.is_vote = rows[i].is_vote;
        pr.a_transposed = rows[i].a_transposed, pr.b_transposed = rows[i].b_transposed;
        pr.m = rows[i].m, pr.n = rows[i].n, pr.reduce = rows[i].reduce;
        TV_TRY(bench_product(lt, &pr, from, to, out));
    }
    return TV_OK;
}

extern "C" tv_status tv_bench_gemm_cuda(FILE *out)
{
    static const int64_t shapes[][3] = {{8192, 8192, 8192}, {16384, 4096, 4096}, {16384, 1024, 4096}, {16384, 512, 512},
                                        {16384, 2880, 512}, {4096, 512, 1536},   {2048, 2048, 2048}};
    tv_lt lt;
    cudaEvent_t from = NULL, to = NULL;
    tv_status st = tv_lt_open(&lt);
    if (st == TV_OK && (cudaEventCreate(&from) != cudaSuccess || cudaEventCreate(&to) != cudaSuccess))
        st = TV_FAIL(TV_BACKEND, "CUDA: no events: %s", cudaGetErrorString(cudaGetLastError()));
    fprintf(out, "int8 products of %s, TOP/s; medians of %d interleaved rounds, random data\n", describe_cuda(),
            ROUNDS);
    if (lt.library == NULL)
        fprintf(out, "cuBLASLt is not installed, so there is nothing to compare with\n");
    fprintf(out, "     m        n   reduce  product      ours%s\n",
            lt.library ? "  Lt bf16  ratio  Lt int8  ratio" : "");
    for (size_t i = 0; st == TV_OK && i < sizeof shapes / sizeof *shapes; i++)
        st = bench_shape(&lt, shapes[i], from, to, out);
    if (to != NULL)
        cudaEventDestroy(to);
    if (from != NULL)
        cudaEventDestroy(from);
    tv_lt_close(&lt);
    return st;
}
