#include "model/modality.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "comm/comm.h"
#include "model/linear.h"
#include "model/norm.h"

// Sums of a step over all ranks.
enum { VOTE, FRAMES, SUMS };

typedef struct modality_part {
    tv_part base;
    tv_modality modality;
    int64_t width, features, frames; // D, F, of an item
    int64_t rows;                    // most feature positions of a unit
    tv_norm norm;                    // nothing goes back through it, so it saves nothing
    tv_linear proj;
    tv_operand input; // norm(feature) [rows, F]
    tv_linear_work work;
    float *y;      // [rows, D] kept
    float *dy;     // [rows, D]
    float *dot;    // [rows]
    int64_t gate;  // side state
    int32_t *vote; // [1] of this rank's units
    int64_t frames_run;
    int8_t told; // the gate after the last step
    int64_t sums[SUMS];
} modality_part;

int64_t tv_modality_width(const tv_config *config, tv_modality modality)
{
    return modality == TV_IMAGE ? config->modality.image_width : config->modality.audio_width;
}

int64_t tv_modality_frames(const tv_config *config, tv_modality modality)
{
    return modality == TV_IMAGE ? config->modality.image_frames : config->modality.audio_frames;
}

const char *tv_modality_name(tv_modality modality) { return modality == TV_IMAGE ? "image" : "audio"; }

static tv_status modality_declare(tv_part *base, tv_params *params, const tv_config *config)
{
    modality_part *part = (modality_part *)base;
    part->width = config->model.width;
    part->features = tv_modality_width(config, part->modality);
    part->frames = tv_modality_frames(config, part->modality);
    tv_tensor_spec proj = {.rows = part->width,
                           .cols = part->features,
                           .scale_type = (tv_scale_type)config->model.scale_type,
                           .residual = 1};
    tv_side_spec gate = {.group = "modality", .dtype = TV_I8, .rows = 1, .cols = 1};
    TV_TRY(tv_norm_declare(&part->norm, base, params, "norm", &proj));
    TV_TRY(tv_part_declare(base, params, "proj", &proj, &part->proj.param));
    return tv_part_declare_side(base, params, "gate", &gate, &part->gate);
}

static tv_status modality_plan(tv_part *base, tv_plan *plan)
{
    modality_part *part = (modality_part *)base;
    int64_t tokens = plan->tokens;
    part->rows = tv_ceil_div(tokens, plan->context) * part->frames;
    plan->tokens = part->rows; // the layer's inputs are features, not tokens
    tv_linear_work_plan(&part->work, plan, part->features, part->width, 0);
    tv_operand_plan(&part->input, plan, part->features, &part->work);
    plan->tokens = tokens;
    part->y = tv_arena_take(tv_plan_keep(plan), part->rows * part->width, sizeof(float));
    if (!plan->training)
        return TV_OK;
    part->vote = tv_arena_take(&plan->saved, 1, sizeof(int32_t));
    part->dy = tv_arena_take(&plan->scratch, part->rows * part->width, sizeof(float));
    part->dot = tv_arena_take(&plan->scratch, part->rows, sizeof(float));
    return TV_OK;
}

// The unit whose tokens are the features.
static tv_unit unit_of_features(const tv_unit *unit, const tv_unit_features *features)
{
    tv_unit rows = *unit;
    rows.tokens = features->count;
    return rows;
}

static const int8_t *gate_of(const modality_part *part, const tv_unit *unit)
{
    return unit->params->sides[part->gate].data;
}

static tv_status modality_forward(tv_part *base, tv_unit *unit, float *x)
{
    modality_part *part = (modality_part *)base;
    const tv_unit_features *features = &unit->features[part->modality];
    if (features->count == 0)
        return TV_OK;
    if (features->count > part->rows)
        return TV_FAIL(TV_INTERNAL, "%" PRId64 " features do not fit a plan for %" PRId64, features->count, part->rows);
    tv_unit rows = unit_of_features(unit, features);
    TV_TRY(tv_norm_quantize(&rows, &part->norm, features->rows, &part->input));
    TV_TRY(tv_linear_forward(&rows, &part->proj, &part->input, part->y, 0));
    tv_modality_add_args add = {.rows = features->count,
                                .width = part->width,
                                .gate = gate_of(part, unit),
                                .at = features->at,
                                .y = part->y,
                                .x = x};
    return unit->backend->modality.add(&add, unit->stream);
}

// The gradient of x passes unchanged.
static tv_status modality_backward(tv_part *base, tv_unit *unit, float *dx)
{
    modality_part *part = (modality_part *)base;
    const tv_unit_features *features = &unit->features[part->modality];
    part->frames_run += features->count;
    if (features->count == 0)
        return TV_OK;
    tv_unit rows = unit_of_features(unit, features);
    tv_modality_back_args back = {.rows = features->count,
                                  .width = part->width,
                                  .tau = unit->tau,
                                  .gate = gate_of(part, unit),
                                  .at = features->at,
                                  .y = part->y,
                                  .dx = dx,
                                  .dy = part->dy,
                                  .dot = part->dot,
                                  .vote = part->vote};
    TV_TRY(unit->backend->modality.back(&back, unit->stream));
    TV_TRY(tv_operand_transpose(&rows, &part->input));
    tv_linear_backward_args proj = {.operand = &part->input, .work = &part->work, .g = part->dy};
    return tv_linear_backward(&rows, &part->proj, &proj);
}

static tv_status modality_before_step(tv_part *base, tv_unit *unit)
{
    modality_part *part = (modality_part *)base;
    part->frames_run = 0;
    return unit->backend->zero(part->vote, sizeof *part->vote, unit->stream);
}

static tv_status modality_after_step(tv_part *base, tv_unit *unit)
{
    modality_part *part = (modality_part *)base;
    const tv_backend *backend = unit->backend;
    void *gate = unit->params->sides[part->gate].data;
    int32_t vote = 0;
    TV_TRY(backend->copy(&vote, part->vote, sizeof vote, TV_COPY_TO_HOST, unit->stream));
    TV_TRY(backend->copy(&part->told, gate, sizeof part->told, TV_COPY_TO_HOST, unit->stream));
    part->sums[VOTE] = vote;
    part->sums[FRAMES] = part->frames_run;
    if (unit->comm != NULL)
        TV_TRY(tv_comm_sum_i64(unit->comm, part->sums, SUMS, TV_WIRE_METRICS));
    int moved = part->told - (part->sums[VOTE] > 0) + (part->sums[VOTE] < 0);
    part->told = (int8_t)(moved > INT8_MAX ? INT8_MAX : moved < INT8_MIN ? INT8_MIN : moved);
    return backend->copy(gate, &part->told, sizeof part->told, TV_COPY_TO_DEVICE, unit->stream);
}

static void modality_tell(const tv_part *base, tv_figures *figures)
{
    const modality_part *part = (const modality_part *)base;
    tv_figures_add(figures, "gate", (part->told + 128) / 256.0);
    tv_figures_add(figures, "gate_votes", (double)part->sums[VOTE]);
    tv_figures_add(figures, "frames", (double)part->sums[FRAMES]);
}

static void modality_free(tv_part *base) { free(base); }

tv_status tv_modality_create(tv_modality modality, tv_part **out)
{
    static const tv_part_ops ops = {.kind = "modality",
                                    .declare = modality_declare,
                                    .plan = modality_plan,
                                    .forward = modality_forward,
                                    .backward = modality_backward,
                                    .before_step = modality_before_step,
                                    .after_step = modality_after_step,
                                    .tell = modality_tell,
                                    .free = modality_free};
    modality_part *part = calloc(1, sizeof *part);
    if (part == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for the part %s", tv_modality_name(modality));
    part->base.ops = &ops;
    part->modality = modality;
    snprintf(part->base.name, sizeof part->base.name, "%s", tv_modality_name(modality));
    *out = &part->base;
    return TV_OK;
}
