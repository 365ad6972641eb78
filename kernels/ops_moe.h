// Ops of the mixture of experts: part of the contract (kernels.h says the common rules).
//
// A row is one (token, slot) pair that goes to an expert: M tokens, k slots a token, n_e experts. Rows lie sorted by segment. A segment
// is the run of rows of one expert and one unit; every sum over tokens that becomes a vote runs over one segment. Segments and all other
// arrays are backend memory. Products and quantisers of rows write rows of segments only.
#ifndef TV_KERNELS_OPS_MOE_H
#define TV_KERNELS_OPS_MOE_H

#include <stdint.h>

#include "base/host_device.h"

// Segments begin on multiples of this in arrays that are transposed for the vote product; the columns between are zeros.
#define TV_SEGMENT_PAD 128
// Bytes behind the digits of a row on the wire: its scale (float), expert (int32) and unit (int32).
#define TV_WIRE_TAIL_BYTES 12
// Bias unit of the balance: one step of a bias moves a logit by this.
#define TV_MOE_BIAS_UNIT 0x1p-10f
#define TV_MOE_SLOTS_MAX 64 // largest k

typedef struct tv_segment {
    int64_t first, rows; // rows [first, first + rows)
    int64_t padded;      // first column in a transposed array: a multiple of TV_SEGMENT_PAD
    int32_t expert;      // of this rank's experts, from 0
    int32_t tokens;      // M of the votes' bracket: rows that count (dense plan: fewer than `rows`)
    int32_t unit;        // of the step; draws of vote levels
    int32_t unused;      // 0
} tv_segment;

// Bytes of a row of `cols` values on the wire: ceil(cols digits / 5), then to a multiple of 4, then the tail.
static inline TV_HOST_DEVICE int64_t tv_wire_row_bytes(int64_t cols, int digits)
{
    return ((cols * digits + 4) / 5 + 3) / 4 * 4 + TV_WIRE_TAIL_BYTES;
}

// ---- routing -----------------------------------------------------------------------------------------------------------

// For each token the k experts with the largest s_e = logit_e + (float)bias_e TV_MOE_BIAS_UNIT, largest first, ties to the lower
// index; slot j holds the j-th. top = logit of the largest selected logit (not s), a zero is +0; x_j = exp(logit_j - top);
// gate_j = x_j * (1 / l), l = chain over j of l + x_j from +0. counts[e] += tokens that selected e.
// A NaN or Inf logit raises fault; that token then selects the experts 0 .. k-1 with gate 0.
typedef struct tv_moe_route_args {
    int64_t tokens, experts; // M, n_e
    int slots;               // k <= n_e, k <= TV_MOE_SLOTS_MAX
    const float *logits;     // [M, n_e]
    const int16_t *bias;     // [n_e]
    int32_t *expert;         // [M, k]
    float *gate;             // [M, k]
    int64_t *counts;         // [n_e], or NULL
    int32_t *fault;
} tv_moe_route_args;

// Gradient of the logits: mean = chain over j of fma(gate_j, grad_j, mean) from +0; d[t, expert_j] = gate_j * (grad_j - mean),
// +0 for the experts that the token did not select.
typedef struct tv_moe_route_backward_args {
    int64_t tokens, experts;
    int slots;
    const int32_t *expert; // [M, k]
    const float *gate;     // [M, k]
    const float *grad;     // [M, k] gradient of the gates
    float *logits;         // [M, n_e]
} tv_moe_route_backward_args;

// Where each row lies when all experts are this rank's. counting sort of (t, j), t-major, by expert, stable:
//   place[t, j] = row;  item[row] = t k + j;  segment e: first, rows = tokens = its count, unit, padded = sum over earlier segments of
//   their rows rounded up to TV_SEGMENT_PAD.
// dense: row e M + t for every expert and token: place[t, j] = expert[t, j] M + t;  item[e M + t] = t k + j, or -(t + 1) where t did not
//   select e;  segment e: first e M, rows M, tokens its count, padded e ceil(M / PAD) PAD.
// expert[t, j] outside [0, n_e) raises fault; such a row counts as expert 0's.
typedef struct tv_moe_plan_args {
    int64_t tokens, experts;
    int slots, dense;
    int32_t unit;
    const int32_t *expert; // [M, k]
    int32_t *place;        // [M, k]
    int32_t *item;         // [rows]: M k, dense: n_e M
    tv_segment *segments;  // [n_e]
    int32_t *fault;
} tv_moe_plan_args;

// ---- rows --------------------------------------------------------------------------------------------------------------

// Row r takes token t = item[r] / k (item < 0: t = -item - 1): out_q[r, :] = q[t, :], out_scale[r] = scale[t], or with `factor`
// scale[t] * factor[item[r]]; with `factor` a row of item < 0 gets zeros and scale 0. q and scale are one row a token.
typedef struct tv_rows_gather_args {
    int64_t rows, cols;
    int slots;           // k
    const int32_t *item; // [rows]
    const int8_t *q;     // [M, C]
    const float *scale;  // [M]
    const float *factor; // [M, k] or NULL
    int8_t *out_q;       // [rows, C]
    float *out_scale;    // [rows]
} tv_rows_gather_args;

// The same rows in their wire form: tv_wire_row_bytes(C, digits) bytes each: digits of q (kernels.h, tv_digits_args), zero bytes to a
// multiple of 4, then float scale, int32 expert (of all experts: expert[item[r]]), int32 unit. item < 0 does not occur. expert NULL writes 0.
// slots 0: row r is row r of q and scale (item, factor and expert are not read; expert 0 is written).
typedef struct tv_rows_pack_args {
    int64_t rows, cols;
    int slots, digits;
    int32_t unit;
    const int32_t *item;   // [rows]
    const int32_t *expert; // [M, k]
    const int8_t *q;       // [M, C], |q| <= (3^digits - 1) / 2
    const float *scale;    // [M]
    const float *factor;   // [M, k] or NULL
    uint8_t *bytes;        // [rows, tv_wire_row_bytes]; 4-byte aligned
} tv_rows_pack_args;

// Back to int8 and scale. With segments every row of a segment must name the global expert first_expert + segment.expert and the
// segment's unit; a row that does not, a trit byte above 242 or a scale that is negative, NaN or Inf raises fault (and unpacks as zeros
// with scale 0). Without segments (NULL) all `rows` rows are unpacked and expert and unit are not looked at.
typedef struct tv_rows_unpack_args {
    int64_t rows, cols;
    int digits;
    const uint8_t *bytes;
    const tv_segment *segments; // [segment_count] or NULL
    int64_t segment_count;
    int32_t first_expert;
    int8_t *q;    // [rows, C]
    float *scale; // [rows]
    int32_t *fault;
} tv_rows_unpack_args;

// ---- products over segments ----------------------------------------------------------------------------------------------

// For each row r of each segment: y[r, n] = (float)(sum_c a[r, c] B_e[n, c]) * (scale[r] * 2^exponent), B_e = b + e N K, e the segment's
// expert. forward: a = rows [rows, D], B_e = w8 [2F, D].  grad-x: a [rows, 2F], B_e = w8t of the expert [D, 2F].
typedef struct tv_moe_gemm_args {
    const tv_segment *segments; // [segment_count]
    int64_t segment_count;
    int64_t rows, n, reduce; // rows: of all segments, at most
    const int8_t *a;         // [rows, reduce]
    const int8_t *b;         // [experts, n, reduce]
    const float *scale;      // [rows]
    int exponent;
    float *y; // [rows, n]
} tv_moe_gemm_args;

// Per channel over a segment, transposed (quantize_channels of each segment's rows). v[r, c] = (float)q[r, c] * scale[r], 0 for a row
// with item < 0 (item NULL: none). qt[c, padded + r - first] = rint(v * (127 / absmax)); columns up to the next multiple of
// TV_SEGMENT_PAD are 0. sumsq[s, c] of segment s. `columns` is the row length of qt; a segment's columns end inside it.
typedef struct tv_moe_channels_args {
    const tv_segment *segments;
    int64_t segment_count;
    int64_t rows, channels, columns;
    const int8_t *q;     // [rows, C]
    const float *scale;  // [rows]
    const int32_t *item; // [rows] or NULL
    int8_t *qt;          // [C, columns]
    int32_t *sumsq;      // [segment_count, C]
    int32_t *fault;
} tv_moe_channels_args;

// Votes of each segment's expert: gemm_vote with tokens = columns of the segment, M of the bracket = segment.tokens, Qg and Qx from the
// segment's rows of the sums, element (first_expert + expert) N K + n K + k, unit = the segment's, votes at expert N K + n K + k.
// A segment with tokens 0 votes nothing. Segments of one expert add up.
typedef struct tv_moe_vote_args {
    const tv_segment *segments;
    int64_t segment_count, columns;
    int64_t runs; // divides segment_count: each of that many runs of neighbouring segments names an expert at most once
    int64_t n, k; // N = 2F, K = D
    int32_t first_expert;
    const int8_t *gt;       // [N, columns]
    const int8_t *xt;       // [K, columns]
    const int32_t *g_sumsq; // [segment_count, N]
    const int32_t *x_sumsq; // [segment_count, K]
    tv_vote_rule rule;      // its unit is not read
    void *votes;            // [experts, N, K]
} tv_moe_vote_args;

// ---- activation and combine ------------------------------------------------------------------------------------------------

// gate_quantize of every row of the segments: gu [rows, 2F] float -> saved_q [2 rows, F], saved_scale [2 rows] = quantize_rows (127) of the
// two halves (NULL in evaluation); h = silu(a) * u; q, scale = quantize_rows of h with qmax.
typedef struct tv_moe_activate_args {
    const tv_segment *segments;
    int64_t segment_count;
    int64_t rows, width; // F
    int qmax;
    const float *gu;    // [rows, 2F]
    int8_t *saved_q;    // [2 rows, F]
    float *saved_scale; // [2 rows]
    int8_t *q;          // [rows, F]
    float *scale;       // [rows]
    int32_t *fault;
} tv_moe_activate_args;

// dh[r, f] = (float)q[r, f] * scale[r]; dgu = gate_backward of it and the saved halves; then, without dgu ever being stored as float:
//   dq, dscale = quantize_rows (127) of dgu [rows, 2F];   dt, sumsq = channels over each segment of dgu, as tv_moe_channels_args says
// (a row with item < 0 counts as 0 there).
typedef struct tv_moe_activate_backward_args {
    const tv_segment *segments;
    int64_t segment_count;
    int64_t rows, width, columns;
    const int8_t *q;          // [rows, F]
    const float *scale;       // [rows]
    const int32_t *item;      // [rows] or NULL
    const int8_t *saved_q;    // [2 rows, F]
    const float *saved_scale; // [2 rows]
    int8_t *dq;               // [rows, 2F]
    float *dscale;            // [rows]
    int8_t *dt;               // [2F, columns]
    int32_t *sumsq;           // [segment_count, 2F]
    int32_t *fault;
} tv_moe_activate_backward_args;

// y[t, c] = chain over j = 0 .. k-1 of fma(w_j, (float)q[r, c], acc) from +0, r = place[t, j], w_j = gate[t, j] * scale[r], or scale[r]
// without gate; with accumulate the chain's end is added: y = y + acc.
typedef struct tv_moe_combine_args {
    int64_t tokens, cols;
    int slots, accumulate;
    const int32_t *place; // [M, k]
    const float *gate;    // [M, k] or NULL
    const int8_t *q;      // [rows, C]
    const float *scale;   // [rows]
    float *y;             // [M, C]
} tv_moe_combine_args;

// grad[t, j] = sum32 over c of dy[t, c] * ((float)q[r, c] * scale[r]) (as fma), r = place[t, j].
typedef struct tv_moe_combine_backward_args {
    int64_t tokens, cols;
    int slots;
    const int32_t *place;
    const int8_t *q;    // [rows, C]
    const float *scale; // [rows]
    const float *dy;    // [M, C]
    float *grad;        // [M, k]
} tv_moe_combine_backward_args;

#endif
