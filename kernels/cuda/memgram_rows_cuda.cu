// N-grams: rows by hashing, where answers lie, strength. A thread an item.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/ref/memgram_common.h"

#define THREADS 256

__device__ static inline int64_t item(void) { return (int64_t)blockIdx.x * THREADS + threadIdx.x; }

__global__ static void hash_kernel(tv_memgram_hash_args a)
{
    int64_t e = item();
    if (e < a.tokens * a.slots)
        a.row[e] = tv_memgram_entry(&a, e);
}

extern "C" tv_status memgram_hash_cuda(const tv_memgram_hash_args *a, void *stream)
{
    if (!a->tokens || !a->slots || !a->context)
        return TV_OK;
    hash_kernel<<<tv_cuda_blocks(a->tokens * a->slots, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("memgram_hash");
}

// Thread i writes -1 for entry i when that has no row, and the place of the i-th entry in order: the last u with start[u] <= i. Some rows have
// very many entries, so a thread a row would wait for one of them.
__global__ static void place_kernel(tv_memgram_place_args a)
{
    int64_t i = item(), low = 0, high = a.count;
    if (i >= a.entries)
        return;
    if (a.row[i] < 0)
        a.slot[i] = -1;
    if (a.count == 0 || i >= a.start[a.count])
        return;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (a.start[middle] <= i)
            low = middle;
        else
            high = middle;
    }
    a.slot[a.order[i]] = (int32_t)low;
}

extern "C" tv_status memgram_place_cuda(const tv_memgram_place_args *a, void *stream)
{
    if (!a->entries)
        return TV_OK;
    place_kernel<<<tv_cuda_blocks(a->entries, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("memgram_place");
}

__global__ static void strength_kernel(tv_memgram_strength_args a)
{
    int64_t i = item();
    if (i >= a.count)
        return;
    int64_t at = a.row[i] - a.first_row;
    bool held = at >= 0 && at < a.held_rows;
    a.out[i] = !held ? 0 : a.strength ? a.strength[at] : TV_MEMGRAM_STRENGTH_WHOLE;
}

extern "C" tv_status memgram_strength_cuda(const tv_memgram_strength_args *a, void *stream)
{
    if (!a->count)
        return TV_OK;
    strength_kernel<<<tv_cuda_blocks(a->count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("memgram_strength");
}

__global__ static void raise_kernel(tv_memgram_raise_args a)
{
    int64_t u = item(), size = tv_vq_vote_bytes(a.cols);
    if (u >= a.count)
        return;
    int8_t *strength = a.strength + (a.distinct[u] - a.first_row);
    int64_t sum = *strength;
    for (int32_t i = a.start[u]; i < a.start[u + 1]; i++)
        sum += ((const int32_t *)(a.bytes + a.order[i] * size))[1];
    *strength = (int8_t)tv_clamp(sum, 0, TV_MEMGRAM_STRENGTH_MAX);
}

extern "C" tv_status memgram_raise_cuda(const tv_memgram_raise_args *a, void *stream)
{
    if (!a->count)
        return TV_OK;
    raise_kernel<<<tv_cuda_blocks(a->count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("memgram_raise");
}

// Counts of a block in shared memory, then of all: integers, in any order.
__global__ static void decay_kernel(tv_memgram_decay_args a)
{
    __shared__ int32_t counts[TV_MEMGRAM_HEALTH];
    int64_t i = item();
    if (threadIdx.x < TV_MEMGRAM_HEALTH)
        counts[threadIdx.x] = 0;
    __syncthreads();
    if (i < a.rows) {
        int strength = a.strength[i];
        atomicAdd(counts + (strength > 0 ? 32 - __clz(strength) : 0), 1);
        if (a.halve)
            a.strength[i] = (int8_t)(strength >> 1);
    }
    __syncthreads();
    if (a.counts && threadIdx.x < TV_MEMGRAM_HEALTH && counts[threadIdx.x])
        atomicAdd((unsigned long long *)a.counts + threadIdx.x, (unsigned long long)counts[threadIdx.x]);
}

extern "C" tv_status memgram_decay_cuda(const tv_memgram_decay_args *a, void *stream)
{
    if (!a->rows)
        return TV_OK;
    decay_kernel<<<tv_cuda_blocks(a->rows, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("memgram_decay");
}
