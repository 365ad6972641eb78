// The products on Hopper, host side: which kernel, the copy engine's maps, how many parts, the launch.
#include <cudaTypedefs.h>

#include "kernels/cuda/gemm_hopper.h"
#include "kernels/cuda/gemm_hopper_grouped.cuh"
#include "kernels/cuda/gemm_hopper_parts.cuh"
#include "kernels/cuda/gemm_hopper_scale.cuh"
#include "kernels/cuda/gemm_hopper_vote.cuh"

#define EXTENT_MAX ((int64_t)1 << 30) // the copy engine's coordinates are int32
#define PARTS_MAX 128                 // of all clusters' tiles of a product together
#define PARTS_BYTES ((size_t)PARTS_MAX * TV_HOPPER_CLUSTER * TV_HOPPER_TILE_SUMS * sizeof(int32_t)) // 16 MiB

// 1 in machine code that has Hopper's own instructions.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
__device__ int hopper_code = 1;
#else
__device__ int hopper_code = 0;
#endif

static struct {
    PFN_cuTensorMapEncodeTiled_v12000 encode; // the driver's; NULL: not a Hopper GPU, or a build without its code
    int clusters;                             // that run at once
    int32_t *parts;                           // [PARTS_MAX], the sums of products in parts
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
template <class EPILOGUE, class JOB = tv_hopper_job<typename EPILOGUE::args>> static tv_status prepare(int *clusters)
{
    auto kernel = hopper_kernel<EPILOGUE, JOB>;
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
    TV_TRY((prepare<tv_hopper_vote_any<TWO>>(clusters)));
    return prepare<tv_hopper_part<TWO>>(clusters);
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
    TV_TRY((prepare<tv_hopper_rows, tv_hopper_rows_job>(&hopper.clusters)));
    TV_TRY((prepare<tv_hopper_segment_vote<8>, tv_hopper_segment_job>(&hopper.clusters)));
    TV_TRY((prepare<tv_hopper_segment_vote<16>, tv_hopper_segment_job>(&hopper.clusters)));
    if (hopper.clusters == 0)
        return TV_OK;
    if (hopper.parts == NULL)
        TV_CUDA_TRY(cudaMalloc((void **)&hopper.parts, PARTS_BYTES));
    hopper.encode = (PFN_cuTensorMapEncodeTiled_v12000)encode;
    return TV_OK;
}

extern "C" void gemm_hopper_close(void)
{
    cudaFree(hopper.parts);
    hopper.parts = NULL;
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

// How a product is laid out: tiles of clusters, and parts of a tile along K.
typedef struct plan {
    int tiles_m, tiles_n, steps, parts, part_steps;
} plan;

static plan whole_plan(const operands *o, int two)
{
    plan p = {(int)tv_ceil_div(o->m, TV_HOPPER_CLUSTER * TV_HOPPER_TILE_ROWS(two)),
              (int)tv_ceil_div(o->n, TV_HOPPER_WIDTH), (int)tv_ceil_div(o->reduce, TV_HOPPER_STEP), 1, 0};
    p.part_steps = p.steps;
    return p;
}

// With as many parts as take the least time by what an H100 was seen to take, in tenths of a step of 0.3 us: 220 around the steps of a
// product in one part, 240 with the launch that joins parts, and 6 to store and read again each part.
static plan parts_plan(const operands *o, int two)
{
    plan best = whole_plan(o, two);
    int64_t tiles = (int64_t)best.tiles_m * best.tiles_n,
            least = 10 * tv_ceil_div(tiles, hopper.clusters) * best.steps + 220;
    for (int parts = 2; parts <= best.steps && tiles * parts <= PARTS_MAX; parts++) {
        plan p = best;
        p.part_steps = (int)tv_ceil_div(p.steps, parts);
        p.parts = (int)tv_ceil_div(p.steps, p.part_steps);
        int64_t turns = tv_ceil_div(tiles * p.parts, hopper.clusters),
                cost = 10 * turns * p.part_steps + 240 + 6 * tiles * p.parts;
        if (cost < least)
            least = cost, best = p;
    }
    return best;
}

template <class EPILOGUE>
static tv_status launch(const operands *o, const plan *p, const typename EPILOGUE::args *args, void *stream)
{
    const int rows = TV_HOPPER_TILE_ROWS(EPILOGUE::two);
    tv_hopper_job<typename EPILOGUE::args> job;
    TV_TRY(encode_operand(&job.a, o->a, o->m, o->reduce, rows));
    if (EPILOGUE::two)
        TV_TRY(encode_operand(&job.a_lo, o->a_lo, o->m, o->reduce, rows));
    TV_TRY(encode_operand(&job.b, o->b, o->n, o->reduce, TV_HOPPER_WIDTH / TV_HOPPER_CLUSTER));
    job.steps = p->steps, job.parts = p->parts, job.part_steps = p->part_steps;
    job.tiles_m = p->tiles_m, job.tiles_n = p->tiles_n, job.rows = rows;
    job.args = *args;
    int64_t items = (int64_t)job.tiles_m * job.tiles_n * job.parts;
    cudaLaunchAttribute cluster;
    cudaLaunchConfig_t config =
        launch_config<EPILOGUE>(&cluster, (int)(items < hopper.clusters ? items : hopper.clusters), stream);
    TV_CUDA_TRY(cudaLaunchKernelEx(&config, hopper_kernel<EPILOGUE, tv_hopper_job<typename EPILOGUE::args>>, job));
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
    plan p = whole_plan(o, TWO);
    return a->accumulate ? launch<tv_hopper_scale<true, TWO>>(o, &p, &args, stream)
                         : launch<tv_hopper_scale<false, TWO>>(o, &p, &args, stream);
}

extern "C" tv_status gemm_hopper(const tv_gemm_args *a, void *stream)
{
    operands o = {a->a, a->a_lo, a->b, a->m, a->n, a->reduce};
    return a->a_lo ? launch_scale<true>(&o, a, stream) : launch_scale<false>(&o, a, stream);
}

template <bool TWO>
static tv_status launch_parts(const operands *o, const plan *p, const tv_gemm_vote_args *a, void *stream)
{
    tv_hopper_parts parts = {hopper.parts, p->parts, p->tiles_m, p->tiles_n};
    TV_TRY((launch<tv_hopper_part<TWO>>(o, p, &parts, stream)));
    int64_t blocks = (int64_t)p->tiles_m * p->tiles_n * TV_HOPPER_CLUSTER * tv_hopper_part<TWO>::quads;
    vote_parts_kernel<TWO><<<(unsigned)blocks, TV_HOPPER_WARPGROUP, 0, tv_cuda_stream(stream)>>>(*a, parts);
    TV_CUDA_LAUNCHED("gemm_vote");
}

template <bool TWO> static tv_status launch_vote(const operands *o, const tv_gemm_vote_args *a, void *stream)
{
    plan p = parts_plan(o, TWO);
    if (p.parts > 1)
        return launch_parts<TWO>(o, &p, a, stream);
    if (a->rule.levels > 1 || a->k % 8 != 0 || ((uintptr_t)a->votes & 15) != 0)
        return launch<tv_hopper_vote_any<TWO>>(o, &p, a, stream);
    return a->rule.vote_bits == 8 ? launch<tv_hopper_vote<8, TWO>>(o, &p, a, stream)
                                  : launch<tv_hopper_vote<16, TWO>>(o, &p, a, stream);
}

extern "C" tv_status gemm_vote_hopper(const tv_gemm_vote_args *a, void *stream)
{
    operands o = {a->gt, a->gt_lo, a->xt, a->n, a->k, a->tokens};
    return a->gt_lo ? launch_vote<true>(&o, a, stream) : launch_vote<false>(&o, a, stream);
}

// ---- products of each segment ------------------------------------------------------------------------------------------------

extern "C" int moe_gemm_hopper_fits(const tv_moe_gemm_args *a)
{
    return a->segment_count <= TV_HOPPER_SEGMENTS_MAX && (int64_t)a->segment_count * a->n < EXTENT_MAX &&
           fits(a->rows, a->n, a->reduce, (uintptr_t)a->a | (uintptr_t)a->b) && a->n % TV_HOPPER_WIDTH == 0;
}

extern "C" int moe_vote_hopper_fits(const tv_moe_vote_args *a)
{
    return a->segment_count <= TV_HOPPER_SEGMENTS_MAX && a->rule.levels == 1 && a->k % 8 == 0 &&
           fits(a->n, a->k, a->columns, (uintptr_t)a->gt | (uintptr_t)a->xt | (uintptr_t)a->votes);
}

template <class EPILOGUE, class JOB> static tv_status launch_grouped(const JOB *job, void *stream)
{
    cudaLaunchAttribute cluster;
    cudaLaunchConfig_t config = launch_config<EPILOGUE>(&cluster, hopper.clusters, stream);
    TV_CUDA_TRY(cudaLaunchKernelEx(&config, hopper_kernel<EPILOGUE, JOB>, *job));
    return TV_OK;
}

// The operands' B has as many rows as the experts' matrices; the last ones may be beyond those that exist, which no segment names.
extern "C" tv_status moe_gemm_hopper(const tv_moe_gemm_args *a, void *stream)
{
    tv_hopper_rows_job job = {};
    job.args.gemm = *a;
    job.args.boxed = a->n % 4 == 0 && ((uintptr_t)a->y & 15) == 0;
    if (job.args.boxed) {
        matrix_map y = {a->y, a->rows, a->n, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, sizeof(float), TV_HOPPER_BOX_ROWS};
        TV_TRY(encode_map(&job.args.y, &y));
    }
    TV_TRY(encode_operand(&job.a, a->a, a->rows, a->reduce, TV_HOPPER_ROWS));
    TV_TRY(encode_operand(&job.b, a->b, a->segment_count * a->n, a->reduce, TV_HOPPER_WIDTH / TV_HOPPER_CLUSTER));
    job.steps = (int)tv_ceil_div(a->reduce, TV_HOPPER_STEP);
    job.tiles_n = (int)tv_ceil_div(a->n, TV_HOPPER_WIDTH);
    return launch_grouped<tv_hopper_rows>(&job, stream);
}

// Segments of one run have different experts, so nobody else adds to their votes; the runs follow each other.
extern "C" tv_status moe_vote_hopper(const tv_moe_vote_args *a, void *stream)
{
    tv_hopper_segment_job job = {};
    int64_t count = a->segment_count / a->runs;
    job.args.vote = *a;
    TV_TRY(encode_operand(&job.a, a->gt, a->n, a->columns, TV_HOPPER_ROWS));
    TV_TRY(encode_operand(&job.b, a->xt, a->k, a->columns, TV_HOPPER_WIDTH / TV_HOPPER_CLUSTER));
    job.tiles_m = (int)tv_ceil_div(a->n, TV_HOPPER_CLUSTER * TV_HOPPER_ROWS);
    job.tiles_n = (int)tv_ceil_div(a->k, TV_HOPPER_WIDTH);
    job.count = (int)count;
    for (int64_t run = 0; run < a->runs; run++) {
        job.first = (int)(run * count);
        TV_TRY(a->rule.vote_bits == 8 ? launch_grouped<tv_hopper_segment_vote<8>>(&job, stream)
                                      : launch_grouped<tv_hopper_segment_vote<16>>(&job, stream));
    }
    return TV_OK;
}
