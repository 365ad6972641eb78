// The state of a run as plain arrays: what checkpoint, digest and audit see of the parameter table.
#ifndef TV_BASE_STATE_H
#define TV_BASE_STATE_H

#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"
#include "base/tensor.h"

// One array, or this rank's block of consecutive rows of it, in host memory.
typedef struct tv_state_array {
    const char *name;  // the tensor's, e.g. "block.0.attention.q"
    const char *part;  // "T", "E", "T_accum", "E_accum" or a side state's, e.g. "usage"
    const char *group; // first folder inside a shard: "tensors", "tables", ...
    tv_dtype dtype;
    int64_t rows, cols;       // global shape, in items of dtype
    int64_t logical_cols;     // K for T and T_accum, groups for E: what a reader unpacks to
    int64_t first_row, count; // this rank's block (count may be 0)
    void *data;               // count * cols items
    int b, m, scale_group;    // of the tensor; 0 for side state
    int replicated;           // 1: every rank holds all rows; the block above is the share this rank writes
} tv_state_array;

static inline int64_t tv_state_row_bytes(const tv_state_array *a) { return a->cols * tv_dtype_bytes(a->dtype); }

// sums[i] = sum of the row hashes of this rank's block of arrays[i]. The caller adds them over ranks (each half mod 2^64).
void tv_state_hash(const tv_state_array *arrays, int64_t count, tv_hash128 *sums);
// digest = XXH3-128 over the records (name, part, rows, cols, dtype, b, m, G, sum) sorted by name, then part. Record layout:
// name NUL part NUL, then int64 rows, cols and int32 dtype, b, m, G and uint64 low, high, all little-endian.
// TV_MEMORY only.
tv_status tv_state_digest(const tv_state_array *arrays, int64_t count, const tv_hash128 *sums, tv_hash128 *digest);

#endif
