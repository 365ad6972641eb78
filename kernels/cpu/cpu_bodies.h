// Loop bodies (tv_cpu_body) of ops that the fused ops run a token at a time. `args` is the op's struct, [first, last) its rows, tokens
// in the case of gate, gate_backward, rotary and trigram.
#ifndef TV_KERNELS_CPU_BODIES_H
#define TV_KERNELS_CPU_BODIES_H

#include "kernels/cpu/cpu_isa.h"

void TV_ISA_NAME(norm_body)(const void *args, int64_t first, int64_t last, int thread);
void TV_ISA_NAME(norm_backward_body)(const void *args, int64_t first, int64_t last, int thread);
void TV_ISA_NAME(rotary_body)(const void *args, int64_t first, int64_t last, int thread);
void TV_ISA_NAME(gate_body)(const void *args, int64_t first, int64_t last, int thread);
void TV_ISA_NAME(gate_backward_body)(const void *args, int64_t first, int64_t last, int thread);
void TV_ISA_NAME(quantize_rows_body)(const void *args, int64_t first, int64_t last, int thread);
void TV_ISA_NAME(trigram_body)(const void *args, int64_t first, int64_t last, int thread);

#endif
