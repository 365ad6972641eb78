// The parts' formulas in double, with real-valued weights: the oracle of the gradient tests.
//
// Only forward: the tests take central differences of it, so that no derivative is written down twice.
#ifndef TV_TESTS_MODEL_ORACLE_H
#define TV_TESTS_MODEL_ORACLE_H

#include <stdint.h>

#include "base/config.h"
#include "model/params.h"

typedef struct oracle {
    const tv_config *config;
    const tv_params *params;
    int64_t tokens;
    const int32_t *ids, *targets;
    double *queries;  // codebook: 1 when there are any, then [M, d]
    double **weights; // a tensor, in table order, [rows, cols]
} oracle;

// Weights of the table's decoded trits. Fails the test when memory is short.
oracle oracle_new(const tv_config *config, const tv_params *params, int64_t tokens);
void oracle_free(oracle *o);

// For parts whose oracle has a file of its own: weights of the tensor whose name ends in ".leaf"; y [M, N] = x W^T, malloc'd.
// The row of "table" nearest to z [d].
const double *oracle_nearest_row(const oracle *o, const double *z);
const double *oracle_weights(const oracle *o, const char *leaf);
double *oracle_linear(const oracle *o, const char *leaf, const double *x);

// y [M, D] = the part's output for the stream x [M, D] (the embedding ignores x).
typedef void oracle_forward(const oracle *o, const double *x, double *y);
oracle_forward oracle_embed, oracle_sequencer, oracle_attention, oracle_ffn, oracle_moe, oracle_codebook,
    oracle_memgram, oracle_focus;
// Sum over the tokens of the cross-entropy of the head's logits.
double oracle_head_loss(const oracle *o, const double *x);

#endif
