// The contract between the trainer and its compute backends: every op, its formula, shapes and exactness.
//
// A backend is a const table of functions (struct tv_backend). `ref` is the definition: its plain C returns the bits that
// every other backend must return (tests compare with memcmp). `cpu` and `cuda` override entries of ref's table.
//
// Common rules (docs/numerics.md):
//  - All pointers are backend memory (tv_backend.alloc), row-major, densely packed, unless the comment says host. In and out arrays
//    do not overlap unless the comment says so. Any extent may be 0 (the reduced one too); then the op writes nothing.
//  - float is IEEE binary32, round to nearest even, no flush to zero, no contraction. fma means a fused multiply-add. Expressions are
//    evaluated exactly in the order written. Which NaN a float result is, is left open; faults, integers and numbers are not.
//  - sum32(f(i), i < n) is the fixed float sum of a row: 32 lanes start at +0, lane l adds f(l), f(l+32), f(l+64), ... in order (for a
//    product f = a b: lane = fma(a, b, lane)); then lanes combine by xor distance 16, 8, 4, 2, 1: lane[l] = lane[l] + lane[l ^ x].
//  - rint rounds half to even. absmax of a row that is below 2^-100 counts as 0 (scale 0, all q 0). A row that holds a NaN
//    or Inf gets scale 0, all q 0, and *fault = 1 (fault is never cleared by an op).
//  - L and code of the scale lattice: base/tensor.h. exp, log, sigmoid, silu: base/fmath.h.
//  - Ops may run asynchronously on `stream` (a backend's own; NULL is its default one).
// Letters: M tokens, N outputs, K inputs, C channels, G group, U units, H heads, d head width.
#ifndef TV_KERNELS_H
#define TV_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"
#include "kernels/ops_fused.h"

// ---- packed trits and weights ------------------------------------------------------------------------------------------

// pack:   bytes[n, :] = packed trits[n, :]         unpack: trits[n, :] = trits of bytes[n, :]
typedef struct tv_pack_args {
    int64_t rows, cols;
    uint8_t *bytes; // [rows, ceil(cols/5)]
    int8_t *trits;  // [rows, cols] in {-1, 0, 1}
} tv_pack_args;

// w8[n, k] = t[n, k] L[E[n, k/G] - b]; w8t[k, n] the same transposed. Either output may be NULL. Exact.
typedef struct tv_decode_args {
    int64_t rows, cols; // N, K
    int group, base, mantissa_bits;
    const uint8_t *T; // [N, ceil(K/5)]
    const int8_t *E;  // [N, ceil(K/G)]
    int8_t *w8;       // [N, K]
    int8_t *w8t;      // [K, N]
} tv_decode_args;

// Initial state, element e = (first_row + n) cols + k of the tensor:
//   t = (r16(INIT_T, e) 3 >> 16) - 1, or +1 when `ones`;  T_accum = (r16(INIT_ACCUM, e) (2H - 1) >> 16) - (H - 1)
//   E = exponent everywhere, E_accum = 0.  T_accum and E_accum may be NULL. step 0 in the counter.
typedef struct tv_init_args {
    int64_t rows, cols, first_row;
    int group, exponent, ones;
    int threshold; // H
    uint32_t seed, tensor_id;
    uint8_t *T;
    int8_t *E, *T_accum, *E_accum;
} tv_init_args;

// counts[0] += trit bytes above 242 or pad digits other than 1; counts[1] += exponents outside [base, base + codes - 1].
typedef struct tv_validate_args {
    int64_t rows, cols;
    int group, base, mantissa_bits;
    const uint8_t *T;
    const int8_t *E;
    int64_t *counts; // [2]
} tv_validate_args;

// *sum (host memory) += tv_hash_row of each of `rows` rows. Synchronises the stream.
typedef struct tv_row_hash_args {
    int64_t rows, first_row;
    size_t row_bytes;
    const void *data;
    tv_hash128 *sum; // host
} tv_row_hash_args;

// ---- quantisation ------------------------------------------------------------------------------------------------------

// Per token: a = absmax_c |x[t, c]|; s[t] = a / qmax; q[t, c] = rint(x[t, c] * (qmax / a)). One row one scale.
typedef struct tv_quantize_rows_args {
    int64_t rows, cols; // M, C
    int qmax;           // 127, or (3^k - 1)/2 for the k-digit form: 1, 4, 13, 40, 121
    const float *x;     // [M, C]
    int8_t *q;          // [M, C]
    float *scale;       // [M]
    int32_t *fault;     // [1]
} tv_quantize_rows_args;

// Two digits a token: a as above; s[t] = a / 16129; Q = rint(x * (16129 / a)) (int32); hi = floor((Q + 63) / 127), lo = Q - 127 hi.
typedef struct tv_quantize_rows2_args {
    int64_t rows, cols;
    const float *x;
    int8_t *hi, *lo; // [M, C]
    float *scale;    // [M]
    int32_t *fault;
} tv_quantize_rows2_args;

// Per channel over the M tokens of a unit, written transposed for the vote product. Value v[t, c] = x[t, c], or, when x is
// NULL, the saved operand (float)q[t, c] * scale[t]. a = absmax_t |v[t, c]|;
// qt[c, t] = rint(v * (127 / a)); sumsq[c] = sum_t qt^2 (int32).
typedef struct tv_quantize_channels_args {
    int64_t tokens, channels; // M, C
    const float *x;           // [M, C] or NULL
    const int8_t *q;          // [M, C], used when x is NULL
    const float *scale;       // [M]
    int8_t *qt;               // [C, M]
    int32_t *sumsq;           // [C]
    int32_t *fault;
} tv_quantize_channels_args;

// Two digits a channel, transposed: Q = rint(x * (16129 / a)), hi, lo as above; sumsq[c] = sum_t Q^2 (int64).
typedef struct tv_quantize_channels2_args {
    int64_t tokens, channels;
    const float *x;
    int8_t *hi, *lo; // [C, M]
    int64_t *sumsq;  // [C]
    int32_t *fault;
} tv_quantize_channels2_args;

// Wire form: k balanced-ternary digits a value (lowest first), values of a row consecutive, five digits a byte across value
// borders, each row padded with digit 1 to a byte. pack: q in [-(3^k-1)/2, (3^k-1)/2] -> bytes; unpack: the reverse. Exact.
// A byte above 242 unpacks as five digits 1.
typedef struct tv_digits_args {
    int64_t rows, cols;
    int digits;     // k = 1..5
    int8_t *q;      // [rows, cols]
    uint8_t *bytes; // [rows, ceil(cols k / 5)]
} tv_digits_args;

// ---- the three products ------------------------------------------------------------------------------------------------

// acc[i, j] = sum_r A[i, r] B[j, r] (int32, exact);  v = (float)acc * (scale[i] * 2^exponent);  y = v, or y + v when accumulate.
// forward: A = q_x [M, K], B = w8 [N, K], exponent b.   grad-x: A = q_g [M, N], B = w8t [K, N], exponent b.
// Two digits (a_lo not NULL): acc = 127 acc_hi + acc_lo in int64, converted to float once.
typedef struct tv_gemm_args {
    int64_t m, n, reduce; // A [m, reduce], B [n, reduce], y [m, n]
    const int8_t *a, *a_lo, *b;
    const float *scale; // [m]
    int exponent, accumulate;
    float *y; // [m, n]
} tv_gemm_args;

// How a unit's integer sum becomes a vote, and where it goes. z-score test against random sums:
//   levels 1:  rg = tau * sqrtf((float)Qg[n]); rx = sqrtf((float)Qx[k] / (float)M); vote = sign(a) if (float)|a| > rg * rx, else 0
//   levels q (3, 7, 15): z = (float)a / (sqrtf((float)Qg[n]) * rx), 0 when the divisor is 0;
//              vote = clamp(floor(z + (float)r16 * 2^-16), -q, q), r16 of purpose VOTE_LEVEL | unit << 8, element n K + k
// The vote is added into votes[n, k] (int8 or int16).
typedef struct tv_vote_rule {
    float tau;
    int levels;    // 1, 3, 7, 15
    int vote_bits; // 8 or 16
    uint32_t seed, tensor_id, step, unit;
} tv_vote_rule;

// a[n, k] = sum_t gt[n, t] xt[k, t] (int32, never stored); two digits (gt_lo not NULL): a = 127 a_hi + a_lo (int64, converted to
// float once), Qg from g_sumsq2. sqrt((float)Q) converts the int32 or int64 sum once.
typedef struct tv_gemm_vote_args {
    int64_t n, k, tokens;     // N, K, M
    const int8_t *gt, *gt_lo; // [N, M]
    const int8_t *xt;         // [K, M]
    const int32_t *g_sumsq;   // [N], one digit
    const int64_t *g_sumsq2;  // [N], two digits
    const int32_t *x_sumsq;   // [K]
    tv_vote_rule rule;
    void *votes; // [N, K] int8 or int16
} tv_gemm_vote_args;

// ---- embedding and sequencer -------------------------------------------------------------------------------------------

// x[t, c] = (float)w8[ids[t], c] * 2^exponent
typedef struct tv_embed_args {
    int64_t tokens, width;
    const int32_t *ids; // [M], each in [0, table rows)
    const int8_t *w8;   // [V, D]
    int exponent;
    float *x; // [M, D]
} tv_embed_args;

// One-hot vote: a[v, c] = sum of gt[c, t] over the tokens t with ids[t] = v; Q the sum of their squares;
//   levels 1: vote = sign(a) if (float)|a| > tau * sqrtf((float)Q);   levels q: z = (float)a / sqrtf((float)Q), then as in
//   tv_vote_rule with element v D + c
typedef struct tv_embed_vote_args {
    int64_t tokens, width, table; // M, D, V
    const int32_t *ids;
    const int8_t *gt; // [D, M]
    tv_vote_rule rule;
    void *votes; // [V, D]
} tv_embed_vote_args;

// Windows of `context` tokens. forward: y[t] = [x[t-2], x[t-1], x[t]] (zeros before the window's start), y [M, 3C].
// backward: dx[t, c] += (dy[t, 2C + c] + dy[t+1, C + c]) + dy[t+2, c], terms beyond the window's end are +0.
typedef struct tv_trigram_args {
    int64_t tokens, channels, context; // M (a multiple of context), C
    const float *in;                   // x [M, C] or dy [M, 3C]
    float *out;                        // y [M, 3C] or dx [M, C]
} tv_trigram_args;

// ---- norm --------------------------------------------------------------------------------------------------------------

// RMS norm of each row: r = 1 / sqrtf(sum32(x x) / (float)C + 1e-5f); y[t, c] = (x[t, c] * r) * (w8[c] * 2^exponent).
// Saved for the backward: q, s = the quantised row x (qmax 127), rstd = r. A row with a NaN or Inf raises fault.
typedef struct tv_norm_args {
    int64_t rows, cols;
    const float *x;
    const int8_t *w8; // [C]
    int exponent;
    float *y;           // [M, C]
    int8_t *saved_q;    // [M, C] or NULL (evaluation): then scale and rstd are not written either
    float *saved_scale; // [M]
    float *saved_rstd;  // [M]
    int32_t *fault;
} tv_norm_args;

// h[c] = (float)q[c] * (s * r); u[c] = dy[c] * (w8[c] * 2^exponent); mean = sum32(u h) / (float)C;
// v[c] = r * fma(-mean, h[c], u[c]);  dx = v, or dx + v when accumulate. dx may be dy (then not accumulate).
typedef struct tv_norm_backward_args {
    int64_t rows, cols;
    const float *dy;
    const int8_t *w8;
    int exponent, accumulate;
    const int8_t *saved_q;
    const float *saved_scale, *saved_rstd;
    float *dx;
} tv_norm_backward_args;

// ---- attention ---------------------------------------------------------------------------------------------------------

// Rotary positions on x [M, H, d], in place; position p = t mod context; pair (c, c + d/2), c < d/2, angle table row p:
//   a = x[c], b = x[c + d/2]:  x[c] = fma(a, cos, -(b * sin)),  x[c + d/2] = fma(a, sin, b * cos);  inverse: sin -> -sin
typedef struct tv_rotary_args {
    int64_t tokens, heads, width, context; // M, H, d
    const float *cos_table, *sin_table;    // [context, d/2]
    int inverse;
    float *x;
} tv_rotary_args;

// Causal attention over windows of T = context tokens. q, k, v are int8 with one scale a (token, head). For query i, key j <= i
// of the same window and head:
//   c = s_q[i] * inv_sqrt;  score_j = (float)(sum_c q8[i,c] k8[j,c]) * (c * s_k[j])        inv_sqrt = 1 / sqrtf((float)d)
//   top = max_j score_j (a zero is +0);  e_j = exp(score_j - top);  l = sum32(e_j over j = 0..i, j counted from the window's start)
//   o[i, c] = blocksum_j<=i(e_j * s_v[j], v8[j, c]) * (1 / l)
// blocksum: kernels/block_sum.h, its rows counted from the window's start; pairs that the mask takes out have the weight 0.
// Saved: top [M, H], norm = l [M, H] (both may be NULL in evaluation).
typedef struct tv_attention_args {
    int64_t tokens, heads, width, context;    // M (a multiple of T), H, d
    const int8_t *q, *k, *v;                  // [M, H, d]
    const float *q_scale, *k_scale, *v_scale; // [M, H]
    float *out;                               // [M, H, d]
    float *top, *norm;                        // [M, H]
} tv_attention_args;

// g = dout quantised a (token, head): g8 [M, H, d], g_scale [M, H]. p_ij = e_j * (1 / l[i]), e_j as above from top.
//   dp_ij = (float)(sum_c g8[i,c] v8[j,c]) * (s_g[i] * s_v[j]);  delta_i = sum32(p_ij dp_ij over j = 0..i, as fma)
//   ds_ij = p_ij * (dp_ij - delta_i)
//   dq[i,c] = inv_sqrt * blocksum_j<=i(ds_ij * s_k[j], k8[j,c])
//   dk[j,c] = blocksum_i>=j(ds_ij * (s_q[i] * inv_sqrt), q8[i,c])
//   dv[j,c] = blocksum_i>=j(p_ij * s_g[i], g8[i,c])
typedef struct tv_attention_backward_args {
    int64_t tokens, heads, width, context;
    const int8_t *q, *k, *v, *g;
    const float *q_scale, *k_scale, *v_scale, *g_scale;
    const float *top, *norm;
    float *dq, *dk, *dv; // [M, H, d]
} tv_attention_backward_args;

// ---- gated activation, loss, small ops -----------------------------------------------------------------------------------

// gu [M, 2F]: gate a = gu[t, f], up u = gu[t, F + f];  h[t, f] = silu(a) * u
typedef struct tv_gate_args {
    int64_t tokens, width; // M, F
    const float *gu;
    float *h; // [M, F]
} tv_gate_args;

// From the saved gu as rows [2M, F] of int8 (row 2t the gate, row 2t+1 the up part), scale [2M]:
//   a = (float)q_gate * s_gate, u = (float)q_up * s_up, g = sigmoid(a), act = a * g
//   dgu[t, F + f] = dh * act;   dgu[t, f] = (dh * u) * (g * fma(a, 1 - g, 1))
typedef struct tv_gate_backward_args {
    int64_t tokens, width;
    const int8_t *saved_q;    // [2M, F]
    const float *saved_scale; // [2M]
    const float *dh;          // [M, F]
    float *dgu;               // [M, 2F]
} tv_gate_backward_args;

// Softmax cross-entropy of each row: top = max_v l[v]; z = sum32(exp(l[v] - top)); loss[t] = (log(z) + top) - l[target];
// grad[t, v] = (exp(l[v] - top) * (1 / z), minus 1 at the target) * weight. A target < 0 gives loss 0 and gradient 0. grad may be NULL,
// or the same array as logits. A NaN or Inf logit (whatever the target) or loss raises fault; loss and gradient are then written as
// computed.
typedef struct tv_xent_args {
    int64_t rows, vocab;
    const float *logits;    // [M, V]
    const int32_t *targets; // [M], each < V
    float *loss;            // [M]
    float *grad;            // [M, V]
    float weight;
    int32_t *fault;
} tv_xent_args;

// out[r] = sum32(x[r, c]) for each row
typedef struct tv_row_sum_args {
    int64_t rows, cols;
    const float *x;
    float *out;
} tv_row_sum_args;

// y[i] = y[i] + x[i]
typedef struct tv_add_args {
    int64_t count;
    const float *x;
    float *y;
} tv_add_args;

// y[i] = value
typedef struct tv_fill_args {
    int64_t count;
    float value;
    float *y;
} tv_fill_args;

// ---- ballot: votes -> trits and exponents ----------------------------------------------------------------------------------

typedef enum tv_rule { TV_RULE_RESTART, TV_RULE_BUDGET, TV_RULE_CLASSIC } tv_rule;
typedef enum tv_combine { TV_COMBINE_MAJORITY, TV_COMBINE_MEAN } tv_combine;

// A block of rows of one tensor and the step's numbers. Element e = (first_row + n) cols + k; r = r16(BALLOT_T, e).
// v = votes[n, k], the sum over the step's U units. H = threshold.
//   restart: majority  d = sign(v) ((eta_q + r) >> 16) if |v| >= quorum, else 0
//            mean      d = sign(v) ((floor(eta_q |v| / U) + r) >> 16)                                   (uint64)
//            a = T_accum - d;  d != 0, a >= H and t < +1: flip up, a -= H;  d != 0, a <= -H and t > -1: flip down, a += H
//            T_accum = clamp(a, -(H-1), H-1)
//   classic: d = sign(v) classic_step if |v| >= quorum;  a = T_accum - d;  flips as restart's, but a = 0 after a flip; same clamp
//   budget:  a = clamp(T_accum - v, -127, 127);  "movable": a > 0 and t < +1, or a < 0 and t > -1.
//            |a| > theta and movable: flip, a = 0.  |a| = theta, movable, theta > theta_min: flip, a = 0 when r16(TIE, e) < tie_q (0..65536).
//            not movable: a = clamp(a, -theta, theta).
// Flip cap (restart, classic; cut >= 0): of the flips above, those with min(|a|, 255) > cut are done, those with = cut while fewer than
// tie_quota such elements came before in this block (element order); the others do not flip (a is clamped only).
// |a| here is the value before the restart.
typedef struct tv_ballot_args {
    int64_t rows, cols, first_row;
    uint8_t *T;        // [rows, ceil(K/5)]
    int8_t *T_accum;   // [rows, K]
    const void *votes; // [rows, K]
    int vote_bits;     // 8 or 16
    tv_rule rule;
    tv_combine combine;
    int units, quorum, threshold; // U, quorum, H
    uint32_t eta_q;               // round(eta 65536)
    int classic_step;             // 1..4
    int theta, theta_min;         // budget
    uint32_t tie_q;               // budget, 0..65536
    int cut;                      // flip cap; -1 = no cap
    int64_t tie_quota;
    uint32_t seed, tensor_id, step;
    // [256], ballot_histogram only: += 1 at min(|a|, 255) per element that is movable (budget) or would flip (others)
    int64_t *histogram;
    int64_t *stats; // [2], ballot only: flips += , zero trits after the step +=
} tv_ballot_args;

// Exponents, on the new trits (classic: on the old ones, called before the ballot). g = the group's real length; element = row * groups + group:
//   score = sum_{k in g} sign(v) t;  x = floor(eta_e_q |score| / g);  e = E_accum - sign(score) ((x + r16(BALLOT_E, element)) >> 16)
//   e >= H_E: if E < base + codes - 1 { E += 1, E_accum = 0 } else E_accum = H_E - 1;  e <= -H_E: the mirror, bound E > base;
//   else E_accum = e
typedef struct tv_ballot_e_args {
    int64_t rows, cols, first_row;
    int group, base, mantissa_bits;
    const uint8_t *T;
    int8_t *E, *E_accum; // [rows, ceil(K/G)]
    const void *votes;
    int vote_bits;
    uint32_t eta_e_q;
    int threshold; // H_E
    uint32_t seed, tensor_id, step;
    int64_t *stats; // [1]: exponents moved +=
} tv_ballot_e_args;

#include "kernels/ops_focus.h"
#include "kernels/ops_graph.h"
#include "kernels/ops_memgram.h"
#include "kernels/ops_modality.h"
#include "kernels/ops_moe.h"
#include "kernels/ops_vq.h"

#include "kernels/ops_joint.h" // of the ones above

// ---- backend ---------------------------------------------------------------------------------------------------------------

typedef enum tv_copy_kind { TV_COPY_TO_DEVICE, TV_COPY_TO_HOST, TV_COPY_DEVICE } tv_copy_kind;

#define TV_DEVICE_ID_BYTES 16

typedef struct tv_backend {
    const char *name;              // "ref", "cpu", "cuda"
    const char *(*describe)(void); // one line for the log: instruction set, threads or device
    // Bring the backend up for this process. local_rank picks a device; threads 0 = all this process may use.
    tv_status (*open)(int local_rank, int local_size, int threads);
    void (*close)(void);
    int host_memory; // 1: alloc returns host memory, copies are memcpy
    // Optional, NULL where there is nothing to tell:
    tv_status (*memory)(int64_t *used_bytes, int64_t *all_bytes); // of the device, by all that run on it
    void (*device_id)(unsigned char id[TV_DEVICE_ID_BYTES]);      // of the device that open picked, unlike any other's
    void (*range_push)(const char *name);                         // through tv_range_push and tv_range_pop below
    void (*range_pop)(void);
    // Never NULL:
    tv_status (*alloc)(size_t bytes, void **out); // TV_ARENA_ALIGN-aligned; 0 bytes give a non-NULL place
    void (*free)(void *memory);                   // takes NULL
    tv_status (*copy)(void *to, const void *from, size_t bytes, tv_copy_kind kind,
                      void *stream); // host side synchronous
    tv_status (*zero)(void *memory, size_t bytes, void *stream);
    tv_status (*sync)(void *stream);
    // ops
    tv_status (*pack)(const tv_pack_args *, void *stream);
    tv_status (*unpack)(const tv_pack_args *, void *stream);
    tv_status (*decode)(const tv_decode_args *, void *stream);
    tv_status (*init)(const tv_init_args *, void *stream);
    tv_status (*validate)(const tv_validate_args *, void *stream);
    tv_status (*row_hash)(const tv_row_hash_args *, void *stream);
    tv_status (*quantize_rows)(const tv_quantize_rows_args *, void *stream);
    tv_status (*quantize_rows2)(const tv_quantize_rows2_args *, void *stream);
    tv_status (*quantize_channels)(const tv_quantize_channels_args *, void *stream);
    tv_status (*quantize_channels2)(const tv_quantize_channels2_args *, void *stream);
    tv_status (*digits_pack)(const tv_digits_args *, void *stream);
    tv_status (*digits_unpack)(const tv_digits_args *, void *stream);
    tv_status (*gemm)(const tv_gemm_args *, void *stream);
    tv_status (*gemm_vote)(const tv_gemm_vote_args *, void *stream);
    tv_status (*embed)(const tv_embed_args *, void *stream);
    tv_status (*embed_vote)(const tv_embed_vote_args *, void *stream);
    tv_status (*trigram)(const tv_trigram_args *, void *stream);
    tv_status (*trigram_backward)(const tv_trigram_args *, void *stream);
    tv_status (*norm)(const tv_norm_args *, void *stream);
    tv_status (*norm_backward)(const tv_norm_backward_args *, void *stream);
    tv_status (*rotary)(const tv_rotary_args *, void *stream);
    tv_status (*attention)(const tv_attention_args *, void *stream);
    tv_status (*attention_backward)(const tv_attention_backward_args *, void *stream);
    tv_status (*gate)(const tv_gate_args *, void *stream);
    tv_status (*gate_backward)(const tv_gate_backward_args *, void *stream);
    tv_status (*norm_quantize)(const tv_norm_quantize_args *, void *stream);
    tv_status (*heads)(const tv_heads_args *, void *stream);
    tv_status (*heads_backward)(const tv_heads_backward_args *, void *stream);
    tv_status (*gate_quantize)(const tv_gate_quantize_args *, void *stream);
    tv_status (*quantize_both)(const tv_quantize_both_args *, void *stream);
    tv_status (*gate_backward_both)(const tv_gate_backward_both_args *, void *stream);
    tv_status (*trigram_quantize)(const tv_trigram_quantize_args *, void *stream);
    tv_status (*xent)(const tv_xent_args *, void *stream);
    tv_status (*row_sum)(const tv_row_sum_args *, void *stream);
    tv_status (*add)(const tv_add_args *, void *stream);
    tv_status (*fill)(const tv_fill_args *, void *stream);
    tv_status (*ballot_histogram)(const tv_ballot_args *, void *stream);
    tv_status (*ballot)(const tv_ballot_args *, void *stream);
    tv_status (*ballot_e)(const tv_ballot_e_args *, void *stream);
    tv_status (*moe_route)(const tv_moe_route_args *, void *stream);
    tv_status (*moe_route_backward)(const tv_moe_route_backward_args *, void *stream);
    tv_status (*moe_plan)(const tv_moe_plan_args *, void *stream);
    tv_status (*rows_gather)(const tv_rows_gather_args *, void *stream);
    tv_status (*rows_pack)(const tv_rows_pack_args *, void *stream);
    tv_status (*rows_unpack)(const tv_rows_unpack_args *, void *stream);
    tv_status (*moe_gemm)(const tv_moe_gemm_args *, void *stream);
    tv_status (*moe_channels)(const tv_moe_channels_args *, void *stream);
    tv_status (*moe_vote)(const tv_moe_vote_args *, void *stream);
    tv_status (*moe_activate)(const tv_moe_activate_args *, void *stream);
    tv_status (*moe_activate_backward)(const tv_moe_activate_backward_args *, void *stream);
    tv_status (*moe_combine)(const tv_moe_combine_args *, void *stream);
    tv_status (*moe_combine_backward)(const tv_moe_combine_backward_args *, void *stream);
    // many ops at once, or NULL: called through the functions below
    tv_status (*decode_many)(const tv_decode_args *list, int64_t count, void *stream);
    tv_status (*ballot_many)(const tv_ballot_args *list, int64_t count, void *stream);
    tv_status (*ballot_e_many)(const tv_ballot_e_args *list, int64_t count, void *stream);
    tv_vq_ops vq;             // codebooks: ops_vq.h
    tv_memgram_ops memgram;   // n-grams: ops_memgram.h
    tv_modality_ops modality; // features: ops_modality.h
    tv_graph_ops graph;       // the graph of motifs: ops_graph.h
    tv_focus_ops focus;       // the conversation's cells: ops_focus.h
    tv_joint_ops joint;       // ops at once, each NULL or not: ops_joint.h
} tv_backend;

// Spans of time for a profiler, nested; each push has its pop, also after a failure. Nothing where no profiler can listen.
static inline void tv_range_push(const tv_backend *backend, const char *name)
{
    if (backend->range_push)
        backend->range_push(name);
}

static inline void tv_range_pop(const tv_backend *backend)
{
    if (backend->range_pop)
        backend->range_pop();
}

// `count` ops in the list's order (their arguments are host memory): what the backend does at once, or one op after the other.
tv_status tv_decode_many(const tv_backend *backend, const tv_decode_args *list, int64_t count, void *stream);
tv_status tv_ballot_many(const tv_backend *backend, const tv_ballot_args *list, int64_t count, void *stream);
tv_status tv_ballot_e_many(const tv_backend *backend, const tv_ballot_e_args *list, int64_t count, void *stream);

// The backend called `name` ("ref", "cpu", "cuda", or "auto": the fastest that can run here). An absent one gives TV_BACKEND and a
// sentence that says why and what to do.
tv_status tv_backend_find(const char *name, const tv_backend **out);
// Backends of this build, NULL-terminated, ref first (tests run every op on each).
const tv_backend *const *tv_backend_list(void);

#endif
