#include "model/ffn.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/linear.h"
#include "model/norm.h"

typedef struct ffn_part {
    tv_part base;
    int64_t width, hidden; // D, F
    tv_norm norm;
    tv_linear gate_up, down;
    tv_operand input, inner; // norm(x) [M, D], h [M, F]
    int8_t *gu_q;            // [2M, F] gate and up of a token, one scale each; NULL when planned for evaluation
    float *gu_scale;         // [2M]
    tv_linear_work work;
    float *gu;     // [M, 2F] gate and up; backward: their gradient, where the backend wants room for it
    float *dh;     // [M, F] gradient of h
    float *normed; // [M, D] gradient of norm(x)
} ffn_part;

static tv_status ffn_declare(tv_part *base, tv_params *params, const tv_config *config)
{
    ffn_part *part = (ffn_part *)base;
    int64_t width = part->width = config->model.width, hidden = part->hidden = config->model.ffn;
    tv_scale_type type = (tv_scale_type)config->model.scale_type;
    tv_tensor_spec norm = {.cols = width, .scale_type = type};
    tv_tensor_spec gate_up = {.rows = 2 * hidden, .cols = width, .scale_type = type};
    tv_tensor_spec down = {.rows = width, .cols = hidden, .scale_type = type, .residual = 1};
    TV_TRY(tv_norm_declare(&part->norm, base, params, "norm", &norm));
    TV_TRY(tv_part_declare(base, params, "gate_up", &gate_up, &part->gate_up.param));
    return tv_part_declare(base, params, "down", &down, &part->down.param);
}

static tv_status ffn_plan(tv_part *base, tv_plan *plan)
{
    ffn_part *part = (ffn_part *)base;
    int64_t tokens = plan->tokens, width = part->width, hidden = part->hidden;
    int64_t inputs = width > hidden ? width : hidden, outputs = width > 2 * hidden ? width : 2 * hidden;
    tv_linear_work_plan(&part->work, plan, inputs, outputs, 0);
    tv_norm_plan(&part->norm, plan, 1);
    tv_operand_plan(&part->input, plan, width, &part->work);
    tv_operand_plan(&part->inner, plan, hidden, &part->work);
    if (plan->training) {
        part->gu_q = tv_arena_take(&plan->saved, 2 * tokens * hidden, 1);
        part->gu_scale = tv_arena_take(&plan->saved, 2 * tokens, sizeof(float));
        part->dh = tv_arena_take(&plan->scratch, tokens * hidden, sizeof(float));
        part->normed = tv_arena_take(&plan->scratch, tokens * width, sizeof(float));
    }
    part->gu = tv_arena_take(&plan->scratch, tokens * 2 * hidden, sizeof(float));
    return TV_OK;
}

static tv_status ffn_forward(tv_part *base, tv_unit *unit, float *x)
{
    ffn_part *part = (ffn_part *)base;
    TV_TRY(tv_norm_quantize(unit, &part->norm, x, &part->input));
    TV_TRY(tv_linear_forward(unit, &part->gate_up, &part->input, part->gu, 0));
    // Gate and up of a token are saved as two rows, so that a wide gate does not coarsen the up part.
    tv_gate_quantize_args gate = {.tokens = unit->tokens,
                                  .width = part->hidden,
                                  .gu = part->gu,
                                  .saved_q = unit->training ? part->gu_q : NULL,
                                  .saved_scale = part->gu_scale,
                                  .q = part->inner.q,
                                  .scale = part->inner.scale,
                                  .fault = unit->fault};
    TV_TRY(unit->backend->gate_quantize(&gate, unit->stream));
    return tv_linear_forward(unit, &part->down, &part->inner, x, 1);
}

static tv_status ffn_backward(tv_part *base, tv_unit *unit, float *dx)
{
    ffn_part *part = (ffn_part *)base;
    TV_TRY(tv_operand_transpose(unit, &part->inner));
    tv_linear_backward_args down = {.operand = &part->inner, .work = &part->work, .g = dx, .dx = part->dh};
    TV_TRY(tv_linear_backward(unit, &part->down, &down));
    tv_gate_backward_both_args gate = {.tokens = unit->tokens,
                                       .width = part->hidden,
                                       .saved_q = part->gu_q,
                                       .saved_scale = part->gu_scale,
                                       .dh = part->dh,
                                       .dgu = part->gu,
                                       .q = part->work.g,
                                       .scale = part->work.g_scale,
                                       .qt = part->work.gt,
                                       .sumsq = part->work.g_sumsq,
                                       .fault = unit->fault};
    TV_TRY(unit->backend->gate_backward_both(&gate, unit->stream));
    TV_TRY(tv_operand_transpose(unit, &part->input));
    tv_linear_backward_args up = {.operand = &part->input, .work = &part->work, .dx = part->normed};
    TV_TRY(tv_linear_backward(unit, &part->gate_up, &up));
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
