// Causal attention: x += lin(Out, attention(q, k, v)) on norm(x).
//
// q, k, v = lin(norm(x)); RMS norm on q and k a head; rotary positions; q, k, v in int8 with one scale a (token, head).
// With model.latent_kv r: latent = lin(Down, norm(x)) [M, r]; k = lin(K_up, latent); v = lin(V_up, latent).
// Tensors "block.L.attention.*": norm [1, D]; q, k, v, out [D, D]; q_norm, k_norm [1, d]; latent: down [r, D], k_up,
// v_up [D, r] in the place of k, v.
#ifndef TV_MODEL_ATTENTION_H
#define TV_MODEL_ATTENTION_H

#include "model/part.h"

tv_status tv_attention_create(int64_t block, tv_part **out);

// Take and fill plan->rotary_cos and rotary_sin [context, width/2] once a plan, for all parts that turn positions by
// them. Constants of the config, not state. TV_MEMORY, or what the copy to the backend returns.
tv_status tv_rotary_plan(tv_plan *plan, int64_t width);

#endif
