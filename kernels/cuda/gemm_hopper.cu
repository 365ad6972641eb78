// The products on Hopper, host side: which kernel, the copy engine's maps, the launch.
#include <cudaTypedefs.h>

#include "kernels/cuda/gemm_hopper.h"
#include "kernels/cuda/gemm_hopper_scale.cuh"
#include "kernels/cuda/gemm_hopper_vote.cuh"

#define EXTENT_MAX ((int64_t)1 << 30) // the copy engine's coordinates are int32

// 1 in machine code that has Hopper's own instructions.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
__device__ int hopper_code = 1;
#else
__device__ int hopper_code = 0;
#endif

static struct {
    PFN_cuTensorMapEncodeTiled_v12000 encode; // the driver's; NULL: not a Hopper GPU, or a build without its code
    int clusters;                             // that run at once
} hopper;

template <class EPILOGUE>
static cudaLaunchConfig_t launch_config(cudaLaunchAttribute *cluster, int clusters, void *stream)
{
    cluster->id = cudaLaunchAttributeClusterDimension;
    cluster->val.clusterDim.x = TV_HOPPER_CLUSTER;
    cluster->val.clusterDim.y = cluster->val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(clusters * TV_HOPPER_CLUSTER));
    config.blockDim = dim3(TV_HOPPER_THREADS);
    config.dynamicSmemBytes = TV_HOPPER_SHARED_BYTES(EPILOGUE::scratch_bytes);
    config.stream = tv_cuda_stream(stream);
    config.attrs = cluster;
    config.numAttrs = 1;
    return config;
}

// Raise one kernel's limits, and lower *clusters to what the GPU holds of it.
template <class EPILOGUE> static tv_status prepare(int *clusters)
{
    auto kernel = hopper_kernel<EPILOGUE>;
    cudaLaunchAttribute cluster;
    cudaLaunchConfig_t config = launch_config<EPILOGUE>(&cluster, *clusters, NULL);
    TV_CUDA_TRY(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)config.dynamicSmemBytes));
    int fit = 0;
    TV_CUDA_TRY(cudaOccupancyMaxActiveClusters(&fit, kernel, &config));
    *clusters = fit < *clusters ? fit : *clusters;
    return TV_OK;
}

extern "C" tv_status gemm_hopper_open(void)
{
    int device = 0, major = 0, minor = 0, processors = 0, code = 0;
    hopper.encode = NULL;
    TV_CUDA_TRY(cudaGetDevice(&device));
    TV_CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    TV_CUDA_TRY(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    if (major != 9 || minor != 0)
        return TV_OK;
    TV_CUDA_TRY(cudaMemcpyFromSymbol(&code, hopper_code, sizeof code));
    void *encode = NULL;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    TV_CUDA_TRY(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &found));
    if (!code || found != cudaDriverEntryPointSuccess)
        return TV_OK;
    TV_CUDA_TRY(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
    hopper.clusters = processors / TV_HOPPER_CLUSTER;
    TV_TRY(prepare<tv_hopper_scale<false>>(&hopper.clusters));
    TV_TRY(prepare<tv_hopper_scale<true>>(&hopper.clusters));
    TV_TRY(prepare<tv_hopper_vote<8>>(&hopper.clusters));
    TV_TRY(prepare<tv_hopper_vote<16>>(&hopper.clusters));
    TV_TRY(prepare<tv_hopper_vote_any>(&hopper.clusters));
    if (hopper.clusters > 0)
        hopper.encode = (PFN_cuTensorMapEncodeTiled_v12000)encode;
    return TV_OK;
}

static int fits(int64_t m, int64_t n, int64_t reduce, const void *a, const void *b)
{
    return hopper.encode != NULL && m < EXTENT_MAX && n < EXTENT_MAX && reduce < EXTENT_MAX && reduce % 16 == 0 &&
           (((uintptr_t)a | (uintptr_t)b) & 15) == 0;
}

extern "C" int gemm_hopper_fits(const tv_gemm_args *a)
{
    return a->a_lo == NULL && fits(a->m, a->n, a->reduce, a->a, a->b);
}

extern "C" int gemm_vote_hopper_fits(const tv_gemm_vote_args *a)
{
    return a->gt_lo == NULL && fits(a->n, a->k, a->tokens, a->gt, a->xt);
}

// A map of matrix [rows, reduce] with boxes of box_rows rows x TV_HOPPER_STEP bytes, swizzled as tv_wgmma_operand wants it.
static tv_status encode_map(CUtensorMap *map, const int8_t *matrix, int64_t rows, int64_t reduce, int box_rows)
{
    cuuint64_t extents[2] = {(cuuint64_t)reduce, (cuuint64_t)rows}, strides[1] = {(cuuint64_t)reduce};
    cuuint32_t box[2] = {TV_HOPPER_STEP, (cuuint32_t)box_rows}, steps[2] = {1, 1};
    CUresult result = hopper.encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, (void *)matrix, extents, strides, box, steps,
                                    CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return TV_FAIL(TV_BACKEND, "CUDA: no tensor map for %lld rows of %lld bytes: error %d", (long long)rows,
                       (long long)reduce, (int)result);
    return TV_OK;
}

typedef struct operands {
    const int8_t *a, *b; // [m, reduce], [n, reduce]
    int64_t m, n, reduce;
} operands;

template <class EPILOGUE> static tv_status launch(const operands *o, const typename EPILOGUE::args *args, void *stream)
{
    tv_hopper_job<typename EPILOGUE::args> job;
    TV_TRY(encode_map(&job.a, o->a, o->m, o->reduce, TV_HOPPER_ROWS));
    TV_TRY(encode_map(&job.b, o->b, o->n, o->reduce, TV_HOPPER_WIDTH / TV_HOPPER_CLUSTER));
    job.steps = (int)tv_ceil_div(o->reduce, TV_HOPPER_STEP);
    job.tiles_m = (int)tv_ceil_div(o->m, TV_HOPPER_CLUSTER * TV_HOPPER_ROWS);
    job.tiles_n = (int)tv_ceil_div(o->n, TV_HOPPER_WIDTH);
    job.args = *args;
    int64_t tiles = (int64_t)job.tiles_m * job.tiles_n;
    cudaLaunchAttribute cluster;
    cudaLaunchConfig_t config =
        launch_config<EPILOGUE>(&cluster, (int)(tiles < hopper.clusters ? tiles : hopper.clusters), stream);
    TV_CUDA_TRY(cudaLaunchKernelEx(&config, hopper_kernel<EPILOGUE>, job));
    return TV_OK;
}

extern "C" tv_status gemm_hopper(const tv_gemm_args *a, void *stream)
{
    operands o = {a->a, a->b, a->m, a->n, a->reduce};
    return a->accumulate ? launch<tv_hopper_scale<true>>(&o, a, stream) : launch<tv_hopper_scale<false>>(&o, a, stream);
}

extern "C" tv_status gemm_vote_hopper(const tv_gemm_vote_args *a, void *stream)
{
    operands o = {a->gt, a->xt, a->n, a->k, a->tokens};
    if (a->rule.levels > 1 || a->k % 8 != 0 || ((uintptr_t)a->votes & 15) != 0)
        return launch<tv_hopper_vote_any>(&o, a, stream);
    return a->rule.vote_bits == 8 ? launch<tv_hopper_vote<8>>(&o, a, stream)
                                  : launch<tv_hopper_vote<16>>(&o, a, stream);
}
