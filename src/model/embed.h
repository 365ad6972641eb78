// ByteEmbedding: x[t] = row ids[t] of a ternary table [264, D]. Tensor "embed.table".
#ifndef TV_MODEL_EMBED_H
#define TV_MODEL_EMBED_H

#include "model/part.h"

// The first part: its forward writes x, its backward only votes.
tv_status tv_embed_create(tv_part **out);

#endif
