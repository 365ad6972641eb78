#include "model/embed.h"

#include <stdio.h>
#include <stdlib.h>

#include "model/linear.h"
#include "model/model.h"

typedef struct embed_part {
    tv_part base;
    int64_t width, table;
    int8_t *gt;     // [D, M] gradient a channel
    int32_t *sumsq; // [D]
} embed_part;

static tv_status embed_declare(tv_part *base, tv_params *params, const tv_config *config)
{
    embed_part *part = (embed_part *)base;
    part->width = config->model.width;
    tv_tensor_spec spec = {
        .rows = TV_VOCAB, .cols = part->width, .scale_type = (tv_scale_type)config->model.scale_type, .lookup = 1};
    return tv_part_declare(base, params, "table", &spec, &part->table);
}

static tv_status embed_plan(tv_part *base, tv_plan *plan)
{
    embed_part *part = (embed_part *)base;
    if (plan->training) {
        part->gt = tv_arena_take(&plan->scratch, plan->tokens * part->width, 1);
        part->sumsq = tv_arena_take(&plan->scratch, part->width, sizeof(int32_t));
    }
    return TV_OK;
}

static tv_status embed_forward(tv_part *base, tv_unit *unit, float *x)
{
    embed_part *part = (embed_part *)base;
    const tv_param *param = &unit->params->items[part->table];
    tv_embed_args args = {.tokens = unit->tokens,
                          .width = part->width,
                          .ids = unit->ids,
                          .w8 = param->w8,
                          .exponent = param->base,
                          .x = x};
    return unit->backend->embed(&args, unit->stream);
}

static tv_status embed_backward(tv_part *base, tv_unit *unit, float *dx)
{
    embed_part *part = (embed_part *)base;
    const tv_param *param = &unit->params->items[part->table];
    tv_quantize_channels_args quantize = {.tokens = unit->tokens,
                                          .channels = part->width,
                                          .x = dx,
                                          .qt = part->gt,
                                          .sumsq = part->sumsq,
                                          .fault = unit->fault};
    TV_TRY(unit->backend->quantize_channels(&quantize, unit->stream));
    tv_embed_vote_args vote = {.tokens = unit->tokens,
                               .width = part->width,
                               .table = param->spec.rows,
                               .ids = unit->ids,
                               .gt = part->gt,
                               .rule = tv_unit_vote_rule(unit, param),
                               .votes = param->votes};
    return unit->backend->embed_vote(&vote, unit->stream);
}

static void embed_free(tv_part *base) { free(base); }

static const tv_part_ops embed_ops = {.kind = "embed",
                                      .declare = embed_declare,
                                      .plan = embed_plan,
                                      .forward = embed_forward,
                                      .backward = embed_backward,
                                      .free = embed_free};

tv_status tv_embed_create(tv_part **out)
{
    embed_part *part = calloc(1, sizeof *part);
    if (part == NULL) {
        return TV_FAIL(TV_MEMORY, "no memory for the embedding");
    }
    part->base.ops = &embed_ops;
    snprintf(part->base.name, sizeof part->base.name, "embed");
    *out = &part->base;
    return TV_OK;
}
