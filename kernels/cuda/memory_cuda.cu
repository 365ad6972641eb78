// Device memory, copies and streams of the cuda backend, and the choice of the device.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/cuda_ops.h"

#include <stdio.h>

static char device_text[160] = "cuda (not open)";

extern "C" const char *describe_cuda(void) { return device_text; }

extern "C" tv_status open_cuda(int local_rank, int local_size, int threads)
{
    (void)threads;
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0)
        return TV_FAIL(TV_BACKEND, "no usable NVIDIA GPU: %s; check the driver with nvidia-smi, or take run.backend=cpu",
                       error != cudaSuccess ? cudaGetErrorString(error) : "none found");
    if (local_size > count)
        return TV_FAIL(TV_BACKEND, "%d ranks on this host but %d GPUs; start at most one rank a GPU", local_size, count);
    cudaDeviceProp prop;
    TV_CUDA_TRY(cudaSetDevice(local_rank));
    TV_CUDA_TRY(cudaGetDeviceProperties(&prop, local_rank));
    if (prop.major < 8)
        return TV_FAIL(TV_BACKEND, "GPU %d (%s) has compute capability %d.%d; trivote needs 8.0 or newer", local_rank, prop.name,
                       prop.major, prop.minor);
    snprintf(device_text, sizeof device_text, "cuda (GPU %d: %s, sm_%d%d)", local_rank, prop.name, prop.major, prop.minor);
    TV_TRY(gemm_open_cuda());
    return TV_OK;
}

extern "C" void close_cuda(void) { cudaDeviceSynchronize(); }

extern "C" tv_status alloc_cuda(size_t bytes, void **out)
{
    *out = NULL;
    cudaError_t error = cudaMalloc(out, bytes ? bytes : 1);
    if (error != cudaSuccess)
        return TV_FAIL(TV_MEMORY, "the GPU has no room for %zu bytes: %s", bytes, cudaGetErrorString(error));
    return TV_OK;
}

extern "C" void free_cuda(void *memory) { cudaFree(memory); }

extern "C" tv_status copy_cuda(void *to, const void *from, size_t bytes, tv_copy_kind kind, void *stream)
{
    static const cudaMemcpyKind kinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice};
    TV_CUDA_TRY(cudaMemcpyAsync(to, from, bytes, kinds[kind], tv_cuda_stream(stream)));
    if (kind != TV_COPY_DEVICE)
        TV_CUDA_TRY(cudaStreamSynchronize(tv_cuda_stream(stream)));
    return TV_OK;
}

extern "C" tv_status zero_cuda(void *memory, size_t bytes, void *stream)
{
    TV_CUDA_TRY(cudaMemsetAsync(memory, 0, bytes, tv_cuda_stream(stream)));
    return TV_OK;
}

extern "C" tv_status sync_cuda(void *stream)
{
    TV_CUDA_TRY(cudaStreamSynchronize(tv_cuda_stream(stream)));
    return TV_OK;
}
