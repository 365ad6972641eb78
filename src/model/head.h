// The output head and its loss: logits = lin(Head, norm(x)) 2^head_exponent; softmax cross-entropy a token.
//
// Tensors "head.norm" [1, D], "head.out" [264, D]. Its gradient takes two int8 digits (docs/numerics.md, section 2).
#ifndef TV_MODEL_HEAD_H
#define TV_MODEL_HEAD_H

#include "model/part.h"

// The last part: its forward leaves x as it is and writes the outputs below; its backward writes dx (what dx held is
// dropped).
tv_status tv_head_create(tv_part **out);

// Where a planned head writes. Backend memory.
typedef struct tv_head_outputs {
    float *logits;      // [M, 264]; after a backward their gradient
    float *loss;        // [M], written when the unit has targets
    float *window_loss; // [M / context] sum32 a window
} tv_head_outputs;
tv_head_outputs tv_head_get_outputs(const tv_part *head);

#endif
