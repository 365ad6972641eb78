#include "model/gated.h"

#include <stdio.h>

tv_status tv_gated_declare(tv_gated *gated, const tv_part *part, tv_params *params, const char *prefix,
                           const tv_config *config)
{
    char leaf[32];
    tv_scale_type type = (tv_scale_type)config->model.scale_type;
    tv_tensor_spec gate_up = {.rows = 2 * gated->hidden, .cols = config->model.width, .scale_type = type};
    tv_tensor_spec down = {.rows = config->model.width, .cols = gated->hidden, .scale_type = type, .residual = 1};
    snprintf(leaf, sizeof leaf, "%sgate_up", prefix);
    TV_TRY(tv_part_declare(part, params, leaf, &gate_up, &gated->gate_up.param));
    snprintf(leaf, sizeof leaf, "%sdown", prefix);
    return tv_part_declare(part, params, leaf, &down, &gated->down.param);
}

void tv_gated_widths(const tv_gated *gated, int64_t width, int64_t *inputs, int64_t *outputs)
{
    *inputs = width > gated->hidden ? width : gated->hidden;
    *outputs = width > 2 * gated->hidden ? width : 2 * gated->hidden;
}

void tv_gated_plan(tv_gated *gated, tv_plan *plan, const tv_linear_work *work)
{
    int64_t tokens = plan->tokens, hidden = gated->hidden;
    tv_operand_plan(&gated->inner, plan, hidden, work);
    gated->gu_q = NULL;
    if (plan->training) {
        gated->gu_q = tv_arena_take(&plan->saved, 2 * tokens * hidden, 1);
        gated->gu_scale = tv_arena_take(&plan->saved, 2 * tokens, sizeof(float));
        gated->dh = tv_arena_take(&plan->scratch, tokens * hidden, sizeof(float));
    }
    gated->gu = tv_arena_take(&plan->scratch, tokens * 2 * hidden, sizeof(float));
}

tv_status tv_gated_forward(tv_unit *unit, const tv_gated *gated, const tv_operand *input, float *y)
{
    TV_TRY(tv_linear_forward(unit, &gated->gate_up, input, gated->gu, 0));
    // Gate and up of a token are saved as two rows, so that a wide gate does not coarsen the up part.
    tv_gate_quantize_args gate = {.tokens = unit->tokens,
                                  .width = gated->hidden,
                                  .gu = gated->gu,
                                  .saved_q = unit->training ? gated->gu_q : NULL,
                                  .saved_scale = gated->gu_scale,
                                  .q = gated->inner.q,
                                  .scale = gated->inner.scale,
                                  .fault = unit->fault};
    TV_TRY(unit->backend->gate_quantize(&gate, unit->stream));
    return tv_linear_forward(unit, &gated->down, &gated->inner, y, 1);
}

tv_status tv_gated_backward(tv_unit *unit, tv_gated *gated, const tv_gated_gradient *gradient)
{
    const tv_linear_work *work = gradient->work;
    tv_linear_backward_args down = {
        .operand = &gated->inner, .work = work, .g = gradient->dy, .dx = gated->dh, .turn = 1};
    TV_TRY(tv_linear_backward(unit, &gated->down, &down));
    tv_gate_backward_both_args gate = {.tokens = unit->tokens,
                                       .width = gated->hidden,
                                       .saved_q = gated->gu_q,
                                       .saved_scale = gated->gu_scale,
                                       .dh = gated->dh,
                                       .dgu = gated->gu,
                                       .q = work->g,
                                       .scale = work->g_scale,
                                       .qt = work->gt,
                                       .sumsq = work->g_sumsq,
                                       .fault = unit->fault};
    TV_TRY(unit->backend->gate_backward_both(&gate, unit->stream));
    TV_TRY(tv_operand_transpose(unit, gradient->input));
    tv_linear_backward_args up = {.operand = gradient->input, .work = work, .dx = gradient->dx};
    return tv_linear_backward(unit, &gated->gate_up, &up);
}
