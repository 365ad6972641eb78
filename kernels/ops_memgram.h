// Ops of the tables of n-grams: part of the contract (kernels.h says the common rules).
//
// A table is one of codebooks' kind (tv_vq_table) with one bucket and no patterns: `rows` packed rows of d = cols trits, d <= TV_VQ_COLS_MAX,
// with one exponent a row, so row r stands for w[c] = t[c] L[E - b] 2^b. A strength of int8, 0 .. 127, belongs to each row. Each token looks up
// one row for each of `slots` orders n; an entry is a pair (token t, slot j), numbered t slots + j. What was looked up lies in answers of
// tv_vq_answer_args, one a distinct row, with the row's strength in the place of its score.
#ifndef TV_KERNELS_OPS_MEMGRAM_H
#define TV_KERNELS_OPS_MEMGRAM_H

#include <stdint.h>

#include "base/host_device.h"
#include "kernels/ops_vq.h"

#define TV_MEMGRAM_SLOTS_MAX 7
#define TV_MEMGRAM_STRENGTH_MAX 127
#define TV_MEMGRAM_STRENGTH_WHOLE 128 // stands for no strength: f = 1
#define TV_MEMGRAM_HEALTH 8           // classes of strength: 0, then [2^k, 2^(k+1)) for k = 0 .. 6

// The row of each entry: with n = orders[j] and position p = t mod context in the window, -1 where p + 1 < n, else
//   h = n 0x9E3779B97F4A7C15;  for i = n - 1 .. 0:  h = (h ^ uint32(ids[t - i])) 0xFF51AFD7ED558CCD;  h = h ^ (h >> 32)
//   row[t, j] = h mod rows                                                                                          (uint64, wrapping)
typedef struct tv_memgram_hash_args {
    int64_t tokens, context, rows; // rows: of the whole table
    int slots;
    int orders[TV_MEMGRAM_SLOTS_MAX]; // 1 .. 8
    const int32_t *ids;               // [M]
    int32_t *row;                     // [M, slots]
} tv_memgram_hash_args;

// Where each entry's answer lies: slot[e] = u for the entries e = order[start[u]] .. of distinct row u, and -1 where row[e] < 0.
typedef struct tv_memgram_place_args {
    int64_t entries, count;       // count: of distinct rows
    const int32_t *row;           // [entries]
    const int32_t *order, *start; // of tv_vq_group_args over the entries
    int32_t *slot;                // [entries]
} tv_memgram_place_args;

// out[i] = strength[row[i] - first_row], without strength TV_MEMGRAM_STRENGTH_WHOLE; 0 for a row that the block does not hold.
typedef struct tv_memgram_strength_args {
    int64_t count, first_row, held_rows;
    const int32_t *row;     // [count]
    const int8_t *strength; // [held], or NULL
    int32_t *out;           // [count]
} tv_memgram_strength_args;

// The gated sum of a token's rows. For each slot j in order with u = slot[t, j] >= 0, of answer u the trits t[c], w[c], strength v:
//   zz = sum32(z[c] z[c]);   r = 1 / sqrt(zz / d + 1e-5)                                                       once a token
//   dot = sum32(z[c] t[c]);   n = number of nonzero trits;   k = n > 0 ? sqrt(d / n) / 8 : 0
//   gate = sigmoid((dot r) k);   f = (v + 128) 2^-8
//   y[t, c] = fma(gate f, w[c], y[t, c])
// so the gate's argument is <norm(z), norm(row)> / 8. y starts at 0, or with `accumulate` where it stands. An answer whose row is below 0
// counts as absent. A trit byte above 242, an exponent outside the window or a strength outside 0 .. 128 raises fault; the answer then counts as
// absent too.
typedef struct tv_memgram_mix_args {
    int64_t tokens, cols;
    int slots, base, mantissa_bits, accumulate;
    const int32_t *slot;  // [M, slots]
    const uint8_t *bytes; // answers
    const float *z;       // [M, d]
    float *y;             // [M, d]
    int32_t *fault;
} tv_memgram_mix_args;

// Its gradient. With the names above, and for each slot in order whose answer is not absent:
//   a = sum32(dy[c] w[c]);   s = ((a f) (gate (1 - gate))) k                                      gradient of dot r
//   row_grad[t, j, c] = fma(s r / (L[E - b] 2^b), fma(-(dot / n), t[c], z[c]), (gate f) dy[c])         n = 0: (gate f) dy[c]
//   dz[t, c] = fma(s r, t[c], dz[t, c]);   dz[t, c] = fma(-(((s dot) r) (r r)) / d, z[c], dz[t, c])
// dz starts at 0, or with `accumulate` where it stands. row_grad of an absent answer is 0.
typedef struct tv_memgram_back_args {
    int64_t tokens, cols;
    int slots, base, mantissa_bits, accumulate;
    const int32_t *slot;  // [M, slots]
    const uint8_t *bytes; // answers
    const float *z, *dy;  // [M, d]
    float *row_grad;      // [M slots, d]
    float *dz;            // [M, d]
} tv_memgram_back_args;

// Rows that were used grow stronger: for distinct row u with the votes order[start[u]] .. (tv_vq_ballot_args), n = the sum of their tokens,
// strength = min(strength + n, TV_MEMGRAM_STRENGTH_MAX).
typedef struct tv_memgram_raise_args {
    int64_t count, cols, first_row;
    const int32_t *order, *distinct, *start;
    const uint8_t *bytes; // votes
    int8_t *strength;     // [held]
} tv_memgram_raise_args;

// strength[i] = strength[i] >> 1 when `halve`. Health before halving: counts[0] += rows with strength 0, counts[1 + k] += rows with strength in
// [2^k, 2^(k+1)). counts may be NULL.
typedef struct tv_memgram_decay_args {
    int64_t rows;
    int halve;
    int8_t *strength; // [rows]
    int64_t *counts;  // [TV_MEMGRAM_HEALTH] or NULL
} tv_memgram_decay_args;

// Part of every backend's table, none of them NULL.
typedef struct tv_memgram_ops {
    tv_status (*hash)(const tv_memgram_hash_args *, void *stream);
    tv_status (*place)(const tv_memgram_place_args *, void *stream);
    tv_status (*strength)(const tv_memgram_strength_args *, void *stream);
    tv_status (*mix)(const tv_memgram_mix_args *, void *stream);
    tv_status (*back)(const tv_memgram_back_args *, void *stream);
    tv_status (*raise)(const tv_memgram_raise_args *, void *stream);
    tv_status (*decay)(const tv_memgram_decay_args *, void *stream);
} tv_memgram_ops;

#endif
