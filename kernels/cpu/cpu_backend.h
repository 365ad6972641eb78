// The CPU backend: ref's ops with the hot ones replaced by SIMD code and threads. Same bits as ref for any
// instruction set and any number of threads.
#ifndef TV_KERNELS_CPU_BACKEND_H
#define TV_KERNELS_CPU_BACKEND_H

#include "kernels/kernels.h"

typedef enum tv_cpu_isa { TV_CPU_BASE, TV_CPU_AVX2, TV_CPU_AVX512, TV_CPU_ISA_COUNT } tv_cpu_isa;

// The best table for this machine: AVX-512 (x86-64-v4 with VNNI), AVX2 (x86-64-v3), or ref's functions on any other.
// The environment variable TV_CPU_ISA = base, avx2 or avx512 asks for a lesser one (tests); it cannot name one that
// the machine lacks. Never NULL.
const tv_backend *tv_backend_cpu(void);
// The table of one instruction set, NULL when this machine lacks it.
const tv_backend *tv_backend_cpu_isa(tv_cpu_isa isa);

#endif
