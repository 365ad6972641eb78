#include "model/codebook.h"

#include <stdio.h>
#include <stdlib.h>

#include "model/linear.h"
#include "model/losses.h"
#include "model/norm.h"
#include "model/vq.h"

typedef struct codebook_part {
    tv_part base;
    struct codebook_part *motifs; // composite: whose rows it takes; else NULL
    int64_t width;                // D
    tv_norm norm;
    tv_linear down, motif, up;
    tv_vq vq;
    tv_operand input, row; // norm(x) [M, D], row [M, d]
    tv_linear_work work;
    float *z, *row_grad, *z_grad; // [M, d]
    float *normed;                // [M, D] gradient of norm(x)
    const tv_part *taker;         // the composite that takes this part's motifs, or NULL
    float *taken;                 // [passes, M, d] gradient that it has for them, or NULL
} codebook_part;

static tv_status codebook_declare(tv_part *base, tv_params *params, const tv_config *config)
{
    codebook_part *part = (codebook_part *)base;
    int64_t width = part->width = config->model.width, d = config->codebook.width;
    tv_scale_type type = (tv_scale_type)config->model.scale_type;
    tv_tensor_spec down = {.rows = d, .cols = width, .scale_type = type};
    tv_tensor_spec motif = {.rows = d, .cols = d, .scale_type = type};
    tv_tensor_spec up = {.rows = width, .cols = d, .scale_type = type, .residual = 1};
    TV_TRY(tv_norm_declare(&part->norm, base, params, "norm", &down));
    TV_TRY(tv_part_declare(base, params, "down", &down, &part->down.param));
    if (part->motifs != NULL)
        TV_TRY(tv_part_declare(base, params, "motif", &motif, &part->motif.param));
    TV_TRY(tv_vq_declare(&part->vq, base, params, config,
                         part->motifs != NULL ? config->composite.rows : config->codebook.rows));
    return tv_part_declare(base, params, "up", &up, &part->up.param);
}

static tv_status codebook_plan(tv_part *base, tv_plan *plan)
{
    codebook_part *part = (codebook_part *)base;
    int64_t values = plan->tokens * part->vq.cols, widest = part->width > part->vq.cols ? part->width : part->vq.cols;
    TV_TRY(tv_vq_plan(&part->vq, plan));
    tv_linear_work_plan(&part->work, plan, widest, widest, 0);
    tv_norm_plan(&part->norm, plan, 1);
    tv_operand_plan(&part->input, plan, part->width, &part->work);
    part->row = (tv_operand){.cols = part->vq.cols,
                             .q = part->vq.w8,
                             .scale = part->vq.row_scale,
                             .qt = part->work.xt,
                             .sumsq = part->work.x_sumsq};
    part->z = tv_arena_take(&plan->scratch, values, sizeof(float));
    part->taken = NULL;
    if (!plan->training)
        return TV_OK;
    part->row_grad = tv_arena_take(&plan->scratch, values, sizeof(float));
    part->z_grad = tv_arena_take(&plan->scratch, values, sizeof(float));
    part->normed = tv_arena_take(&plan->scratch, plan->tokens * part->width, sizeof(float));
    if (part->motifs != NULL)
        part->motifs->taken =
            tv_arena_take(&plan->saved, (plan->passes > 1 ? plan->passes : 1) * values, sizeof(float));
    return TV_OK;
}

// The motifs' rows as an operand of this part's products.
static tv_operand motif_operand(const codebook_part *part)
{
    tv_operand operand = part->motifs->row;
    operand.qt = part->work.xt;
    operand.sumsq = part->work.x_sumsq;
    return operand;
}

static tv_status codebook_forward(tv_part *base, tv_unit *unit, float *x)
{
    codebook_part *part = (codebook_part *)base;
    TV_TRY(tv_norm_quantize(unit, &part->norm, x, &part->input));
    TV_TRY(tv_linear_forward(unit, &part->down, &part->input, part->z, 0));
    if (part->motifs != NULL) {
        tv_operand motifs = motif_operand(part);
        TV_TRY(tv_linear_forward(unit, &part->motif, &motifs, part->z, 1));
    }
    TV_TRY(tv_vq_forward(&part->vq, unit, part->z));
    return tv_linear_forward(unit, &part->up, &part->row, x, 1);
}

// Where a composite leaves the motifs' gradient in a pass.
static float *taken_in(const codebook_part *codebook, int pass)
{
    return codebook->taken + pass * codebook->vq.tokens * codebook->vq.cols;
}

// The composite's gradient of this part's rows, which may be one for several passes, joins row_grad.
static tv_status add_taken(codebook_part *part, tv_unit *unit)
{
    if (part->taken == NULL)
        return TV_OK;
    int pass = unit->losses == NULL ? 0 : tv_losses_run(unit->losses, unit->pass, part->taker->index);
    if (pass < 0)
        return TV_OK;
    tv_add_args add = {.count = unit->tokens * part->vq.cols, .x = taken_in(part, pass), .y = part->row_grad};
    return unit->backend->add(&add, unit->stream);
}

static tv_status codebook_backward(tv_part *base, tv_unit *unit, float *dx)
{
    codebook_part *part = (codebook_part *)base;
    TV_TRY(tv_operand_transpose(unit, &part->row));
    tv_linear_backward_args up = {.operand = &part->row, .work = &part->work, .g = dx, .dx = part->row_grad};
    TV_TRY(tv_linear_backward(unit, &part->up, &up));
    TV_TRY(add_taken(part, unit));
    TV_TRY(tv_vq_backward(&part->vq, unit, part->row_grad, part->z_grad));
    if (part->motifs != NULL) {
        tv_operand motifs = motif_operand(part);
        TV_TRY(tv_operand_transpose(unit, &motifs));
        tv_linear_backward_args motif = {
            .operand = &motifs, .work = &part->work, .g = part->z_grad, .dx = taken_in(part->motifs, unit->pass)};
        TV_TRY(tv_linear_backward(unit, &part->motif, &motif));
    }
    TV_TRY(tv_operand_transpose(unit, &part->input));
    tv_linear_backward_args down = {
        .operand = &part->input, .work = &part->work, .g = part->z_grad, .dx = part->normed};
    TV_TRY(tv_linear_backward(unit, &part->down, &down));
    tv_norm_gradient norm = {.rows = unit->tokens, .dy = part->normed, .dx = dx, .accumulate = 1};
    return tv_norm_backward(unit, &part->norm, &norm);
}

static tv_status codebook_before_step(tv_part *base, tv_unit *unit)
{
    return tv_vq_before_step(&((codebook_part *)base)->vq, unit);
}

static tv_status codebook_after_step(tv_part *base, tv_unit *unit)
{
    return tv_vq_after_step(&((codebook_part *)base)->vq, unit);
}

static void codebook_tell(const tv_part *base, tv_figures *figures)
{
    tv_vq_tell(&((const codebook_part *)base)->vq, figures);
}

static void codebook_free(tv_part *base)
{
    tv_vq_free(&((codebook_part *)base)->vq);
    free(base);
}

#define CODEBOOK_OPS(kind_)                                                                                            \
    {                                                                                                                  \
        .kind = kind_, .declare = codebook_declare, .plan = codebook_plan, .forward = codebook_forward,                \
        .backward = codebook_backward, .before_step = codebook_before_step, .after_step = codebook_after_step,         \
        .tell = codebook_tell, .free = codebook_free                                                                   \
    }

static tv_status create(const tv_part_ops *ops, tv_part *codebook, tv_part **out)
{
    codebook_part *part = calloc(1, sizeof *part);
    if (part == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for a codebook part");
    part->base.ops = ops;
    part->base.loss = "commitment";
    part->motifs = (codebook_part *)codebook;
    if (part->motifs != NULL)
        part->motifs->taker = &part->base;
    snprintf(part->base.name, sizeof part->base.name, "%s", ops->kind);
    *out = &part->base;
    return TV_OK;
}

tv_status tv_codebook_create(tv_part **out)
{
    static const tv_part_ops ops = CODEBOOK_OPS("codebook");
    return create(&ops, NULL, out);
}

const int32_t *tv_codebook_motifs(const tv_part *codebook) { return ((const codebook_part *)codebook)->vq.row; }

int64_t tv_codebook_table(const tv_part *codebook) { return ((const codebook_part *)codebook)->vq.table; }

tv_status tv_composite_create(tv_part *codebook, tv_part **out)
{
    static const tv_part_ops ops = CODEBOOK_OPS("composite");
    return create(&ops, codebook, out);
}
