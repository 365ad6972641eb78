// Which GPU a rank takes.
#ifndef TV_KERNELS_CUDA_DEVICE_PICK_H
#define TV_KERNELS_CUDA_DEVICE_PICK_H

#ifdef __cplusplus
extern "C" {
#endif

#include "base/status.h"

// The rank's place among the ranks of its host is the number of its GPU. A rank that sees one GPU alone takes that one, since
// its launcher may have given each rank its own (Slurm sets CUDA_VISIBLE_DEVICES so); whether two ranks then share one is for
// the ranks to compare. TV_BACKEND: the ranks of the host see the same GPUs, and too few of them.
tv_status tv_cuda_pick(int local_rank, int local_size, int count, int *device);

#ifdef __cplusplus
}
#endif

#endif
