#include "model/memgram.h"

#include <stdio.h>
#include <stdlib.h>

#include "model/codebook.h"
#include "model/linear.h"
#include "model/memgram_table.h"
#include "model/norm.h"

typedef struct memgram_part {
    tv_part base;
    const tv_part *codebook; // or NULL
    int64_t width;           // D
    tv_norm norm;
    tv_linear down, up;
    tv_memgram_table tables[2];
    int table_count;
    tv_operand input, mixed; // norm(x) [M, D], y [M, d]
    tv_linear_work work;
    float *z;               // [M, d] kept
    float *y, *y_grad, *dz; // [M, d]
    float *normed;          // [M, D] gradient of norm(x)
} memgram_part;

static tv_status memgram_declare(tv_part *base, tv_params *params, const tv_config *config)
{
    memgram_part *part = (memgram_part *)base;
    int64_t width = part->width = config->model.width;
    tv_scale_type type = (tv_scale_type)config->model.scale_type;
    tv_tensor_spec down = {.rows = TV_MEMGRAM_COLS, .cols = width, .scale_type = type};
    tv_tensor_spec up = {.rows = width, .cols = TV_MEMGRAM_COLS, .scale_type = type, .residual = 1};
    TV_TRY(tv_norm_declare(&part->norm, base, params, "norm", &down));
    TV_TRY(tv_part_declare(base, params, "down", &down, &part->down.param));
    for (int i = 0; i < part->table_count; i++)
        TV_TRY(tv_memgram_table_declare(&part->tables[i], base, params, config));
    return tv_part_declare(base, params, "up", &up, &part->up.param);
}

static tv_status memgram_plan(tv_part *base, tv_plan *plan)
{
    memgram_part *part = (memgram_part *)base;
    int64_t values = plan->tokens * TV_MEMGRAM_COLS,
            widest = part->width > TV_MEMGRAM_COLS ? part->width : TV_MEMGRAM_COLS;
    for (int i = 0; i < part->table_count; i++)
        TV_TRY(tv_memgram_table_plan(&part->tables[i], plan));
    tv_linear_work_plan(&part->work, plan, widest, widest, 0);
    tv_norm_plan(&part->norm, plan, 1);
    tv_operand_plan(&part->input, plan, part->width, &part->work);
    tv_operand_plan(&part->mixed, plan, TV_MEMGRAM_COLS, &part->work);
    part->z = tv_arena_take(tv_plan_keep(plan), values, sizeof(float));
    part->y = tv_arena_take(&plan->scratch, values, sizeof(float));
    if (!plan->training)
        return TV_OK;
    part->y_grad = tv_arena_take(&plan->scratch, values, sizeof(float));
    part->dz = tv_arena_take(&plan->scratch, values, sizeof(float));
    part->normed = tv_arena_take(&plan->scratch, plan->tokens * part->width, sizeof(float));
    return TV_OK;
}

static tv_status memgram_forward(tv_part *base, tv_unit *unit, float *x)
{
    memgram_part *part = (memgram_part *)base;
    TV_TRY(tv_norm_quantize(unit, &part->norm, x, &part->input));
    TV_TRY(tv_linear_forward(unit, &part->down, &part->input, part->z, 0));
    for (int i = 0; i < part->table_count; i++) {
        tv_memgram_table *table = &part->tables[i];
        const int32_t *ids = i == 0 ? unit->ids : tv_codebook_motifs(part->codebook);
        TV_TRY(tv_memgram_table_look_up(table, unit, ids, base->name));
        TV_TRY(tv_memgram_table_mix(table, unit, part->z, part->y, i > 0));
    }
    TV_TRY(tv_operand_quantize(unit, &part->mixed, part->y));
    return tv_linear_forward(unit, &part->up, &part->mixed, x, 1);
}

static tv_status memgram_backward(tv_part *base, tv_unit *unit, float *dx)
{
    memgram_part *part = (memgram_part *)base;
    TV_TRY(tv_operand_transpose(unit, &part->mixed));
    tv_linear_backward_args up = {.operand = &part->mixed, .work = &part->work, .g = dx, .dx = part->y_grad};
    TV_TRY(tv_linear_backward(unit, &part->up, &up));
    for (int i = 0; i < part->table_count; i++) {
        tv_memgram_gradient gradient = {.z = part->z, .dy = part->y_grad, .dz = part->dz, .accumulate = i > 0};
        TV_TRY(tv_memgram_table_backward(&part->tables[i], unit, &gradient, base->name));
    }
    TV_TRY(tv_operand_transpose(unit, &part->input));
    tv_linear_backward_args down = {.operand = &part->input, .work = &part->work, .g = part->dz, .dx = part->normed};
    TV_TRY(tv_linear_backward(unit, &part->down, &down));
    tv_norm_gradient norm = {.rows = unit->tokens, .dy = part->normed, .dx = dx, .accumulate = 1};
    return tv_norm_backward(unit, &part->norm, &norm);
}

static tv_status memgram_before_step(tv_part *base, tv_unit *unit)
{
    memgram_part *part = (memgram_part *)base;
    for (int i = 0; i < part->table_count; i++)
        TV_TRY(tv_memgram_table_before_step(&part->tables[i], unit));
    return TV_OK;
}

static tv_status memgram_after_step(tv_part *base, tv_unit *unit)
{
    memgram_part *part = (memgram_part *)base;
    for (int i = 0; i < part->table_count; i++)
        TV_TRY(tv_memgram_table_after_step(&part->tables[i], unit));
    return TV_OK;
}

static void memgram_tell(const tv_part *base, tv_figures *figures)
{
    static const char *const names[2][5] = {
        {"struct_touched", "struct_flips", "struct_exponent_moves", "struct_used", "struct_strong"},
        {"conv_touched", "conv_flips", "conv_exponent_moves", "conv_used", "conv_strong"}};
    static const char *const strengths[2] = {"struct_strength", "conv_strength"};
    const memgram_part *part = (const memgram_part *)base;
    int64_t rows = 0, votes = 0, wire = 0;
    for (int i = 0; i < part->table_count; i++) {
        const tv_memgram_report *r = &part->tables[i].report;
        const double values[] = {(double)r->touched, (double)r->flips, (double)r->moves, r->used, r->strong};
        for (int k = 0; k < 5; k++)
            tv_figures_add(figures, names[i][k], values[k]);
        if (r->counted)
            tv_figures_add_histogram(figures, strengths[i], r->strengths, TV_MEMGRAM_HEALTH);
        rows += r->sent_rows;
        votes += r->sent_votes;
        wire += r->wire_bytes;
    }
    tv_figures_add(figures, "rows_sent", (double)rows);
    tv_figures_add(figures, "votes_sent", (double)votes);
    tv_figures_add(figures, "wire_bytes", (double)wire);
}

static void memgram_free(tv_part *base)
{
    memgram_part *part = (memgram_part *)base;
    for (int i = 0; i < part->table_count; i++)
        tv_memgram_table_free(&part->tables[i]);
    free(base);
}

tv_status tv_memgram_create(const tv_part *codebook, tv_part **out)
{
    static const tv_part_ops ops = {.kind = "memgram",
                                    .declare = memgram_declare,
                                    .plan = memgram_plan,
                                    .forward = memgram_forward,
                                    .backward = memgram_backward,
                                    .before_step = memgram_before_step,
                                    .after_step = memgram_after_step,
                                    .tell = memgram_tell,
                                    .free = memgram_free};
    memgram_part *part = calloc(1, sizeof *part);
    if (part == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for a part of n-grams");
    part->base.ops = &ops;
    part->codebook = codebook;
    part->table_count = codebook != NULL ? 2 : 1;
    part->tables[0].leaf = "struct";
    part->tables[1].leaf = "conv";
    snprintf(part->base.name, sizeof part->base.name, "memgram");
    *out = &part->base;
    return TV_OK;
}
