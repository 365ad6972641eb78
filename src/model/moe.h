// Mixture of experts with a shared down projection, in the place of the dense feed-forward part:
//
//   xn = norm(x);  z = lin(Query, xn);  logit_e = <z, Centroid_e> / 8;  the k largest logit_e + bias_e select
//   gate = softmax of the selected logits;  h_e = silu(lin(Gate_e, xn)) * lin(Transform_e, xn)
//   x += lin(Down, sum over the selected of gate_e h_e)  (+ a dense feed-forward of width F_s on xn)
//
// Tensors "block.L.moe.norm" [1, D], ".query" [64, D], ".centroid" [n_e, 64], ".experts" [n_e 2F, D] (rows e 2F on: F of the
// gate, F of the transform), ".down" [D, F]; with a shared expert ".shared_gate_up" [2 F_s, D], ".shared_down" [D, F_s].
// Side state ".bias" int16 [n_e], moved by one a step towards equal use of the experts.
//
// xn and h_e reach their products as ternary digits (moe.wire_digits), whether they travel to another rank or not.
#ifndef TV_MODEL_MOE_H
#define TV_MODEL_MOE_H

#include "model/part.h"

tv_status tv_moe_create(int64_t block, tv_part **out);

#endif
