// The part made of tables of n-grams, behind the sequencer and the codebook: x += lin(Up, y), where y is the gated sum of the rows that a
// token's last bytes (table `struct`) and, with a codebook, its last motifs (table `conv`) are hashed to. The gates ask with z = lin(Down, norm(x)).
#ifndef TV_MODEL_MEMGRAM_H
#define TV_MODEL_MEMGRAM_H

#include "model/part.h"

// `codebook`: the part whose motifs make n-grams too, or NULL.
tv_status tv_memgram_create(const tv_part *codebook, tv_part **out);

#endif
