// The vote of one sum, as tv_vote_rule defines it.
#ifndef TV_KERNELS_VOTE_CUDA_CUH
#define TV_KERNELS_VOTE_CUDA_CUH

#include "kernels/cuda/cuda_common.cuh"

// sum: the integer sum, converted; element: n K + k.
__device__ static inline int tv_vote_of(const tv_vote_rule &rule, float sum, float root_g, float rx, int64_t element)
{
    if (rule.levels > 1)
        return tv_vote_level(sum, root_g * rx, rule.levels, tv_rng16(tv_vote_level_key(&rule), (uint64_t)element));
    return fabsf(sum) > rule.tau * root_g * rx ? (sum > 0.0f) - (sum < 0.0f) : 0;
}

#endif
