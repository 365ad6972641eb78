// A checkpoint's weights in formats that others read: safetensors, and GGUF version 3.
//
// Every ternary tensor (T with its E) becomes one tensor of the same name and shape [rows, cols] that holds w = t L[E - b] 2^b
// (docs/numerics.md, section 1), always exactly:
//   TQ1_0  GGUF only, where cols is a multiple of 256 and each block of 256 weights of a row has one exponent
//   F16    where the tensor's whole window fits: all of today's models
//   F32    otherwise
// A stack of experts is one tensor, matrices below each other. Side state (routing biases, counts of use) becomes an integer
// tensor NAME.PART. The counters of the votes stay behind: they are for training only.
#ifndef TV_EXPORT_H
#define TV_EXPORT_H

#include <stdint.h>
#include <stdio.h>

#include "base/status.h"
#include "io/checkpoint.h"

typedef enum tv_export_type {
    TV_EXPORT_F32,
    TV_EXPORT_F16,
    TV_EXPORT_TQ1_0,
    TV_EXPORT_I8,
    TV_EXPORT_I16,
    TV_EXPORT_I32,
    TV_EXPORT_TYPE_COUNT
} tv_export_type;
const char *tv_export_type_name(tv_export_type type); // "F16"; safetensors' names, and ggml's for TQ1_0

#define TV_EXPORT_NAME_BYTES 64 // with the terminator: what ggml keeps of a name

typedef struct tv_export_tensor {
    char name[TV_EXPORT_NAME_BYTES];
    const tv_state_array *values;    // T, or the array of side state; the checkpoint's
    const tv_state_array *exponents; // E; NULL for side state
    tv_export_type type;
    int64_t rows, cols;    // as a reader sees them
    int64_t row_bytes;     // in the file
    int64_t offset, bytes; // of the data, from the start of all data
} tv_export_tensor;

typedef struct tv_export {
    tv_checkpoint *checkpoint;
    tv_export_tensor *tensors; // larger items first, then by name
    int64_t count;
} tv_export;

// A format: which types it has, and how a file begins. After the head come the tensors in order, each at a multiple of
// `alignment` bytes from the start of the data, with zeros between.
typedef struct tv_export_format {
    const char *name; // "gguf"
    int packs_trits;  // has TQ1_0
    int64_t alignment;
    // Writes everything before the data, whose start must fall on a multiple of the alignment.
    tv_status (*write_head)(const tv_export *plan, FILE *out);
} tv_export_format;
extern const tv_export_format tv_export_gguf, tv_export_safetensors;

// Local. The tensors that a file of this format will hold. Reads the exponents of those that may become TQ1_0.
// Errors: TV_CHECKPOINT (a T without E, a name twice or too long, scales beyond float32), TV_MEMORY.
tv_status tv_export_plan(tv_checkpoint *checkpoint, const tv_export_format *format, tv_export *plan);
void tv_export_free(tv_export *plan);

// Local. Write the file under another name, in pieces of at most some MiB, and rename it when it is whole and on disk. A file
// that is there already is left alone (TV_USAGE) unless `force`; what is no regular file is never replaced.
tv_status tv_export_write(const tv_export *plan, const tv_export_format *format, const char *path, int force);

// How a tensor's rows are read and encoded.
typedef struct tv_export_rows {
    const tv_export_tensor *tensor;
    uint32_t scale[32]; // bits of L[code] 2^b in the tensor's float type, by code
    int8_t *trits;      // [cols] of one row
} tv_export_rows;
// Rows per read so that a piece stays small.
int64_t tv_export_piece_rows(const tv_state_array *array);
// Local. Rows [first, first + count) of `array` into `data` (count rows of it).
tv_status tv_export_read(tv_checkpoint *checkpoint, const tv_state_array *array, int64_t first, int64_t count,
                         void *data);
tv_status tv_export_rows_open(tv_export_rows *rows, const tv_export_tensor *tensor);
void tv_export_rows_close(tv_export_rows *rows);
// values, exponents: one row as the checkpoint holds it (exponents NULL for side state) -> tensor->row_bytes bytes.
void tv_export_encode(tv_export_rows *rows, const void *values, const int8_t *exponents, uint8_t *out);
// 1 when a row's exponents let it be TQ1_0: each block of 256 weights has one.
int tv_export_row_packs(const tv_state_array *exponents, int64_t cols, const int8_t *row);
int64_t tv_export_row_bytes(tv_export_type type, int64_t cols);
// 1 when every value of a tensor with this b and m is a float16.
int tv_export_fits_f16(int b, int m);

#endif
