#include "model/graph.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/codebook.h"
#include "model/graph_part.h"

// What a hop adds to a node, and the part to the stream, starts at a quarter of what other layers write: neighbours that are still noise would drown
// the node's own row (docs/benchmarks.md).
enum { QUIET = 3 };

static tv_status declare_hop(tv_graph_part *part, tv_params *params, tv_scale_type type, int h)
{
    tv_graph_hop *hop = &part->hop[h];
    char leaf[32];
    tv_tensor_spec square = {.rows = part->cols, .cols = part->cols, .scale_type = type};
    tv_tensor_spec down = {.rows = part->rank, .cols = part->cols, .scale_type = type};
    tv_tensor_spec up = {.rows = part->cols, .cols = part->rank, .scale_type = type, .residual = QUIET};
    snprintf(leaf, sizeof leaf, "message_%d", h + 1);
    TV_TRY(tv_part_declare(&part->base, params, leaf, &square, &hop->message.param));
    square.residual = QUIET;
    snprintf(leaf, sizeof leaf, "update_%d", h + 1);
    TV_TRY(tv_part_declare(&part->base, params, leaf, &square, &hop->update.param));
    if (part->rank == 0)
        return TV_OK;
    snprintf(leaf, sizeof leaf, "lora_down_%d", h + 1);
    TV_TRY(tv_part_declare(&part->base, params, leaf, &down, &hop->lora_down.param));
    snprintf(leaf, sizeof leaf, "lora_up_%d", h + 1);
    return tv_part_declare(&part->base, params, leaf, &up, &hop->lora_up.param);
}

static tv_status graph_declare(tv_part *base, tv_params *params, const tv_config *config)
{
    tv_graph_part *part = (tv_graph_part *)base;
    tv_scale_type type = (tv_scale_type)config->model.scale_type;
    part->width = config->model.width;
    part->cols = config->codebook.width;
    part->rank = config->graph.lora_rank;
    part->hops = part->nodes.hops = (int)config->graph.hops;
    tv_tensor_spec scale = {.rows = part->hops, .cols = part->rank, .scale_type = type, .lookup = 1};
    tv_tensor_spec up = {.rows = part->width, .cols = part->cols, .scale_type = type, .residual = QUIET};
    part->link.table = tv_codebook_table(part->codebook);
    for (int h = 0; h < part->hops; h++)
        TV_TRY(declare_hop(part, params, type, h));
    if (part->rank > 0)
        TV_TRY(tv_part_declare(base, params, "hop_scale", &scale, &part->hop_scale));
    TV_TRY(tv_graph_store_declare(&part->store, base, params, config));
    return tv_part_declare(base, params, "up", &up, &part->up.param);
}

static tv_status graph_plan(tv_part *base, tv_plan *plan)
{
    tv_graph_part *part = (tv_graph_part *)base;
    const tv_backend *backend = plan->params->backend;
    tv_arena *keep = tv_plan_keep(plan);
    part->order = tv_arena_take(keep, plan->tokens, sizeof(int32_t));
    part->group_start = tv_arena_take(keep, plan->tokens + 1, sizeof(int32_t));
    part->distinct = tv_arena_take(&plan->scratch, plan->tokens, sizeof(int32_t));
    part->slot = tv_arena_take(&plan->scratch, plan->tokens, sizeof(int32_t));
    part->found = tv_arena_take(&plan->scratch, 1, sizeof(int32_t));
    part->keep.backend = part->back.backend = backend;
    TV_TRY(tv_graph_store_plan(&part->store, plan));
    TV_TRY(tv_graph_link_plan(&part->link, plan, &part->store));
    if (part->host_motifs == NULL)
        part->host_motifs = calloc((size_t)plan->tokens + 1, sizeof *part->host_motifs);
    return part->host_motifs != NULL ? TV_OK
                                     : TV_FAIL(TV_MEMORY, "no memory for %" PRId64 " motifs of a unit", plan->tokens);
}

static tv_status graph_before_step(tv_part *base, tv_unit *unit)
{
    tv_graph_part *part = (tv_graph_part *)base;
    (void)unit;
    part->transitions.count = part->votes.count = part->report.nodes = 0;
    tv_graph_link_reset(&part->link);
    return TV_OK;
}

static tv_status graph_loaded(tv_part *base, tv_params *params)
{
    return tv_graph_store_check(&((tv_graph_part *)base)->store, params);
}

static void graph_tell(const tv_part *base, tv_figures *figures)
{
    const tv_graph_report *r = &((const tv_graph_part *)base)->report;
    tv_figures_add(figures, "edges", (double)r->edges);
    tv_figures_add(figures, "mean_score", r->edges > 0 ? (double)r->score_sum / (double)r->edges : 0);
    tv_figures_add(figures, "made", (double)r->changes.made);
    tv_figures_add(figures, "replaced", (double)r->changes.replaced);
    tv_figures_add(figures, "evicted", (double)r->changes.evicted);
    tv_figures_add(figures, "attr_flips", (double)r->changes.flips);
    tv_figures_add(figures, "nodes", (double)r->nodes);
    tv_figures_add(figures, "rows_asked", (double)r->rows_asked);
    tv_figures_add(figures, "lists_asked", (double)r->lists_asked);
    tv_figures_add(figures, "records_sent", (double)r->records_sent);
    tv_figures_add(figures, "wire_bytes", (double)r->wire_bytes);
}

static void graph_free(tv_part *base)
{
    tv_graph_part *part = (tv_graph_part *)base;
    tv_graph_store_free(&part->store);
    tv_graph_link_free(&part->link);
    tv_graph_nodes_free(&part->nodes);
    tv_pool_free(&part->keep);
    tv_pool_free(&part->back);
    free(part->host_motifs);
    free(part->transitions.items);
    free(part->votes.items);
    free(base);
}

tv_graph_layer tv_graph_scale_of(const tv_graph_part *part, const tv_unit *unit, int h)
{
    if (part->rank == 0)
        return (tv_graph_layer){NULL, 0};
    const tv_param *param = &unit->params->items[part->hop_scale];
    return (tv_graph_layer){param->w8 + h * part->rank, param->base};
}

tv_status tv_graph_note(tv_graph_records *records, tv_graph_record record)
{
    if (records->count == records->capacity) {
        int64_t capacity = records->capacity + records->capacity / 2 + 1024;
        tv_graph_record *more = realloc(records->items, (size_t)capacity * sizeof *more);
        if (more == NULL)
            return TV_FAIL(TV_MEMORY, "no memory for %" PRId64 " transitions of a step", capacity);
        records->items = more;
        records->capacity = capacity;
    }
    records->items[records->count++] = record;
    return TV_OK;
}

tv_status tv_graph_create(const tv_part *codebook, tv_part **out)
{
    static const tv_part_ops ops = {.kind = "graph",
                                    .declare = graph_declare,
                                    .plan = graph_plan,
                                    .forward = tv_graph_forward,
                                    .backward = tv_graph_backward,
                                    .before_step = graph_before_step,
                                    .after_step = tv_graph_after_step,
                                    .loaded = graph_loaded,
                                    .tell = graph_tell,
                                    .free = graph_free};
    tv_graph_part *part = calloc(1, sizeof *part);
    if (part == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for a graph of motifs");
    part->base.ops = &ops;
    part->codebook = codebook;
    snprintf(part->base.name, sizeof part->base.name, "graph");
    *out = &part->base;
    return TV_OK;
}
