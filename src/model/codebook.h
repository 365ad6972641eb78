// The parts made of codebooks. Each adds lin(Up, row) to x, for the row of its table that is nearest to a query z.
//
//   codebook    behind the sequencer: z = lin(Down, norm(x)); its rows are the unit's motifs
//   composite   behind the blocks: z = lin(Motif, row of the motif) + lin(Down, norm(x))
//
// Backward, the gradient of a row goes straight through to z; the row itself gets a vote (model/vq.h).
#ifndef TV_MODEL_CODEBOOK_H
#define TV_MODEL_CODEBOOK_H

#include "model/part.h"

tv_status tv_codebook_create(tv_part **out);
// Rows of the last forward's tokens, [M] backend memory, of the part of tv_codebook_create.
const int32_t *tv_codebook_motifs(const tv_part *codebook);
// Its table's tensor, once it is declared.
int64_t tv_codebook_table(const tv_part *codebook);
// `codebook`: the part of tv_codebook_create whose motifs it takes.
tv_status tv_composite_create(tv_part *codebook, tv_part **out);

#endif
