// Codebooks: the farthest query of each bucket, rows that start again, usage.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/moe_scratch.h"
#include "kernels/cuda/vector_cuda.cuh"
#include "kernels/cuda/vq_votes_cuda.h"
extern "C" {
#include "kernels/ref/vq_common.h"
}

#define WARPS 8
#define THREADS (WARPS * TV_WARP)

// A query as a candidate: the larger distance wins, then the lower unit, then the earlier pair.
typedef struct far_one {
    int64_t distance;
    int32_t unit, pair; // pair -1: none
    int32_t place;      // in the plan
} far_one;

__device__ static inline bool is_farther(const far_one &a, const far_one &b)
{
    if (a.pair < 0 || b.pair < 0)
        return b.pair < 0 && a.pair >= 0;
    if (a.distance != b.distance)
        return a.distance > b.distance;
    return a.unit != b.unit ? a.unit < b.unit : a.place < b.place;
}

__device__ static inline far_one far_at(const tv_vq_farthest_args &a, int32_t place)
{
    int32_t pair = a.item[place];
    far_one one = {0, 0, -1, place};
    if (pair % a.probes != 0 || a.row[pair] < 0)
        return one;
    int64_t t = pair / a.probes, sq = tv_vq_scale(a.scale[t], a.base);
    const int8_t *q = a.q + t * a.cols;
    one.distance = sq * sq * tv_vq_dot(q, q, a.cols) - 256 * (int64_t)a.score[pair];
    one.unit = a.unit[t];
    one.pair = pair;
    return one;
}

__device__ static inline far_one farthest_of_warp(far_one best)
{
    for (int x = 16; x >= 1; x >>= 1) {
        far_one other;
        other.distance = __shfl_xor_sync(0xFFFFFFFFu, best.distance, x);
        other.unit = __shfl_xor_sync(0xFFFFFFFFu, best.unit, x);
        other.pair = __shfl_xor_sync(0xFFFFFFFFu, best.pair, x);
        other.place = __shfl_xor_sync(0xFFFFFFFFu, best.place, x);
        if (is_farther(other, best))
            best = other;
    }
    return best;
}

// A warp a bucket.
__global__ static void farthest_kernel(tv_vq_farthest_args a)
{
    int64_t b = (int64_t)blockIdx.x * WARPS + threadIdx.x / TV_WARP;
    if (b >= a.buckets)
        return;
    far_one best = {0, 0, -1, 0};
    for (int32_t place = a.start[b] + tv_warp_lane(); place < a.start[b + 1]; place += TV_WARP) {
        far_one one = far_at(a, place);
        if (is_farther(one, best))
            best = one;
    }
    best = farthest_of_warp(best);
    tv_vq_far *far = &a.far[b];
    bool wins = best.pair >= 0 && (!far->found || best.distance > far->distance ||
                                   (best.distance == far->distance && best.unit < far->unit));
    __syncwarp(); // all have looked
    if (!wins)
        return;
    const int8_t *q = a.q + best.pair / a.probes * a.cols;
    for (int c = tv_warp_lane(); c < TV_VQ_COLS_MAX; c += TV_WARP)
        far->trit[c] = (int8_t)(c < a.cols ? tv_sign(q[c]) : 0);
    if (tv_warp_lane() == 0) {
        far->distance = best.distance;
        far->found = 1;
        far->unit = best.unit;
    }
}

extern "C" tv_status vq_farthest_cuda(const tv_vq_farthest_args *a, void *stream)
{
    if (!a->buckets)
        return TV_OK;
    farthest_kernel<<<tv_cuda_blocks(a->buckets, WARPS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("vq_farthest");
}

// The first row of the range without usage; range.last when all have some. A warp looks at 32 at a time.
__device__ static inline int64_t first_unused(const tv_vq_restart_args &a, tv_vq_range range)
{
    for (int64_t row = range.first; row < range.last; row += TV_WARP) {
        int64_t mine = row + tv_warp_lane();
        bool unused = mine < range.last && a.usage[mine - a.table.first_row] == 0;
        uint32_t lanes = __ballot_sync(0xFFFFFFFFu, unused);
        if (lanes)
            return row + __ffs((int)lanes) - 1;
    }
    return range.last;
}

__device__ static inline int restart_trit(const tv_vq_restart_args &a, int64_t b, int c)
{
    if (c >= a.table.cols)
        return 0;
    return c < a.table.bits ? tv_vq_pattern(a.first_bucket + b, c) : a.far[b].trit[c];
}

__global__ static void restart_kernel(tv_vq_restart_args a)
{
    int64_t b = (int64_t)blockIdx.x * WARPS + threadIdx.x / TV_WARP, cols = a.table.cols;
    int lane = tv_warp_lane();
    if (b >= a.buckets || !a.far[b].found)
        return;
    tv_vq_range range = tv_vq_bucket_rows(&a.table, a.first_bucket + b);
    int64_t row = first_unused(a, range), at = row - a.table.first_row;
    if (row >= range.last)
        return;
    for (int i = lane; i < tv_row_bytes(cols); i += TV_WARP) {
        uint32_t byte = 0;
        for (int j = 4; j >= 0; j--)
            byte = 3 * byte + (uint32_t)(restart_trit(a, b, 5 * i + j) + 1);
        a.table.T[at * tv_row_bytes(cols) + i] = (uint8_t)byte;
    }
    for (int64_t c = lane; c < cols; c += TV_WARP)
        a.table.T_accum[at * cols + c] = 0;
    __syncwarp(); // all have found the row before its usage changes
    if (lane == 0) {
        a.table.E[at] = (int8_t)a.exponent;
        a.table.E_accum[at] = 0;
        a.usage[at] = (int16_t)a.usage_start;
        atomicAdd((unsigned long long *)a.restarts, 1ull);
    }
}

extern "C" tv_status vq_restart_cuda(const tv_vq_restart_args *a, void *stream)
{
    if (!a->buckets)
        return TV_OK;
    restart_kernel<<<tv_cuda_blocks(a->buckets, WARPS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("vq_restart");
}

#define USAGE_COUNTS 17
#define WIDE 8 // rows of 16 bytes

__device__ static inline int16_t age_row(int16_t usage, int halve, int32_t *counts)
{
    if (usage > 0) {
        atomicAdd(&counts[0], 1);
        atomicAdd(&counts[1], usage);
        atomicAdd(&counts[2 + 31 - __clz(usage)], 1);
    }
    return (int16_t)(halve ? usage >> 1 : usage);
}

// A block has at most USAGE_SHARE rows, so that its sums fit 32 bits.
#define USAGE_SHARE 32768

__global__ __launch_bounds__(THREADS) static void usage_kernel(tv_vq_usage_args a, bool wide)
{
    __shared__ int32_t counts[USAGE_COUNTS];
    int64_t first = (int64_t)blockIdx.x * USAGE_SHARE;
    int64_t end = first + USAGE_SHARE < a.rows ? first + USAGE_SHARE : a.rows, i = first;
    if (threadIdx.x < USAGE_COUNTS)
        counts[threadIdx.x] = 0;
    __syncthreads();
    if (wide) {
        int64_t groups = (end - first) / WIDE;
        for (int64_t g = threadIdx.x; g < groups; g += THREADS) {
            uint4 *at = (uint4 *)(a.usage + first) + g, in = *at;
            if (!(in.x | in.y | in.z | in.w))
                continue;
            int16_t usage[WIDE];
            memcpy(usage, &in, sizeof in);
            for (int k = 0; k < WIDE; k++)
                usage[k] = age_row(usage[k], a.halve, counts);
            memcpy(&in, usage, sizeof in);
            if (a.halve)
                *at = in;
        }
        i = first + groups * WIDE;
    }
    for (i += threadIdx.x; i < end; i += THREADS) {
        int16_t usage = age_row(a.usage[i], a.halve, counts);
        if (a.halve)
            a.usage[i] = usage;
    }
    __syncthreads();
    if (a.counts && threadIdx.x < USAGE_COUNTS && counts[threadIdx.x])
        atomicAdd((unsigned long long *)a.counts + threadIdx.x, (unsigned long long)counts[threadIdx.x]);
}

extern "C" tv_status vq_usage_cuda(const tv_vq_usage_args *a, void *stream)
{
    if (!a->rows)
        return TV_OK;
    usage_kernel<<<tv_cuda_blocks(a->rows, USAGE_SHARE), THREADS, 0, tv_cuda_stream(stream)>>>(
        *a, tv_cuda_aligned({a->usage}));
    TV_CUDA_LAUNCHED("vq_usage");
}
