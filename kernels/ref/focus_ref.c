// The conversation's cells.
#include "kernels/ref/focus_loops.h"
#include "kernels/ref/ref_ops.h"

tv_status focus_kinds_ref(const tv_focus_kinds_args *a, void *stream)
{
    (void)stream;
    for (int64_t r = 0; r < a->segments * a->windows; r++)
        a->kind[r] = tv_focus_kind(a, r);
    return TV_OK;
}

tv_status focus_gather_ref(const tv_focus_gather_args *a, void *stream)
{
    (void)stream;
    tv_focus_gather_rows(a, 0, a->segments * a->windows);
    return TV_OK;
}

tv_status focus_scatter_ref(const tv_focus_scatter_args *a, void *stream)
{
    (void)stream;
    tv_focus_scatter_rows(a, 0, a->segments * a->windows);
    return TV_OK;
}

tv_status focus_load_ref(const tv_focus_load_args *a, void *stream)
{
    (void)stream;
    for (int64_t w = 0; w < a->rows; w++)
        for (int64_t i = 0; i < 2 * a->width; i++)
            tv_focus_load_at(a, w, i);
    return TV_OK;
}

tv_status focus_save_ref(const tv_focus_save_args *a, void *stream)
{
    (void)stream;
    for (int64_t w = 0; w < a->rows; w++)
        for (int64_t i = 0; i < 2 * a->width; i++)
            tv_focus_save_at(a, w, i);
    return TV_OK;
}

tv_status focus_cell_ref(const tv_focus_cell_args *a, void *stream)
{
    (void)stream;
    tv_focus_cell_rows(a, 0, a->rows);
    return TV_OK;
}

tv_status focus_back_ref(const tv_focus_back_args *a, void *stream)
{
    (void)stream;
    tv_focus_back_rows(a, 0, a->rows);
    return TV_OK;
}

tv_status focus_gates_ref(const tv_focus_gates_args *a, void *stream)
{
    (void)stream;
    for (int64_t w = 0; w < a->rows; w++)
        for (int64_t i = 0; i < a->width; i++)
            tv_focus_gates_at(a, w, i, a->sums);
    return TV_OK;
}
