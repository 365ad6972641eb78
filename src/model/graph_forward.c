// Nodes of a unit's motifs, their hops, and what they add to the tokens.
#include <string.h>

#include "model/codebook.h"
#include "model/graph_part.h"

enum { INT = sizeof(int32_t) };

// The unit's distinct motifs, ascending, in host_motifs; which one each token has.
static tv_status group_motifs(tv_graph_part *part, tv_unit *unit)
{
    const tv_backend *backend = unit->backend;
    const int32_t *motifs = tv_codebook_motifs(part->codebook);
    int32_t count = 0;
    tv_vq_group_args group = {.entries = unit->tokens,
                              .row = motifs,
                              .order = part->order,
                              .distinct = part->distinct,
                              .start = part->group_start,
                              .count = part->found};
    TV_TRY(backend->vq.group(&group, unit->stream));
    TV_TRY(backend->copy(&count, part->found, sizeof count, TV_COPY_TO_HOST, unit->stream));
    part->motifs = count;
    tv_memgram_place_args place = {.entries = unit->tokens,
                                   .count = count,
                                   .row = motifs,
                                   .order = part->order,
                                   .start = part->group_start,
                                   .slot = part->slot};
    TV_TRY(backend->memgram.place(&place, unit->stream));
    return backend->copy(part->host_motifs, part->distinct, (size_t)count * INT, TV_COPY_TO_HOST, unit->stream);
}

static void take_hop(tv_graph_part *part, tv_arena *arena, int h, int training)
{
    tv_graph_hop *hop = &part->hop[h];
    const tv_graph_nodes *n = &part->nodes;
    int64_t d = part->cols;
    hop->nodes = n->level_end[part->hops - 1 - h];
    hop->sources = n->level_end[part->hops - h];
    hop->y = tv_arena_take(arena, hop->nodes * d, sizeof(float));
    hop->q = NULL;
    if (!training)
        return;
    hop->q = tv_arena_take(arena, hop->sources * d, 1);
    hop->qa = tv_arena_take(arena, hop->nodes * d, 1);
    hop->ql = tv_arena_take(arena, hop->nodes * part->rank, 1);
    hop->scale = tv_arena_take(arena, hop->sources, sizeof(float));
    hop->scale_a = tv_arena_take(arena, hop->nodes, sizeof(float));
    hop->scale_l = tv_arena_take(arena, hop->nodes, sizeof(float));
}

static tv_status bind_nodes(tv_graph_part *part, int training)
{
    const tv_graph_nodes *n = &part->nodes;
    int64_t d = part->cols, lists = n->level_end[part->hops - 1];
    tv_arena arena;
    tv_arena_init(&arena, "the nodes of a unit");
    for (int pass = 0; pass < 2; pass++) {
        part->answers = tv_arena_take(&arena, n->count * tv_vq_answer_bytes(d), 1);
        part->from = tv_arena_take(&arena, n->count, INT);
        part->start = tv_arena_take(&arena, lists + 1, INT);
        part->source = tv_arena_take(&arena, n->edges, INT);
        part->attr = tv_arena_take(&arena, n->edges, 1);
        part->dst = tv_arena_take(&arena, training ? n->edges : 0, INT);
        part->source_start = tv_arena_take(&arena, training ? n->count + 1 : 0, INT);
        part->by_source = tv_arena_take(&arena, training ? n->edges : 0, INT);
        for (int h = 0; h < part->hops; h++)
            take_hop(part, &arena, h, training);
        part->work = tv_arena_take(&arena, tv_graph_hop_work_bytes(n->count, lists, d, part->rank), 1);
        part->top.q = tv_arena_take(&arena, part->motifs * d, 1);
        part->top.scale = tv_arena_take(&arena, part->motifs, sizeof(float));
        part->u = tv_arena_take(&arena, part->motifs * part->width, sizeof(float));
        if (pass == 0)
            TV_TRY(tv_pool_bind(&part->keep, &arena));
    }
    part->top.cols = d;
    return TV_OK;
}

static tv_status upload_edges(tv_graph_part *part, tv_unit *unit)
{
    const tv_graph_nodes *n = &part->nodes;
    const struct {
        void *to;
        const void *from;
        int64_t bytes;
    } copies[] = {{part->start, n->start, (n->level_end[part->hops - 1] + 1) * INT},
                  {part->source, n->source, n->edges * INT},
                  {part->attr, n->attr, n->edges},
                  {part->dst, n->dst, n->edges * INT},
                  {part->source_start, n->source_start, (n->count + 1) * INT},
                  {part->by_source, n->by_source, n->edges * INT}};
    int count = unit->training ? 6 : 3;
    for (int i = 0; i < count; i++)
        TV_TRY(unit->backend->copy(copies[i].to, copies[i].from, (size_t)copies[i].bytes, TV_COPY_TO_DEVICE,
                                   unit->stream));
    return TV_OK;
}

// Among several ranks rows are asked for in ascending order; `from` then says where each node's came to lie.
static tv_status ask_rows(tv_graph_part *part, tv_unit *unit)
{
    const tv_graph_nodes *n = &part->nodes;
    const int32_t *rows = n->node, *places = NULL;
    if (part->link.rows.ranks > 1)
        TV_TRY(tv_graph_nodes_ascend(&part->nodes, &rows, &places));
    TV_TRY(tv_graph_link_rows(&part->link, unit, rows, n->count, part->answers));
    if (places == NULL) {
        part->from = NULL;
        return TV_OK;
    }
    return unit->backend->copy(part->from, places, (size_t)n->count * INT, TV_COPY_TO_DEVICE, unit->stream);
}

static tv_graph_layer layer_of(const tv_unit *unit, const tv_linear *linear)
{
    const tv_param *param = &unit->params->items[linear->param];
    return (tv_graph_layer){param->w8, param->base};
}

static tv_status run_hop(tv_graph_part *part, tv_unit *unit, int h)
{
    const tv_param *table = &unit->params->items[part->link.table];
    tv_graph_hop *hop = &part->hop[h];
    tv_graph_hop_args args = {.sources = hop->sources,
                              .nodes = hop->nodes,
                              .cols = part->cols,
                              .rank = part->rank,
                              .bytes = h == 0 ? part->answers : NULL,
                              .from = part->from,
                              .x = h == 0 ? NULL : part->hop[h - 1].y,
                              .base = table->base,
                              .mantissa_bits = table->mantissa_bits,
                              .start = part->start,
                              .source = part->source,
                              .attr = part->attr,
                              .message = layer_of(unit, &hop->message),
                              .update = layer_of(unit, &hop->update),
                              .hop_scale = tv_graph_scale_of(part, unit, h),
                              .y = hop->y,
                              .q = hop->q,
                              .qa = hop->qa,
                              .ql = hop->ql,
                              .scale = hop->scale,
                              .scale_a = hop->scale_a,
                              .scale_l = hop->scale_l,
                              .work = part->work,
                              .fault = unit->fault};
    if (part->rank > 0) {
        args.lora_down = layer_of(unit, &hop->lora_down);
        args.lora_up = layer_of(unit, &hop->lora_up);
    }
    return unit->backend->graph.hop(&args, unit->stream);
}

tv_status tv_graph_forward(tv_part *base, tv_unit *unit, float *x)
{
    tv_graph_part *part = (tv_graph_part *)base;
    TV_TRY(group_motifs(part, unit));
    TV_TRY(tv_graph_nodes_find(&part->nodes, &part->link, unit, part->host_motifs, part->motifs));
    TV_TRY(bind_nodes(part, unit->training));
    TV_TRY(upload_edges(part, unit));
    TV_TRY(ask_rows(part, unit));
    part->report.nodes += unit->training ? part->nodes.count : 0;
    for (int h = 0; h < part->hops; h++)
        TV_TRY(run_hop(part, unit, h));
    tv_unit motifs = tv_graph_rows_unit(unit, part->motifs);
    TV_TRY(tv_operand_quantize(&motifs, &part->top, part->hop[part->hops - 1].y));
    TV_TRY(tv_linear_forward(&motifs, &part->up, &part->top, part->u, 0));
    tv_graph_gather_args gather = {
        .tokens = unit->tokens, .width = part->width, .slot = part->slot, .u = part->u, .x = x};
    return unit->backend->graph.gather(&gather, unit->stream);
}
