// Losses, the tensors that each may move, and the backward passes that follow.
//
// A loss has a weight and a list of groups (section loss of the config). The vote of a tensor is of the gradient of the weighted sum of the
// losses that may move it and reach it: a loss reaches its own part and all before it. Tensors with the same losses share a pass of the
// backward. Passes are one as long as their gradients are: those that differ in losses of earlier parts only part where these begin. So a part
// runs once for each set of losses that is wanted there or before it, and a pass without a loss that has begun does not run at all.
#ifndef TV_MODEL_LOSSES_H
#define TV_MODEL_LOSSES_H

#include <stdint.h>

#include "base/config.h"
#include "model/part.h"

enum { TV_LOSSES_MAX = 8, TV_PASSES_MAX = 16 };

typedef struct tv_losses {
    int count;                    // losses with a weight, each a bit of a set
    int64_t part[TV_LOSSES_MAX];  // index of the part in which it begins
    int passes;                   // distinct sets of tensors that something moves
    uint32_t off[TV_PASSES_MAX];  // of each: the losses that reach its tensors, but may not move them
    int64_t first[TV_PASSES_MAX]; // of each: index of the first part with such a tensor
} tv_losses;

// After all parts have declared: numbers the losses of the parts, fills losses_off of every tensor. TV_CONFIG: an unknown group; a table
// that nothing may move, since usage comes with votes; no tensor that anything moves.
tv_status tv_losses_resolve(tv_losses *losses, tv_part **parts, int64_t part_count, tv_params *params,
                            const tv_config_loss *config);
// The pass that runs part `index` for pass `pass`, and has the same gradient there: the first such one. -1: none of its losses has begun.
int tv_losses_run(const tv_losses *losses, int pass, int64_t index);
// 1 when part `index` runs for its own sake or an earlier one's in pass `pass` = tv_losses_run(losses, pass, index).
int tv_losses_wanted(const tv_losses *losses, int pass, int64_t index);
// The losses that have begun at part `index`, as bits.
uint32_t tv_losses_begun(const tv_losses *losses, int64_t index);

#endif
