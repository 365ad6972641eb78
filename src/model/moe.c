#include "model/moe.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "model/gated.h"
#include "model/moe_balance.h"
#include "model/moe_buffers.h"
#include "model/norm.h"

enum { QUERY_WIDTH = 64, LOGIT_EXPONENT = -3 }; // logits are products / sqrt(64)

// Seconds of this rank, measured only when the unit asks.
typedef struct moe_seconds {
    double dispatch, experts, combine;
} moe_seconds;

typedef struct moe_part {
    tv_part base;
    int64_t width, inner; // D, F
    int qmax;             // qmax: (3^digits - 1) / 2
    tv_norm norm;
    tv_linear query, centroid, down;
    tv_gated shared;          // hidden 0: there is none
    int64_t experts;          // tensor
    tv_operand input, z, sum; // norm(x) [M, D], query [M, 64], gated sum of h [M, F]
    tv_moe_rows rows;
    tv_moe_buffers buffers;
    tv_pool *pool, own_pool; // shared by all parts: the first one's own
    tv_moe_balance balance;
    moe_seconds seconds, told; // since the last step; of the last step
    tv_linear_work work;
    float *normed;             // [M, D] norm(x), or its gradient
    float *query_out, *logits; // [M, 64], [M, n_e], or their gradients
    float *h;                  // [M, F] gated sum, or its gradient
    float *gate_grad;          // [M, k]
    tv_rows8 token;            // [M, max(D, F)] a token's digits before they go to its experts
} moe_part;

static tv_status moe_declare(tv_part *base, tv_params *params, const tv_config *config)
{
    moe_part *part = (moe_part *)base;
    int64_t width = part->width = config->model.width, inner = part->inner = tv_config_expert_width(config);
    int64_t experts = config->moe.experts;
    tv_scale_type type = (tv_scale_type)config->model.scale_type;
    tv_moe_rows_init(&part->rows, config);
    part->balance.experts = experts;
    part->balance.moves = (int)config->moe.balance;
    part->qmax = 1;
    for (int64_t d = 1; d < config->moe.wire_digits; d++)
        part->qmax = 3 * part->qmax + 1;
    part->centroid.exponent = LOGIT_EXPONENT;
    tv_tensor_spec query = {.rows = QUERY_WIDTH, .cols = width, .scale_type = type};
    tv_tensor_spec centroid = {.rows = experts, .cols = QUERY_WIDTH, .scale_type = type, .unit_scale = 1};
    tv_tensor_spec stack = {
        .rows = experts * 2 * inner, .cols = width, .scale_type = type, .stack = experts, .placement = TV_PLACE_EXPERT};
    tv_tensor_spec down = {.rows = width, .cols = inner, .scale_type = type, .residual = 1};
    tv_side_spec bias = {.group = "tables", .dtype = TV_I16, .rows = experts, .cols = 1};
    TV_TRY(tv_norm_declare(&part->norm, base, params, "norm", &query));
    TV_TRY(tv_part_declare(base, params, "query", &query, &part->query.param));
    TV_TRY(tv_part_declare(base, params, "centroid", &centroid, &part->centroid.param));
    TV_TRY(tv_part_declare(base, params, "experts", &stack, &part->experts));
    TV_TRY(tv_part_declare(base, params, "down", &down, &part->down.param));
    part->shared.hidden = config->moe.shared;
    if (part->shared.hidden > 0)
        TV_TRY(tv_gated_declare(&part->shared, base, params, "shared_", config));
    return tv_part_declare_side(base, params, "bias", &bias, &part->balance.side);
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Buffers of the layers' backward products, for the widest of them.
static void plan_work(moe_part *part, tv_plan *plan)
{
    int64_t inputs, outputs;
    tv_gated_widths(&part->shared, part->width, &inputs, &outputs);
    inputs = larger(larger(inputs, part->inner), QUERY_WIDTH);
    outputs = larger(larger(outputs, part->rows.experts), QUERY_WIDTH);
    tv_linear_work_plan(&part->work, plan, inputs, outputs, 0);
    if (part->shared.hidden > 0)
        tv_gated_plan(&part->shared, plan, &part->work);
}

static tv_status moe_plan(tv_part *base, tv_plan *plan)
{
    moe_part *part = (moe_part *)base;
    int64_t tokens = plan->tokens, width = part->width, inner = part->inner, experts = part->rows.experts;
    tv_arena *scratch = &plan->scratch;
    TV_TRY(tv_moe_balance_plan(&part->balance, plan));
    TV_TRY(tv_moe_rows_plan(&part->rows, plan));
    plan_work(part, plan);
    tv_norm_plan(&part->norm, plan, 1);
    tv_operand_plan(&part->input, plan, width, &part->work);
    tv_operand_plan(&part->z, plan, QUERY_WIDTH, &part->work);
    tv_operand_plan(&part->sum, plan, inner, &part->work);
    part->normed = tv_arena_take(scratch, tokens * width, sizeof(float));
    part->query_out = tv_arena_take(scratch, tokens * QUERY_WIDTH, sizeof(float));
    part->logits = tv_arena_take(scratch, tokens * experts, sizeof(float));
    part->h = tv_arena_take(scratch, tokens * inner, sizeof(float));
    part->gate_grad = tv_arena_take(scratch, tokens * part->rows.slots, sizeof(float));
    part->token.q = tv_arena_take(scratch, tokens * larger(width, inner), 1);
    part->token.scale = tv_arena_take(scratch, tokens, sizeof(float));
    part->buffers.width = width;
    part->buffers.inner = inner;
    if (part->rows.ranks == 1) {
        tv_moe_buffers_plan(&part->buffers, &part->rows, plan);
        return TV_OK;
    }
    if (plan->rows_pool == NULL)
        plan->rows_pool = &part->own_pool;
    part->pool = plan->rows_pool;
    part->pool->backend = plan->params->backend;
    return TV_OK;
}

// Adds the time since *mark to *seconds, when the unit asks for it.
static tv_status lap(const tv_unit *unit, double *mark, double *seconds)
{
    if (!unit->timed)
        return TV_OK;
    TV_TRY(unit->backend->sync(unit->stream));
    double now = tv_clock_seconds();
    if (seconds != NULL)
        *seconds += now - *mark;
    *mark = now;
    return TV_OK;
}

// Float rows to digits with one scale.
static tv_quantize_rows_args to_digits(const moe_part *part, const tv_unit *unit, tv_quantize_rows_args args)
{
    args.qmax = part->qmax;
    args.fault = unit->fault;
    return args;
}

// A token's row of `cols` values to digits.
static tv_quantize_rows_args token_digits(const moe_part *part, const tv_unit *unit, const float *x, int64_t cols)
{
    return to_digits(part, unit,
                     (tv_quantize_rows_args){
                         .rows = unit->tokens, .cols = cols, .x = x, .q = part->token.q, .scale = part->token.scale});
}

// norm(x) as `input`, and as what goes to the experts.
static tv_status norm_digits(moe_part *part, tv_unit *unit, const float *x)
{
    tv_norm_digits_args args = {tv_norm_forward_op(unit, &part->norm, unit->tokens, x, part->normed),
                                tv_operand_rows(unit, &part->input, part->normed),
                                token_digits(part, unit, part->normed, part->width)};
    return tv_norm_digits(unit->backend, &args, unit->stream);
}

// Which experts each token goes to.
static tv_status route(moe_part *part, tv_unit *unit)
{
    tv_moe_query_args args = {tv_linear_product(unit, &part->query, &part->input, part->query_out),
                              tv_operand_rows(unit, &part->z, part->query_out),
                              tv_linear_product(unit, &part->centroid, &part->z, part->logits),
                              {.tokens = unit->tokens,
                               .experts = part->rows.experts,
                               .slots = (int)part->rows.slots,
                               .logits = part->logits,
                               .bias = unit->params->sides[part->balance.side].data,
                               .expert = part->rows.expert,
                               .gate = part->rows.gate,
                               .counts = unit->training ? part->balance.counts : NULL,
                               .fault = unit->fault}};
    return tv_moe_query(unit->backend, &args, unit->stream);
}

// Tokens' digits to their experts.
static tv_status dispatch(moe_part *part, tv_unit *unit)
{
    tv_moe_send send = {.cols = part->width, .from = part->token, .to = part->buffers.x};
    if (part->rows.ranks == 1)
        return tv_moe_rows_place(&part->rows, unit, &send);
    TV_TRY(tv_moe_rows_plan_unit(&part->rows, unit, part->base.name));
    TV_TRY(tv_moe_buffers_forward(&part->buffers, &part->rows, part->pool, unit->training));
    send.to = part->buffers.x;
    return tv_moe_rows_send(&part->rows, unit, &send);
}

static tv_moe_gemm_args expert_product(const moe_part *part, const tv_unit *unit)
{
    const tv_param *param = &unit->params->items[part->experts];
    return (tv_moe_gemm_args){.segments = part->rows.segments,
                              .segment_count = part->rows.segment_count,
                              .rows = part->rows.rows,
                              .exponent = param->base};
}

// This rank's experts on the rows that came here.
static tv_status run_experts(moe_part *part, tv_unit *unit)
{
    tv_moe_buffers *b = &part->buffers;
    tv_moe_gemm_args product = expert_product(part, unit);
    product.n = 2 * part->inner;
    product.reduce = part->width;
    product.a = b->x.q;
    product.scale = b->x.scale;
    product.b = unit->params->items[part->experts].w8;
    product.y = b->gu;
    TV_TRY(unit->backend->moe_gemm(&product, unit->stream));
    tv_moe_activate_args activate = {.segments = part->rows.segments,
                                     .segment_count = part->rows.segment_count,
                                     .rows = part->rows.rows,
                                     .width = part->inner,
                                     .qmax = part->qmax,
                                     .gu = b->gu,
                                     .saved_q = unit->training ? b->halves.q : NULL,
                                     .saved_scale = b->halves.scale,
                                     .q = b->made.q,
                                     .scale = b->made.scale,
                                     .fault = unit->fault};
    return unit->backend->moe_activate(&activate, unit->stream);
}

// The gated sum of what the experts gave, as `sum`.
static tv_status combine(moe_part *part, tv_unit *unit)
{
    tv_moe_sum_args args = {{.tokens = unit->tokens,
                             .cols = part->inner,
                             .slots = (int)part->rows.slots,
                             .place = part->rows.wanted,
                             .gate = part->rows.gate,
                             .q = part->buffers.h.q,
                             .scale = part->buffers.h.scale,
                             .y = part->h},
                            tv_operand_rows(unit, &part->sum, part->h)};
    return tv_moe_sum(unit->backend, &args, unit->stream);
}

static tv_status moe_forward(tv_part *base, tv_unit *unit, float *x)
{
    moe_part *part = (moe_part *)base;
    double mark = 0;
    TV_TRY(norm_digits(part, unit, x));
    TV_TRY(route(part, unit));
    TV_TRY(lap(unit, &mark, NULL));
    TV_TRY(dispatch(part, unit));
    TV_TRY(lap(unit, &mark, &part->seconds.dispatch));
    TV_TRY(run_experts(part, unit));
    TV_TRY(lap(unit, &mark, &part->seconds.experts));
    if (part->rows.ranks > 1)
        TV_TRY(tv_moe_rows_return(&part->rows, unit, part->inner, part->buffers.made, &part->buffers.h));
    TV_TRY(lap(unit, &mark, &part->seconds.dispatch));
    TV_TRY(combine(part, unit));
    TV_TRY(lap(unit, &mark, &part->seconds.combine));
    TV_TRY(tv_linear_forward(unit, &part->down, &part->sum, x, 1));
    return part->shared.hidden > 0 ? tv_gated_forward(unit, &part->shared, &part->input, x) : TV_OK;
}

// The gradient of the gated sum becomes that of the gates and their logits, and goes to the experts: that of a row of h is gate times it.
static tv_status split_gradient(moe_part *part, tv_unit *unit)
{
    const tv_moe_rows *rows = &part->rows;
    tv_moe_send send = {.cols = part->inner, .from = part->token, .factor = rows->gate, .to = part->buffers.gh};
    tv_moe_split_args args = {{.tokens = unit->tokens,
                               .cols = part->inner,
                               .slots = (int)rows->slots,
                               .place = rows->wanted,
                               .q = part->buffers.h.q,
                               .scale = part->buffers.h.scale,
                               .dy = part->h,
                               .grad = part->gate_grad},
                              {.tokens = unit->tokens,
                               .experts = rows->experts,
                               .slots = (int)rows->slots,
                               .expert = rows->expert,
                               .gate = rows->gate,
                               .grad = part->gate_grad,
                               .logits = part->logits},
                              token_digits(part, unit, part->h, part->inner),
                              tv_moe_rows_gather(rows, &send)};
    if (rows->ranks == 1)
        return tv_moe_split(unit->backend, &args, unit->stream);
    TV_TRY(unit->backend->moe_combine_backward(&args.combine, unit->stream));
    TV_TRY(unit->backend->moe_route_backward(&args.route, unit->stream));
    TV_TRY(unit->backend->quantize_rows(&args.digits, unit->stream));
    return tv_moe_rows_send(&part->rows, unit, &send);
}

// Operands of the experts' products: the gradient of gate and transform, and with `votes` the channels of x.
static tv_status turn_experts(moe_part *part, tv_unit *unit, int votes)
{
    tv_moe_buffers *b = &part->buffers;
    const tv_moe_rows *rows = &part->rows;
    tv_moe_turn_args args = {{.segments = rows->segments,
                              .segment_count = rows->segment_count,
                              .rows = rows->rows,
                              .width = part->inner,
                              .columns = rows->columns,
                              .q = b->gh.q,
                              .scale = b->gh.scale,
                              .item = rows->owner_item,
                              .saved_q = b->halves.q,
                              .saved_scale = b->halves.scale,
                              .dq = b->dgu.q,
                              .dscale = b->dgu.scale,
                              .dt = b->dgu_t,
                              .sumsq = b->dgu_sumsq,
                              .fault = unit->fault},
                             {.segments = rows->segments,
                              .segment_count = rows->segment_count,
                              .rows = rows->rows,
                              .channels = part->width,
                              .columns = rows->columns,
                              .q = b->x.q,
                              .scale = b->x.scale,
                              .item = rows->owner_item,
                              .qt = b->x_t,
                              .sumsq = b->x_sumsq,
                              .fault = unit->fault}};
    return votes ? tv_moe_turn(unit->backend, &args, unit->stream)
                 : unit->backend->moe_activate_backward(&args.gradient, unit->stream);
}

static tv_moe_vote_args expert_votes(const moe_part *part, const tv_unit *unit)
{
    const tv_moe_buffers *b = &part->buffers;
    const tv_param *param = &unit->params->items[part->experts];
    return (tv_moe_vote_args){.segments = part->rows.segments,
                              .segment_count = part->rows.segment_count,
                              .columns = part->rows.columns,
                              .runs = part->rows.ranks,
                              .n = 2 * part->inner,
                              .k = part->width,
                              .first_expert = part->rows.first_expert,
                              .gt = b->dgu_t,
                              .xt = b->x_t,
                              .g_sumsq = b->dgu_sumsq,
                              .x_sumsq = b->x_sumsq,
                              .rule = tv_unit_vote_rule(unit, param),
                              .votes = param->votes};
}

// Votes of the experts here, and the gradient of each row of xn.
static tv_status experts_backward(moe_part *part, tv_unit *unit)
{
    tv_moe_buffers *b = &part->buffers;
    const tv_param *param = &unit->params->items[part->experts];
    int votes = tv_unit_moves(unit, param);
    tv_moe_gemm_args gradient = expert_product(part, unit);
    tv_moe_vote_args vote = expert_votes(part, unit);
    gradient.n = part->width;
    gradient.reduce = 2 * part->inner;
    gradient.a = b->dgu.q;
    gradient.scale = b->dgu.scale;
    gradient.b = param->w8t;
    gradient.y = b->dx;
    TV_TRY(turn_experts(part, unit, votes));
    TV_TRY(unit->backend->moe_gemm(&gradient, unit->stream));
    return votes ? unit->backend->moe_vote(&vote, unit->stream) : TV_OK;
}

// Through the shared expert, and through logits, centroids and query, into `normed`, the gradient of norm(x).
static tv_status dense_backward(moe_part *part, tv_unit *unit, const float *dx)
{
    int shared = part->shared.hidden > 0;
    tv_linear_backward_args centroid = {
        .operand = &part->z, .work = &part->work, .g = part->logits, .dx = part->query_out, .turn = 1};
    TV_TRY(tv_linear_backward(unit, &part->centroid, &centroid));
    tv_gated_gradient gated = {.input = &part->input, .work = &part->work, .dy = dx, .dx = part->normed};
    if (shared)
        TV_TRY(tv_gated_backward(unit, &part->shared, &gated));
    tv_linear_backward_args query = {.operand = &part->input,
                                     .work = &part->work,
                                     .g = part->query_out,
                                     .dx = part->normed,
                                     .turn = !shared, // which has turned it
                                     .accumulate = shared};
    return tv_linear_backward(unit, &part->query, &query);
}

// Gradients of the experts' rows to digits, as they come back.
static tv_quantize_rows_args row_digits(const moe_part *part, const tv_unit *unit)
{
    const tv_moe_buffers *b = &part->buffers;
    return to_digits(
        part, unit,
        (tv_quantize_rows_args){
            .rows = part->rows.rows, .cols = part->width, .x = b->dx, .q = b->dx8.q, .scale = b->dx8.scale});
}

// What the experts of a token give back is added to `normed`, in slot order, and all of it goes through the norm to dx.
static tv_status join_gradients(moe_part *part, tv_unit *unit, float *dx)
{
    tv_norm_gradient norm = {.rows = unit->tokens, .dy = part->normed, .dx = dx, .accumulate = 1};
    tv_moe_join_args args = {row_digits(part, unit),
                             {.tokens = unit->tokens,
                              .cols = part->width,
                              .slots = (int)part->rows.slots,
                              .accumulate = 1,
                              .place = part->rows.wanted,
                              .q = part->buffers.home_dx8.q,
                              .scale = part->buffers.home_dx8.scale,
                              .y = part->normed},
                             tv_norm_backward_op(unit, &part->norm, &norm)};
    if (part->rows.ranks == 1)
        return tv_moe_join(unit->backend, &args, unit->stream);
    TV_TRY(unit->backend->moe_combine(&args.combine, unit->stream));
    return unit->backend->norm_backward(&args.norm, unit->stream);
}

// P > 1: what the experts here made of rows goes back to their homes.
static tv_status return_gradients(moe_part *part, tv_unit *unit)
{
    tv_quantize_rows_args digits = row_digits(part, unit);
    if (part->rows.ranks == 1)
        return TV_OK;
    TV_TRY(unit->backend->quantize_rows(&digits, unit->stream));
    return tv_moe_rows_return(&part->rows, unit, part->width, part->buffers.dx8, &part->buffers.home_dx8);
}

static tv_status moe_backward(tv_part *base, tv_unit *unit, float *dx)
{
    moe_part *part = (moe_part *)base;
    double mark = 0;
    if (part->rows.ranks > 1)
        TV_TRY(tv_moe_buffers_backward(&part->buffers, &part->rows, part->pool));
    tv_linear_backward_args down = {.operand = &part->sum, .work = &part->work, .g = dx, .dx = part->h, .turn = 1};
    TV_TRY(tv_linear_backward(unit, &part->down, &down));
    TV_TRY(lap(unit, &mark, NULL));
    TV_TRY(split_gradient(part, unit));
    TV_TRY(lap(unit, &mark, &part->seconds.dispatch));
    TV_TRY(experts_backward(part, unit));
    TV_TRY(lap(unit, &mark, &part->seconds.experts));
    TV_TRY(return_gradients(part, unit));
    TV_TRY(lap(unit, &mark, &part->seconds.dispatch));
    TV_TRY(dense_backward(part, unit, dx));
    TV_TRY(lap(unit, &mark, NULL));
    TV_TRY(join_gradients(part, unit, dx));
    return lap(unit, &mark, &part->seconds.combine);
}

static tv_status moe_before_step(tv_part *base, tv_unit *unit)
{
    moe_part *part = (moe_part *)base;
    part->seconds = (moe_seconds){0};
    return tv_moe_balance_start(&part->balance, &part->rows, unit);
}

static tv_status moe_after_step(tv_part *base, tv_unit *unit)
{
    moe_part *part = (moe_part *)base;
    part->told = part->seconds;
    return tv_moe_balance_step(&part->balance, &part->rows, unit);
}

static void moe_tell(const tv_part *base, tv_figures *figures)
{
    const moe_part *part = (const moe_part *)base;
    tv_moe_balance_tell(&part->balance, figures);
    if (part->told.dispatch + part->told.experts + part->told.combine == 0)
        return;
    tv_figures_add(figures, "dispatch_seconds", part->told.dispatch);
    tv_figures_add(figures, "experts_seconds", part->told.experts);
    tv_figures_add(figures, "combine_seconds", part->told.combine);
}

static void moe_free(tv_part *base)
{
    moe_part *part = (moe_part *)base;
    tv_pool_free(&part->buffers.saved);
    tv_pool_free(&part->own_pool);
    tv_moe_rows_free(&part->rows);
    tv_moe_balance_free(&part->balance);
    free(part);
}

static const tv_part_ops moe_ops = {.kind = "moe",
                                    .declare = moe_declare,
                                    .plan = moe_plan,
                                    .forward = moe_forward,
                                    .backward = moe_backward,
                                    .before_step = moe_before_step,
                                    .after_step = moe_after_step,
                                    .tell = moe_tell,
                                    .free = moe_free};

tv_status tv_moe_create(int64_t block, tv_part **out)
{
    moe_part *part = calloc(1, sizeof *part);
    if (part == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for a mixture-of-experts part");
    part->base.ops = &moe_ops;
    snprintf(part->base.name, sizeof part->base.name, "block.%" PRId64 ".moe", block);
    *out = &part->base;
    return TV_OK;
}
