// Codebooks: the ballot on touched rows. A warp a row: its votes are summed into shared memory, a lane moves two elements at most, and the
// row's bytes are packed again.
#include "kernels/cuda/ballot_cuda.cuh"
#include "kernels/cuda/moe_scratch.h"
#include "kernels/cuda/vq_votes_cuda.h"

#define WARPS 8
#define THREADS (WARPS * TV_WARP)

// A row in the hands of a warp.
typedef struct row_work {
    int16_t votes[TV_VQ_COLS_MAX];
    int8_t trits[TV_VQ_COLS_MAX + 4]; // pad digits behind the last are 0, which packs as 1
} row_work;

typedef struct row_stats {
    int flips, zeros, moves;
} row_stats;

// Sums of the votes on the u-th row; *tokens of all lanes alike.
__device__ static inline void sum_votes(const tv_vq_ballot_args &a, int64_t u, row_work &work, int64_t *tokens)
{
    int64_t size = tv_vq_vote_bytes(a.table.cols);
    int lane = tv_warp_lane(), sum[2] = {0, 0};
    *tokens = 0;
    for (int32_t i = a.start[u]; i < a.start[u + 1]; i++) {
        const uint8_t *vote = a.bytes + a.order[i] * size;
        *tokens += *(const int32_t *)(vote + 4);
        for (int k = 0; k < 2; k++)
            if (lane + k * TV_WARP < a.table.cols)
                sum[k] += (int8_t)vote[8 + lane + k * TV_WARP];
    }
    for (int k = 0; k < 2; k++)
        work.votes[lane + k * TV_WARP] = (int16_t)sum[k];
    __syncwarp();
}

__device__ static inline void unpack_row(const tv_vq_table &table, const uint8_t *T, row_work &work)
{
    for (int c = tv_warp_lane(); c < TV_VQ_COLS_MAX + 4; c += TV_WARP)
        work.trits[c] = c < table.cols ? (int8_t)tv_byte_trit(T[c / 5], c % 5) : (int8_t)0;
    __syncwarp();
}

__device__ static inline void pack_row(const tv_vq_table &table, const row_work &work, uint8_t *T)
{
    __syncwarp();
    for (int i = tv_warp_lane(); i < tv_row_bytes(table.cols); i += TV_WARP) {
        uint32_t byte = 0;
        for (int j = 4; j >= 0; j--)
            byte = 3 * byte + (uint32_t)(work.trits[5 * i + j] + 1);
        T[i] = (uint8_t)byte;
    }
}

// The row's trits and counters.
__device__ static inline void move_trits(const tv_vq_ballot_args &a, int64_t row, row_work &work, row_stats &stats)
{
    int64_t at = row - a.table.first_row, cols = a.table.cols, ties = 0;
    tv_ballot_args one = {};
    one.rows = 1, one.cols = cols, one.first_row = row;
    one.T_accum = a.table.T_accum + at * cols;
    one.votes = work.votes, one.vote_bits = 16;
    one.rule = a.rule, one.combine = a.combine, one.units = a.units, one.quorum = a.quorum;
    one.threshold = a.threshold, one.eta_q = a.eta_q, one.classic_step = a.classic_step;
    one.theta = one.theta_min = a.theta_min, one.cut = -1;
    one.seed = a.seed, one.tensor_id = a.tensor_id, one.step = a.step;
    for (int c = tv_warp_lane(); c < cols; c += TV_WARP) {
        int t = tv_settle(one, 0, c, work.trits[c], &ties, &stats.flips);
        work.trits[c] = (int8_t)t;
        stats.zeros += t == 0;
    }
    __syncwarp();
}

__device__ static inline void move_scale(const tv_vq_ballot_args &a, int64_t row, const row_work &work,
                                         row_stats &stats)
{
    int64_t at = row - a.table.first_row;
    int score = 0;
    for (int c = tv_warp_lane(); c < a.table.cols; c += TV_WARP)
        score += tv_sign(work.votes[c]) * work.trits[c];
    score = __reduce_add_sync(0xFFFFFFFFu, score);
    if (tv_warp_lane() != 0)
        return;
    tv_ballot_e_args one = {};
    one.rows = 1, one.cols = a.table.cols, one.first_row = row, one.group = (int)a.table.cols;
    one.base = a.table.base, one.mantissa_bits = a.table.mantissa_bits;
    one.E = a.table.E + at, one.E_accum = a.table.E_accum + at;
    one.eta_e_q = a.eta_e_q, one.threshold = a.exponent_threshold;
    one.seed = a.seed, one.tensor_id = a.tensor_id, one.step = a.step;
    stats.moves += tv_move_exponent(one, 0, score, (uint32_t)a.table.cols);
}

__device__ static void move_row(const tv_vq_ballot_args &a, int64_t u, row_work &work, row_stats &stats)
{
    int64_t row = a.distinct[u], at = row - a.table.first_row, tokens;
    uint8_t *T = a.table.T + at * tv_row_bytes(a.table.cols);
    unpack_row(a.table, T, work);
    sum_votes(a, u, work, &tokens);
    if (a.rule == TV_RULE_CLASSIC)
        move_scale(a, row, work, stats);
    move_trits(a, row, work, stats);
    if (a.rule != TV_RULE_CLASSIC)
        move_scale(a, row, work, stats);
    pack_row(a.table, work, T);
    if (a.usage && tv_warp_lane() == 0)
        a.usage[at] = (int16_t)tv_clamp(a.usage[at] + tokens, 0, TV_VQ_USAGE_MAX);
    __syncwarp(); // before the next row takes the place
}

__global__ __launch_bounds__(THREADS) static void ballot_rows_kernel(tv_vq_ballot_args a)
{
    __shared__ row_work works[WARPS];
    __shared__ int sums[3];
    row_stats stats = {0, 0, 0};
    if (threadIdx.x < 3)
        sums[threadIdx.x] = 0;
    __syncthreads();
    int64_t step = (int64_t)gridDim.x * WARPS;
    for (int64_t u = (int64_t)blockIdx.x * WARPS + threadIdx.x / TV_WARP; u < a.count; u += step)
        move_row(a, u, works[threadIdx.x / TV_WARP], stats);
    atomicAdd(&sums[0], stats.flips);
    atomicAdd(&sums[1], stats.zeros);
    atomicAdd(&sums[2], stats.moves);
    __syncthreads();
    if (threadIdx.x < 3 && sums[threadIdx.x])
        atomicAdd((unsigned long long *)a.stats + threadIdx.x, (unsigned long long)sums[threadIdx.x]);
}

extern "C" tv_status vq_ballot_cuda(const tv_vq_ballot_args *a, void *stream)
{
    if (!a->count || !a->table.cols)
        return TV_OK;
    int64_t most = moe_processors_cuda() * 8, wanted = tv_ceil_div(a->count, WARPS);
    unsigned blocks = (unsigned)(wanted < most ? wanted : most);
    ballot_rows_kernel<<<blocks, THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("vq_ballot");
}
