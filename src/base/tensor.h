// What a ternary tensor is: shapes, scale types, the scale lattice.
//
// W[N, K] = trits t (packed five a byte) times S = 2^E per group of G consecutive weights of a row (docs/numerics.md).
//   T        uint8 [N, ceil(K/5)]    E        int8 [N, ceil(K/G)]
//   T_accum  int8  [N, K]            E_accum  int8 [N, ceil(K/G)]
#ifndef TV_BASE_TENSOR_H
#define TV_BASE_TENSOR_H

#include <stdint.h>

#include "base/host_device.h"

typedef enum tv_dtype { TV_U8, TV_I8, TV_I16, TV_I32, TV_DTYPE_COUNT } tv_dtype; // all persistent state is one of these
int64_t tv_dtype_bytes(tv_dtype dtype);
const char *tv_dtype_name(tv_dtype dtype); // "uint8", "int8", "int16", "int32"

typedef enum tv_scale_type { TV_T4, TV_T6, TV_T8, TV_T16, TV_T32, TV_T64, TV_SCALE_TYPE_COUNT } tv_scale_type;
int tv_scale_group(tv_scale_type type);                        // G: 4, 6, 8, 16, 32, 64
const char *tv_scale_type_name(tv_scale_type type);            // "T32"
int tv_scale_type_parse(const char *text, tv_scale_type *out); // 0 on success, -1 for an unknown name

#define TV_TRIT_PAD_DIGIT 1  // digit of a pad trit (t = 0)
#define TV_TRIT_BYTE_MAX 242 // 3^5 - 1; larger bytes are invalid
#define TV_MANTISSA_BITS_MAX 3

static inline TV_HOST_DEVICE int64_t tv_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline TV_HOST_DEVICE int64_t tv_row_bytes(int64_t cols)
{
    return tv_ceil_div(cols, 5);
} // packed trits of a row
static inline TV_HOST_DEVICE int64_t tv_row_groups(int64_t cols, int group)
{
    return tv_ceil_div(cols, group);
} // exponents of a row

// The scale lattice for m mantissa bits: codes 0 .. tv_lattice_codes(m) - 1; value L[code] = (2^m + code mod 2^m) << (code / 2^m).
//   m   octaves  codes   largest L
//   0   7        7       64        (exponent window b .. b + 6)
//   1   6        12      96
//   2   5        20      112
//   3   4        32      120
// S = L[E - b] 2^b; w8 = t L[E - b].
static inline TV_HOST_DEVICE int tv_lattice_octaves(int m) { return 7 - m; }
static inline TV_HOST_DEVICE int tv_lattice_codes(int m) { return tv_lattice_octaves(m) << m; }
static inline TV_HOST_DEVICE int tv_lattice_value(int m, int code)
{
    return ((1 << m) + (code & ((1 << m) - 1))) << (code >> m);
}
static inline int tv_lattice_max(int m) { return tv_lattice_value(m, tv_lattice_codes(m) - 1); }

// Base exponent b and first stored E of a tensor whose initial scale is 2^e0: the code in the middle octave,
// o = octaves / 2 (rounded down), b = e0 - m - o, E = b + (o << m). For m = 0: b = e0 - 3.
void tv_lattice_start(int m, int e0, int *b, int *e);

// round(log2 sqrt(1.5 / k)), half away from zero, less `residual`; in integer arithmetic, so it is the same on every host.
int tv_initial_exponent(int64_t k, int residual);

// Largest reduced length for which the int32 products cannot overflow: floor((2^31 - 1) / (127 * largest L)).
int64_t tv_reduced_length_max(int m);

#endif
