// The products on Hopper, host side: which kernel, the copy engine's maps, how many parts, the launch.
#include <cudaTypedefs.h>

#include "kernels/cuda/gemm_hopper.h"
#include "kernels/cuda/gemm_hopper_scale.cuh"
#include "kernels/cuda/gemm_hopper_vote.cuh"

#define EXTENT_MAX ((int64_t)1 << 30) // the copy engine's coordinates are int32
#define SPLIT_TILES 128               // of clusters, that a product in parts may have at most
#define SPLIT_BLOCKS (SPLIT_TILES * TV_HOPPER_CLUSTER)
#define SPLIT_SUMS_BYTES ((size_t)SPLIT_BLOCKS * TV_HOPPER_TILE_SUMS * sizeof(int32_t)) // 16 MiB
#define SPLIT_BYTES (SPLIT_SUMS_BYTES + SPLIT_BLOCKS * sizeof(unsigned int))

// 1 in machine code that has Hopper's own instructions.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
__device__ int hopper_code = 1;
#else
__device__ int hopper_code = 0;
#endif

static struct {
    PFN_cuTensorMapEncodeTiled_v12000 encode; // the driver's; NULL: not a Hopper GPU, or a build without its code
    int clusters;                             // that run at once
    void *split;                              // sums, then counters of products in parts; all zero between launches
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
    config.dynamicSmemBytes = TV_HOPPER_SHARED_BYTES(EPILOGUE::stages, EPILOGUE::scratch_bytes);
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

template <bool TWO> static tv_status prepare_all(int *clusters)
{
    TV_TRY((prepare<tv_hopper_scale<false, TWO>>(clusters)));
    TV_TRY((prepare<tv_hopper_scale<true, TWO>>(clusters)));
    TV_TRY((prepare<tv_hopper_vote<8, TWO>>(clusters)));
    TV_TRY((prepare<tv_hopper_vote<16, TWO>>(clusters)));
    return prepare<tv_hopper_vote_any<TWO>>(clusters);
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
    TV_TRY(prepare_all<false>(&hopper.clusters));
    TV_TRY(prepare_all<true>(&hopper.clusters));
    if (hopper.clusters == 0)
        return TV_OK;
    if (hopper.split == NULL) {
        TV_CUDA_TRY(cudaMalloc(&hopper.split, SPLIT_BYTES));
        TV_CUDA_TRY(cudaMemset(hopper.split, 0, SPLIT_BYTES));
    }
    hopper.encode = (PFN_cuTensorMapEncodeTiled_v12000)encode;
    return TV_OK;
}

extern "C" void gemm_hopper_close(void)
{
    cudaFree(hopper.split);
    hopper.split = NULL;
    hopper.encode = NULL;
}

static int fits(int64_t m, int64_t n, int64_t reduce, uintptr_t pointers)
{
    return hopper.encode != NULL && m < EXTENT_MAX && n < EXTENT_MAX && reduce < EXTENT_MAX && reduce % 16 == 0 &&
           (pointers & 15) == 0;
}

extern "C" int gemm_hopper_fits(const tv_gemm_args *a)
{
    return fits(a->m, a->n, a->reduce, (uintptr_t)a->a | (uintptr_t)a->a_lo | (uintptr_t)a->b);
}

extern "C" int gemm_vote_hopper_fits(const tv_gemm_vote_args *a)
{
    return fits(a->n, a->k, a->tokens, (uintptr_t)a->gt | (uintptr_t)a->gt_lo | (uintptr_t)a->xt);
}

// A matrix of rows x cols items, and the boxes in which it is copied: 128 bytes of columns, swizzled.
typedef struct matrix_map {
    const void *data;
    int64_t rows, cols;
    CUtensorMapDataType type;
    int item_bytes, box_rows;
} matrix_map;

static tv_status encode_map(CUtensorMap *map, const matrix_map *m)
{
    cuuint64_t extents[2] = {(cuuint64_t)m->cols, (cuuint64_t)m->rows},
               strides[1] = {(cuuint64_t)m->cols * (cuuint64_t)m->item_bytes};
    cuuint32_t box[2] = {TV_HOPPER_STEP / (cuuint32_t)m->item_bytes, (cuuint32_t)m->box_rows}, steps[2] = {1, 1};
    CUresult result = hopper.encode(map, m->type, 2, (void *)m->data, extents, strides, box, steps,
                                    CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return TV_FAIL(TV_BACKEND, "CUDA: no tensor map for %lld rows of %lld items: error %d", (long long)m->rows,
                       (long long)m->cols, (int)result);
    return TV_OK;
}

static tv_status encode_operand(CUtensorMap *map, const int8_t *data, int64_t rows, int64_t reduce, int box_rows)
{
    matrix_map m = {data, rows, reduce, CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, box_rows};
    return encode_map(map, &m);
}

typedef struct operands {
    const int8_t *a, *a_lo, *b; // [m, reduce], the same or NULL, [n, reduce]
    int64_t m, n, reduce;
} operands;

// Parts of a tile: what keeps the busiest cluster busy for the fewest steps. Handing over sums costs about as much as `hand_over` steps,
// once behind all others, and it takes as long to do it for one part while the next one is multiplied.
static int choose_parts(int64_t tiles, int steps)
{
    const int64_t hand_over = 8;
    int64_t best = tv_ceil_div(tiles, hopper.clusters) * steps;
    int parts = 1;
    if (tiles > SPLIT_TILES)
        return 1;
    for (int p = 2; p <= steps && p <= hopper.clusters; p++) {
        int64_t each = tv_ceil_div(steps, p), turns = tv_ceil_div(tiles * tv_ceil_div(steps, each), hopper.clusters);
        int64_t cost = turns * (each > hand_over ? each : hand_over) + hand_over;
        if (cost < best)
            best = cost, parts = p;
    }
    return parts;
}

template <class EPILOGUE> static tv_status launch(const operands *o, const typename EPILOGUE::args *args, void *stream)
{
    const int rows = TV_HOPPER_TILE_ROWS(EPILOGUE::two);
    tv_hopper_job<typename EPILOGUE::args> job;
    TV_TRY(encode_operand(&job.a, o->a, o->m, o->reduce, rows));
    if (EPILOGUE::two)
        TV_TRY(encode_operand(&job.a_lo, o->a_lo, o->m, o->reduce, rows));
    TV_TRY(encode_operand(&job.b, o->b, o->n, o->reduce, TV_HOPPER_WIDTH / TV_HOPPER_CLUSTER));
    job.steps = (int)tv_ceil_div(o->reduce, TV_HOPPER_STEP);
    job.tiles_m = (int)tv_ceil_div(o->m, TV_HOPPER_CLUSTER * rows);
    job.tiles_n = (int)tv_ceil_div(o->n, TV_HOPPER_WIDTH);
    int64_t tiles = (int64_t)job.tiles_m * job.tiles_n;
    job.part_steps = (int)tv_ceil_div(job.steps, EPILOGUE::can_split ? choose_parts(tiles, job.steps) : 1);
    job.parts = (int)tv_ceil_div(job.steps, job.part_steps);
    job.sums = (int32_t *)hopper.split;
    job.arrived = (unsigned int *)((uint8_t *)hopper.split + SPLIT_SUMS_BYTES);
    job.args = *args;
    int64_t items = tiles * job.parts;
    cudaLaunchAttribute cluster;
    cudaLaunchConfig_t config =
        launch_config<EPILOGUE>(&cluster, (int)(items < hopper.clusters ? items : hopper.clusters), stream);
    TV_CUDA_TRY(cudaLaunchKernelEx(&config, hopper_kernel<EPILOGUE>, job));
    return TV_OK;
}

template <bool TWO> static tv_status launch_scale(const operands *o, const tv_gemm_args *a, void *stream)
{
    tv_hopper_scale_args args = {};
    args.gemm = *a;
    args.boxed = a->n % 4 == 0 && ((uintptr_t)a->y & 15) == 0;
    if (args.boxed) {
        matrix_map y = {a->y, a->m, a->n, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, sizeof(float), TV_HOPPER_BOX_ROWS};
        TV_TRY(encode_map(&args.y, &y));
    }
    return a->accumulate ? launch<tv_hopper_scale<true, TWO>>(o, &args, stream)
                         : launch<tv_hopper_scale<false, TWO>>(o, &args, stream);
}

extern "C" tv_status gemm_hopper(const tv_gemm_args *a, void *stream)
{
    operands o = {a->a, a->a_lo, a->b, a->m, a->n, a->reduce};
    return a->a_lo ? launch_scale<true>(&o, a, stream) : launch_scale<false>(&o, a, stream);
}

template <bool TWO> static tv_status launch_vote(const operands *o, const tv_gemm_vote_args *a, void *stream)
{
    if (a->rule.levels > 1 || a->k % 8 != 0 || ((uintptr_t)a->votes & 15) != 0)
        return launch<tv_hopper_vote_any<TWO>>(o, a, stream);
    return a->rule.vote_bits == 8 ? launch<tv_hopper_vote<8, TWO>>(o, a, stream)
                                  : launch<tv_hopper_vote<16, TWO>>(o, a, stream);
}

extern "C" tv_status gemm_vote_hopper(const tv_gemm_vote_args *a, void *stream)
{
    operands o = {a->gt, a->gt_lo, a->xt, a->n, a->k, a->tokens};
    return a->gt_lo ? launch_vote<true>(&o, a, stream) : launch_vote<false>(&o, a, stream);
}
