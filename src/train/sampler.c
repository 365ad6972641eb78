#include "train/sampler.h"

#include "base/rng.h"

int64_t tv_sample_window(uint32_t seed, int64_t step, int64_t element, int64_t n)
{
    tv_rng_key key = {.seed = seed, .purpose = TV_RNG_SAMPLER, .tensor_id = 0, .step = (uint32_t)step};
    return (int64_t)((unsigned __int128)tv_rng64(key, (uint64_t)element) * (uint64_t)n >> 64);
}

int64_t tv_stream_window(int64_t step, int64_t element, int64_t slots, int64_t context, int64_t n)
{
    int64_t length = n / slots > 1 ? n / slots : 1;
    return (element * length + (int64_t)((unsigned __int128)step * (uint64_t)context % (uint64_t)length)) % n;
}

void tv_window_tokens(const uint8_t *bytes, int64_t context, int32_t *ids, int32_t *targets)
{
    for (int64_t t = 0; t < context; t++) {
        ids[t] = bytes[t];
        targets[t] = bytes[t + 1];
    }
}
