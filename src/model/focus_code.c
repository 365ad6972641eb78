#include "model/focus_code.h"

tv_status tv_focus_code_declare(tv_focus_code *code, const tv_part *part, tv_params *params, const tv_config *config)
{
    int64_t d = config->codebook.width, n = code->cell = config->focus.width;
    tv_scale_type type = (tv_scale_type)config->model.scale_type;
    tv_tensor_spec query = {.rows = d, .cols = n, .scale_type = type};
    tv_tensor_spec up = {.rows = config->model.width, .cols = d, .scale_type = type, .residual = 1};
    code->rows = config->focus.codebook_rows;
    if (code->rows == 0)
        return TV_OK;
    TV_TRY(tv_norm_declare(&code->norm, part, params, "norm", &query));
    TV_TRY(tv_part_declare(part, params, "query", &query, &code->query.param));
    TV_TRY(tv_vq_declare(&code->vq, part, params, config, code->rows));
    return tv_part_declare(part, params, "code_up", &up, &code->up.param);
}

tv_status tv_focus_code_plan(tv_focus_code *code, tv_plan *plan, const tv_linear_work *work)
{
    int64_t values = plan->tokens * code->vq.cols;
    code->slow = code->slow_grad = NULL;
    if (code->rows == 0)
        return TV_OK;
    TV_TRY(tv_vq_plan(&code->vq, plan));
    tv_norm_plan(&code->norm, plan, 1);
    tv_operand_plan(&code->state, plan, code->cell, work);
    code->row = (tv_operand){
        .cols = code->vq.cols, .q = code->vq.w8, .scale = code->vq.row_scale, .qt = work->xt, .sumsq = work->x_sumsq};
    code->work = work;
    code->slow = tv_arena_take(&plan->scratch, plan->tokens * code->cell, sizeof(float));
    code->z = tv_arena_take(&plan->scratch, values, sizeof(float));
    if (!plan->training)
        return TV_OK;
    code->slow_grad = tv_arena_take(&plan->scratch, plan->tokens * code->cell, sizeof(float));
    code->normed = tv_arena_take(&plan->scratch, plan->tokens * code->cell, sizeof(float));
    code->row_grad = tv_arena_take(&plan->scratch, values, sizeof(float));
    code->z_grad = tv_arena_take(&plan->scratch, values, sizeof(float));
    return TV_OK;
}

tv_status tv_focus_code_forward(tv_focus_code *code, tv_unit *unit, float *y)
{
    TV_TRY(tv_norm_quantize(unit, &code->norm, code->slow, &code->state));
    TV_TRY(tv_linear_forward(unit, &code->query, &code->state, code->z, 0));
    TV_TRY(tv_vq_forward(&code->vq, unit, code->z));
    return tv_linear_forward(unit, &code->up, &code->row, y, 1);
}

tv_status tv_focus_code_backward(tv_focus_code *code, tv_unit *unit, const float *dy)
{
    TV_TRY(tv_operand_transpose(unit, &code->row));
    tv_linear_backward_args up = {.operand = &code->row, .work = code->work, .g = dy, .dx = code->row_grad};
    TV_TRY(tv_linear_backward(unit, &code->up, &up));
    TV_TRY(tv_vq_backward(&code->vq, unit, code->row_grad, code->z_grad));
    TV_TRY(tv_operand_transpose(unit, &code->state));
    tv_linear_backward_args query = {
        .operand = &code->state, .work = code->work, .g = code->z_grad, .dx = code->normed};
    TV_TRY(tv_linear_backward(unit, &code->query, &query));
    tv_norm_gradient norm = {.rows = unit->tokens, .dy = code->normed, .dx = code->slow_grad};
    return tv_norm_backward(unit, &code->norm, &norm);
}
