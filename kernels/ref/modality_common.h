// What the backends share of the ops of features.
#ifndef TV_KERNELS_REF_MODALITY_COMMON_H
#define TV_KERNELS_REF_MODALITY_COMMON_H

#include "base/host_device.h"
#include "kernels/ref/ref_common.h"

static inline TV_HOST_DEVICE float tv_modality_gate(int8_t gate) { return (float)(gate + 128) * 0x1p-8f; }

// The vote of the sum s of gradients whose squares add up to q.
static inline TV_HOST_DEVICE int tv_modality_vote(float s, float q, float tau)
{
    return s * s >= tau * tau * q ? (s > 0.0f) - (s < 0.0f) : 0;
}

#endif
