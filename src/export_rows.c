// Rows of a ternary tensor as floats or as blocks of ggml's TQ1_0.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/pack.h"
#include "export.h"

enum { PIECE_BYTES = 4 << 20 };

// TQ1_0: 256 weights t d in 54 bytes. A byte holds trits as the digits of a fraction: ceil(256 / 243 (81 t0 + 27 t1 + 9 t2 + 3 t3 + t4)),
// t + 1 = 0..2, so that a reader gets the first by multiplying with 3 and taking the carry.
//   bytes 0..31   byte i holds weights i, i + 32, ... i + 128
//   bytes 32..47  byte 32 + i holds weights 160 + i, 160 + i + 16, ... 160 + i + 64
//   bytes 48..51  byte 48 + i holds weights 240 + i, 240 + i + 4, ... 240 + i + 12, and the digit 0
//   bytes 52, 53  d as a float16
// Source: block_tq1_0 in ggml-common.h and its functions in ggml-quants.c of llama.cpp.
enum { BLOCK = 256, BLOCK_BYTES = 54 };

static const struct {
    int first, bytes, digits;
} runs[] = {{0, 32, 5}, {160, 16, 5}, {240, 4, 4}};

static uint8_t tq1_byte(const int8_t *trits, int stride, int digits)
{
    int value = 0;
    for (int i = 0; i < 5; i++)
        value = 3 * value + (i < digits ? trits[i * stride] + 1 : 0);
    return (uint8_t)((value * 256 + 242) / 243);
}

static void encode_block(const int8_t *trits, uint16_t d, uint8_t *out)
{
    uint8_t *at = out;
    for (size_t r = 0; r < sizeof runs / sizeof *runs; r++)
        for (int i = 0; i < runs[r].bytes; i++)
            *at++ = tq1_byte(trits + runs[r].first + i, runs[r].bytes, runs[r].digits);
    memcpy(at, &d, sizeof d);
}

int64_t tv_export_row_bytes(tv_export_type type, int64_t cols)
{
    switch (type) {
    case TV_EXPORT_TQ1_0: return cols / BLOCK * BLOCK_BYTES;
    case TV_EXPORT_I8: return cols;
    case TV_EXPORT_F16:
    case TV_EXPORT_I16: return 2 * cols;
    default: return 4 * cols;
    }
}

// Every value is an integer of at most 7 bits times 2^b: 2^-24 is the least float16, and 2^16 is beyond the largest.
int tv_export_fits_f16(int b, int m) { return b >= -24 && ldexp(tv_lattice_max(m), b) <= 65504; }

int tv_export_row_packs(const tv_state_array *exponents, int64_t cols, const int8_t *row)
{
    int64_t group = exponents->scale_group;
    if (cols % BLOCK != 0)
        return 0;
    for (int64_t first = 0; first < cols; first += BLOCK)
        for (int64_t g = first / group; g * group < first + BLOCK; g++)
            if (row[g] != row[first / group])
                return 0;
    return 1;
}

// value 2^b as a float16; it must be one.
static uint32_t half_bits(int value, int b)
{
    int top = 31 - __builtin_clz((unsigned)value); // value >= 1
    if (top + b < -14)
        return (uint32_t)value << (b + 24); // subnormal
    return (uint32_t)(top + b + 15) << 10 | ((uint32_t)value << (10 - top) & 0x3FF);
}

static uint32_t float_bits(int value, int b)
{
    float x = ldexpf((float)value, b);
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

tv_status tv_export_rows_open(tv_export_rows *rows, const tv_export_tensor *tensor)
{
    *rows = (tv_export_rows){.tensor = tensor};
    rows->trits = malloc((size_t)tensor->cols + 1);
    if (!rows->trits)
        return TV_FAIL(TV_MEMORY, "no memory for a row of %s", tensor->name);
    for (int code = 0; tensor->exponents && code < tv_lattice_codes(tensor->values->m); code++) {
        int value = tv_lattice_value(tensor->values->m, code), b = tensor->values->b;
        rows->scale[code] = tensor->type == TV_EXPORT_F32 ? float_bits(value, b) : half_bits(value, b);
    }
    return TV_OK;
}

void tv_export_rows_close(tv_export_rows *rows) { free(rows->trits); }

static void encode_float(const tv_export_rows *rows, const int8_t *exponents, uint8_t *out)
{
    const tv_export_tensor *tensor = rows->tensor;
    int64_t group = tensor->values->scale_group, item = tensor->type == TV_EXPORT_F32 ? 4 : 2;
    uint32_t sign = 1u << (8 * item - 1);
    for (int64_t k = 0; k < tensor->cols; k++) {
        uint32_t bits = 0;
        if (rows->trits[k])
            bits = rows->scale[exponents[k / group] - tensor->values->b] | (rows->trits[k] < 0 ? sign : 0);
        memcpy(out + k * item, &bits, (size_t)item); // little-endian, as all of the program
    }
}

void tv_export_encode(tv_export_rows *rows, const void *values, const int8_t *exponents, uint8_t *out)
{
    const tv_export_tensor *tensor = rows->tensor;
    if (!tensor->exponents) {
        memcpy(out, values, (size_t)tensor->row_bytes);
        return;
    }
    tv_unpack_row(values, tensor->cols, rows->trits);
    if (tensor->type != TV_EXPORT_TQ1_0) {
        encode_float(rows, exponents, out);
        return;
    }
    for (int64_t first = 0; first < tensor->cols; first += BLOCK, out += BLOCK_BYTES) {
        int code = exponents[first / tensor->values->scale_group] - tensor->values->b;
        encode_block(rows->trits + first, (uint16_t)rows->scale[code], out);
    }
}

int64_t tv_export_piece_rows(const tv_state_array *array)
{
    int64_t row_bytes = tv_state_row_bytes(array), rows = PIECE_BYTES / (row_bytes > 0 ? row_bytes : 1);
    return rows < 1 ? 1 : rows;
}

tv_status tv_export_read(tv_checkpoint *checkpoint, const tv_state_array *array, int64_t first, int64_t count,
                         void *data)
{
    tv_state_array block = *array;
    block.first_row = first;
    block.count = count;
    block.data = data;
    return tv_checkpoint_read(checkpoint, &block, 1);
}
