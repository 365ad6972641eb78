#include "model/norm.h"

tv_status tv_norm_declare(tv_norm *norm, const tv_part *part, tv_params *params, const char *leaf,
                          const tv_tensor_spec *like)
{
    tv_tensor_spec spec = *like;
    spec.rows = 1;
    spec.residual = spec.lookup = 0;
    spec.ones = spec.frozen = 1;
    norm->cols = spec.cols;
    return tv_part_declare(part, params, leaf, &spec, &norm->param);
}

void tv_norm_plan(tv_norm *norm, tv_plan *plan, int64_t rows_per_token)
{
    norm->saved_q = NULL;
    norm->saved_scale = norm->saved_rstd = NULL;
    if (!plan->training) {
        return;
    }
    int64_t rows = plan->tokens * rows_per_token;
    norm->saved_q = tv_arena_take(&plan->saved, rows * norm->cols, 1);
    norm->saved_scale = tv_arena_take(&plan->saved, rows, sizeof(float));
    norm->saved_rstd = tv_arena_take(&plan->saved, rows, sizeof(float));
}

tv_status tv_norm_quantize(tv_unit *unit, const tv_norm *norm, const float *x, tv_operand *operand)
{
    const tv_param *param = &unit->params->items[norm->param];
    tv_norm_quantize_args args = {.rows = unit->tokens,
                                  .cols = norm->cols,
                                  .x = x,
                                  .w8 = param->w8,
                                  .exponent = param->base,
                                  .saved_q = unit->training ? norm->saved_q : NULL,
                                  .saved_scale = norm->saved_scale,
                                  .saved_rstd = norm->saved_rstd,
                                  .q = operand->q,
                                  .scale = operand->scale,
                                  .fault = unit->fault};
    return unit->backend->norm_quantize(&args, unit->stream);
}

tv_norm_args tv_norm_forward_op(const tv_unit *unit, const tv_norm *norm, int64_t rows, const float *x, float *y)
{
    const tv_param *param = &unit->params->items[norm->param];
    return (tv_norm_args){.rows = rows,
                          .cols = norm->cols,
                          .x = x,
                          .w8 = param->w8,
                          .exponent = param->base,
                          .y = y,
                          .saved_q = unit->training ? norm->saved_q : NULL,
                          .saved_scale = norm->saved_scale,
                          .saved_rstd = norm->saved_rstd,
                          .fault = unit->fault};
}

tv_status tv_norm_forward(tv_unit *unit, const tv_norm *norm, int64_t rows, const float *x, float *y)
{
    tv_norm_args args = tv_norm_forward_op(unit, norm, rows, x, y);
    return unit->backend->norm(&args, unit->stream);
}

tv_norm_backward_args tv_norm_backward_op(const tv_unit *unit, const tv_norm *norm, const tv_norm_gradient *gradient)
{
    const tv_param *param = &unit->params->items[norm->param];
    return (tv_norm_backward_args){.rows = gradient->rows,
                                   .cols = norm->cols,
                                   .dy = gradient->dy,
                                   .w8 = param->w8,
                                   .exponent = param->base,
                                   .accumulate = gradient->accumulate,
                                   .saved_q = norm->saved_q,
                                   .saved_scale = norm->saved_scale,
                                   .saved_rstd = norm->saved_rstd,
                                   .dx = gradient->dx};
}

tv_status tv_norm_backward(tv_unit *unit, const tv_norm *norm, const tv_norm_gradient *gradient)
{
    tv_norm_backward_args args = tv_norm_backward_op(unit, norm, gradient);
    return unit->backend->norm_backward(&args, unit->stream);
}
