// Device memory, copies and streams of the cuda backend, and the choice of the device.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device_pick.h"
#include "kernels/cuda/gemm_hopper.h"
#include "kernels/cuda/moe_scratch.h"

#include <stdio.h>
#include <string.h>

#define OLDEST_MAJOR 8 // compute capability 8.0: s8 tensor-core products, cp.async

static char device_text[320] = "cuda (not open)";
static cudaUUID_t device_uuid;

static_assert(sizeof device_uuid == TV_DEVICE_ID_BYTES, "a GPU's id is its UUID");

extern "C" const char *describe_cuda(void) { return device_text; }

// Stands for all kernels of the build when asking whether a GPU can run them.
__global__ static void probe_kernel(void) {}

static const char *count_devices(int *count)
{
    cudaError_t error = cudaGetDeviceCount(count);
    (void)cudaGetLastError();
    if (error != cudaSuccess)
        return cudaGetErrorString(error);
    return *count == 0 ? "none found" : NULL;
}

// Whether a GPU of this capability (90: 9.0) runs code of this build: machine code of its own major version, or older code that the
// driver compiles for it. From 9.0 on the default target has features of one chip, which newer chips do not take.
static int has_code_for(int capability)
{
    const int built[] = {__CUDA_ARCH_LIST__}; // 900: 9.0
    for (size_t i = 0; i < sizeof built / sizeof *built; i++) {
        int own = built[i] / 10;
        if (own <= capability && (own / 10 == capability / 10 || own < 90))
            return 1;
    }
    return 0;
}

extern "C" int usable_cuda(void)
{
    int count = 0, major = 0, minor = 0;
    if (count_devices(&count) != NULL)
        return 0;
    cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0);
    (void)cudaGetLastError();
    return error == cudaSuccess && major >= OLDEST_MAJOR && has_code_for(10 * major + minor);
}

static tv_status check_device(int device, const cudaDeviceProp *prop)
{
    if (prop->major < OLDEST_MAJOR)
        return TV_FAIL(
            TV_BACKEND,
            "GPU %d (%s) has compute capability %d.%d; the cuda backend needs %d.0 or newer: take run.backend=cpu",
            device, prop->name, prop->major, prop->minor, OLDEST_MAJOR);
    cudaFuncAttributes attributes;
    cudaError_t error = cudaFuncGetAttributes(&attributes, probe_kernel);
    (void)cudaGetLastError();
    if (error != cudaSuccess)
        return TV_FAIL(
            TV_BACKEND,
            "this build has no kernels for GPU %d (%s, sm_%d%d): %s; build with CMAKE_CUDA_ARCHITECTURES=%d%d", device,
            prop->name, prop->major, prop->minor, cudaGetErrorString(error), prop->major, prop->minor);
    return TV_OK;
}

extern "C" tv_status open_cuda(int local_rank, int local_size, int threads)
{
    (void)threads;
    int count = 0, device = 0;
    const char *missing = count_devices(&count);
    if (missing)
        return TV_FAIL(TV_BACKEND,
                       "no usable NVIDIA GPU: %s; check the driver with nvidia-smi, or take run.backend=cpu", missing);
    TV_TRY(tv_cuda_pick(local_rank, local_size, count, &device));
    cudaDeviceProp prop;
    TV_CUDA_TRY(cudaSetDevice(device));
    TV_CUDA_TRY(cudaGetDeviceProperties(&prop, device));
    TV_TRY(check_device(device, &prop));
    device_uuid = prop.uuid;
    snprintf(device_text, sizeof device_text, "cuda (GPU %d: %s, sm_%d%d)", device, prop.name, prop.major, prop.minor);
    TV_TRY(gemm_open_cuda());
    return moe_open_cuda();
}

extern "C" void device_id_cuda(unsigned char id[TV_DEVICE_ID_BYTES]) { memcpy(id, &device_uuid, sizeof device_uuid); }

extern "C" tv_status device_memory_cuda(int64_t *used_bytes, int64_t *all_bytes)
{
    size_t left = 0, all = 0;
    TV_CUDA_TRY(cudaMemGetInfo(&left, &all));
    *used_bytes = (int64_t)(all - left);
    *all_bytes = (int64_t)all;
    return TV_OK;
}

extern "C" void close_cuda(void)
{
    cudaDeviceSynchronize();
    gemm_hopper_close();
    moe_close_cuda();
}

extern "C" tv_status alloc_cuda(size_t bytes, void **out)
{
    *out = NULL;
    cudaError_t error = cudaMalloc(out, bytes ? bytes : 1);
    (void)cudaGetLastError();
    if (error != cudaSuccess) {
        *out = NULL;
        return TV_FAIL(TV_MEMORY, "the GPU has no room for %zu bytes: %s", bytes, cudaGetErrorString(error));
    }
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
