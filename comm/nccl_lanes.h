// The vote exchange's arithmetic on a GPU. For comm_nccl.c.
#ifndef TV_COMM_NCCL_LANES_H
#define TV_COMM_NCCL_LANES_H

#include <stdint.h>

// Local. Queues on `stream`: both 16-bit lanes of each of `count` words += add, modulo 2^16; *beyond = 1 when a lane is
// then above most (memory that the GPU can write). Returns NULL, or CUDA's text of what went wrong.
const char *tv_nccl_shift_lanes(uint32_t *words, int64_t count, uint16_t add, uint16_t most, int *beyond, void *stream);

#endif
