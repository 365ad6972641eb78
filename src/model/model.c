#include "model/model.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "model/attention.h"
#include "model/codebook.h"
#include "model/embed.h"
#include "model/ffn.h"
#include "model/focus.h"
#include "model/graph.h"
#include "model/head.h"
#include "model/memgram.h"
#include "model/modality.h"
#include "model/moe.h"
#include "model/sequencer.h"
#include "model/slab.h"

static tv_status build_parts(tv_model *model)
{
    const tv_config_model *config = &model->config.model;
    int64_t capacity = 8 + TV_MODALITIES + 2 * config->blocks;
    model->parts = calloc((size_t)capacity, sizeof *model->parts);
    if (model->parts == NULL) {
        return TV_FAIL(TV_MEMORY, "no memory for a list of %" PRId64 " parts", capacity);
    }
    // The count moves with each part, so that tv_model_free finds those made before a failure.
    TV_TRY(tv_embed_create(&model->parts[0]));
    model->part_count = 1;
    for (int i = 0; i < TV_MODALITIES; i++) {
        if (tv_modality_width(&model->config, (tv_modality)i) > 0) {
            TV_TRY(tv_modality_create((tv_modality)i, &model->parts[model->part_count]));
            model->part_count++;
        }
    }
    if (config->sequencer) {
        TV_TRY(tv_sequencer_create(&model->parts[model->part_count]));
        model->part_count++;
    }
    tv_part *codebook = NULL;
    if (model->config.codebook.rows > 0) {
        TV_TRY(tv_codebook_create(&codebook));
        model->parts[model->part_count++] = codebook;
    }
    if (model->config.memgram.rows > 0) {
        TV_TRY(tv_memgram_create(codebook, &model->parts[model->part_count]));
        model->part_count++;
    }
    if (model->config.graph.hops > 0) {
        TV_TRY(tv_graph_create(codebook, &model->parts[model->part_count]));
        model->part_count++;
    }
    if (model->config.focus.width > 0) {
        TV_TRY(tv_focus_create(&model->parts[model->part_count]));
        model->part_count++;
    }
    for (int64_t block = 0; block < config->blocks; block++) {
        TV_TRY(tv_attention_create(block, &model->parts[model->part_count]));
        model->part_count++;
        tv_part **feed_forward = &model->parts[model->part_count];
        TV_TRY(model->config.moe.experts > 0 ? tv_moe_create(block, feed_forward) : tv_ffn_create(block, feed_forward));
        model->part_count++;
    }
    if (model->config.composite.rows > 0) {
        TV_TRY(tv_composite_create(codebook, &model->parts[model->part_count]));
        model->part_count++;
    }
    TV_TRY(tv_head_create(&model->parts[model->part_count]));
    model->part_count++;
    return TV_OK;
}

tv_status tv_model_create(tv_model *model, const tv_config *config)
{
    memset(model, 0, sizeof *model);
    model->config = *config;
    tv_params_init(&model->params, (int)config->model.scale_mantissa_bits);
    TV_TRY(build_parts(model));
    for (int64_t i = 0; i < model->part_count; i++) {
        model->parts[i]->first = model->params.count;
        TV_TRY(model->parts[i]->ops->declare(model->parts[i], &model->params, &model->config));
    }
    return tv_losses_resolve(&model->losses, model->parts, model->part_count, &model->params, &config->loss);
}

// One pass over all takes: measuring with unbound arenas, for good with bound ones.
static tv_status plan_parts(tv_model *model)
{
    tv_plan *plan = &model->plan;
    plan->has_rotary = 0;
    plan->rows_pool = NULL;
    int64_t values = plan->tokens * model->config.model.width;
    model->x = tv_arena_take(&plan->saved, values, sizeof(float));
    if (plan->training) {
        model->dx = tv_arena_take(&plan->saved, plan->passes * values, sizeof(float));
    }
    for (int64_t i = 0; i < model->part_count; i++) {
        tv_arena_reset(&plan->scratch, 0);
        TV_TRY(model->parts[i]->ops->plan(model->parts[i], plan));
    }
    tv_head_outputs outputs = tv_head_get_outputs(model->parts[model->part_count - 1]);
    model->logits = outputs.logits;
    model->loss = outputs.loss;
    model->window_loss = outputs.window_loss;
    TV_TRY(tv_arena_check(&plan->saved));
    return tv_arena_check(&plan->scratch);
}

tv_status tv_model_plan(tv_model *model, const tv_params_layout_args *args, int64_t max_tokens)
{
    int64_t context = model->config.model.context;
    if (max_tokens < 1 || context < 1) {
        return TV_FAIL(TV_INTERNAL, "a plan for %" PRId64 " tokens in windows of %" PRId64, max_tokens, context);
    }
    TV_TRY(tv_params_layout(&model->params, args));
    model->backend = args->backend;
    model->max_tokens = max_tokens;
    tv_plan *plan = &model->plan;
    *plan = (tv_plan){.tokens = max_tokens,
                      .context = context,
                      .training = args->training,
                      .passes = model->losses.passes,
                      .config = &model->config,
                      .params = &model->params};
    tv_arena_init(&plan->saved, "the saved activations");
    tv_arena_init(&plan->scratch, "the scratch buffers");
    TV_TRY(plan_parts(model));
    if (args->backend == NULL) {
        return TV_OK;
    }
    TV_TRY(tv_slab_bind(args->backend, &plan->saved, &model->saved_slab));
    TV_TRY(tv_slab_bind(args->backend, &plan->scratch, &model->scratch_slab));
    return plan_parts(model);
}

static tv_status mute_one(tv_model *model, const char *name)
{
    int found = 0;
    for (int64_t i = 1; i < model->part_count - 1; i++) {
        if (strcmp(model->parts[i]->name, name) == 0 || strcmp(model->parts[i]->ops->kind, name) == 0) {
            model->muted[i] = found = 1;
        }
    }
    return found ? TV_OK : TV_FAIL(TV_USAGE, "the model has no part '%s' that adds to its residual stream", name);
}

tv_status tv_model_mute(tv_model *model, const char *names)
{
    void *memory = NULL;
    char *list = strdup(names), *rest = NULL;
    model->muted = calloc((size_t)model->part_count, 1);
    tv_status st = list && model->muted ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for a list of parts");
    for (char *name = list ? strtok_r(list, ",", &rest) : NULL; st == TV_OK && name;
         name = strtok_r(NULL, ",", &rest)) {
        st = mute_one(model, name);
    }
    free(list);
    TV_TRY(st);
    TV_TRY(model->backend->alloc((size_t)(model->max_tokens * model->config.model.width) * sizeof(float), &memory));
    model->unmuted = memory;
    return TV_OK;
}

void tv_model_free(tv_model *model)
{
    if (model == NULL) {
        return;
    }
    free(model->muted);
    if (model->backend != NULL) {
        model->backend->free(model->unmuted);
        model->backend->free(model->scratch_slab);
        model->backend->free(model->saved_slab);
    }
    for (int64_t i = model->part_count - 1; i >= 0; i--) {
        model->parts[i]->ops->free(model->parts[i]);
    }
    free(model->parts);
    tv_params_free(&model->params);
    memset(model, 0, sizeof *model);
}

size_t tv_model_saved_bytes(const tv_model *model) { return model->plan.saved.high_water; }

size_t tv_model_scratch_bytes(const tv_model *model) { return model->plan.scratch.high_water; }

static tv_status check_unit(const tv_model *model, const tv_unit *unit)
{
    if (unit->context < 1 || unit->context > model->plan.context || unit->tokens < 0 ||
        unit->tokens > model->max_tokens || unit->tokens % unit->context != 0) {
        return TV_FAIL(TV_INTERNAL,
                       "a unit of %" PRId64 " tokens in windows of %" PRId64 " does not fit a plan for %" PRId64
                       " in windows of %" PRId64,
                       unit->tokens, unit->context, model->max_tokens, model->plan.context);
    }
    if (unit->training && !model->plan.training) {
        return TV_FAIL(TV_INTERNAL, "a model planned for evaluation cannot train");
    }
    return TV_OK;
}

// Its exchanges with other ranks and what later parts take from it stay; x becomes what it was.
static tv_status forward_muted(tv_model *model, tv_part *part, tv_unit *unit)
{
    size_t bytes = (size_t)(unit->tokens * model->config.model.width) * sizeof(float);
    TV_TRY(unit->backend->copy(model->unmuted, model->x, bytes, TV_COPY_DEVICE, unit->stream));
    TV_TRY(part->ops->forward(part, unit, model->x));
    return unit->backend->copy(model->x, model->unmuted, bytes, TV_COPY_DEVICE, unit->stream);
}

tv_status tv_model_forward(tv_model *model, tv_unit *unit)
{
    TV_TRY(check_unit(model, unit));
    unit->backend = model->backend;
    unit->params = &model->params;
    for (int64_t i = 0; i < model->part_count; i++) {
        tv_part *part = model->parts[i];
        tv_range_push(unit->backend, part->name);
        int muted = model->muted != NULL && model->muted[i];
        tv_status st = muted ? forward_muted(model, part, unit) : part->ops->forward(part, unit, model->x);
        tv_range_pop(unit->backend);
        TV_TRY(st);
    }
    return TV_OK;
}

static float *pass_gradient(const tv_model *model, int pass)
{
    return model->dx + pass * model->max_tokens * model->config.model.width;
}

// The gradient that comes to part `index` in a pass: its own, the one of the pass that it was one with, or none yet.
static tv_status join_pass(tv_model *model, tv_unit *unit, int64_t index)
{
    size_t bytes = (size_t)(unit->tokens * model->config.model.width) * sizeof(float);
    float *dx = pass_gradient(model, unit->pass);
    if (index == model->part_count - 1)
        return TV_OK; // the head writes it
    int from = tv_losses_run(&model->losses, unit->pass, index + 1);
    if (from == unit->pass)
        return TV_OK;
    if (from < 0)
        return unit->backend->zero(dx, bytes, unit->stream);
    return unit->backend->copy(dx, pass_gradient(model, from), bytes, TV_COPY_DEVICE, unit->stream);
}

// All passes of one part; the first ones last, since others take their gradients.
static tv_status part_backward(tv_model *model, tv_unit *unit, int64_t index)
{
    const tv_losses *losses = &model->losses;
    tv_part *part = model->parts[index];
    for (int pass = losses->passes - 1; pass >= 0; pass--) {
        if (tv_losses_run(losses, pass, index) != pass || !tv_losses_wanted(losses, pass, index))
            continue;
        unit->pass = pass;
        unit->losses_off = losses->off[pass] & tv_losses_begun(losses, index);
        TV_TRY(join_pass(model, unit, index));
        TV_TRY(part->ops->backward(part, unit, pass_gradient(model, pass)));
    }
    return TV_OK;
}

tv_status tv_model_backward(tv_model *model, tv_unit *unit)
{
    TV_TRY(check_unit(model, unit));
    if (!unit->training || unit->targets == NULL) {
        return TV_FAIL(TV_INTERNAL, "a backward needs a training forward with targets");
    }
    unit->losses = &model->losses;
    for (int64_t i = model->part_count - 1; i >= 0; i--) {
        tv_part *part = model->parts[i];
        tv_range_push(unit->backend, part->name);
        tv_status st = part_backward(model, unit, i);
        tv_range_pop(unit->backend);
        TV_TRY(st);
        if (unit->voted != NULL) {
            TV_TRY(unit->voted(unit->listener, part->first));
        }
    }
    return TV_OK;
}

tv_status tv_model_before_step(tv_model *model, tv_unit *unit)
{
    unit->backend = model->backend;
    unit->params = &model->params;
    for (int64_t i = 0; i < model->part_count; i++) {
        const tv_part_ops *ops = model->parts[i]->ops;
        if (ops->before_step != NULL) {
            TV_TRY(ops->before_step(model->parts[i], unit));
        }
    }
    return TV_OK;
}

tv_status tv_model_loaded(tv_model *model)
{
    for (int64_t i = 0; i < model->part_count; i++) {
        const tv_part_ops *ops = model->parts[i]->ops;
        if (ops->loaded != NULL) {
            TV_TRY(ops->loaded(model->parts[i], &model->params));
        }
    }
    return TV_OK;
}

tv_status tv_model_after_step(tv_model *model, tv_unit *unit)
{
    unit->backend = model->backend;
    unit->params = &model->params;
    unit->tokens = 0;
    for (int64_t i = 0; i < model->part_count; i++) {
        const tv_part_ops *ops = model->parts[i]->ops;
        if (ops->after_step != NULL) {
            TV_TRY(ops->after_step(model->parts[i], unit));
        }
    }
    return TV_OK;
}
