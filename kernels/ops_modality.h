// Ops of features of images and sounds that stand at some of a unit's tokens: part of the contract (kernels.h says the common rules).
//
// A feature row r has been projected to y[r, D] and belongs to token at[r]; no two rows have the same token. Their gate is g = (gate + 128) 2^-8
// for an int8 `gate`, so 0 .. 255/256 and exact.
#ifndef TV_KERNELS_OPS_MODALITY_H
#define TV_KERNELS_OPS_MODALITY_H

#include <stdint.h>

#include "base/status.h"

// x[at[r], c] = fma(g, y[r, c], x[at[r], c])
typedef struct tv_modality_add_args {
    int64_t rows, width; // width: D
    const int8_t *gate;  // [1]
    const int32_t *at;   // [rows] tokens
    const float *y;      // [rows, D]
    float *x;            // [M, D]
} tv_modality_add_args;

// Its gradient, and the unit's vote on the gate:
//   dy[r, c] = g dx[at[r], c];   dot[r] = sum32(dx[at[r], c] y[r, c])                                      gradient of g
//   s = sum32(dot[r]);   q = sum32(dot[r] dot[r]);   vote[0] += sign(s) when s s >= (tau tau) q
typedef struct tv_modality_back_args {
    int64_t rows, width;
    float tau;
    const int8_t *gate;
    const int32_t *at;
    const float *y, *dx; // [rows, D], [M, D]
    float *dy;           // [rows, D]
    float *dot;          // [rows]
    int32_t *vote;       // [1]
} tv_modality_back_args;

// Part of every backend's table, none of them NULL.
typedef struct tv_modality_ops {
    tv_status (*add)(const tv_modality_add_args *, void *stream);
    tv_status (*back)(const tv_modality_back_args *, void *stream);
} tv_modality_ops;

#endif
