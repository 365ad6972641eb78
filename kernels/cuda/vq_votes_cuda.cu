// Codebooks: a unit's votes on the rows that it used. Rows of few tokens get a warp each; the others a block, whose warps share the tokens.
// A lane has two channels at most (d <= 64). Sums are integers, so their order does not show.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/moe_scratch.h"
#include "kernels/cuda/vq_votes_cuda.h"

#define WARPS 8
#define THREADS (WARPS * TV_WARP)
#define FEW 64 // tokens of a row that a warp takes alone
#define LANE_CHANNELS (TV_VQ_COLS_MAX / TV_WARP)

typedef struct vote_sums {
    int32_t sum[LANE_CHANNELS], sumsq[LANE_CHANNELS];
} vote_sums;

// Tokens first, first + step ... of the lane's channels.
__device__ static inline vote_sums add_tokens(const tv_vq_votes_args &a, int32_t first, int32_t last, int step)
{
    vote_sums s = {};
#pragma unroll 4
    for (int32_t i = first; i < last; i += step) {
        int64_t t = a.order[i];
#pragma unroll
        for (int k = 0; k < LANE_CHANNELS; k++) {
            int64_t c = tv_warp_lane() + k * TV_WARP;
            int g = c < a.cols ? a.gt[c * a.tokens + t] : 0;
            s.sum[k] += g;
            s.sumsq[k] += g * g;
        }
    }
    return s;
}

__device__ static inline int vote_of(const tv_vq_votes_args &a, int32_t row, int64_t c, int32_t sum, int32_t sumsq)
{
    float root = sqrtf((float)sumsq);
    if (a.rule.levels > 1)
        return tv_vote_level((float)sum, root, a.rule.levels,
                             tv_rng16(tv_vote_level_key(&a.rule), (uint64_t)(row * a.cols + c)));
    return fabsf((float)sum) > a.rule.tau * root ? tv_sign(sum) : 0;
}

// A warp writes the votes on the u-th row: two words, a byte a channel, zeros.
__device__ static inline void write_votes(const tv_vq_votes_args &a, int64_t u, const vote_sums &s)
{
    int64_t size = tv_vq_vote_bytes(a.cols);
    uint8_t *out = a.bytes + u * size;
    int lane = tv_warp_lane();
    if (lane == 0)
        *(int32_t *)out = a.distinct[u];
    if (lane == 1)
        *(int32_t *)(out + 4) = a.start[u + 1] - a.start[u];
#pragma unroll
    for (int k = 0; k < LANE_CHANNELS; k++) {
        int64_t c = lane + k * TV_WARP;
        bool votes = c >= a.bits && c < a.cols;
        if (8 + c < size)
            out[8 + c] = (uint8_t)(votes ? vote_of(a, a.distinct[u], c, s.sum[k], s.sumsq[k]) : 0);
    }
}

__global__ __launch_bounds__(THREADS) static void few_kernel(tv_vq_votes_args a)
{
    int64_t step = (int64_t)gridDim.x * WARPS;
    for (int64_t u = (int64_t)blockIdx.x * WARPS + threadIdx.x / TV_WARP; u < a.count; u += step)
        if (a.start[u + 1] - a.start[u] <= FEW)
            write_votes(a, u, add_tokens(a, a.start[u], a.start[u + 1], 1));
}

__global__ __launch_bounds__(THREADS) static void many_kernel(tv_vq_votes_args a)
{
    __shared__ vote_sums parts[WARPS][TV_WARP];
    int warp = threadIdx.x / TV_WARP, lane = tv_warp_lane();
    for (int64_t u = blockIdx.x; u < a.count; u += gridDim.x) {
        if (a.start[u + 1] - a.start[u] <= FEW)
            continue;
        parts[warp][lane] = add_tokens(a, a.start[u] + warp, a.start[u + 1], WARPS);
        __syncthreads();
        if (warp == 0) {
            vote_sums s = parts[0][lane];
            for (int w = 1; w < WARPS; w++)
                for (int k = 0; k < LANE_CHANNELS; k++) {
                    s.sum[k] += parts[w][lane].sum[k];
                    s.sumsq[k] += parts[w][lane].sumsq[k];
                }
            write_votes(a, u, s);
        }
        __syncthreads();
    }
}

extern "C" tv_status vq_votes_cuda(const tv_vq_votes_args *a, void *stream)
{
    if (!a->count)
        return TV_OK;
    int64_t most = moe_processors_cuda() * 8, few = tv_ceil_div(a->count, WARPS);
    unsigned few_blocks = (unsigned)(few < most ? few : most);
    unsigned many_blocks = (unsigned)(a->count < most ? a->count : most);
    few_kernel<<<few_blocks, THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    if (a->tokens > FEW)
        many_kernel<<<many_blocks, THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("vq_votes");
}

__global__ static void votes_rows_kernel(tv_vq_votes_rows_args a)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= a.count)
        return;
    const int32_t *vote = (const int32_t *)(a.bytes + i * tv_vq_vote_bytes(a.cols));
    bool bad = vote[0] < a.first_row || vote[0] >= a.first_row + a.held_rows || vote[1] < 1;
    if (bad)
        *a.fault = 1;
    a.row[i] = bad ? -1 : vote[0];
}

extern "C" tv_status vq_votes_rows_cuda(const tv_vq_votes_rows_args *a, void *stream)
{
    if (!a->count)
        return TV_OK;
    votes_rows_kernel<<<tv_cuda_blocks(a->count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("vq_votes_rows");
}
