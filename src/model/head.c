#include "model/head.h"

#include <stdio.h>
#include <stdlib.h>

#include "model/linear.h"
#include "model/model.h"
#include "model/norm.h"

typedef struct head_part {
    tv_part base;
    int64_t width;
    float weight; // of the cross-entropy
    tv_norm norm;
    tv_linear out;
    tv_operand input; // norm(x) [M, D]
    tv_head_outputs outputs;
    tv_linear_work work;
    float *normed; // [M, D] gradient of norm(x)
} head_part;

static tv_status head_declare(tv_part *base, tv_params *params, const tv_config *config)
{
    head_part *part = (head_part *)base;
    part->width = config->model.width;
    part->weight = (float)config->loss.cross_entropy_weight;
    part->out.exponent = (int)config->model.head_exponent;
    tv_tensor_spec out = {.rows = TV_VOCAB, .cols = part->width, .scale_type = (tv_scale_type)config->model.scale_type};
    TV_TRY(tv_norm_declare(&part->norm, base, params, "norm", &out));
    return tv_part_declare(base, params, "out", &out, &part->out.param);
}

static tv_status head_plan(tv_part *base, tv_plan *plan)
{
    head_part *part = (head_part *)base;
    tv_linear_work_plan(&part->work, plan, part->width, TV_VOCAB, 1);
    tv_norm_plan(&part->norm, plan, 1);
    tv_operand_plan(&part->input, plan, part->width, &part->work);
    if (plan->training) {
        part->normed = tv_arena_take(&plan->scratch, plan->tokens * part->width, sizeof(float));
    }
    // A window has at least one token, so there are never more windows than tokens.
    part->outputs.logits = tv_arena_take(&plan->saved, plan->tokens * TV_VOCAB, sizeof(float));
    part->outputs.loss = tv_arena_take(&plan->saved, plan->tokens, sizeof(float));
    part->outputs.window_loss = tv_arena_take(&plan->saved, plan->tokens, sizeof(float));
    return TV_OK;
}

static tv_status cross_entropy(head_part *part, tv_unit *unit, float *grad)
{
    tv_xent_args args = {.rows = unit->tokens,
                         .vocab = TV_VOCAB,
                         .logits = part->outputs.logits,
                         .targets = unit->targets,
                         .loss = part->outputs.loss,
                         .grad = grad,
                         .weight = part->weight,
                         .fault = unit->fault};
    return unit->backend->xent(&args, unit->stream);
}

static tv_status head_forward(tv_part *base, tv_unit *unit, float *x)
{
    head_part *part = (head_part *)base;
    TV_TRY(tv_norm_quantize(unit, &part->norm, x, &part->input));
    TV_TRY(tv_linear_forward(unit, &part->out, &part->input, part->outputs.logits, 0));
    if (unit->targets == NULL) {
        return TV_OK;
    }
    TV_TRY(cross_entropy(part, unit, NULL));
    tv_row_sum_args sum = {.rows = unit->tokens / unit->context,
                           .cols = unit->context,
                           .x = part->outputs.loss,
                           .out = part->outputs.window_loss};
    return unit->backend->row_sum(&sum, unit->stream);
}

static tv_status head_backward(tv_part *base, tv_unit *unit, float *dx)
{
    head_part *part = (head_part *)base;
    TV_TRY(cross_entropy(part, unit, part->outputs.logits));
    TV_TRY(tv_operand_transpose(unit, &part->input));
    tv_linear_backward_args out = {
        .operand = &part->input, .work = &part->work, .g = part->outputs.logits, .dx = part->normed};
    TV_TRY(tv_linear_backward(unit, &part->out, &out));
    tv_norm_gradient norm = {.rows = unit->tokens, .dy = part->normed, .dx = dx};
    return tv_norm_backward(unit, &part->norm, &norm);
}

static void head_free(tv_part *base) { free(base); }

static const tv_part_ops head_ops = {.kind = "head",
                                     .declare = head_declare,
                                     .plan = head_plan,
                                     .forward = head_forward,
                                     .backward = head_backward,
                                     .free = head_free};

tv_status tv_head_create(tv_part **out)
{
    head_part *part = calloc(1, sizeof *part);
    if (part == NULL) {
        return TV_FAIL(TV_MEMORY, "no memory for the head");
    }
    part->base.ops = &head_ops;
    part->base.loss = "cross_entropy";
    snprintf(part->base.name, sizeof part->base.name, "head");
    *out = &part->base;
    return TV_OK;
}

tv_head_outputs tv_head_get_outputs(const tv_part *head) { return ((const head_part *)head)->outputs; }
