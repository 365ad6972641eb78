// Small pieces that several ops of ref share. Other backends may use them too: they are part of the definition.
#ifndef TV_KERNELS_REF_COMMON_H
#define TV_KERNELS_REF_COMMON_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/fmath.h"
#include "base/rng.h"
#include "base/status.h"
#include "base/tensor.h"
#include "kernels/kernels.h"

#define TV_BITS_INF 0x7F800000u  // |x| with these bits or more is Inf or NaN
#define TV_BITS_TINY 0x0D800000u // 2^-100; a smaller absmax counts as 0

// Memory of the calling thread that only grows; its contents are lost at the next call. Freed by scratch_free_ref.
tv_status tv_ref_scratch(size_t bytes, void **out);

// |x| as an integer: ordered like |x|, and above every number for NaN.
static inline uint32_t tv_abs_bits(float x) { return tv_float_bits(x) & 0x7FFFFFFFu; }

// Largest |x| of a row or column (`stride` items apart), as bits.
static inline uint32_t tv_absmax_bits(const float *x, int64_t count, int64_t stride)
{
    uint32_t top = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = tv_abs_bits(x[i * stride]);
        top = bits > top ? bits : top;
    }
    return top;
}

// The usable absmax from its bits: 0 when it counts as zero, or, raising *fault, when it is not a number.
static inline float tv_absmax_from_bits(uint32_t bits, int32_t *fault)
{
    if (bits >= TV_BITS_INF)
        *fault = 1;
    return bits >= TV_BITS_INF || bits < TV_BITS_TINY ? 0.0f : tv_bits_float(bits);
}

// A sequence of 16-bit draws at neighbouring elements: the block of eight is computed once.
typedef struct tv_draws {
    tv_rng_key key;
    uint64_t index;
    tv_rng_block block;
} tv_draws;

static inline tv_draws tv_draws_start(tv_rng_key key)
{
    tv_draws draws = {key, UINT64_MAX, {{0, 0, 0, 0}}};
    return draws;
}

static inline uint32_t tv_draws_at(tv_draws *draws, uint64_t element)
{
    if (draws->index != element >> 3) {
        draws->index = element >> 3;
        draws->block = tv_rng_at(draws->key, draws->index);
    }
    return tv_rng_lane(draws->block, (int)(element & 7));
}

static inline TV_HOST_DEVICE tv_rng_key tv_vote_level_key(const tv_vote_rule *rule)
{
    tv_rng_key key = {rule->seed, TV_RNG_VOTE_LEVEL | rule->unit << 8, rule->tensor_id, rule->step};
    return key;
}

// vote = clamp(floor(signed_sum / divisor + r), -levels, levels)
static inline TV_HOST_DEVICE int tv_vote_level(float signed_sum, float divisor, int levels, uint32_t r16)
{
    float z = divisor == 0.0f ? 0.0f : signed_sum / divisor;
    float vote = floorf(z + (float)r16 * 0x1p-16f);
    float most = (float)levels;
    return (int)(vote > most ? most : vote < -most ? -most : vote);
}

// votes[i] of an int8 or int16 array.
static inline TV_HOST_DEVICE int tv_vote_get(const void *votes, int vote_bits, int64_t i)
{
    return vote_bits == 8 ? ((const int8_t *)votes)[i] : ((const int16_t *)votes)[i];
}

static inline TV_HOST_DEVICE void tv_vote_add(void *votes, int vote_bits, int64_t i, int vote)
{
    if (vote_bits == 8)
        ((int8_t *)votes)[i] = (int8_t)(((int8_t *)votes)[i] + vote);
    else
        ((int16_t *)votes)[i] = (int16_t)(((int16_t *)votes)[i] + vote);
}

static inline TV_HOST_DEVICE int tv_sign(int64_t x) { return (x > 0) - (x < 0); }

// The vote of one integer sum; root_g = sqrtf((float)Qg), rx = sqrtf((float)Qx / (float)M).
static inline TV_HOST_DEVICE int tv_vote_of(const tv_vote_rule *rule, int64_t sum, float root_g, float rx, uint32_t r16)
{
    if (rule->levels > 1)
        return tv_vote_level((float)sum, root_g * rx, rule->levels, r16);
    float size = (float)(sum < 0 ? -sum : sum);
    return size > rule->tau * root_g * rx ? tv_sign(sum) : 0;
}

static inline TV_HOST_DEVICE int tv_clamp(int64_t x, int low, int high)
{
    return (int)(x < low ? low : x > high ? high : x);
}

#endif
