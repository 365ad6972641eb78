// The configured parts strung together: embed, image, audio, sequencer, codebook, memgram, L x (attention, ffn), head with loss.
#ifndef TV_MODEL_MODEL_H
#define TV_MODEL_MODEL_H

#include "base/config.h"
#include "model/losses.h"
#include "model/params.h"
#include "model/part.h"

#define TV_VOCAB 264 // 256 bytes, BOS, PAD, IMAGE, AUDIO (model/part.h), four spare

typedef struct tv_model {
    tv_config config; // copied values; strings stay the caller's
    tv_params params;
    tv_part **parts;
    int64_t part_count;
    tv_losses losses;
    tv_plan plan;
    void *saved_slab, *scratch_slab;
    float *x, *dx;      // [M, D] residual stream and [passes, M, D] its gradients (NULL when not training)
    float *logits;      // [M, V]; after a training backward they hold the gradient
    float *loss;        // [M]
    float *window_loss; // [M / context] summed per window
    int64_t max_tokens;
    const tv_backend *backend;
    unsigned char *muted; // [part_count], or NULL: none is
    float *unmuted;       // [M, D] what x was before a muted part
} tv_model;

// Build the part list and declare every tensor. No memory for state or activations yet. Call tv_model_free also after a
// failure.
tv_status tv_model_create(tv_model *model, const tv_config *config);
// Lay out state and plan activations for at most max_tokens tokens, in windows of at most config.model.context. Once a
// model. args->backend NULL: measure only. args->training 0: forward only, all parts share their buffers.
tv_status tv_model_plan(tv_model *model, const tv_params_layout_args *args, int64_t max_tokens);
// After the plan, for evaluation only: the parts of `names` (kinds or full names, separated by commas: "codebook,block.0.moe") run, but add
// nothing to x. TV_USAGE: no part is called so, or it is embed or head, which do not add.
tv_status tv_model_mute(tv_model *model, const char *names);
void tv_model_free(tv_model *model);
size_t tv_model_saved_bytes(const tv_model *model); // planned, of this rank
size_t tv_model_scratch_bytes(const tv_model *model);

// Forward over unit->tokens tokens; fills logits and, with targets, loss and window_loss (sum32 per window).
// unit->backend and unit->params are set here. TV_INTERNAL when the unit does not fit the plan.
tv_status tv_model_forward(tv_model *model, tv_unit *unit);
// After a training forward of the same unit, which must have had targets: gradients and votes.
tv_status tv_model_backward(tv_model *model, tv_unit *unit);
// Local. After the state was read from a checkpoint: TV_CHECKPOINT when a part's side state cannot be of a run.
tv_status tv_model_loaded(tv_model *model);
// Local. A step begins; its units follow, and after_step only if all of them went well.
tv_status tv_model_before_step(tv_model *model, tv_unit *unit);
// Collective over unit->comm. What parts do once a step, after the ballot; `unit` gives step and communicators, its tokens
// do not count.
tv_status tv_model_after_step(tv_model *model, tv_unit *unit);

#endif
