// Marks functions of headers that the CPU and the GPU share.
#ifndef TV_BASE_HOST_DEVICE_H
#define TV_BASE_HOST_DEVICE_H

#ifdef __CUDACC__
#define TV_HOST_DEVICE __host__ __device__
#else
#define TV_HOST_DEVICE
#endif

#endif
