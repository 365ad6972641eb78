// Codebooks: entries grouped by row. A stable radix sort of (row, entry), by CUB, a count of the rows before each entry, and a pass
// that writes where rows begin.
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/moe_scratch.h"
#include "kernels/cuda/vq_votes_cuda.h"

#define THREADS 256

// Rows as unsigned numbers: those below 0 come last.
typedef struct group_lists {
    uint32_t *row;             // sorted
    int32_t *entry, *unsorted; // entries of the sorted rows; 0, 1, 2 ...
    int32_t *number;           // first 1 where a row begins, then how many have begun
    void *work;                // CUB's
    size_t sort_bytes, scan_bytes;
} group_lists;

__device__ static inline bool is_row(uint32_t row) { return row <= (uint32_t)INT32_MAX; }

__global__ static void count_up_kernel(int32_t *out, int64_t count)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < count)
        out[i] = (int32_t)i;
}

__global__ static void begin_kernel(const uint32_t *row, int32_t *begins, int64_t count)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < count)
        begins[i] = is_row(row[i]) && (i == 0 || row[i] != row[i - 1]);
}

__global__ static void write_kernel(tv_vq_group_args a, const uint32_t *row, const int32_t *entry,
                                    const int32_t *number)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= a.entries)
        return;
    if (!is_row(row[i])) {
        if (i == 0) {
            a.start[0] = 0;
            *a.count = 0;
        }
        return;
    }
    a.order[i] = entry[i];
    if (i == 0 || row[i] != row[i - 1]) {
        a.start[number[i] - 1] = (int32_t)i;
        a.distinct[number[i] - 1] = (int32_t)row[i];
    }
    if (i == a.entries - 1 || !is_row(row[i + 1])) {
        a.start[number[i]] = (int32_t)i + 1;
        *a.count = number[i];
    }
}

__global__ static void nothing_kernel(tv_vq_group_args a)
{
    a.start[0] = 0;
    *a.count = 0;
}

static tv_status take_lists(const tv_vq_group_args *a, group_lists *out)
{
    int64_t n = a->entries;
    size_t list = ((size_t)n * sizeof(int32_t) + 255) / 256 * 256, work;
    void *memory = NULL;
    TV_CUDA_TRY(cub::DeviceRadixSort::SortPairs(NULL, out->sort_bytes, (const uint32_t *)NULL, (uint32_t *)NULL,
                                                (const int32_t *)NULL, (int32_t *)NULL, n));
    TV_CUDA_TRY(cub::DeviceScan::InclusiveSum(NULL, out->scan_bytes, (const int32_t *)NULL, (int32_t *)NULL, n));
    work = out->sort_bytes > out->scan_bytes ? out->sort_bytes : out->scan_bytes;
    TV_TRY(moe_scratch_cuda(4 * list + work, &memory));
    char *at = (char *)memory;
    out->row = (uint32_t *)at;
    out->entry = (int32_t *)(at + list);
    out->unsorted = (int32_t *)(at + 2 * list);
    out->number = (int32_t *)(at + 3 * list);
    out->work = at + 4 * list;
    return TV_OK;
}

extern "C" tv_status vq_group_cuda(const tv_vq_group_args *a, void *stream)
{
    cudaStream_t s = tv_cuda_stream(stream);
    group_lists lists;
    if (!a->entries) {
        nothing_kernel<<<1, 1, 0, s>>>(*a);
        TV_CUDA_LAUNCHED("vq_group");
    }
    if (a->entries > INT32_MAX)
        return TV_FAIL(TV_BACKEND, "vq_group: %lld entries, and the cuda backend takes at most %d",
                       (long long)a->entries, INT32_MAX);
    TV_TRY(take_lists(a, &lists));
    unsigned blocks = tv_cuda_blocks(a->entries, THREADS);
    count_up_kernel<<<blocks, THREADS, 0, s>>>(lists.unsorted, a->entries);
    TV_CUDA_TRY(cub::DeviceRadixSort::SortPairs(lists.work, lists.sort_bytes, (const uint32_t *)a->row, lists.row,
                                                (const int32_t *)lists.unsorted, lists.entry, a->entries, 0, 32, s));
    begin_kernel<<<blocks, THREADS, 0, s>>>(lists.row, lists.unsorted, a->entries);
    TV_CUDA_TRY(cub::DeviceScan::InclusiveSum(lists.work, lists.scan_bytes, (const int32_t *)lists.unsorted,
                                              lists.number, a->entries, s));
    write_kernel<<<blocks, THREADS, 0, s>>>(*a, lists.row, lists.entry, lists.number);
    TV_CUDA_LAUNCHED("vq_group");
}
