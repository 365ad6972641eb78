// A codebook query's scale in the integers of its scores (ops_vq.h): one function for every backend and for what weighs distances.
#ifndef TV_KERNELS_VQ_SCALE_H
#define TV_KERNELS_VQ_SCALE_H

#include "base/fmath.h"
#include "base/host_device.h"

// clamp(rint(scale * 2^(8 - b)), 1, 1023)
static inline TV_HOST_DEVICE int32_t tv_vq_scale(float scale, int base)
{
    float units = rintf(scale * tv_exp2i(8 - base));
    return units < 1.0f ? 1 : units > 1023.0f ? 1023 : (int32_t)units;
}

#endif
