// Gradients back through the hops, votes on attr, and a step's changes of the edges. The nodes' first values, which are the codebook's rows, take no
// gradient.
#include <string.h>

#include "comm/comm.h"
#include "model/codebook.h"
#include "model/graph_part.h"

// Rows that a vote can stand on (docs/numerics.md, section 3); nodes behind them, in the order of levels, get no gradient.
enum { INT = sizeof(int32_t), ROWS_MAX = 131072 };

typedef struct gradients {
    float *du;       // [motifs, D]
    float *dy, *dx;  // [rows, d] of a hop's output and input
    float *da, *dm;  // [rows, d]
    float *m;        // [all sources, d]
    float *l, *dl;   // [rows, r]
    float *attr;     // [edges]
    int8_t *attr_q;  // [edges]
    int32_t *sumsq;  // [r or 1]
    int32_t *hop_id; // [rows]
    int8_t *scale_t; // [r, rows]
    tv_linear_work up, work;
} gradients;

static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

static tv_status bind_gradients(tv_graph_part *part, gradients *g)
{
    const tv_graph_nodes *n = &part->nodes;
    int64_t rows = at_most(n->count, ROWS_MAX), d = part->cols, r = part->rank, most = d > r ? d : r;
    tv_plan plan = {.training = 1};
    tv_arena *arena = &plan.scratch;
    tv_arena_init(arena, "the gradients of a unit's nodes");
    for (int pass = 0; pass < 2; pass++) {
        g->du = tv_arena_take(arena, part->motifs * part->width, sizeof(float));
        g->dy = tv_arena_take(arena, rows * d, sizeof(float));
        g->dx = tv_arena_take(arena, rows * d, sizeof(float));
        g->da = tv_arena_take(arena, rows * d, sizeof(float));
        g->dm = tv_arena_take(arena, rows * d, sizeof(float));
        g->m = tv_arena_take(arena, n->count * d, sizeof(float));
        g->l = tv_arena_take(arena, rows * r, sizeof(float));
        g->dl = tv_arena_take(arena, rows * r, sizeof(float));
        g->attr = tv_arena_take(arena, n->edges, sizeof(float));
        g->attr_q = tv_arena_take(arena, n->edges, 1);
        g->sumsq = tv_arena_take(arena, r + 1, INT);
        g->hop_id = tv_arena_take(arena, rows, INT);
        g->scale_t = tv_arena_take(arena, rows * r, 1);
        plan.tokens = part->motifs;
        tv_linear_work_plan(&g->up, &plan, d, part->width, 0);
        plan.tokens = rows;
        tv_linear_work_plan(&g->work, &plan, most, most, 0);
        if (pass == 0)
            TV_TRY(tv_pool_bind(&part->back, arena));
    }
    return TV_OK;
}

static tv_operand operand_of(int64_t cols, int8_t *q, float *scale, const tv_linear_work *work)
{
    return (tv_operand){.cols = cols, .q = q, .scale = scale, .qt = work->xt, .sumsq = work->x_sumsq};
}

// Gradient of the last hop's output, in g->dy.
static tv_status up_backward(tv_graph_part *part, tv_unit *unit, gradients *g, const float *dx)
{
    tv_graph_gather_backward_args gather = {.count = part->motifs,
                                            .width = part->width,
                                            .order = part->order,
                                            .start = part->group_start,
                                            .dx = dx,
                                            .du = g->du};
    TV_TRY(unit->backend->graph.gather_backward(&gather, unit->stream));
    tv_unit motifs = tv_graph_rows_unit(unit, part->motifs);
    tv_operand top = operand_of(part->cols, part->top.q, part->top.scale, &g->up);
    TV_TRY(tv_operand_transpose(&motifs, &top));
    tv_linear_backward_args up = {.operand = &top, .work = &g->up, .g = g->du, .dx = g->dy};
    return tv_linear_backward(&motifs, &part->up, &up);
}

// ---- one hop -------------------------------------------------------------------------------------------------------------------

// The hop's number for each row: whose row of the table the votes are on.
static tv_status name_hop(tv_graph_part *part, tv_unit *rows, gradients *g, int h)
{
    tv_arena arena;
    tv_arena_init(&arena, "the hop of each node");
    tv_arena_take(&arena, rows->tokens, INT);
    TV_TRY(tv_pool_bind(&part->link.host, &arena));
    int32_t *ids = tv_arena_take(&arena, rows->tokens, INT);
    for (int64_t i = 0; i < rows->tokens; i++)
        ids[i] = h;
    return rows->backend->copy(g->hop_id, ids, (size_t)rows->tokens * INT, TV_COPY_TO_DEVICE, rows->stream);
}

// Votes on the hop's scales, from their gradient [nodes, r] in g->l.
static tv_status vote_scale(tv_graph_part *part, tv_unit *rows, gradients *g, int h)
{
    const tv_backend *backend = rows->backend;
    const tv_param *param = &rows->params->items[part->hop_scale];
    if (!tv_unit_moves(rows, param))
        return TV_OK;
    tv_quantize_channels_args channels = {.tokens = rows->tokens,
                                          .channels = part->rank,
                                          .x = g->l,
                                          .qt = g->scale_t,
                                          .sumsq = g->sumsq,
                                          .fault = rows->fault};
    tv_embed_vote_args vote = {.tokens = rows->tokens,
                               .width = part->rank,
                               .table = part->hops,
                               .ids = g->hop_id,
                               .gt = g->scale_t,
                               .rule = tv_unit_vote_rule(rows, param),
                               .votes = param->votes};
    TV_TRY(name_hop(part, rows, g, h));
    TV_TRY(backend->quantize_channels(&channels, rows->stream));
    return backend->embed_vote(&vote, rows->stream);
}

// The product of a forward once more, for the first `rows` rows of its operand.
static tv_status repeat_product(tv_unit *unit, const tv_linear *layer, const tv_operand *operand, int64_t rows,
                                float *y)
{
    tv_unit of_rows = tv_graph_rows_unit(unit, rows);
    return tv_linear_forward(&of_rows, layer, operand, y, 0);
}

// dx: NULL for the first hop.
static tv_status low_rank_backward(tv_graph_part *part, tv_unit *rows, gradients *g, int h, float *dx)
{
    tv_graph_hop *hop = &part->hop[h];
    tv_graph_layer scale = tv_graph_scale_of(part, rows, h);
    tv_operand ql = operand_of(part->rank, hop->ql, hop->scale_l, &g->work),
               q = operand_of(part->cols, hop->q, hop->scale, &g->work);
    TV_TRY(tv_operand_transpose(rows, &ql));
    tv_linear_backward_args up = {.operand = &ql, .work = &g->work, .g = g->dy, .dx = g->dl};
    TV_TRY(tv_linear_backward(rows, &hop->lora_up, &up));
    TV_TRY(repeat_product(rows, &hop->lora_down, &q, rows->tokens, g->l));
    tv_graph_scale_backward_args back = {.nodes = rows->tokens,
                                         .rank = part->rank,
                                         .w8 = scale.w8,
                                         .exponent = scale.exponent,
                                         .l = g->l,
                                         .dy = g->dl,
                                         .dl = g->dl,
                                         .dh = g->l};
    TV_TRY(rows->backend->graph.scale_backward(&back, rows->stream));
    TV_TRY(vote_scale(part, rows, g, h));
    TV_TRY(tv_operand_transpose(rows, &q));
    tv_linear_backward_args down = {.operand = &q, .work = &g->work, .g = g->dl, .dx = dx, .accumulate = 1};
    return tv_linear_backward(rows, &hop->lora_down, &down);
}

static tv_status message_backward(tv_graph_part *part, tv_unit *rows, gradients *g, int h, float *dx)
{
    tv_graph_hop *hop = &part->hop[h];
    int64_t sources = at_most(hop->sources, ROWS_MAX);
    tv_operand q = operand_of(part->cols, hop->q, hop->scale, &g->work);
    TV_TRY(repeat_product(rows, &hop->message, &q, hop->sources, g->m));
    tv_graph_aggregate_backward_args aggregate = {.sources = sources,
                                                  .cols = part->cols,
                                                  .edges = part->nodes.start[rows->tokens],
                                                  .accumulate = 1,
                                                  .source = part->source,
                                                  .dst = part->dst,
                                                  .attr = part->attr,
                                                  .source_start = part->source_start,
                                                  .by_source = part->by_source,
                                                  .m = g->m,
                                                  .da = g->da,
                                                  .dm = g->dm,
                                                  .attr_grad = g->attr};
    TV_TRY(rows->backend->graph.aggregate_backward(&aggregate, rows->stream));
    tv_unit of_sources = tv_graph_rows_unit(rows, sources);
    TV_TRY(tv_operand_transpose(&of_sources, &q));
    tv_linear_backward_args message = {.operand = &q, .work = &g->work, .g = g->dm, .dx = dx, .accumulate = 1};
    return tv_linear_backward(&of_sources, &hop->message, &message);
}

// g->dy, of the hop's nodes, becomes that of its sources.
static tv_status hop_backward(tv_graph_part *part, tv_unit *unit, gradients *g, int h)
{
    const tv_backend *backend = unit->backend;
    tv_graph_hop *hop = &part->hop[h];
    int64_t d = part->cols, nodes = at_most(hop->nodes, ROWS_MAX), sources = at_most(hop->sources, ROWS_MAX);
    tv_unit rows = tv_graph_rows_unit(unit, nodes);
    float *dx = h > 0 ? g->dx : NULL;
    if (dx != NULL) {
        TV_TRY(backend->zero(dx, (size_t)(sources * d) * sizeof(float), unit->stream));
        TV_TRY(backend->copy(dx, g->dy, (size_t)(nodes * d) * sizeof(float), TV_COPY_DEVICE, unit->stream));
    }
    if (part->rank > 0)
        TV_TRY(low_rank_backward(part, &rows, g, h, dx));
    tv_operand qa = operand_of(d, hop->qa, hop->scale_a, &g->work);
    TV_TRY(tv_operand_transpose(&rows, &qa));
    tv_linear_backward_args update = {.operand = &qa, .work = &g->work, .g = g->dy, .dx = g->da};
    TV_TRY(tv_linear_backward(&rows, &hop->update, &update));
    TV_TRY(message_backward(part, &rows, g, h, dx));
    g->dx = g->dy;
    g->dy = dx;
    return TV_OK;
}

// ---- the unit's votes and transitions ------------------------------------------------------------------------------------------

// An edge's vote is the sign of its gradient, 0 below half of 1/127 of the unit's largest.
static tv_status note_votes(tv_graph_part *part, tv_unit *unit, const gradients *g)
{
    const tv_graph_nodes *n = &part->nodes;
    tv_quantize_channels_args channels = {
        .tokens = n->edges, .channels = 1, .x = g->attr, .qt = g->attr_q, .sumsq = g->sumsq, .fault = unit->fault};
    tv_arena arena;
    TV_TRY(unit->backend->quantize_channels(&channels, unit->stream));
    tv_arena_init(&arena, "the votes on edges");
    tv_arena_take(&arena, n->edges, 1);
    TV_TRY(tv_pool_bind(&part->link.host, &arena));
    int8_t *q = tv_arena_take(&arena, n->edges, 1);
    TV_TRY(unit->backend->copy(q, g->attr_q, (size_t)n->edges, TV_COPY_TO_HOST, unit->stream));
    for (int64_t e = 0; e < n->edges; e++) {
        tv_graph_record vote = {n->node[n->dst[e]], n->node[n->source[e]], (q[e] > 0) - (q[e] < 0)};
        if (vote.value != 0)
            TV_TRY(tv_graph_note(&part->votes, vote));
    }
    return TV_OK;
}

static tv_status note_transitions(tv_graph_part *part, tv_unit *unit)
{
    const int32_t *motifs = part->host_motifs;
    TV_TRY(unit->backend->copy(part->host_motifs, tv_codebook_motifs(part->codebook), (size_t)unit->tokens * INT,
                               TV_COPY_TO_HOST, unit->stream));
    for (int64_t t = 1; t < unit->tokens; t++)
        if (t % unit->context != 0 && motifs[t] >= 0 && motifs[t - 1] >= 0)
            TV_TRY(tv_graph_note(&part->transitions, (tv_graph_record){motifs[t], motifs[t - 1], 1}));
    return TV_OK;
}

tv_status tv_graph_backward(tv_part *base, tv_unit *unit, float *dx)
{
    tv_graph_part *part = (tv_graph_part *)base;
    gradients g;
    // Of several passes over the unit the edges take the one of `up`.
    int moves = tv_unit_moves(unit, &unit->params->items[part->up.param]);
    if (moves)
        TV_TRY(note_transitions(part, unit));
    if (part->motifs == 0)
        return TV_OK;
    TV_TRY(bind_gradients(part, &g));
    TV_TRY(unit->backend->zero(g.attr, (size_t)part->nodes.edges * sizeof(float), unit->stream));
    TV_TRY(up_backward(part, unit, &g, dx));
    for (int h = part->hops - 1; h >= 0; h--)
        TV_TRY(hop_backward(part, unit, &g, h));
    return moves ? note_votes(part, unit, &g) : TV_OK;
}

// ---- after the step ------------------------------------------------------------------------------------------------------------

// Sums over the ranks of what each did and holds.
static tv_status collect(tv_graph_part *part, tv_unit *unit)
{
    const tv_graph_store *s = &part->store;
    const tv_graph_link *link = &part->link;
    tv_graph_report *r = &part->report;
    int64_t edges = 0, scores = 0;
    for (int64_t run = 0; run < s->runs; run++) {
        edges += s->used[run];
        for (int64_t i = run * s->room; i < run * s->room + s->used[run]; i++)
            scores += s->score[i];
    }
    int64_t n[] = {
        r->changes.made,  r->changes.replaced, r->changes.evicted, r->changes.flips,         edges, scores, r->nodes,
        link->rows_asked, link->lists_asked,   link->records_sent, tv_graph_link_bytes(link)};
    if (link->edges.ranks > 1)
        TV_TRY(tv_comm_sum_i64(unit->comm, n, sizeof n / sizeof *n, TV_WIRE_METRICS));
    *r = (tv_graph_report){.changes = {n[0], n[1], n[2], n[3]},
                           .edges = n[4],
                           .score_sum = n[5],
                           .nodes = n[6],
                           .rows_asked = n[7],
                           .lists_asked = n[8],
                           .records_sent = n[9],
                           .wire_bytes = n[10]};
    return TV_OK;
}

tv_status tv_graph_after_step(tv_part *base, tv_unit *unit)
{
    tv_graph_part *part = (tv_graph_part *)base;
    tv_graph_store *store = &part->store;
    tv_graph_records votes = part->votes, transitions = part->transitions;
    int many = part->link.edges.ranks > 1;
    part->report.changes = (tv_graph_changes){.made = 0};
    tv_graph_store_refresh(store);
    if (many)
        TV_TRY(tv_graph_link_deliver(&part->link, unit, &votes));
    TV_TRY(tv_graph_store_vote(store, unit, votes.items, votes.count, &part->report.changes));
    if (many)
        TV_TRY(tv_graph_link_deliver(&part->link, unit, &transitions));
    TV_TRY(tv_graph_store_learn(store, transitions.items, transitions.count, &part->report.changes));
    tv_graph_store_decay(store, unit->step);
    return collect(part, unit);
}
