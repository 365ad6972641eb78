// Codebooks: which buckets a query looks into, which places it must reach, the queries of each bucket, the best of several candidates.
//
// The plan is a stable radix sort of (token, slot) by bucket, in passes over at most DIGIT_BITS_MAX bits. Each warp owns a run of items. It
// counts them by digit, lanes of one digit being found by a match; sums of the warps and blocks before it then say where its first item
// of each digit goes. Nothing comes back to the host.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/moe_scratch.h"
#include "kernels/cuda/vq_ops_cuda.h"

#define THREADS 128

__device__ static inline int64_t thread_index(void) { return (int64_t)blockIdx.x * THREADS + threadIdx.x; }

// ---- probes ------------------------------------------------------------------------------------------------------------

// A thread a token. A candidate is cost << 32 | bucket, so that candidates compare as numbers; MOST holds all that are kept.
template <int MOST> __global__ static void __launch_bounds__(THREADS) probes_kernel(tv_vq_probes_args a)
{
    uint64_t lists[2][MOST];
    int64_t t = thread_index();
    int count = 1;
    if (t >= a.tokens)
        return;
    lists[0][0] = 0;
    for (int c = 0; c < a.bits; c++) {
        // The list with the query's own bit and the one with the other bit, both in order, merge into the next.
        const uint64_t *from = lists[c & 1];
        uint64_t *to = lists[(c & 1) ^ 1];
        int q = a.q[t * a.cols + c], made = 0;
        uint64_t own = (uint64_t)(q >= 0) << c, other = (uint64_t)(q < 0) << c | (uint64_t)abs(q) << 32;
        uint64_t keep = from[0] + own, flip = from[0] + other;
        for (int i = 0, j = 0; made < a.probes && made < 2 * count; made++)
            if (flip < keep) {
                to[made] = flip;
                flip = ++j < count ? from[j] + other : UINT64_MAX;
            } else {
                to[made] = keep;
                keep = ++i < count ? from[i] + own : UINT64_MAX;
            }
        count = made;
    }
    for (int j = 0; j < a.probes; j++)
        a.bucket[t * a.probes + j] = (int32_t)(uint32_t)lists[a.bits & 1][j];
}

extern "C" tv_status vq_probes_cuda(const tv_vq_probes_args *a, void *stream)
{
    unsigned blocks = tv_cuda_blocks(a->tokens, THREADS);
    if (!a->tokens || !a->probes)
        return TV_OK;
    if (a->probes <= 8)
        probes_kernel<8><<<blocks, THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    else
        probes_kernel<TV_VQ_PROBES_MAX><<<blocks, THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("vq_probes");
}

// ---- best --------------------------------------------------------------------------------------------------------------

__global__ static void __launch_bounds__(THREADS) best_kernel(tv_vq_best_args a)
{
    int64_t t = thread_index();
    int32_t row = -1, score = INT32_MIN, from = -1;
    if (t >= a.tokens)
        return;
    for (int64_t i = t * a.slots; i < (t + 1) * a.slots; i++) {
        int32_t entry = a.index ? a.index[i] : (int32_t)i;
        int32_t other = entry < 0 ? -1 : a.row[entry];
        if (other < 0)
            continue;
        int32_t its = a.score[entry];
        if (from < 0 || its > score || (its == score && other < row))
            row = other, score = its, from = entry;
    }
    if (a.best_row)
        a.best_row[t] = row;
    if (a.best_score)
        a.best_score[t] = score;
    if (a.best_from)
        a.best_from[t] = from;
}

extern "C" tv_status vq_best_cuda(const tv_vq_best_args *a, void *stream)
{
    if (!a->tokens)
        return TV_OK;
    best_kernel<<<tv_cuda_blocks(a->tokens, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("vq_best");
}

// ---- sums over a block ---------------------------------------------------------------------------------------------------

// Sum of the values of lower threads. All threads of a block of up to 32 warps call it; *whole: the sum of all values.
__device__ static int sum_before(int value, int *whole)
{
    __shared__ int warp_sums[TV_WARP];
    int lane = tv_warp_lane(), warp = threadIdx.x / TV_WARP, warps = blockDim.x / TV_WARP, sum = value, before = 0;
    for (int x = 1; x < TV_WARP; x <<= 1) {
        int left = __shfl_up_sync(0xFFFFFFFFu, sum, x);
        sum += lane >= x ? left : 0;
    }
    if (lane == TV_WARP - 1)
        warp_sums[warp] = sum;
    __syncthreads();
    *whole = 0;
    for (int w = 0; w < warps; w++) {
        before += w < warp ? warp_sums[w] : 0;
        *whole += warp_sums[w];
    }
    __syncthreads(); // the next call writes again
    return before + sum - value;
}

// ---- send --------------------------------------------------------------------------------------------------------------

#define SEND_THREADS 1024 // tokens of a block, and threads of the block that adds

typedef struct send_job {
    tv_vq_send_args a;
    int chunks;
    int32_t *sums; // [places, chunks]: tokens that go there, then those before them
} send_job;

// 1 when one of this thread's token's buckets is at this block's place.
__device__ static bool goes(const send_job &job)
{
    const tv_vq_send_args &a = job.a;
    int64_t t = (int64_t)blockIdx.x * SEND_THREADS + threadIdx.x;
    bool found = false;
    for (int j = 0; t < a.tokens && j < a.probes; j++)
        found |= tv_vq_place_of(a.bits, a.places, a.bucket[t * a.probes + j]) == (int)blockIdx.y;
    return found;
}

__global__ static void __launch_bounds__(SEND_THREADS) send_count_kernel(send_job job)
{
    int count = __syncthreads_count(goes(job));
    if (threadIdx.x == 0)
        job.sums[blockIdx.y * job.chunks + blockIdx.x] = count;
}

// One block: counts become places of first rows, and each place's sum.
__global__ static void __launch_bounds__(SEND_THREADS) send_sum_kernel(send_job job)
{
    int entries = job.a.places * job.chunks, first = 0;
    for (int o = threadIdx.x; o < job.a.places; o += SEND_THREADS) {
        int64_t sum = 0;
        for (int i = 0; i < job.chunks; i++)
            sum += job.sums[o * job.chunks + i];
        job.a.counts[o] = sum;
    }
    __syncthreads();
    for (int i0 = 0; i0 < entries; i0 += SEND_THREADS) {
        int i = i0 + threadIdx.x, whole, value = i < entries ? job.sums[i] : 0;
        int before = sum_before(value, &whole);
        if (i < entries)
            job.sums[i] = first + before;
        first += whole;
    }
}

__global__ static void __launch_bounds__(SEND_THREADS) send_kernel(send_job job)
{
    const tv_vq_send_args &a = job.a;
    bool found = goes(job);
    int whole, row = job.sums[blockIdx.y * job.chunks + blockIdx.x] + sum_before(found, &whole);
    int64_t t = (int64_t)blockIdx.x * SEND_THREADS + threadIdx.x;
    if (t >= a.tokens)
        return;
    a.index[t * a.places + blockIdx.y] = found ? row : -1;
    if (found)
        a.item[row] = (int32_t)t;
}

extern "C" tv_status vq_send_cuda(const tv_vq_send_args *a, void *stream)
{
    if (!a->tokens) {
        TV_CUDA_TRY(cudaMemsetAsync(a->counts, 0, (size_t)a->places * sizeof *a->counts, tv_cuda_stream(stream)));
        return TV_OK;
    }
    void *memory;
    send_job job = {*a, (int)tv_ceil_div(a->tokens, SEND_THREADS), NULL};
    TV_TRY(moe_scratch_cuda((size_t)job.chunks * (size_t)a->places * sizeof(int32_t), &memory));
    job.sums = (int32_t *)memory;
    dim3 grid((unsigned)job.chunks, (unsigned)a->places);
    send_count_kernel<<<grid, SEND_THREADS, 0, tv_cuda_stream(stream)>>>(job);
    send_sum_kernel<<<1, SEND_THREADS, 0, tv_cuda_stream(stream)>>>(job);
    send_kernel<<<grid, SEND_THREADS, 0, tv_cuda_stream(stream)>>>(job);
    TV_CUDA_LAUNCHED("vq_send");
}

// ---- plan --------------------------------------------------------------------------------------------------------------

#define SORT_WARPS 16
#define SORT_THREADS (SORT_WARPS * TV_WARP)
#define SORT_BLOCKS_MAX 256
#define SORT_SHARE 2048 // items of a block, at least
#define DIGIT_BITS_MAX 8
#define DIGITS_MAX (1 << DIGIT_BITS_MAX) // at most SORT_THREADS

// One pass. A key is a bucket counted from first_bucket, or `buckets` for a pair that is left out.
typedef struct sort_pass {
    tv_vq_plan_args a;
    int64_t items, warp_share; // warp_share: items of a warp, a multiple of 32
    int shift, digits;
    bool first, last;
    const int32_t *keys_in, *items_in; // of the pass before; not read in the first one
    int32_t *keys, *items_out;
    int32_t *counts; // [blocks, DIGITS_MAX]
} sort_pass;

__device__ static inline int key_at(const sort_pass &pass, int64_t i)
{
    if (!pass.first)
        return pass.keys_in[i];
    int64_t bucket = pass.a.bucket[i] - pass.a.first_bucket;
    return (int)(bucket >= 0 && bucket < pass.a.buckets ? bucket : pass.a.buckets);
}

// Calls visit(i, key, digit, lanes) for the warp's items, 32 at a time; digit -1 behind the last; lanes: those with the same digit.
template <class VISIT> __device__ static void each_item(const sort_pass &pass, const VISIT &visit)
{
    int64_t first = ((int64_t)blockIdx.x * SORT_WARPS + threadIdx.x / TV_WARP) * pass.warp_share;
    int64_t end = first + pass.warp_share < pass.items ? first + pass.warp_share : pass.items;
    for (int64_t i0 = first; i0 < end; i0 += TV_WARP) {
        int64_t i = i0 + tv_warp_lane();
        int key = i < end ? key_at(pass, i) : 0, digit = i < end ? key >> pass.shift & (pass.digits - 1) : -1;
        uint32_t lanes = __match_any_sync(0xFFFFFFFFu, digit);
        visit(i, key, digit, lanes);
        __syncwarp();
    }
}

// counts[d] of each warp, in shared memory [SORT_WARPS][digits].
__device__ static void count_warps(const sort_pass &pass, int32_t *counts)
{
    int32_t *own = counts + threadIdx.x / TV_WARP * pass.digits;
    for (int i = threadIdx.x; i < SORT_WARPS * pass.digits; i += SORT_THREADS)
        counts[i] = 0;
    __syncthreads();
    each_item(pass, [&](int64_t, int, int digit, uint32_t lanes) {
        if (digit >= 0 && __ffs((int)lanes) - 1 == tv_warp_lane())
            own[digit] += __popc(lanes);
    });
    __syncthreads();
}

__global__ static void __launch_bounds__(SORT_THREADS) sort_count_kernel(sort_pass pass)
{
    __shared__ int32_t counts[SORT_WARPS * DIGITS_MAX];
    int d = threadIdx.x, sum = 0;
    count_warps(pass, counts);
    if (d >= pass.digits)
        return;
    for (int w = 0; w < SORT_WARPS; w++)
        sum += counts[w * pass.digits + d];
    pass.counts[blockIdx.x * DIGITS_MAX + d] = sum;
}

__global__ static void __launch_bounds__(SORT_THREADS) sort_kernel(sort_pass pass)
{
    __shared__ int32_t counts[SORT_WARPS * DIGITS_MAX];
    int d = threadIdx.x, all = 0, before = 0, whole;
    count_warps(pass, counts);
    for (int b = 0; d < pass.digits && b < (int)gridDim.x; b++) {
        int count = pass.counts[b * DIGITS_MAX + d];
        all += count;
        before += b < (int)blockIdx.x ? count : 0;
    }
    int next = sum_before(all, &whole) + before;
    for (int w = 0; d < pass.digits && w < SORT_WARPS; w++) { // from counts to places
        int count = counts[w * pass.digits + d];
        counts[w * pass.digits + d] = next;
        next += count;
    }
    __syncthreads();
    int32_t *own = counts + threadIdx.x / TV_WARP * pass.digits;
    each_item(pass, [&](int64_t i, int key, int digit, uint32_t lanes) {
        int place = digit >= 0 ? own[digit] + __popc(lanes & ((1u << tv_warp_lane()) - 1)) : 0;
        __syncwarp();
        if (digit < 0)
            return;
        pass.keys[place] = key;
        if (!pass.last || key < pass.a.buckets)
            pass.items_out[place] = pass.first ? (int32_t)i : pass.items_in[i];
        if (__ffs((int)lanes) - 1 == tv_warp_lane())
            own[digit] += __popc(lanes);
    });
}

// start[b]: how many sorted keys are below b.
__global__ static void __launch_bounds__(THREADS)
    start_kernel(const int32_t *keys, int64_t items, int64_t buckets, int32_t *start)
{
    int64_t b = thread_index(), low = 0, high = items;
    if (b > buckets)
        return;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (keys[middle] < b)
            low = middle + 1;
        else
            high = middle;
    }
    start[b] = (int32_t)low;
}

extern "C" tv_status vq_plan_cuda(const tv_vq_plan_args *a, void *stream)
{
    int64_t items = a->tokens * a->probes;
    cudaStream_t on = tv_cuda_stream(stream);
    if (!items || !a->buckets) {
        TV_CUDA_TRY(cudaMemsetAsync(a->start, 0, (size_t)(a->buckets + 1) * sizeof *a->start, on));
        return TV_OK;
    }
    int width = 1; // bits of the largest key, `buckets`
    while (a->buckets >> width > 0)
        width++;
    int passes = (int)tv_ceil_div(width, DIGIT_BITS_MAX), digit_bits = (int)tv_ceil_div(width, passes);
    int64_t most = tv_ceil_div(items, (int64_t)SORT_BLOCKS_MAX * SORT_THREADS) * SORT_THREADS;
    int64_t share = most > SORT_SHARE ? most : SORT_SHARE;
    unsigned blocks = tv_cuda_blocks(items, share);
    void *memory;
    TV_TRY(moe_scratch_cuda(((size_t)SORT_BLOCKS_MAX * DIGITS_MAX + 4 * (size_t)items) * sizeof(int32_t), &memory));
    int32_t *counts = (int32_t *)memory, *keys = counts + SORT_BLOCKS_MAX * DIGITS_MAX, *order = keys + 2 * items;
    for (int p = 0; p < passes; p++) {
        sort_pass pass = {};
        pass.a = *a;
        pass.items = items, pass.warp_share = share / SORT_WARPS;
        pass.shift = p * digit_bits, pass.digits = 1 << digit_bits;
        pass.first = p == 0, pass.last = p == passes - 1;
        pass.keys_in = keys + (p + 1) % 2 * items, pass.items_in = order + (p + 1) % 2 * items;
        pass.keys = keys + p % 2 * items, pass.items_out = pass.last ? a->item : order + p % 2 * items;
        pass.counts = counts;
        sort_count_kernel<<<blocks, SORT_THREADS, 0, on>>>(pass);
        sort_kernel<<<blocks, SORT_THREADS, 0, on>>>(pass);
    }
    start_kernel<<<tv_cuda_blocks(a->buckets + 1, THREADS), THREADS, 0, on>>>(keys + (passes - 1) % 2 * items, items,
                                                                              a->buckets, a->start);
    TV_CUDA_LAUNCHED("vq_plan");
}
