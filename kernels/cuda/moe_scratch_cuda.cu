#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/moe_scratch.h"

static struct {
    void *memory;
    size_t bytes;
    int processors;
} scratch;

extern "C" tv_status moe_scratch_cuda(size_t bytes, void **out)
{
    if (bytes > scratch.bytes) {
        cudaFree(scratch.memory); // waits for kernels that still use it
        scratch.memory = NULL;
        scratch.bytes = 0;
        TV_CUDA_TRY(cudaMalloc(&scratch.memory, bytes));
        scratch.bytes = bytes;
    }
    *out = scratch.memory;
    return TV_OK;
}

static struct {
    uint32_t *memory; // [2, room]
    int64_t room;
    tv_tops_turns turns;
} tops;

static void forget_tops(void)
{
    cudaFree(tops.memory); // waits for kernels that still use it
    tops = {};
}

extern "C" tv_status moe_tops_cuda(int64_t count, void *stream, tv_channel_tops *out)
{
    if (count > tops.room) {
        size_t bytes = 2 * (size_t)count * sizeof *tops.memory;
        forget_tops();
        TV_CUDA_TRY(cudaMalloc((void **)&tops.memory, bytes));
        TV_CUDA_TRY(cudaMemsetAsync(tops.memory, 0, bytes, tv_cuda_stream(stream)));
        tops.room = count;
    }
    *out = tv_tops_take(&tops.turns, tops.memory, tops.room, count);
    return TV_OK;
}

extern "C" int moe_processors_cuda(void)
{
    int device = 0;
    if (scratch.processors == 0 &&
        (cudaGetDevice(&device) != cudaSuccess ||
         cudaDeviceGetAttribute(&scratch.processors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess))
        scratch.processors = 1; // the launch that follows tells what is wrong
    return scratch.processors;
}

extern "C" void moe_close_cuda(void)
{
    forget_tops();
    cudaFree(scratch.memory);
    scratch.memory = NULL;
    scratch.bytes = 0;
    scratch.processors = 0;
}
