#include "model/attention.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/linear.h"
#include "model/norm.h"

// q, k or v in int8, one scale a (token, head).
typedef struct heads8 {
    int8_t *q;    // [M, H, d]
    float *scale; // [M, H]
} heads8;

typedef struct attention_part {
    tv_part base;
    int64_t width, heads, head_width, latent_width; // D, H, d, r (0: plain)
    tv_norm norm, q_norm, k_norm;
    tv_linear q, k, v, out, down;    // k, v read the latent when there is one
    tv_operand input, latent, mixed; // norm(x) [M, D], latent [M, r], attention's output [M, D]
    heads8 q8, k8, v8;
    float *top, *sum; // [M, H] softmax rows; NULL when planned for evaluation
    const float *cos_table, *sin_table;
    // scratch
    tv_linear_work work;
    float *normed;       // [M, D] forward: attention's output; backward: its gradient, then that of norm(x)
    float *flat;         // [M, D] forward: q, k, v as the products give them
    float *low;          // [M, r] latent or its gradient
    heads8 g8;           // gradient of attention's output
    float *dq, *dk, *dv; // [M, D]
} attention_part;

static tv_status attention_declare(tv_part *base, tv_params *params, const tv_config *config)
{
    attention_part *part = (attention_part *)base;
    int64_t width = part->width = config->model.width, latent = part->latent_width = config->model.latent_kv;
    part->heads = config->model.heads;
    part->head_width = width / part->heads;
    tv_scale_type type = (tv_scale_type)config->model.scale_type;
    tv_tensor_spec square = {.rows = width, .cols = width, .scale_type = type};
    tv_tensor_spec head = {.cols = part->head_width, .scale_type = type};
    TV_TRY(tv_norm_declare(&part->norm, base, params, "norm", &square));
    TV_TRY(tv_part_declare(base, params, "q", &square, &part->q.param));
    if (latent > 0) {
        tv_tensor_spec down = {.rows = latent, .cols = width, .scale_type = type};
        tv_tensor_spec up = {.rows = width, .cols = latent, .scale_type = type};
        TV_TRY(tv_part_declare(base, params, "down", &down, &part->down.param));
        TV_TRY(tv_part_declare(base, params, "k_up", &up, &part->k.param));
        TV_TRY(tv_part_declare(base, params, "v_up", &up, &part->v.param));
    } else {
        TV_TRY(tv_part_declare(base, params, "k", &square, &part->k.param));
        TV_TRY(tv_part_declare(base, params, "v", &square, &part->v.param));
    }
    TV_TRY(tv_norm_declare(&part->q_norm, base, params, "q_norm", &head));
    TV_TRY(tv_norm_declare(&part->k_norm, base, params, "k_norm", &head));
    square.residual = 1;
    return tv_part_declare(base, params, "out", &square, &part->out.param);
}

static void plan_heads(const attention_part *part, heads8 *heads, tv_arena *arena, int64_t tokens)
{
    heads->q = tv_arena_take(arena, tokens * part->width, 1);
    heads->scale = tv_arena_take(arena, tokens * part->heads, sizeof(float));
}

static void plan_kept(attention_part *part, tv_plan *plan)
{
    tv_norm_plan(&part->norm, plan, 1);
    tv_norm_plan(&part->q_norm, plan, part->heads);
    tv_norm_plan(&part->k_norm, plan, part->heads);
    tv_operand_plan(&part->input, plan, part->width, &part->work);
    tv_operand_plan(&part->mixed, plan, part->width, &part->work);
    if (part->latent_width > 0) {
        tv_operand_plan(&part->latent, plan, part->latent_width, &part->work);
    }
    tv_arena *keep = tv_plan_keep(plan);
    plan_heads(part, &part->q8, keep, plan->tokens);
    plan_heads(part, &part->k8, keep, plan->tokens);
    plan_heads(part, &part->v8, keep, plan->tokens);
    if (plan->training) {
        part->top = tv_arena_take(&plan->saved, plan->tokens * part->heads, sizeof(float));
        part->sum = tv_arena_take(&plan->saved, plan->tokens * part->heads, sizeof(float));
    }
}

static tv_status attention_plan(tv_part *base, tv_plan *plan)
{
    attention_part *part = (attention_part *)base;
    int64_t values = plan->tokens * part->width;
    int64_t widest = part->width > part->latent_width ? part->width : part->latent_width;
    TV_TRY(tv_rotary_plan(plan, part->head_width));
    part->cos_table = plan->rotary_cos;
    part->sin_table = plan->rotary_sin;
    tv_linear_work_plan(&part->work, plan, widest, widest, 0);
    plan_kept(part, plan);
    part->normed = tv_arena_take(&plan->scratch, values, sizeof(float));
    part->low = tv_arena_take(&plan->scratch, plan->tokens * part->latent_width, sizeof(float));
    // From here on forward and backward use the same memory for different things.
    size_t mark = tv_arena_mark(&plan->scratch);
    part->flat = tv_arena_take(&plan->scratch, values, sizeof(float));
    if (plan->training) {
        tv_arena_reset(&plan->scratch, mark);
        plan_heads(part, &part->g8, &plan->scratch, plan->tokens);
        part->dq = tv_arena_take(&plan->scratch, values, sizeof(float));
        part->dk = tv_arena_take(&plan->scratch, values, sizeof(float));
        part->dv = tv_arena_take(&plan->scratch, values, sizeof(float));
    }
    return TV_OK;
}

static tv_status quantize_heads(const attention_part *part, tv_unit *unit, const float *x, const heads8 *heads)
{
    tv_quantize_rows_args args = {.rows = unit->tokens * part->heads,
                                  .cols = part->head_width,
                                  .qmax = 127,
                                  .x = x,
                                  .q = heads->q,
                                  .scale = heads->scale,
                                  .fault = unit->fault};
    return unit->backend->quantize_rows(&args, unit->stream);
}

// A query or key: lin, norm a head, positions, int8.
static tv_status project_turned(attention_part *part, tv_unit *unit, const tv_linear *linear, const tv_norm *norm,
                                const heads8 *to)
{
    const tv_operand *from = linear != &part->q && part->latent_width > 0 ? &part->latent : &part->input;
    const tv_param *param = &unit->params->items[norm->param];
    TV_TRY(tv_linear_forward(unit, linear, from, part->flat, 0));
    tv_heads_args args = {.tokens = unit->tokens,
                          .heads = part->heads,
                          .width = part->head_width,
                          .context = unit->context,
                          .x = part->flat,
                          .w8 = param->w8,
                          .exponent = param->base,
                          .cos_table = part->cos_table,
                          .sin_table = part->sin_table,
                          .saved_q = unit->training ? norm->saved_q : NULL,
                          .saved_scale = norm->saved_scale,
                          .saved_rstd = norm->saved_rstd,
                          .q = to->q,
                          .scale = to->scale,
                          .fault = unit->fault};
    return unit->backend->heads(&args, unit->stream);
}

static tv_status attention_forward(tv_part *base, tv_unit *unit, float *x)
{
    attention_part *part = (attention_part *)base;
    const tv_operand *from = part->latent_width > 0 ? &part->latent : &part->input;
    TV_TRY(tv_norm_quantize(unit, &part->norm, x, &part->input));
    if (part->latent_width > 0) {
        TV_TRY(tv_linear_forward(unit, &part->down, &part->input, part->low, 0));
        TV_TRY(tv_operand_quantize(unit, &part->latent, part->low));
    }
    TV_TRY(project_turned(part, unit, &part->q, &part->q_norm, &part->q8));
    TV_TRY(project_turned(part, unit, &part->k, &part->k_norm, &part->k8));
    TV_TRY(tv_linear_forward(unit, &part->v, from, part->flat, 0));
    TV_TRY(quantize_heads(part, unit, part->flat, &part->v8));
    tv_attention_args args = {.tokens = unit->tokens,
                              .heads = part->heads,
                              .width = part->head_width,
                              .context = unit->context,
                              .q = part->q8.q,
                              .k = part->k8.q,
                              .v = part->v8.q,
                              .q_scale = part->q8.scale,
                              .k_scale = part->k8.scale,
                              .v_scale = part->v8.scale,
                              .out = part->normed,
                              .top = unit->training ? part->top : NULL,
                              .norm = unit->training ? part->sum : NULL};
    TV_TRY(unit->backend->attention(&args, unit->stream));
    TV_TRY(tv_operand_quantize(unit, &part->mixed, part->normed));
    return tv_linear_forward(unit, &part->out, &part->mixed, x, 1);
}

// Backward of project_turned's norm and positions, in place.
static tv_status turn_back(const attention_part *part, tv_unit *unit, const tv_norm *norm, float *dx)
{
    const tv_param *param = &unit->params->items[norm->param];
    tv_heads_backward_args args = {.tokens = unit->tokens,
                                   .heads = part->heads,
                                   .width = part->head_width,
                                   .context = unit->context,
                                   .w8 = param->w8,
                                   .exponent = param->base,
                                   .cos_table = part->cos_table,
                                   .sin_table = part->sin_table,
                                   .saved_q = norm->saved_q,
                                   .saved_scale = norm->saved_scale,
                                   .saved_rstd = norm->saved_rstd,
                                   .dx = dx};
    return unit->backend->heads_backward(&args, unit->stream);
}

// dq, dk, dv of the three projections' outputs, from the gradient of x after the part.
static tv_status backward_through_heads(attention_part *part, tv_unit *unit, const float *dx)
{
    TV_TRY(tv_operand_transpose(unit, &part->mixed));
    tv_linear_backward_args out = {.operand = &part->mixed, .work = &part->work, .g = dx, .dx = part->normed};
    TV_TRY(tv_linear_backward(unit, &part->out, &out));
    TV_TRY(quantize_heads(part, unit, part->normed, &part->g8));
    tv_attention_backward_args args = {.tokens = unit->tokens,
                                       .heads = part->heads,
                                       .width = part->head_width,
                                       .context = unit->context,
                                       .q = part->q8.q,
                                       .k = part->k8.q,
                                       .v = part->v8.q,
                                       .g = part->g8.q,
                                       .q_scale = part->q8.scale,
                                       .k_scale = part->k8.scale,
                                       .v_scale = part->v8.scale,
                                       .g_scale = part->g8.scale,
                                       .top = part->top,
                                       .norm = part->sum,
                                       .dq = part->dq,
                                       .dk = part->dk,
                                       .dv = part->dv};
    TV_TRY(unit->backend->attention_backward(&args, unit->stream));
    TV_TRY(turn_back(part, unit, &part->q_norm, part->dq));
    return turn_back(part, unit, &part->k_norm, part->dk);
}

// One product's backward; the first of an operand writes dx, the next ones add.
static tv_status add_gradient(attention_part *part, tv_unit *unit, const tv_linear *linear, const float *g,
                              int accumulate)
{
    int low = part->latent_width > 0 && (linear == &part->k || linear == &part->v);
    tv_linear_backward_args args = {.operand = low ? &part->latent : &part->input,
                                    .work = &part->work,
                                    .g = g,
                                    .dx = low ? part->low : part->normed,
                                    .accumulate = accumulate};
    return tv_linear_backward(unit, linear, &args);
}

static tv_status attention_backward(tv_part *base, tv_unit *unit, float *dx)
{
    attention_part *part = (attention_part *)base;
    TV_TRY(backward_through_heads(part, unit, dx));
    if (part->latent_width > 0) {
        TV_TRY(tv_operand_transpose(unit, &part->latent));
        TV_TRY(add_gradient(part, unit, &part->k, part->dk, 0));
        TV_TRY(add_gradient(part, unit, &part->v, part->dv, 1));
        TV_TRY(tv_operand_transpose(unit, &part->input));
        TV_TRY(add_gradient(part, unit, &part->q, part->dq, 0));
        TV_TRY(add_gradient(part, unit, &part->down, part->low, 1));
    } else {
        TV_TRY(tv_operand_transpose(unit, &part->input));
        TV_TRY(add_gradient(part, unit, &part->q, part->dq, 0));
        TV_TRY(add_gradient(part, unit, &part->k, part->dk, 1));
        TV_TRY(add_gradient(part, unit, &part->v, part->dv, 1));
    }
    tv_norm_gradient norm = {.rows = unit->tokens, .dy = part->normed, .dx = dx, .accumulate = 1};
    return tv_norm_backward(unit, &part->norm, &norm);
}

static void attention_free(tv_part *base) { free(base); }

static const tv_part_ops attention_ops = {.kind = "attention",
                                          .declare = attention_declare,
                                          .plan = attention_plan,
                                          .forward = attention_forward,
                                          .backward = attention_backward,
                                          .free = attention_free};

tv_status tv_attention_create(int64_t block, tv_part **out)
{
    attention_part *part = calloc(1, sizeof *part);
    if (part == NULL) {
        return TV_FAIL(TV_MEMORY, "no memory for an attention part");
    }
    part->base.ops = &attention_ops;
    snprintf(part->base.name, sizeof part->base.name, "block.%" PRId64 ".attention", block);
    *out = &part->base;
    return TV_OK;
}
