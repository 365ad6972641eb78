// The int8 product engine of one instruction set: panels, micro-kernel, and the tile loop around them.
//
//   acc[i, j] = sum_r a[i, r] b[j, r]      a [m, reduce], b [n, reduce], int8, exact in int32
//
// Rows of a and of b are packed into panels that lie in L2: groups of r side by side, so that one load gives a group
// of every row. A finished tile of int32 sums goes to `done`, which turns it into floats or votes while it is in L1;
// the whole matrix of sums never exists. The shape of the loops follows Goto and van de Geijn, "Anatomy of
// high-performance matrix multiplication" (2008).
#ifndef TV_KERNELS_CPU_GEMM_H
#define TV_KERNELS_CPU_GEMM_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/cpu_isa.h"

// rows x cols sums at (row, col) of the product; `lo` is NULL unless there are two digits.
typedef struct tv_cpu_tile {
    int64_t row, col;
    int rows, cols;
    const int32_t *hi, *lo;
    int64_t stride; // items from one row of sums to the next
} tv_cpu_tile;

typedef struct tv_cpu_product {
    int64_t m, n, reduce;
    const int8_t *a, *a_lo, *b; // a_lo: second digit or NULL
    int64_t stride;             // bytes from one row to the next, of all three; 0: reduce
    void (*done)(const void *args, const tv_cpu_tile *tile);
    const void *args;
} tv_cpu_product;

tv_status TV_ISA_NAME(tv_cpu_product_run)(const tv_cpu_product *product);

// ---- the part written for each instruction set ----------------------------------------------------------------------

#if defined(TV_ISA_AVX512)
enum { TV_GEMM_MR = 14, TV_GEMM_NR = 32, TV_GEMM_PACK_ROWS = 16, TV_GEMM_ITEM_BYTES = 1 };
#else
enum { TV_GEMM_MR = 6, TV_GEMM_NR = 16, TV_GEMM_PACK_ROWS = 6, TV_GEMM_ITEM_BYTES = 2 };
#endif
enum { TV_GEMM_DEPTH = 512 }; // values of r in a panel; a multiple of 64

// Rows [0, rows) of a source, columns [0, depth), go into one panel; missing rows and the tail of the last group
// become zeros.
typedef struct tv_cpu_panel {
    const int8_t *from;
    int64_t stride; // bytes from one source row to the next
    int rows, depth;
    void *to;
} tv_cpu_panel;

// start[TV_GEMM_PACK_ROWS]: what each row's sums begin at, to be given to the micro-kernel; 64-byte aligned.
void TV_ISA_NAME(tv_cpu_pack_a)(const tv_cpu_panel *panel, int32_t *start);
void TV_ISA_NAME(tv_cpu_pack_b)(const tv_cpu_panel *panel);

// sums[MR][NR] (row stride `stride`) = what they hold, or 0 when `first`, plus start of each row plus the product of
// the panels.
typedef struct tv_cpu_micro {
    const void *a, *b;
    int depth, first;
    const int32_t *start;
    int32_t *sums;
    int64_t stride;
} tv_cpu_micro;

void TV_ISA_NAME(tv_cpu_micro_run)(const tv_cpu_micro *micro);

#endif
