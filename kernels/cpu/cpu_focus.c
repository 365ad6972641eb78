// The conversation's cells: rows are independent, so threads share them.
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_threads.h"
#include "kernels/ref/focus_loops.h"

enum { CELL_NS = 12 };

static void gather_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    tv_focus_gather_rows(args, first, last);
}

tv_status TV_ISA_NAME(focus_gather)(const tv_focus_gather_args *a, void *stream)
{
    (void)stream;
    tv_cpu_for(a->segments * a->windows, 1 + a->segment * a->width / 8, gather_rows, a);
    return TV_OK;
}

static void scatter_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    tv_focus_scatter_rows(args, first, last);
}

tv_status TV_ISA_NAME(focus_scatter)(const tv_focus_scatter_args *a, void *stream)
{
    (void)stream;
    tv_cpu_for(a->segments * a->windows, 1 + a->segment * a->width / 8, scatter_rows, a);
    return TV_OK;
}

static void cell_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    tv_focus_cell_rows(args, first, last);
}

tv_status TV_ISA_NAME(focus_cell)(const tv_focus_cell_args *a, void *stream)
{
    (void)stream;
    tv_cpu_for(a->rows, 1 + CELL_NS * a->width, cell_rows, a);
    return TV_OK;
}

static void back_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    tv_focus_back_rows(args, first, last);
}

tv_status TV_ISA_NAME(focus_back)(const tv_focus_back_args *a, void *stream)
{
    (void)stream;
    tv_cpu_for(a->rows, 1 + 2 * CELL_NS * a->width, back_rows, a);
    return TV_OK;
}
