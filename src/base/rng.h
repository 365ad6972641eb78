// Philox4x32-10 (Salmon et al., SC'11), the only source of random numbers.
//
// counter = (index low, index high, tensor id, step), key = (seed, purpose). A 16-bit draw for element e (global row * K + k,
// unpadded) is lane e mod 8 of the block with index e / 8: word lane/2, low half first.
#ifndef TV_BASE_RNG_H
#define TV_BASE_RNG_H

#include <stdint.h>

#include "base/host_device.h"

// Low 8 bits of the key's purpose word; vote levels put the unit's number in the upper 24.
typedef enum tv_rng_purpose {
    TV_RNG_BALLOT_T = 1,
    TV_RNG_BALLOT_E = 2,
    TV_RNG_INIT_T = 3,
    TV_RNG_INIT_ACCUM = 4,
    TV_RNG_VOTE_LEVEL = 5,
    TV_RNG_SAMPLER = 6,
    TV_RNG_GENERATE = 7,
    TV_RNG_TIE = 8
} tv_rng_purpose;

typedef struct tv_rng_block {
    uint32_t word[4];
} tv_rng_block;

// One stream of draws: everything of counter and key but the index.
typedef struct tv_rng_key {
    uint32_t seed, purpose, tensor_id, step;
} tv_rng_key;

// The Philox4x32-10 block function on a full counter and key.
static inline TV_HOST_DEVICE tv_rng_block tv_philox(const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c0 = n0, c1 = (uint32_t)p1, c2 = n2, c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    tv_rng_block out = {{c0, c1, c2, c3}};
    return out;
}

static inline TV_HOST_DEVICE tv_rng_block tv_rng_at(tv_rng_key key, uint64_t index)
{
    uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), key.tensor_id, key.step};
    uint32_t k[2] = {key.seed, key.purpose};
    return tv_philox(counter, k);
}

// Lane 0..7 of a block as a 16-bit number.
static inline TV_HOST_DEVICE uint32_t tv_rng_lane(tv_rng_block block, int lane)
{
    return (block.word[lane >> 1] >> (16 * (lane & 1))) & 0xFFFFu;
}

// 16 random bits of one element.
static inline TV_HOST_DEVICE uint32_t tv_rng16(tv_rng_key key, uint64_t element)
{
    return tv_rng_lane(tv_rng_at(key, element >> 3), (int)(element & 7));
}

// 64 random bits of one element (words 0 and 1 of the block whose index is the element).
static inline TV_HOST_DEVICE uint64_t tv_rng64(tv_rng_key key, uint64_t element)
{
    tv_rng_block block = tv_rng_at(key, element);
    return (uint64_t)block.word[1] << 32 | block.word[0];
}

#endif
