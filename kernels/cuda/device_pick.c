#include "kernels/cuda/device_pick.h"

tv_status tv_cuda_pick(int local_rank, int local_size, int count, int *device)
{
    *device = count == 1 ? 0 : local_rank;
    if (count == 1 || local_size <= count)
        return TV_OK;
    return TV_FAIL(TV_BACKEND,
                   "%d ranks on this host but %d GPUs; start at most one rank a GPU, or take run.backend=cpu",
                   local_size, count);
}
