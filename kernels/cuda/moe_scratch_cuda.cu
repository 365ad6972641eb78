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
    cudaFree(scratch.memory);
    scratch.memory = NULL;
    scratch.bytes = 0;
    scratch.processors = 0;
}
