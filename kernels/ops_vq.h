// Ops of the codebooks: part of the contract (kernels.h says the common rules).
//
// A codebook is one ternary table of `rows` packed rows of d = cols trits, d <= TV_VQ_COLS_MAX, with one exponent a row (G = d). Row r
// stands for w8 2^b, w8[c] = t[c] L[E - b]. No op makes a decoded copy of the table. A query is a row q of int8, |q| <= 121, with a scale.
//
// Buckets: the table is cut into 2^p runs of rows. Bit c of a bucket's number, c < p, is the sign of dimension c: 1 for +, 0 for -. The
// rows of a bucket carry these signs in their first p trits (never 0), and those trits are frozen: they get no vote and their T_accum is 0.
// p = 0 is one bucket of all rows: exact search, and the oracle of a table that has more.
#ifndef TV_KERNELS_OPS_VQ_H
#define TV_KERNELS_OPS_VQ_H

#include <stdint.h>

#include "base/host_device.h"

#define TV_VQ_COLS_MAX 64   // scores fit int32: 2 1023 64 121 120 + 256 64 120^2 < 2^31
#define TV_VQ_PROBES_MAX 64 // largest number of slots of a query
#define TV_VQ_BITS_MAX 24   // largest p
#define TV_VQ_QMAX 121      // of queries: five digits
#define TV_VQ_USAGE_MAX 32767

// A table, or this rank's block of it. Rows are numbered in the whole table; a block ends where a bucket ends.
typedef struct tv_vq_table {
    int64_t rows;                 // of the whole table, < 2^31
    int64_t first_row, held_rows; // the block
    int64_t cols;                 // d
    int bits;                     // p <= d
    int base, mantissa_bits;      // b, m
    uint8_t *T;                   // [held, ceil(d/5)]
    int8_t *E;                    // [held]
    int8_t *T_accum, *E_accum;    // [held, d], [held]; NULL where an op does not say that it needs them
} tv_vq_table;

// floor(log2(rows / bucket_rows)), or 0 with at most exact_rows rows.
static inline TV_HOST_DEVICE int tv_vq_bits(int64_t rows, int64_t bucket_rows, int64_t exact_rows)
{
    int bits = 0;
    while (rows > exact_rows && bits < TV_VQ_BITS_MAX && rows / bucket_rows >> (bits + 1) > 0)
        bits++;
    return bits;
}
// First row of a bucket; bucket 2^p begins behind the last row.
static inline TV_HOST_DEVICE int64_t tv_vq_bucket_first(int64_t rows, int bits, int64_t bucket)
{
    return bucket * rows >> bits;
}
static inline TV_HOST_DEVICE int64_t tv_vq_bucket_of(int64_t rows, int bits, int64_t row)
{
    return (((row + 1) << bits) - 1) / rows;
}
// Place `place` of `places` (at most 2^p) holds the buckets from this one to the next place's first.
static inline TV_HOST_DEVICE int64_t tv_vq_place_first(int bits, int places, int place)
{
    return ((int64_t)place << bits) / places;
}
static inline TV_HOST_DEVICE int tv_vq_place_of(int bits, int places, int64_t bucket)
{
    return (int)(((bucket + 1) * places - 1) >> bits);
}
// Trit of dimension c < p in rows of a bucket.
static inline TV_HOST_DEVICE int tv_vq_pattern(int64_t bucket, int c) { return (bucket >> c & 1) != 0 ? 1 : -1; }

// Bytes of an answer: int32 row, int32 score, ceil(d/5) bytes of T, E, zero bytes to a multiple of 4.
static inline TV_HOST_DEVICE int64_t tv_vq_answer_bytes(int64_t cols) { return (8 + (cols + 4) / 5 + 1 + 3) / 4 * 4; }
// Bytes of a row's vote: int32 row, int32 tokens, d votes of int8, zero bytes to a multiple of 4.
static inline TV_HOST_DEVICE int64_t tv_vq_vote_bytes(int64_t cols) { return (8 + cols + 3) / 4 * 4; }

// ---- table -------------------------------------------------------------------------------------------------------------

// Initial state of the held rows, straight into packed form: tv_init_args' for these rows (exponent everywhere, G = d), then in the first p
// dimensions t = the pattern of the row's bucket and T_accum = 0. zeros: every other t = 0. T_accum and E_accum may be NULL.
typedef struct tv_vq_init_args {
    tv_vq_table table;
    int exponent, threshold; // E; H
    int zeros;
    uint32_t seed, tensor_id;
} tv_vq_init_args;

// ---- search ------------------------------------------------------------------------------------------------------------

// The buckets that a query looks into. Its own has the signs of q (0 counts as +). The cost of a bucket is the sum of |q_c| over the
// dimensions c < p in which it differs from the own one. bucket[t, 0 .. probes-1]: the buckets with the least (cost, number), in this order.
typedef struct tv_vq_probes_args {
    int64_t tokens, cols;
    int bits, probes; // probes <= 2^p, <= TV_VQ_PROBES_MAX
    const int8_t *q;  // [M, d]
    int32_t *bucket;  // [M, probes]
} tv_vq_probes_args;

// Which places a query must reach: place o when it holds one of the query's buckets. Sorted by place, then by token, row r of the queries that
// travel is token item[r]; index[t, o] = r, or -1 where t does not go to o; counts[o] = rows of place o, written also with no tokens.
typedef struct tv_vq_send_args {
    int64_t tokens;
    int bits, probes, places;
    const int32_t *bucket; // [M, probes]
    int32_t *item;         // [M min(places, probes)]
    int32_t *index;        // [M, places]
    int64_t *counts;       // [places]
} tv_vq_send_args;

// Pairs (t, j) whose bucket is one of first_bucket .. first_bucket + buckets - 1, sorted by bucket, then by t probes + j: pair r is
// item[r] = t probes + j. The pairs of bucket first_bucket + i are start[i] .. start[i + 1] - 1. Other pairs are left out. start is written
// also with no tokens.
typedef struct tv_vq_plan_args {
    int64_t tokens;
    int probes;
    int64_t first_bucket, buckets;
    const int32_t *bucket; // [M, probes]
    int32_t *item;         // [M probes]
    int32_t *start;        // [buckets + 1]
} tv_vq_plan_args;

// For each pair (t, j) of the plan the best row r among those of its bucket (of table.bits) that the block holds:
//   sq = clamp(rint(scale[t] * 2^(8 - b)), 1, 1023)          the scale in units of the table's
//   score = 2 sq <q[t], w8[r]> - 256 <w8[r], w8[r]>           int32, exact: 256 / 2^2b times (|z|^2 - |z - row|^2)
// Highest score first, ties to the lower row. Written at [t, j]; row -1 and score INT32_MIN for pairs that the plan left out, or
// where the block holds no row of the bucket.
typedef struct tv_vq_search_args {
    tv_vq_table table;
    int64_t tokens;
    int probes;
    int64_t first_bucket, buckets;
    const int8_t *q;      // [M, d]
    const float *scale;   // [M], finite, >= 0
    const int32_t *item;  // of tv_vq_plan_args
    const int32_t *start; // [buckets + 1]
    int32_t *row, *score; // [M, probes]
} tv_vq_search_args;

// Best of a token's candidates: highest score, ties to the lower row. Candidate (t, j) is entry index[t, j] of row and score, or entry
// t slots + j when index is NULL; an entry below 0, or one whose row is below 0, does not count. best_row[t], best_score[t], and
// best_from[t] = the entry (each may be NULL); -1, INT32_MIN, -1 when none counts.
typedef struct tv_vq_best_args {
    int64_t tokens;
    int slots;
    const int32_t *index;                       // [M, slots] or NULL
    const int32_t *row, *score;                 // [entries]
    int32_t *best_row, *best_score, *best_from; // [M]
} tv_vq_best_args;

// Answers to `count` queries: row[i], score[i], T and E of the row, tv_vq_answer_bytes(d) bytes each. A row of -1 gets zero trits and E = b.
// Any other row that the block does not hold raises fault and is answered as -1.
typedef struct tv_vq_answer_args {
    tv_vq_table table;
    int64_t count;
    const int32_t *row, *score; // [count]
    uint8_t *bytes;             // [count, tv_vq_answer_bytes], 4-byte aligned
    int32_t *fault;
} tv_vq_answer_args;

// row and score of answers. A row below -1 or not below `rows`, a trit byte above 242 or an exponent outside the window raises fault; the
// answer then is row -1, score INT32_MIN.
typedef struct tv_vq_answer_unpack_args {
    int64_t count, cols, rows; // rows: of the whole table
    int base, mantissa_bits;
    const uint8_t *bytes; // [count, tv_vq_answer_bytes]
    int32_t *row, *score; // [count]
    int32_t *fault;
} tv_vq_answer_unpack_args;

// The decoded rows of chosen answers: w8[t, :] and scale[t] = 2^b of answer from[t] (an operand of products). from[t] < 0 raises
// fault and gives zeros.
typedef struct tv_vq_rows_args {
    int64_t tokens, cols;
    int base, mantissa_bits;
    const int32_t *from;  // [M]
    const uint8_t *bytes; // answers
    int8_t *w8;           // [M, d]
    float *scale;         // [M]
    int32_t *fault;
} tv_vq_rows_args;

// ---- gradients and votes -------------------------------------------------------------------------------------------------

// z = (float)q[t, c] * scale[t];  e = (float)w8[t, c] * 2^b - z  (the row less the query)
//   row_grad[t, c] = fma(beta, e, g[t, c]);   z_grad[t, c] = fma(-weight, e, g[t, c]);   loss[t] = sum32(e e)
// Each of row_grad, z_grad, loss may be NULL; then g too may be NULL if only loss is wanted. z_grad may be g.
typedef struct tv_vq_gradient_args {
    int64_t tokens, cols;
    int base;
    float beta, weight;
    const int8_t *q, *w8;     // [M, d]
    const float *scale;       // [M] of q
    const float *g;           // [M, d]
    float *row_grad, *z_grad; // [M, d]
    float *loss;              // [M]
} tv_vq_gradient_args;

// Entries grouped by row: entries i with row[i] >= 0, sorted by (row, i), are order[0 ..]; the distinct rows, ascending, are
// distinct[0 .. *count - 1]; distinct row u has the entries order[start[u]] .. order[start[u + 1] - 1].
typedef struct tv_vq_group_args {
    int64_t entries;
    const int32_t *row; // [entries]
    int32_t *order;     // [entries]
    int32_t *distinct;  // [entries]
    int32_t *start;     // [entries + 1]; also with no entries start[0] = 0
    int32_t *count;     // [1] backend memory; also written with no entries
} tv_vq_group_args;

// A unit's vote on each distinct row u, tv_vq_vote_bytes(d) bytes each: row, number of its tokens, and per channel the one-hot vote of
// tv_embed_vote_args: a = sum of gt[c, t] over the row's tokens, Q the sum of their squares; level draws at element row d + c. gt is int8
// (quantize_channels of row_grad), so both sums are exact and free of order. Channels c < p vote 0.
typedef struct tv_vq_votes_args {
    int64_t tokens, cols, count; // count: of distinct rows
    int bits;
    const int8_t *gt;     // [d, M]
    const int32_t *order; // of tv_vq_group_args over the unit's tokens
    const int32_t *distinct, *start;
    tv_vote_rule rule; // its vote_bits is not read
    uint8_t *bytes;    // [count, tv_vq_vote_bytes], 4-byte aligned
} tv_vq_votes_args;

// Row ids of votes that came here: row[i], or -1 with fault raised when it is outside [first_row, first_row + held_rows) or its
// tokens are below 1.
typedef struct tv_vq_votes_rows_args {
    int64_t count, cols;
    int64_t first_row, held_rows;
    const uint8_t *bytes; // [count, tv_vq_vote_bytes]
    int32_t *row;         // [count]
    int32_t *fault;
} tv_vq_votes_rows_args;

// The step's ballot on the touched rows: for distinct row u with the votes order[start[u]] ..: v[c] = sum of its votes; then tv_ballot_args'
// rule on this row (no flip cap, theta = theta_min) and tv_ballot_e_args' on its exponent, in the order that kernels.h gives them for the
// rule. Draws by global element. Other rows are not touched. usage[row] = min(usage + sum of tokens, TV_VQ_USAGE_MAX); usage may be NULL.
typedef struct tv_vq_ballot_args {
    tv_vq_table table; // with counters
    int64_t count;     // distinct rows
    const int32_t *order, *distinct, *start;
    const uint8_t *bytes; // votes
    int16_t *usage;       // [held], or NULL
    tv_rule rule;
    tv_combine combine;
    int units, quorum, threshold;
    uint32_t eta_q;
    int classic_step, theta_min;
    uint32_t eta_e_q;
    int exponent_threshold;
    uint32_t seed, tensor_id, step;
    int64_t *stats; // [3]: flips +=, zero trits of touched rows after the step +=, exponents moved +=
} tv_vq_ballot_args;

// ---- usage and restart ---------------------------------------------------------------------------------------------------

// The farthest query of a bucket in a step.
typedef struct tv_vq_far {
    int64_t distance;            // sq^2 <q, q> - 256 score: 2^16 / 2^2b |z - row|^2
    int32_t found;               // 0: none, and the rest is 0
    int32_t unit;                // of the query
    int8_t trit[TV_VQ_COLS_MAX]; // signs of q, 0 behind d
} tv_vq_far;

// far[i] becomes the farthest of itself and the queries t whose own bucket (slot 0) is first_bucket + i, by their distance to the best
// row of that bucket (score[t, 0], as found by tv_vq_search_args; row -1 does not count): largest distance, ties to the lower unit, then to
// the lower t (within a call; a unit's queries come in one call). unit[t] >= 0.
typedef struct tv_vq_farthest_args {
    int64_t tokens, cols;
    int probes, base;
    int64_t buckets;
    const int8_t *q;
    const float *scale;
    const int32_t *unit;         // [M]
    const int32_t *item, *start; // of tv_vq_plan_args
    const int32_t *row, *score;  // [M, probes]
    tv_vq_far *far;              // [buckets]; zeros at the step's start
} tv_vq_farthest_args;

// Each bucket of the block whose far is found, and that has rows with usage 0: the lowest of them becomes far's trits, in the first p
// dimensions its pattern; its counters become 0, its E `exponent`, its usage `usage_start`. restarts[0] += rows restarted.
typedef struct tv_vq_restart_args {
    tv_vq_table table; // with counters
    int64_t first_bucket, buckets;
    int exponent, usage_start;
    const tv_vq_far *far; // [buckets]
    int16_t *usage;       // [held]
    int64_t *restarts;    // [1]
} tv_vq_restart_args;

// usage[i] = usage[i] >> 1 when `halve`. Health before halving: counts[0] += rows with usage > 0, counts[1] += usage,
// counts[2 + k] += rows with usage in [2^k, 2^(k+1)), k = 0..14. counts may be NULL.
typedef struct tv_vq_usage_args {
    int64_t rows;
    int halve;
    int16_t *usage;  // [rows]
    int64_t *counts; // [17] or NULL
} tv_vq_usage_args;

// ---- the ops ---------------------------------------------------------------------------------------------------------------

// Part of every backend's table; none is NULL.
typedef struct tv_vq_ops {
    tv_status (*init)(const tv_vq_init_args *, void *stream);
    tv_status (*probes)(const tv_vq_probes_args *, void *stream);
    tv_status (*send)(const tv_vq_send_args *, void *stream);
    tv_status (*plan)(const tv_vq_plan_args *, void *stream);
    tv_status (*search)(const tv_vq_search_args *, void *stream);
    tv_status (*best)(const tv_vq_best_args *, void *stream);
    tv_status (*answer)(const tv_vq_answer_args *, void *stream);
    tv_status (*answer_unpack)(const tv_vq_answer_unpack_args *, void *stream);
    tv_status (*rows)(const tv_vq_rows_args *, void *stream);
    tv_status (*gradient)(const tv_vq_gradient_args *, void *stream);
    tv_status (*group)(const tv_vq_group_args *, void *stream);
    tv_status (*votes)(const tv_vq_votes_args *, void *stream);
    tv_status (*votes_rows)(const tv_vq_votes_rows_args *, void *stream);
    tv_status (*ballot)(const tv_vq_ballot_args *, void *stream);
    tv_status (*farthest)(const tv_vq_farthest_args *, void *stream);
    tv_status (*restart)(const tv_vq_restart_args *, void *stream);
    tv_status (*usage)(const tv_vq_usage_args *, void *stream);
} tv_vq_ops;

#endif
