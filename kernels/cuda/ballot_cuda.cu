// The ballot on trits, for all rules: a thread a packed byte (five elements), so that no two threads share a byte. The flip cap's ties are cut in
// element order, which needs the count of ties before each row: one thread walks those rows in order in a launch of its own kind.
#include "kernels/cuda/ballot_cuda.cuh"
#include "kernels/cuda/ballot_fast.h"
#include "kernels/cuda/cuda_ops.h"

#define THREADS 256

__global__ static void histogram_kernel(tv_ballot_args a)
{
    __shared__ unsigned long long bins[256];
    bins[threadIdx.x] = 0;
    __syncthreads();
    int64_t bytes = tv_row_bytes(a.cols), i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < a.rows * bytes) {
        int64_t n = i / bytes, k0 = i % bytes * 5;
        for (int j = 0; j < 5 && k0 + j < a.cols; j++) {
            tv_verdict v = tv_judge(a, n, k0 + j, tv_byte_trit(a.T[i], j));
            if (a.rule == TV_RULE_BUDGET ? v.movable : v.flip != 0)
                atomicAdd(bins + tv_capped_size(v.a), 1ull);
        }
    }
    __syncthreads();
    if (bins[threadIdx.x])
        atomicAdd((unsigned long long *)a.histogram + threadIdx.x, bins[threadIdx.x]);
}

extern "C" tv_status ballot_histogram_cuda(const tv_ballot_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    histogram_kernel<<<tv_cuda_blocks(a->rows * tv_row_bytes(a->cols), THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(
        *a);
    TV_CUDA_LAUNCHED("ballot_histogram");
}

// New byte of elements k0 .. k0 + 4 of row n; `ties` counts elements at the cap's border, in element order.
__device__ static uint8_t settle_byte(const tv_ballot_args &a, int64_t n, int64_t k0, uint32_t byte, int64_t *ties,
                                      int *flips, int *zeros)
{
    uint32_t out = 0, place = 1;
    for (int j = 0; j < 5; j++, place *= 3) {
        int t = tv_byte_trit(byte, j);
        if (k0 + j < a.cols) {
            t = tv_settle(a, n, k0 + j, t, ties, flips);
            *zeros += t == 0;
        }
        out += (uint32_t)(t + 1) * place;
    }
    return (uint8_t)out;
}

__device__ static void add_stats(const tv_ballot_args &a, int flips, int zeros)
{
    for (int x = 16; x >= 1; x >>= 1) {
        flips += __shfl_xor_sync(0xFFFFFFFFu, flips, x);
        zeros += __shfl_xor_sync(0xFFFFFFFFu, zeros, x);
    }
    if (tv_warp_lane() == 0) {
        atomicAdd((unsigned long long *)a.stats, (unsigned long long)flips);
        atomicAdd((unsigned long long *)a.stats + 1, (unsigned long long)zeros);
    }
}

__global__ static void ballot_kernel(tv_ballot_args a)
{
    int64_t bytes = tv_row_bytes(a.cols), i = (int64_t)blockIdx.x * THREADS + threadIdx.x, ties = 0;
    int flips = 0, zeros = 0;
    if (i < a.rows * bytes)
        a.T[i] = settle_byte(a, i / bytes, i % bytes * 5, a.T[i], &ties, &flips, &zeros);
    add_stats(a, flips, zeros);
}

// With a cap: one block; its threads take THREADS bytes at a time in order, and a scan hands each byte its number of ties before.
__global__ static void capped_ballot_kernel(tv_ballot_args a)
{
    __shared__ int64_t before[THREADS];
    __shared__ int64_t total;
    int64_t bytes = tv_row_bytes(a.cols), all = a.rows * bytes;
    if (threadIdx.x == 0)
        total = 0;
    for (int64_t i0 = 0; i0 < all; i0 += THREADS) {
        int64_t i = i0 + threadIdx.x, n = i / bytes, k0 = i % bytes * 5;
        int64_t own = 0;
        for (int j = 0; i < all && j < 5 && k0 + j < a.cols; j++) {
            tv_verdict v = tv_judge(a, n, k0 + j, tv_byte_trit(a.T[i], j));
            own += v.flip != 0 && tv_capped_size(v.a) == a.cut;
        }
        before[threadIdx.x] = own;
        __syncthreads();
        if (threadIdx.x == 0)
            for (int x = 0; x < THREADS; x++) {
                int64_t count = before[x];
                before[x] = total;
                total += count;
            }
        __syncthreads();
        int64_t ties = before[threadIdx.x];
        int flips = 0, zeros = 0;
        if (i < all)
            a.T[i] = settle_byte(a, n, k0, a.T[i], &ties, &flips, &zeros);
        add_stats(a, flips, zeros);
        __syncthreads();
    }
}

static tv_status one(const tv_ballot_args *a, void *stream)
{
    if (a->cut >= 0 && a->rule != TV_RULE_BUDGET)
        capped_ballot_kernel<<<1, THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    else
        ballot_kernel<<<tv_cuda_blocks(a->rows * tv_row_bytes(a->cols), THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(
            *a);
    TV_CUDA_LAUNCHED("ballot");
}

extern "C" tv_status ballot_many_cuda(const tv_ballot_args *list, int64_t count, void *stream)
{
    int64_t done = 1;
    for (int64_t i = 0; i < count; i += done, done = 1) {
        if (!list[i].rows || !list[i].cols)
            continue;
        if (ballot_fast_fits(&list[i]))
            TV_TRY(ballot_fast(list + i, count - i, &done, stream));
        else
            TV_TRY(one(&list[i], stream));
    }
    return TV_OK;
}

extern "C" tv_status ballot_cuda(const tv_ballot_args *a, void *stream) { return ballot_many_cuda(a, 1, stream); }
