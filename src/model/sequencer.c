#include "model/sequencer.h"

#include <stdio.h>
#include <stdlib.h>

#include "model/linear.h"

typedef struct sequencer_part {
    tv_part base;
    int64_t width;
    tv_linear out;
    tv_operand operand; // [M, 3D]
    tv_linear_work work;
    float *joined; // [M, 3D] gradient of the three tokens side by side
} sequencer_part;

static tv_status sequencer_declare(tv_part *base, tv_params *params, const tv_config *config)
{
    sequencer_part *part = (sequencer_part *)base;
    part->width = config->model.width;
    tv_tensor_spec spec = {.rows = part->width,
                           .cols = 3 * part->width,
                           .scale_type = (tv_scale_type)config->model.scale_type,
                           .residual = 1};
    return tv_part_declare(base, params, "out", &spec, &part->out.param);
}

static tv_status sequencer_plan(tv_part *base, tv_plan *plan)
{
    sequencer_part *part = (sequencer_part *)base;
    tv_linear_work_plan(&part->work, plan, 3 * part->width, part->width, 0);
    tv_operand_plan(&part->operand, plan, 3 * part->width, &part->work);
    if (plan->training) {
        part->joined = tv_arena_take(&plan->scratch, plan->tokens * 3 * part->width, sizeof(float));
    }
    return TV_OK;
}

static tv_status sequencer_forward(tv_part *base, tv_unit *unit, float *x)
{
    sequencer_part *part = (sequencer_part *)base;
    tv_trigram_quantize_args args = {.tokens = unit->tokens,
                                     .channels = part->width,
                                     .context = unit->context,
                                     .x = x,
                                     .q = part->operand.q,
                                     .scale = part->operand.scale,
                                     .fault = unit->fault};
    TV_TRY(unit->backend->trigram_quantize(&args, unit->stream));
    return tv_linear_forward(unit, &part->out, &part->operand, x, 1);
}

static tv_status sequencer_backward(tv_part *base, tv_unit *unit, float *dx)
{
    sequencer_part *part = (sequencer_part *)base;
    TV_TRY(tv_operand_transpose(unit, &part->operand));
    tv_linear_backward_args out = {.operand = &part->operand, .work = &part->work, .g = dx, .dx = part->joined};
    TV_TRY(tv_linear_backward(unit, &part->out, &out));
    tv_trigram_args args = {
        .tokens = unit->tokens, .channels = part->width, .context = unit->context, .in = part->joined, .out = dx};
    return unit->backend->trigram_backward(&args, unit->stream);
}

static void sequencer_free(tv_part *base) { free(base); }

static const tv_part_ops sequencer_ops = {.kind = "sequencer",
                                          .declare = sequencer_declare,
                                          .plan = sequencer_plan,
                                          .forward = sequencer_forward,
                                          .backward = sequencer_backward,
                                          .free = sequencer_free};

tv_status tv_sequencer_create(tv_part **out)
{
    sequencer_part *part = calloc(1, sizeof *part);
    if (part == NULL) {
        return TV_FAIL(TV_MEMORY, "no memory for the sequencer");
    }
    part->base.ops = &sequencer_ops;
    snprintf(part->base.name, sizeof part->base.name, "sequencer");
    *out = &part->base;
    return TV_OK;
}
