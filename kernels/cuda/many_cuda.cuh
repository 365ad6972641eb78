// One launch for many arrays: the arguments of several ops travel in a kernel's parameters, and a block finds the op that it is for.
#ifndef TV_KERNELS_MANY_CUDA_CUH
#define TV_KERNELS_MANY_CUDA_CUH

#include "kernels/cuda/cuda_common.cuh"

// As many as the 4 KiB of a kernel's parameters hold.
template <class ARGS> struct tv_many {
    static constexpr int most = 3900 / (int)(sizeof(ARGS) + sizeof(unsigned));
    ARGS item[most];
    unsigned first[most]; // block of each item
    int count;
    unsigned blocks; // of all items
};

// The item of this block; *block is the block's number within it.
template <class ARGS> __device__ static inline int tv_many_find(const tv_many<ARGS> &many, unsigned *block)
{
    int low = 0, high = many.count; // low's first block is not behind this one, high's is
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (many.first[middle] <= blockIdx.x)
            low = middle;
        else
            high = middle;
    }
    *block = blockIdx.x - many.first[low];
    return low;
}

// Add an item of `blocks` blocks; whether there was room.
template <class ARGS> static bool tv_many_add(tv_many<ARGS> *many, const ARGS *args, int64_t blocks)
{
    if (many->count == many->most || many->blocks + blocks > INT32_MAX)
        return false;
    many->item[many->count] = *args;
    many->first[many->count++] = many->blocks;
    many->blocks += (unsigned)blocks;
    return true;
}

#endif
