#include "model/ffn.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/gated.h"
#include "model/norm.h"

typedef struct ffn_part {
    tv_part base;
    int64_t width; // D
    tv_norm norm;
    tv_gated gated;
    tv_operand input; // norm(x) [M, D]
    tv_linear_work work;
    float *normed; // [M, D] gradient of norm(x)
} ffn_part;

static tv_status ffn_declare(tv_part *base, tv_params *params, const tv_config *config)
{
    ffn_part *part = (ffn_part *)base;
    part->width = config->model.width;
    part->gated.hidden = config->model.ffn;
    tv_tensor_spec norm = {.cols = part->width, .scale_type = (tv_scale_type)config->model.scale_type};
    TV_TRY(tv_norm_declare(&part->norm, base, params, "norm", &norm));
    return tv_gated_declare(&part->gated, base, params, "", config);
}

static tv_status ffn_plan(tv_part *base, tv_plan *plan)
{
    ffn_part *part = (ffn_part *)base;
    int64_t inputs, outputs;
    tv_gated_widths(&part->gated, part->width, &inputs, &outputs);
    tv_linear_work_plan(&part->work, plan, inputs, outputs, 0);
    tv_norm_plan(&part->norm, plan, 1);
    tv_operand_plan(&part->input, plan, part->width, &part->work);
    tv_gated_plan(&part->gated, plan, &part->work);
    if (plan->training)
        part->normed = tv_arena_take(&plan->scratch, plan->tokens * part->width, sizeof(float));
    return TV_OK;
}

static tv_status ffn_forward(tv_part *base, tv_unit *unit, float *x)
{
    ffn_part *part = (ffn_part *)base;
    TV_TRY(tv_norm_quantize(unit, &part->norm, x, &part->input));
    return tv_gated_forward(unit, &part->gated, &part->input, x);
}

static tv_status ffn_backward(tv_part *base, tv_unit *unit, float *dx)
{
    ffn_part *part = (ffn_part *)base;
    tv_gated_gradient gated = {.input = &part->input, .work = &part->work, .dy = dx, .dx = part->normed};
    TV_TRY(tv_gated_backward(unit, &part->gated, &gated));
    tv_norm_gradient norm = {.rows = unit->tokens, .dy = part->normed, .dx = dx, .accumulate = 1};
    return tv_norm_backward(unit, &part->norm, &norm);
}

static void ffn_free(tv_part *base) { free(base); }

static const tv_part_ops ffn_ops = {.kind = "ffn",
                                    .declare = ffn_declare,
                                    .plan = ffn_plan,
                                    .forward = ffn_forward,
                                    .backward = ffn_backward,
                                    .free = ffn_free};

tv_status tv_ffn_create(int64_t block, tv_part **out)
{
    ffn_part *part = calloc(1, sizeof *part);
    if (part == NULL) {
        return TV_FAIL(TV_MEMORY, "no memory for a feed-forward part");
    }
    part->base.ops = &ffn_ops;
    snprintf(part->base.name, sizeof part->base.name, "block.%" PRId64 ".ffn", block);
    *out = &part->base;
    return TV_OK;
}
