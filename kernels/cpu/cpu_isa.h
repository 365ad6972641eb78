// Names of code that is compiled once for each instruction set: TV_ISA_NAME(norm) is norm_avx512 or norm_avx2.
// CMakeLists.txt defines TV_ISA_AVX512 or TV_ISA_AVX2 for the two object libraries.
#ifndef TV_KERNELS_CPU_ISA_H
#define TV_KERNELS_CPU_ISA_H

#include "kernels/cpu/cpu_ops.h"

#if defined(TV_ISA_AVX512)
#define TV_ISA_NAME(name) name##_avx512
#elif defined(TV_ISA_AVX2)
#define TV_ISA_NAME(name) name##_avx2
#else
#error "compile this file through kernels/cpu/CMakeLists.txt"
#endif

#endif
