#include "kernels/cuda/bench_cublaslt.cuh"

#include <dlfcn.h>
#include <stdio.h>

#define ALGORITHMS 8
#define TRIES 3

#define LT_TRY(call)                                                                                                   \
    do {                                                                                                               \
        cublasStatus_t lt_status_ = (call);                                                                            \
        if (lt_status_ != CUBLAS_STATUS_SUCCESS)                                                                       \
            return TV_FAIL(TV_BACKEND, "cuBLASLt: %s: status %d", #call, (int)lt_status_);                             \
    } while (0)

tv_status tv_lt_open(tv_lt *lt)
{
    char name[64];
    snprintf(name, sizeof name, "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
    *lt = {};
    lt->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (lt->library == NULL)
        return TV_OK;
#define LT_LOAD(function) lt->function = (decltype(lt->function))dlsym(lt->library, #function);
    TV_LT_FUNCTIONS(LT_LOAD)
#define LT_MISSING(function) || lt->function == NULL
    if (0 TV_LT_FUNCTIONS(LT_MISSING))
        return TV_FAIL(TV_BACKEND, "%s lacks a function that its header has; install one version of CUDA", name);
    LT_TRY(lt->cublasLtCreate(&lt->handle));
    return TV_OK;
}

void tv_lt_close(tv_lt *lt)
{
    if (lt->handle != NULL)
        lt->cublasLtDestroy(lt->handle);
    if (lt->library != NULL)
        dlclose(lt->library);
}

// cuBLASLt is column-major: it computes y^T [n, m] = op(B) op(A), where a row-major matrix counts as its transpose.
static tv_status describe(const tv_lt *lt, tv_lt_product *p)
{
    cudaDataType_t in = p->int8 ? CUDA_R_8I : CUDA_R_16BF, out = p->int8 ? CUDA_R_32I : CUDA_R_16BF;
    cublasOperation_t first = p->b_transposed ? CUBLAS_OP_N : CUBLAS_OP_T;
    cublasOperation_t second = p->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    uint64_t m = (uint64_t)p->m, n = (uint64_t)p->n, k = (uint64_t)p->reduce;
    LT_TRY(lt->cublasLtMatmulDescCreate(&p->op, p->int8 ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                        p->int8 ? CUDA_R_32I : CUDA_R_32F));
    LT_TRY(lt->cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first));
    LT_TRY(lt->cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second));
    LT_TRY(lt->cublasLtMatrixLayoutCreate(&p->b_layout, in, p->b_transposed ? n : k, p->b_transposed ? k : n,
                                          (int64_t)(p->b_transposed ? n : k)));
    LT_TRY(lt->cublasLtMatrixLayoutCreate(&p->a_layout, in, p->a_transposed ? m : k, p->a_transposed ? k : m,
                                          (int64_t)(p->a_transposed ? m : k)));
    LT_TRY(lt->cublasLtMatrixLayoutCreate(&p->y_layout, out, n, m, (int64_t)n));
    return TV_OK;
}

tv_status tv_lt_run(const tv_lt *lt, const tv_lt_product *p)
{
    const int32_t one = 1, zero = 0;
    const float one_float = 1.0f, zero_float = 0.0f;
    LT_TRY(lt->cublasLtMatmul(lt->handle, p->op, p->int8 ? (const void *)&one : &one_float, p->b, p->b_layout, p->a,
                              p->a_layout, p->int8 ? (const void *)&zero : &zero_float, p->y, p->y_layout, p->y,
                              p->y_layout, &p->algo, p->workspace, p->workspace_bytes, NULL));
    return TV_OK;
}

static tv_status time_algorithm(const tv_lt *lt, const tv_lt_product *p, cudaEvent_t from, cudaEvent_t to, float *ms)
{
    TV_TRY(tv_lt_run(lt, p));
    TV_CUDA_TRY(cudaEventRecord(from));
    for (int i = 0; i < TRIES; i++)
        TV_TRY(tv_lt_run(lt, p));
    TV_CUDA_TRY(cudaEventRecord(to));
    TV_CUDA_TRY(cudaEventSynchronize(to));
    TV_CUDA_TRY(cudaEventElapsedTime(ms, from, to));
    return TV_OK;
}

static tv_status choose(const tv_lt *lt, tv_lt_product *p, cublasLtMatmulPreference_t preference)
{
    cublasLtMatmulHeuristicResult_t found[ALGORITHMS];
    int count = 0;
    LT_TRY(lt->cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                    &p->workspace_bytes, sizeof p->workspace_bytes));
    LT_TRY(lt->cublasLtMatmulAlgoGetHeuristic(lt->handle, p->op, p->b_layout, p->a_layout, p->y_layout, p->y_layout,
                                              preference, ALGORITHMS, found, &count));
    cudaEvent_t from = NULL, to = NULL;
    TV_CUDA_TRY(cudaEventCreate(&from));
    TV_CUDA_TRY(cudaEventCreate(&to));
    tv_status st = count > 0 ? TV_OK : TV_FAIL(TV_BACKEND, "cuBLASLt has no algorithm for the benchmark's product");
    int best = 0;
    float best_ms = 0;
    for (int i = 0; st == TV_OK && i < count; i++) {
        float ms = 0;
        p->algo = found[i].algo;
        st = time_algorithm(lt, p, from, to, &ms);
        if (i == 0 || ms < best_ms)
            best = i, best_ms = ms;
    }
    p->algo = found[best].algo;
    cudaEventDestroy(from);
    cudaEventDestroy(to);
    return st;
}

tv_status tv_lt_prepare(const tv_lt *lt, tv_lt_product *p)
{
    cublasLtMatmulPreference_t preference = NULL;
    TV_TRY(describe(lt, p));
    LT_TRY(lt->cublasLtMatmulPreferenceCreate(&preference));
    tv_status st = choose(lt, p, preference);
    lt->cublasLtMatmulPreferenceDestroy(preference);
    return st;
}

void tv_lt_release(const tv_lt *lt, tv_lt_product *p)
{
    if (p->y_layout != NULL)
        lt->cublasLtMatrixLayoutDestroy(p->y_layout);
    if (p->a_layout != NULL)
        lt->cublasLtMatrixLayoutDestroy(p->a_layout);
    if (p->b_layout != NULL)
        lt->cublasLtMatrixLayoutDestroy(p->b_layout);
    if (p->op != NULL)
        lt->cublasLtMatmulDescDestroy(p->op);
}
