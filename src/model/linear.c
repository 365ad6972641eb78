#include "model/linear.h"

#include <string.h>

enum { QMAX = 127 };

void tv_linear_work_plan(tv_linear_work *work, tv_plan *plan, int64_t inputs, int64_t outputs, int two_digits)
{
    memset(work, 0, sizeof *work);
    if (!plan->training) {
        return;
    }
    int64_t tokens = plan->tokens;
    work->g = tv_arena_take(&plan->scratch, tokens * outputs, 1);
    work->g_scale = tv_arena_take(&plan->scratch, tokens, sizeof(float));
    if (two_digits) {
        work->gt = work->g;
        work->g_lo = tv_arena_take(&plan->scratch, tokens * outputs, 1);
        work->g_sumsq2 = tv_arena_take(&plan->scratch, outputs, sizeof(int64_t));
    } else {
        work->gt = tv_arena_take(&plan->scratch, tokens * outputs, 1);
        work->g_sumsq = tv_arena_take(&plan->scratch, outputs, sizeof(int32_t));
    }
    work->xt = tv_arena_take(&plan->scratch, tokens * inputs, 1);
    work->x_sumsq = tv_arena_take(&plan->scratch, inputs, sizeof(int32_t));
}

void tv_operand_plan(tv_operand *operand, tv_plan *plan, int64_t cols, const tv_linear_work *work)
{
    tv_arena *arena = tv_plan_keep(plan);
    operand->cols = cols;
    operand->q = tv_arena_take(arena, plan->tokens * cols, 1);
    operand->scale = tv_arena_take(arena, plan->tokens, sizeof(float));
    operand->qt = work->xt;
    operand->sumsq = work->x_sumsq;
}

tv_quantize_rows_args tv_operand_rows(const tv_unit *unit, const tv_operand *operand, const float *x)
{
    return (tv_quantize_rows_args){.rows = unit->tokens,
                                   .cols = operand->cols,
                                   .qmax = QMAX,
                                   .x = x,
                                   .q = operand->q,
                                   .scale = operand->scale,
                                   .fault = unit->fault};
}

tv_status tv_operand_quantize(tv_unit *unit, tv_operand *operand, const float *x)
{
    tv_quantize_rows_args args = tv_operand_rows(unit, operand, x);
    return unit->backend->quantize_rows(&args, unit->stream);
}

static tv_quantize_channels_args operand_channels(const tv_unit *unit, const tv_operand *operand)
{
    return (tv_quantize_channels_args){.tokens = unit->tokens,
                                       .channels = operand->cols,
                                       .q = operand->q,
                                       .scale = operand->scale,
                                       .qt = operand->qt,
                                       .sumsq = operand->sumsq,
                                       .fault = unit->fault};
}

tv_status tv_operand_transpose(tv_unit *unit, const tv_operand *operand)
{
    tv_quantize_channels_args args = operand_channels(unit, operand);
    return unit->backend->quantize_channels(&args, unit->stream);
}

tv_gemm_args tv_linear_product(const tv_unit *unit, const tv_linear *linear, const tv_operand *operand, float *y)
{
    const tv_param *param = &unit->params->items[linear->param];
    return (tv_gemm_args){.m = unit->tokens,
                          .n = param->spec.rows,
                          .reduce = param->spec.cols,
                          .a = operand->q,
                          .b = param->w8,
                          .scale = operand->scale,
                          .exponent = param->base + linear->exponent,
                          .y = y};
}

tv_status tv_linear_forward(tv_unit *unit, const tv_linear *linear, const tv_operand *operand, float *y, int accumulate)
{
    tv_gemm_args args = tv_linear_product(unit, linear, operand, y);
    args.accumulate = accumulate;
    return unit->backend->gemm(&args, unit->stream);
}

tv_vote_rule tv_unit_vote_rule(const tv_unit *unit, const tv_param *param)
{
    return (tv_vote_rule){.tau = unit->tau,
                          .levels = unit->levels,
                          .vote_bits = unit->params->vote_bits,
                          .seed = unit->seed,
                          .tensor_id = param->id,
                          .step = unit->step,
                          .unit = unit->index};
}

// Both forms of a gradient of one digit, and the operand's channels where they are wanted.
static tv_status turn_operands(tv_unit *unit, const tv_param *param, const tv_linear_backward_args *in)
{
    const tv_linear_work *work = in->work;
    tv_linear_turn_args both = {.gradient = {.tokens = unit->tokens,
                                             .channels = param->spec.rows,
                                             .x = in->g,
                                             .q = work->g,
                                             .scale = work->g_scale,
                                             .qt = work->gt,
                                             .sumsq = work->g_sumsq,
                                             .fault = unit->fault}};
    int quantize = in->g != NULL && work->g_lo == NULL;
    if (!in->turn) {
        return quantize ? unit->backend->quantize_both(&both.gradient, unit->stream) : TV_OK;
    }
    if (!quantize) {
        return tv_operand_transpose(unit, in->operand);
    }
    both.input = operand_channels(unit, in->operand);
    return tv_linear_turn(unit->backend, &both, unit->stream);
}

static tv_status quantize_gradient_rows2(tv_unit *unit, const tv_linear_work *work, const float *g, int64_t outputs)
{
    tv_quantize_rows2_args args = {.rows = unit->tokens,
                                   .cols = outputs,
                                   .x = g,
                                   .hi = work->g,
                                   .lo = work->g_lo,
                                   .scale = work->g_scale,
                                   .fault = unit->fault};
    return unit->backend->quantize_rows2(&args, unit->stream);
}

static tv_gemm_args product_of_gradient(const tv_unit *unit, const tv_linear *linear, const tv_linear_backward_args *in)
{
    const tv_param *param = &unit->params->items[linear->param];
    const tv_linear_work *work = in->work;
    return (tv_gemm_args){.m = unit->tokens,
                          .n = param->spec.cols,
                          .reduce = param->spec.rows,
                          .a = work->g,
                          .a_lo = work->g_lo,
                          .b = param->w8t,
                          .scale = work->g_scale,
                          .exponent = param->base + linear->exponent,
                          .accumulate = in->accumulate,
                          .y = in->dx};
}

static tv_status quantize_gradient_channels2(tv_unit *unit, const tv_linear_work *work, const float *g, int64_t outputs)
{
    tv_quantize_channels2_args args = {.tokens = unit->tokens,
                                       .channels = outputs,
                                       .x = g,
                                       .hi = work->gt,
                                       .lo = work->g_lo,
                                       .sumsq = work->g_sumsq2,
                                       .fault = unit->fault};
    return unit->backend->quantize_channels2(&args, unit->stream);
}

static tv_gemm_vote_args product_of_votes(const tv_unit *unit, const tv_param *param, const tv_linear_backward_args *in)
{
    const tv_linear_work *work = in->work;
    return (tv_gemm_vote_args){.n = param->spec.rows,
                               .k = param->spec.cols,
                               .tokens = unit->tokens,
                               .gt = work->gt,
                               .gt_lo = work->g_lo,
                               .xt = in->operand->qt,
                               .g_sumsq = work->g_sumsq,
                               .g_sumsq2 = work->g_sumsq2,
                               .x_sumsq = in->operand->sumsq,
                               .rule = tv_unit_vote_rule(unit, param),
                               .votes = param->votes};
}

tv_status tv_linear_backward(tv_unit *unit, const tv_linear *linear, const tv_linear_backward_args *args)
{
    const tv_param *param = &unit->params->items[linear->param];
    int two_digits = args->work->g_lo != NULL;
    int votes = param->votes != NULL && !args->silent && tv_unit_moves(unit, param);
    TV_TRY(turn_operands(unit, param, args));
    if (args->dx != NULL && two_digits)
        TV_TRY(quantize_gradient_rows2(unit, args->work, args->g, param->spec.rows));
    if (args->dx != NULL) {
        tv_gemm_args product = product_of_gradient(unit, linear, args);
        TV_TRY(unit->backend->gemm(&product, unit->stream));
    }
    if (!votes)
        return TV_OK;
    if (two_digits)
        TV_TRY(quantize_gradient_channels2(unit, args->work, args->g, param->spec.rows));
    tv_gemm_vote_args product = product_of_votes(unit, param, args);
    return unit->backend->gemm_vote(&product, unit->stream);
}
