// Trigram sequencer: x[t] += lin(Seq, [x[t-2], x[t-1], x[t]]), zeros before a window's start. Tensor "sequencer.out"
// [D, 3D].
#ifndef TV_MODEL_SEQUENCER_H
#define TV_MODEL_SEQUENCER_H

#include "model/part.h"

tv_status tv_sequencer_create(tv_part **out);

#endif
