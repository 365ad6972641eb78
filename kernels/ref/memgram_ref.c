// N-grams: rows by hashing, the gated sum of a token's rows and its gradient, strength.
#include "kernels/ref/memgram_loops.h"
#include "kernels/ref/ref_ops.h"

tv_status memgram_hash_ref(const tv_memgram_hash_args *a, void *stream)
{
    (void)stream;
    for (int64_t e = 0; a->context && e < a->tokens * a->slots; e++)
        a->row[e] = tv_memgram_entry(a, e);
    return TV_OK;
}

tv_status memgram_place_ref(const tv_memgram_place_args *a, void *stream)
{
    (void)stream;
    for (int64_t e = 0; e < a->entries; e++)
        if (a->row[e] < 0)
            a->slot[e] = -1;
    for (int64_t u = 0; u < a->count; u++)
        for (int32_t i = a->start[u]; i < a->start[u + 1]; i++)
            a->slot[a->order[i]] = (int32_t)u;
    return TV_OK;
}

tv_status memgram_strength_ref(const tv_memgram_strength_args *a, void *stream)
{
    (void)stream;
    for (int64_t i = 0; i < a->count; i++) {
        int64_t at = a->row[i] - a->first_row;
        int held = at >= 0 && at < a->held_rows;
        a->out[i] = !held ? 0 : a->strength ? a->strength[at] : TV_MEMGRAM_STRENGTH_WHOLE;
    }
    return TV_OK;
}

tv_status memgram_mix_ref(const tv_memgram_mix_args *a, void *stream)
{
    (void)stream;
    tv_memgram_mix_tokens(a, 0, a->tokens);
    return TV_OK;
}

tv_status memgram_back_ref(const tv_memgram_back_args *a, void *stream)
{
    (void)stream;
    tv_memgram_back_tokens(a, 0, a->tokens);
    return TV_OK;
}

tv_status memgram_raise_ref(const tv_memgram_raise_args *a, void *stream)
{
    (void)stream;
    int64_t size = tv_vq_vote_bytes(a->cols);
    for (int64_t u = 0; u < a->count; u++) {
        int8_t *strength = &a->strength[a->distinct[u] - a->first_row];
        int64_t sum = *strength;
        for (int32_t i = a->start[u]; i < a->start[u + 1]; i++) {
            int32_t tokens;
            memcpy(&tokens, a->bytes + a->order[i] * size + 4, 4);
            sum += tokens;
        }
        *strength = (int8_t)tv_clamp(sum, 0, TV_MEMGRAM_STRENGTH_MAX);
    }
    return TV_OK;
}

tv_status memgram_decay_ref(const tv_memgram_decay_args *a, void *stream)
{
    (void)stream;
    for (int64_t i = 0; i < a->rows; i++) {
        int strength = a->strength[i], class = 0;
        while (strength >> class > 0)
            class ++;
        if (a->counts)
            a->counts[class]++;
        if (a->halve)
            a->strength[i] = (int8_t)(strength >> 1);
    }
    return TV_OK;
}
