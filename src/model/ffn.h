// Dense feed-forward part: x += lin(Down, silu(lin(Gate, norm(x))) * lin(Up, norm(x))).
//
// Tensors "block.L.ffn.norm" [1, D], ".gate_up" [2F, D] (rows 0..F-1 the gate: one product, one gradient scale),
// ".down" [D, F].
#ifndef TV_MODEL_FFN_H
#define TV_MODEL_FFN_H

#include "model/part.h"

tv_status tv_ffn_create(int64_t block, tv_part **out);

#endif
