#include "model/focus.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "comm/comm.h"
#include "model/focus_code.h"
#include "model/linear.h"

enum { QMAX = 127, COUNTS = TV_FOCUS_SUMS + 1 };

// Rows of all matrices but `carried` and `next` are segments, row j W + w for segment j of window w. n: `cell`; h, c: fast cell, slow cell.
typedef struct focus_part {
    tv_part base;
    int64_t width, cell, joined;   // D, n, D + 2n
    int64_t segment, bptt, stream; // P, segments; stream: states go on in the next step
    int64_t unit_windows;
    int64_t boundary, carried; // places in the table
    tv_linear cells, up;
    tv_operand input, state; // [rows, D + 2n], [rows, 2n]
    tv_focus_code code;
    tv_linear_work work;
    int64_t rows, windows;     // most of a unit
    int32_t *kind;             // [rows]
    float *z;                  // [rows, 11n]
    float *h, *c;              // [rows + W, 2n] before each segment
    float *a;                  // [rows, D + 2n] input of the cells
    float *y;                  // [rows, D]
    float *dstate, *dz, *da;   // [rows, 2n], [rows, 11n], [rows, D + 2n]
    float *dh, *dc;            // [W, 2n]
    int16_t *next;             // [held rows of carried, 4n]: carried after this step
    int64_t *sums;             // [TV_FOCUS_SUMS] backend memory
    int64_t elements;          // behind the sums
    int64_t step_sums[COUNTS]; // of the last step, all ranks; then elements
} focus_part;

// A unit cut into segments.
typedef struct pieces {
    int64_t windows, segments, cells; // segments of a window, and how many of them go through the cells
    int carrying;
} pieces;

static tv_status focus_declare(tv_part *base, tv_params *params, const tv_config *config)
{
    focus_part *part = (focus_part *)base;
    tv_scale_type type = (tv_scale_type)config->model.scale_type;
    part->width = config->model.width;
    part->cell = config->focus.width;
    part->joined = part->width + 2 * part->cell;
    part->segment = config->focus.segment;
    part->bptt = config->focus.bptt;
    part->stream = config->data.order == TV_ORDER_STREAM;
    part->unit_windows = config->train.unit_windows;
    tv_tensor_spec boundary = {.rows = TV_FOCUS_KINDS, .cols = part->width, .scale_type = type, .lookup = 1};
    tv_tensor_spec cells = {.rows = TV_FOCUS_GATES * part->cell, .cols = part->joined, .scale_type = type};
    tv_tensor_spec up = {.rows = part->width, .cols = 2 * part->cell, .scale_type = type, .residual = 1};
    tv_side_spec carried = {.group = "focus",
                            .dtype = TV_I16,
                            .rows = config->train.units * config->train.unit_windows,
                            .cols = 4 * part->cell,
                            .placement = TV_PLACE_UNITS};
    TV_TRY(tv_part_declare(base, params, "boundary", &boundary, &part->boundary));
    TV_TRY(tv_part_declare(base, params, "cells", &cells, &part->cells.param));
    TV_TRY(tv_part_declare(base, params, "up", &up, &part->up.param));
    TV_TRY(tv_focus_code_declare(&part->code, base, params, config));
    base->loss = part->code.rows > 0 ? "commitment" : NULL;
    return part->stream ? tv_part_declare_side(base, params, "carried", &carried, &part->carried) : TV_OK;
}

static void plan_backward(focus_part *part, tv_plan *plan)
{
    int64_t rows = part->rows, n = part->cell;
    part->dstate = tv_arena_take(&plan->scratch, rows * 2 * n, sizeof(float));
    part->dz = tv_arena_take(&plan->scratch, rows * TV_FOCUS_GATES * n, sizeof(float));
    part->da = tv_arena_take(&plan->scratch, rows * part->joined, sizeof(float));
    part->dh = tv_arena_take(&plan->scratch, part->windows * 2 * n, sizeof(float));
    part->dc = tv_arena_take(&plan->scratch, part->windows * 2 * n, sizeof(float));
    part->sums = tv_arena_take(&plan->saved, TV_FOCUS_SUMS, sizeof(int64_t));
    if (part->stream) {
        const tv_side *side = &plan->params->sides[part->carried];
        part->next = tv_arena_take(&plan->saved, side->held_rows * side->spec.cols, sizeof(int16_t));
    }
}

static tv_status focus_plan(tv_part *base, tv_plan *plan)
{
    focus_part *part = (focus_part *)base;
    int64_t n = part->cell, tokens = plan->tokens, gates = TV_FOCUS_GATES * n, d = plan->config->codebook.width;
    int64_t inputs = part->joined > d ? part->joined : d, outputs = gates > part->width ? gates : part->width;
    part->windows = tv_ceil_div(tokens, plan->context);
    part->rows = part->windows * tv_ceil_div(plan->context, part->segment);
    tv_arena *keep = tv_plan_keep(plan);
    plan->tokens = part->rows; // of the layers: their rows are segments
    tv_linear_work_plan(&part->work, plan, inputs, outputs > d ? outputs : d, 0);
    tv_operand_plan(&part->input, plan, part->joined, &part->work);
    tv_operand_plan(&part->state, plan, 2 * n, &part->work);
    tv_status st = tv_focus_code_plan(&part->code, plan, &part->work);
    plan->tokens = tokens;
    TV_TRY(st);
    part->kind = tv_arena_take(keep, part->rows, sizeof(int32_t));
    part->z = tv_arena_take(keep, part->rows * gates, sizeof(float));
    part->h = tv_arena_take(keep, (part->rows + part->windows) * 2 * n, sizeof(float));
    part->c = tv_arena_take(keep, (part->rows + part->windows) * 2 * n, sizeof(float));
    part->a = tv_arena_take(&plan->scratch, part->rows * part->joined, sizeof(float));
    part->y = tv_arena_take(&plan->scratch, part->rows * part->width, sizeof(float));
    if (plan->training)
        plan_backward(part, plan);
    return TV_OK;
}

// The state behind the last segment is of use only to the next step.
static tv_status cut_unit(const focus_part *part, const tv_unit *unit, pieces *out)
{
    int64_t windows = unit->tokens / unit->context, segments = tv_ceil_div(unit->context, part->segment);
    int carrying = part->stream && unit->training;
    *out = (pieces){windows, segments, segments - !carrying, carrying};
    if (windows * segments > part->rows || windows > part->windows || (carrying && windows > part->unit_windows))
        return TV_FAIL(TV_INTERNAL, "focus: %" PRId64 " windows of %" PRId64 " segments do not fit its plan", windows,
                       segments);
    return TV_OK;
}

// The unit's rows of an array like `carried`.
static int16_t *unit_rows(const focus_part *part, const tv_unit *unit, void *array)
{
    const tv_side *side = &unit->params->sides[part->carried];
    int64_t row = (int64_t)unit->index * part->unit_windows - side->first_row;
    return (int16_t *)array + row * side->spec.cols;
}

// The layers' view of rows of segments.
static tv_unit segment_unit(const tv_unit *unit, int64_t rows)
{
    tv_unit rows_unit = *unit;
    rows_unit.tokens = rows;
    rows_unit.context = 1;
    return rows_unit;
}
static tv_operand operand_from(const tv_operand *operand, int64_t row)
{
    tv_operand from = *operand;
    from.q += row * operand->cols;
    from.scale += row;
    return from;
}

// What the cells are given: each segment's mean and boundary, and the states that windows start with.
static tv_status prepare(focus_part *part, tv_unit *unit, const pieces *cut, const float *x)
{
    const tv_backend *backend = unit->backend;
    const tv_param *table = &unit->params->items[part->boundary];
    int64_t rows = cut->cells * cut->windows;
    tv_focus_kinds_args kinds = {.windows = cut->windows,
                                 .context = unit->context,
                                 .segment = part->segment,
                                 .segments = cut->cells,
                                 .ids = unit->ids,
                                 .kind = part->kind};
    tv_embed_args embed = {.tokens = rows,
                           .width = part->width,
                           .ids = part->kind,
                           .w8 = table->w8,
                           .exponent = table->base,
                           .x = part->y};
    tv_focus_gather_args gather = {.windows = cut->windows,
                                   .context = unit->context,
                                   .segment = part->segment,
                                   .segments = cut->cells,
                                   .width = part->width,
                                   .stride = part->joined,
                                   .divisor = (float)part->segment,
                                   .x = x,
                                   .add = part->y,
                                   .out = part->a};
    tv_focus_load_args load = {.rows = cut->windows,
                               .width = part->cell,
                               .stride = part->joined,
                               .h = part->h,
                               .c = part->c,
                               .tail = cut->cells > 0 ? part->a + part->width : NULL,
                               .slow = part->code.slow};
    if (cut->carrying)
        load.carried = unit_rows(part, unit, unit->params->sides[part->carried].data);
    TV_TRY(backend->focus.kinds(&kinds, unit->stream));
    TV_TRY(backend->embed(&embed, unit->stream));
    TV_TRY(backend->focus.gather(&gather, unit->stream));
    return backend->focus.load(&load, unit->stream);
}

// All windows' segment j through both cells.
static tv_status run_cells(focus_part *part, tv_unit *unit, const pieces *cut, int64_t j)
{
    int64_t row = j * cut->windows, next = row + cut->windows, n = part->cell;
    tv_unit rows = segment_unit(unit, cut->windows);
    tv_operand input = operand_from(&part->input, row);
    float *z = part->z + row * TV_FOCUS_GATES * n;
    tv_focus_cell_args cell = {.rows = cut->windows,
                               .width = n,
                               .stride = part->joined,
                               .z = z,
                               .h = part->h + row * 2 * n,
                               .c = part->c + row * 2 * n,
                               .next_h = part->h + next * 2 * n,
                               .next_c = part->c + next * 2 * n,
                               .tail = j + 1 < cut->cells ? part->a + next * part->joined + part->width : NULL};
    if (part->code.slow != NULL && j + 1 < cut->segments)
        cell.slow = part->code.slow + next * n;
    TV_TRY(tv_operand_quantize(&rows, &input, part->a + row * part->joined));
    TV_TRY(tv_linear_forward(&rows, &part->cells, &input, z, 0));
    return unit->backend->focus.cell(&cell, unit->stream);
}

// x += lin(up, the state before each segment).
static tv_status add_states(focus_part *part, tv_unit *unit, const pieces *cut, float *x)
{
    tv_unit rows = segment_unit(unit, cut->segments * cut->windows);
    tv_focus_scatter_args scatter = {.windows = cut->windows,
                                     .context = unit->context,
                                     .segment = part->segment,
                                     .segments = cut->segments,
                                     .width = part->width,
                                     .stride = part->width,
                                     .divisor = 1.0f,
                                     .y = part->y,
                                     .x = x};
    TV_TRY(tv_operand_quantize(&rows, &part->state, part->h));
    TV_TRY(tv_linear_forward(&rows, &part->up, &part->state, part->y, 0));
    if (part->code.rows > 0)
        TV_TRY(tv_focus_code_forward(&part->code, &rows, part->y));
    return unit->backend->focus.scatter(&scatter, unit->stream);
}

// What the step's end needs: states for the next step, and figures.
static tv_status keep_for_step(focus_part *part, tv_unit *unit, const pieces *cut)
{
    int64_t rows = cut->cells * cut->windows, end = rows * 2 * part->cell;
    tv_focus_gates_args gates = {.rows = rows, .width = part->cell, .z = part->z, .sums = part->sums};
    part->elements += rows * part->cell;
    TV_TRY(unit->backend->focus.gates(&gates, unit->stream));
    if (!cut->carrying)
        return TV_OK;
    tv_focus_save_args save = {.rows = cut->windows,
                               .width = part->cell,
                               .h = part->h + end,
                               .c = part->c + end,
                               .carried = unit_rows(part, unit, part->next)};
    return unit->backend->focus.save(&save, unit->stream);
}

static tv_status focus_forward(tv_part *base, tv_unit *unit, float *x)
{
    focus_part *part = (focus_part *)base;
    pieces cut;
    TV_TRY(cut_unit(part, unit, &cut));
    TV_TRY(prepare(part, unit, &cut, x));
    for (int64_t j = 0; j < cut.cells; j++)
        TV_TRY(run_cells(part, unit, &cut, j));
    TV_TRY(add_states(part, unit, &cut, x));
    return unit->training ? keep_for_step(part, unit, &cut) : TV_OK;
}

// dstate: the gradient of the state before each segment, from the positions that it was added to.
static tv_status add_states_back(focus_part *part, tv_unit *unit, const pieces *cut, const float *dx)
{
    tv_unit rows = segment_unit(unit, cut->segments * cut->windows);
    tv_focus_gather_args gather = {.windows = cut->windows,
                                   .context = unit->context,
                                   .segment = part->segment,
                                   .segments = cut->segments,
                                   .width = part->width,
                                   .stride = part->width,
                                   .divisor = 1.0f,
                                   .x = dx,
                                   .out = part->y};
    tv_linear_backward_args up = {.operand = &part->state, .work = &part->work, .g = part->y, .dx = part->dstate};
    TV_TRY(unit->backend->focus.gather(&gather, unit->stream));
    TV_TRY(tv_operand_transpose(&rows, &part->state));
    TV_TRY(tv_linear_backward(&rows, &part->up, &up));
    return part->code.rows > 0 ? tv_focus_code_backward(&part->code, &rows, part->y) : TV_OK;
}

// Segment j: dz, and da, whose tail is the gradient of the states through the projections.
static tv_status run_cells_back(focus_part *part, tv_unit *unit, const pieces *cut, int64_t j, int chained)
{
    int64_t row = j * cut->windows, next = row + cut->windows, n = part->cell, gates = TV_FOCUS_GATES * n;
    tv_unit rows = segment_unit(unit, cut->windows);
    tv_focus_back_args back = {.rows = cut->windows,
                               .width = n,
                               .stride = part->joined,
                               .chained = chained,
                               .z = part->z + row * gates,
                               .h = part->h + row * 2 * n,
                               .c = part->c + row * 2 * n,
                               .grad = part->dstate + next * 2 * n,
                               .slow_grad = part->code.slow_grad ? part->code.slow_grad + next * n : NULL,
                               .tail_grad = chained ? part->da + next * part->joined + part->width : NULL,
                               .dh = part->dh,
                               .dc = part->dc,
                               .dz = part->dz + row * gates};
    tv_quantize_rows_args quantize = {.rows = cut->windows,
                                      .cols = gates,
                                      .qmax = QMAX,
                                      .x = back.dz,
                                      .q = part->work.g,
                                      .scale = part->work.g_scale,
                                      .fault = unit->fault};
    tv_linear_backward_args cells = {
        .operand = &part->input, .work = &part->work, .dx = part->da + row * part->joined, .silent = 1};
    TV_TRY(unit->backend->focus.back(&back, unit->stream));
    TV_TRY(unit->backend->quantize_rows(&quantize, unit->stream));
    return tv_linear_backward(&rows, &part->cells, &cells);
}

// Votes on the cells: one product over the rows of all segments.
static tv_status vote_cells(focus_part *part, tv_unit *unit, int64_t row_count)
{
    tv_unit rows = segment_unit(unit, row_count);
    tv_quantize_channels_args quantize = {.tokens = row_count,
                                          .channels = TV_FOCUS_GATES * part->cell,
                                          .x = part->dz,
                                          .qt = part->work.gt,
                                          .sumsq = part->work.g_sumsq,
                                          .fault = unit->fault};
    tv_linear_backward_args cells = {.operand = &part->input, .work = &part->work};
    TV_TRY(unit->backend->quantize_channels(&quantize, unit->stream));
    TV_TRY(tv_operand_transpose(&rows, &part->input));
    return tv_linear_backward(&rows, &part->cells, &cells);
}

// y: the gradient of each segment's mean, which is its boundary's too.
static tv_status vote_boundary(focus_part *part, tv_unit *unit, int64_t row_count)
{
    const tv_param *table = &unit->params->items[part->boundary];
    if (!tv_unit_moves(unit, table))
        return TV_OK;
    tv_quantize_channels_args quantize = {.tokens = row_count,
                                          .channels = part->width,
                                          .x = part->y,
                                          .qt = part->work.gt,
                                          .sumsq = part->work.g_sumsq,
                                          .fault = unit->fault};
    tv_embed_vote_args vote = {.tokens = row_count,
                               .width = part->width,
                               .table = table->spec.rows,
                               .ids = part->kind,
                               .gt = part->work.gt,
                               .rule = tv_unit_vote_rule(unit, table),
                               .votes = table->votes};
    TV_TRY(unit->backend->quantize_channels(&quantize, unit->stream));
    return unit->backend->embed_vote(&vote, unit->stream);
}

static tv_status focus_backward(tv_part *base, tv_unit *unit, float *dx)
{
    focus_part *part = (focus_part *)base;
    pieces cut;
    TV_TRY(cut_unit(part, unit, &cut));
    TV_TRY(add_states_back(part, unit, &cut, dx));
    int64_t used = cut.segments - 1; // whose states other segments of the window have
    for (int64_t j = used - 1; j >= 0; j--)
        TV_TRY(run_cells_back(part, unit, &cut, j, (used - 1 - j) % part->bptt != 0));
    TV_TRY(vote_cells(part, unit, used * cut.windows));
    tv_focus_scatter_args scatter = {.windows = cut.windows,
                                     .context = unit->context,
                                     .segment = part->segment,
                                     .segments = used,
                                     .width = part->width,
                                     .stride = part->joined,
                                     .divisor = (float)part->segment,
                                     .y = part->da,
                                     .x = dx,
                                     .copy = part->y};
    TV_TRY(unit->backend->focus.scatter(&scatter, unit->stream));
    return vote_boundary(part, unit, used * cut.windows);
}

static tv_status copy_carried(const focus_part *part, tv_unit *unit, int to_state)
{
    const tv_side *side = &unit->params->sides[part->carried];
    size_t bytes = (size_t)(side->held_rows * side->spec.cols) * sizeof(int16_t);
    return unit->backend->copy(to_state ? side->data : part->next, to_state ? part->next : side->data, bytes,
                               TV_COPY_DEVICE, unit->stream);
}

// Carried states move only when the whole step has come out well.
static tv_status focus_before_step(tv_part *base, tv_unit *unit)
{
    focus_part *part = (focus_part *)base;
    part->elements = 0;
    if (part->code.rows > 0)
        TV_TRY(tv_vq_before_step(&part->code.vq, unit));
    TV_TRY(unit->backend->zero(part->sums, TV_FOCUS_SUMS * sizeof(int64_t), unit->stream));
    return part->stream ? copy_carried(part, unit, 0) : TV_OK;
}

static tv_status focus_after_step(tv_part *base, tv_unit *unit)
{
    focus_part *part = (focus_part *)base;
    TV_TRY(unit->backend->copy(part->step_sums, part->sums, TV_FOCUS_SUMS * sizeof(int64_t), TV_COPY_TO_HOST,
                               unit->stream));
    part->step_sums[TV_FOCUS_SUMS] = part->elements;
    if (part->code.rows > 0)
        TV_TRY(tv_vq_after_step(&part->code.vq, unit));
    if (unit->comm != NULL)
        TV_TRY(tv_comm_sum_i64(unit->comm, part->step_sums, COUNTS, TV_WIRE_METRICS));
    return part->stream ? copy_carried(part, unit, 1) : TV_OK;
}

static void focus_tell(const tv_part *base, tv_figures *figures)
{
    static const char *const names[TV_FOCUS_SUMS] = {"topic", "reset", "dampen", "forget_fast", "forget_slow"};
    const focus_part *part = (const focus_part *)base;
    double all = (double)part->step_sums[TV_FOCUS_SUMS] * TV_FOCUS_SUM_SCALE;
    for (int k = 0; k < TV_FOCUS_SUMS; k++)
        tv_figures_add(figures, names[k], all > 0 ? (double)part->step_sums[k] / all : 0);
    if (part->code.rows > 0)
        tv_vq_tell(&part->code.vq, figures);
}

static void focus_free(tv_part *base)
{
    tv_vq_free(&((focus_part *)base)->code.vq);
    free(base);
}

tv_status tv_focus_create(tv_part **out)
{
    static const tv_part_ops ops = {.kind = "focus",
                                    .declare = focus_declare,
                                    .plan = focus_plan,
                                    .forward = focus_forward,
                                    .backward = focus_backward,
                                    .before_step = focus_before_step,
                                    .after_step = focus_after_step,
                                    .tell = focus_tell,
                                    .free = focus_free};
    focus_part *part = calloc(1, sizeof *part);
    if (part == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for the conversation's part");
    part->base.ops = &ops;
    snprintf(part->base.name, sizeof part->base.name, "focus");
    *out = &part->base;
    return TV_OK;
}
