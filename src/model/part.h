// A part of the model: a few functions over the parameter table.
//
// A part sees a tv_unit (tokens, stream, backend, communicators), its own buffers and the table; never a file or MPI, and a
// rank number only as its place in a communicator.
// All parts work in place on the residual stream x [M, D]: forward does x += f(x) (the embedding writes x), backward
// turns dL/d(output) into dL/d(input) in place and adds its votes into the table's vote buffers.
#ifndef TV_MODEL_PART_H
#define TV_MODEL_PART_H

#include <stdint.h>

#include "base/arena.h"
#include "base/config.h"
#include "kernels/kernels.h"
#include "model/params.h"

// A step's update rule, for parts that run ballots of their own: what tv_ballot_args and tv_ballot_e_args take.
typedef struct tv_step_rule {
    tv_rule rule;
    tv_combine combine;
    int units, quorum, threshold;
    uint32_t eta_q;
    int classic_step, theta_min;
    uint32_t eta_e_q;
    int exponent_threshold;
} tv_step_rule;

// Ids above the bytes.
enum { TV_ID_BOS = 256, TV_ID_PAD = 257, TV_ID_IMAGE = 258, TV_ID_AUDIO = 259 };

typedef enum tv_modality { TV_IMAGE, TV_AUDIO, TV_MODALITIES } tv_modality;
// Features of images or sounds that stand in a unit's windows. Zeros: none.
typedef struct tv_unit_features {
    int64_t count;
    const float *rows; // [count, F] backend memory
    const int32_t *at; // [count] tokens of the unit, ascending; backend memory
} tv_unit_features;

// What every part needs to plan and run.
typedef struct tv_unit {
    const tv_backend *backend;
    void *stream;
    tv_params *params;
    // the batch
    int64_t tokens, context; // M (a multiple of context), window length
    const int32_t *ids;      // [M] backend memory
    const int32_t *targets;  // [M] backend memory; NULL when only logits are wanted
    tv_unit_features features[TV_MODALITIES];
    int training; // 1: keep what backward needs
    // votes
    float tau;
    int levels;
    uint32_t seed, step, index; // index: the unit's number in the step, 0 .. U-1
    int32_t *fault;             // [1] backend memory, sticky
    int oracle;                 // 1: codebooks also look through all rows and tell how near their answers are
    int timed;                  // 1: parts measure their phases, which makes the host wait for the backend
    // Ranks; NULL: this one alone. All ranks of `experts`, the P ranks that hold every expert once (NULL too when P = 1:
    // params->expert_ranks), run forward and backward equally often, with units of any size, 0 tokens included.
    struct tv_comm *comm, *experts;
    const tv_step_rule *rule; // after_step only
    // One pass of a backward (model/losses.h): its number, the losses that have begun but are not in it. Without `losses` there is one, with all.
    const struct tv_losses *losses;
    int pass;
    uint32_t losses_off;
    // Told after each part's backward, the last part's first: the unit's votes on the table's tensors from `first` on are
    // queued. NULL when nobody asks.
    tv_status (*voted)(void *listener, int64_t first);
    void *listener;
} tv_unit;

// Buffers are taken once, here; forward and backward use the stored pointers. `saved` lives from forward to backward;
// `scratch` is reset before each part's plan, so parts share it: nothing in it survives from one part's call to the
// next.
typedef struct tv_plan {
    tv_arena saved, scratch;
    int64_t tokens, context; // largest M
    int training;
    const tv_config *config;
    const tv_params *params;        // params->backend is NULL while measuring
    float *rotary_cos, *rotary_sin; // [context, d/2] of all attention parts: planned by the first of them
    int has_rotary;
    int passes;                // of a backward, at most; 0: 1
    struct tv_pool *rows_pool; // of all mixtures of experts, when rows travel: the first one's own
} tv_plan;

// What a part tells people of its last step: counts, shares, seconds.
enum { TV_FIGURES_MAX = 16, TV_HISTOGRAMS_MAX = 2, TV_BINS_MAX = 16 };
// Numbers of things by doubling bins of a whole number from 0: bin 0 counts the zeros, bin k + 1 those in [2^k, 2^(k+1)).
typedef struct tv_histogram {
    const char *name; // "struct_strength"; a constant
    int64_t counts[TV_BINS_MAX];
    int bins;
} tv_histogram;
typedef struct tv_figures {
    struct {
        const char *name; // "tokens_min"; a constant
        double value;
    } items[TV_FIGURES_MAX];
    int count;
    tv_histogram histograms[TV_HISTOGRAMS_MAX];
    int histogram_count;
} tv_figures;
void tv_figures_add(tv_figures *figures, const char *name, double value);
void tv_figures_add_histogram(tv_figures *figures, const char *name, const int64_t *counts, int bins);

typedef struct tv_part tv_part;
typedef struct tv_part_ops {
    const char *kind; // "attention"
    tv_status (*declare)(tv_part *part, tv_params *params, const tv_config *config);
    // Called twice: to measure, and again to take the same buffers for good.
    tv_status (*plan)(tv_part *part, tv_plan *plan);
    tv_status (*forward)(tv_part *part, tv_unit *unit, float *x);
    tv_status (*backward)(tv_part *part, tv_unit *unit, float *dx);
    // Optional. Local: a step begins, perhaps one that failed and is tried again. Whatever counts a step's units starts anew.
    tv_status (*before_step)(tv_part *part, tv_unit *unit);
    // Optional. Collective over unit->comm: once a step on every rank, after the ballot and the decoding, with a unit of no
    // tokens whose `step` is the step just made. For side state that moves by what the step's units did (sums over all
    // units are sums over unit->comm); it must change alike on all ranks that hold it.
    tv_status (*after_step)(tv_part *part, tv_unit *unit);
    // Optional. Local: the state was read from a checkpoint. TV_CHECKPOINT: side state that no run can have made.
    tv_status (*loaded)(tv_part *part, tv_params *params);
    // Optional. Local: figures of the last step; after after_step.
    void (*tell)(const tv_part *part, tv_figures *figures);
    void (*free)(tv_part *part); // frees part and what it owns
} tv_part_ops;

// Base of every part's struct.
struct tv_part {
    const tv_part_ops *ops;
    char name[48];     // prefix of its tensors: "block.0.attention"
    int64_t first;     // place of its first tensor in the table
    int64_t index;     // place among the parts
    const char *loss;  // the loss that begins here, as the config names it: "commitment"; NULL: none
    uint32_t loss_bit; // of a set of losses; 0: none, or it has no weight
};

// Declare tensor "<part's name>.<leaf>": *spec gives shape, scale type and flags; its name and part are filled in here.
tv_status tv_part_declare(const tv_part *part, tv_params *params, const char *leaf, const tv_tensor_spec *spec,
                          int64_t *index);
// Declare side state of the part: its name is the part's, its array's name is `leaf`; *spec gives the rest.
tv_status tv_part_declare_side(const tv_part *part, tv_params *params, const char *leaf, const tv_side_spec *spec,
                               int64_t *index);
// Where a part takes what its forward writes: `saved` when a backward follows, else `scratch`.
tv_arena *tv_plan_keep(tv_plan *plan);
// 1 when this pass is the one whose gradient the tensor's votes are of.
static inline int tv_unit_moves(const tv_unit *unit, const tv_param *param)
{
    return unit->losses_off == param->losses_off;
}

#endif
