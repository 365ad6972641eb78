#include "model/moe_buffers.h"

static tv_rows8 take_rows(tv_arena *arena, int64_t rows, int64_t cols)
{
    tv_rows8 taken = {tv_arena_take(arena, rows * cols, 1), NULL};
    taken.scale = tv_arena_take(arena, rows, sizeof(float));
    return taken;
}

static void take_kept(tv_moe_buffers *b, const tv_moe_rows *rows, tv_arena *arena, int training)
{
    b->x = take_rows(arena, rows->rows, b->width);
    b->h = take_rows(arena, rows->home_rows, b->inner);
    b->halves = (tv_rows8){NULL, NULL};
    if (training)
        b->halves = take_rows(arena, 2 * rows->rows, b->inner);
}

static void take_forward(tv_moe_buffers *b, tv_moe_rows *rows, tv_arena *arena)
{
    b->gu = tv_arena_take(arena, rows->rows * 2 * b->inner, sizeof(float));
    b->made = rows->ranks == 1 ? b->h : take_rows(arena, rows->rows, b->inner);
    tv_moe_rows_take_wire(rows, arena, b->width > b->inner ? b->width : b->inner);
}

static void take_backward(tv_moe_buffers *b, tv_moe_rows *rows, tv_arena *arena)
{
    b->gh = take_rows(arena, rows->rows, b->inner);
    b->dgu = take_rows(arena, rows->rows, 2 * b->inner);
    b->dgu_t = tv_arena_take(arena, 2 * b->inner * rows->columns, 1);
    b->x_t = tv_arena_take(arena, b->width * rows->columns, 1);
    b->dgu_sumsq = tv_arena_take(arena, rows->segment_count * 2 * b->inner, sizeof(int32_t));
    b->x_sumsq = tv_arena_take(arena, rows->segment_count * b->width, sizeof(int32_t));
    b->dx = tv_arena_take(arena, rows->rows * b->width, sizeof(float));
    b->dx8 = take_rows(arena, rows->rows, b->width);
    b->home_dx8 = rows->ranks == 1 ? b->dx8 : take_rows(arena, rows->home_rows, b->width);
    tv_moe_rows_take_wire(rows, arena, b->width > b->inner ? b->width : b->inner);
}

void tv_moe_buffers_plan(tv_moe_buffers *b, tv_moe_rows *rows, tv_plan *plan)
{
    rows->rows = rows->home_rows = tv_moe_rows_most(rows, plan->tokens);
    rows->columns = tv_moe_columns_most(rows, plan->tokens);
    take_kept(b, rows, tv_plan_keep(plan), plan->training);
    size_t mark = tv_arena_mark(&plan->scratch);
    take_forward(b, rows, &plan->scratch);
    if (!plan->training)
        return;
    tv_arena_reset(&plan->scratch, mark);
    take_backward(b, rows, &plan->scratch);
}

tv_status tv_moe_buffers_forward(tv_moe_buffers *b, tv_moe_rows *rows, tv_pool *pool, int training)
{
    tv_arena kept, passing;
    tv_arena_init(&kept, "the experts' saved rows");
    tv_arena_init(&passing, "the experts' rows");
    take_kept(b, rows, &kept, training);
    take_forward(b, rows, &passing);
    b->saved.backend = pool->backend;
    TV_TRY(tv_pool_bind(&b->saved, &kept));
    TV_TRY(tv_pool_bind(pool, &passing));
    take_kept(b, rows, &kept, training);
    take_forward(b, rows, &passing);
    return TV_OK;
}

tv_status tv_moe_buffers_backward(tv_moe_buffers *b, tv_moe_rows *rows, tv_pool *pool)
{
    tv_arena passing;
    tv_arena_init(&passing, "the experts' gradient rows");
    take_backward(b, rows, &passing);
    TV_TRY(tv_pool_bind(pool, &passing));
    take_backward(b, rows, &passing);
    return TV_OK;
}
