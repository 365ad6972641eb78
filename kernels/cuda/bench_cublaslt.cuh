// cuBLASLt as the yardstick of the benchmark: loaded at run time, so that nothing else depends on it.
#ifndef TV_KERNELS_BENCH_CUBLASLT_CUH
#define TV_KERNELS_BENCH_CUBLASLT_CUH

#include <cublasLt.h>
#include <stdint.h>

#include "kernels/cuda/cuda_common.cuh"

#define TV_LT_FUNCTIONS(X)                                                                                             \
    X(cublasLtCreate)                                                                                                  \
    X(cublasLtDestroy)                                                                                                 \
    X(cublasLtMatmulDescCreate)                                                                                        \
    X(cublasLtMatmulDescDestroy)                                                                                       \
    X(cublasLtMatmulDescSetAttribute)                                                                                  \
    X(cublasLtMatrixLayoutCreate)                                                                                      \
    X(cublasLtMatrixLayoutDestroy)                                                                                     \
    X(cublasLtMatmulPreferenceCreate)                                                                                  \
    X(cublasLtMatmulPreferenceDestroy)                                                                                 \
    X(cublasLtMatmulPreferenceSetAttribute)                                                                            \
    X(cublasLtMatmulAlgoGetHeuristic)                                                                                  \
    X(cublasLtMatmul)

typedef struct tv_lt {
    void *library; // NULL: absent
    cublasLtHandle_t handle;
#define TV_LT_FIELD(name) decltype(&::name) name;
    TV_LT_FUNCTIONS(TV_LT_FIELD)
#undef TV_LT_FIELD
} tv_lt;

// y[m, n] = A B^T in row-major terms; which way each operand lies is what a trainer in that type would have.
typedef struct tv_lt_product {
    int64_t m, n, reduce;
    int a_transposed, b_transposed; // A is stored [reduce, m]; B is stored [reduce, n]
    int int8;                       // s8 x s8 -> s32; else bf16 x bf16 -> bf16 with float sums
    const void *a, *b;
    void *y, *workspace;
    size_t workspace_bytes;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a_layout, b_layout, y_layout;
    cublasLtMatmulAlgo_t algo;
} tv_lt_product;

// Load the library. An absent one is no error.
tv_status tv_lt_open(tv_lt *lt);
void tv_lt_close(tv_lt *lt);
// From the shape, the flags and the pointers: the descriptors, and the fastest of the heuristic's algorithms, by timing.
tv_status tv_lt_prepare(const tv_lt *lt, tv_lt_product *p);
tv_status tv_lt_run(const tv_lt *lt, const tv_lt_product *p);
void tv_lt_release(const tv_lt *lt, tv_lt_product *p);

#endif
