// Sixteen answers (tv_vq_answer_args) in a warp's registers, packed as they come: lane 4 g + q has the packed bytes 4 q .. 4 q + 3 of the rows g
// and g + 8. Digit i of its four bytes is one word of a product's operand, so channel 20 q + 5 b + i is byte b of word i, and half a step more
// takes the last. Digits are trits + 1: the sums start at less than zero by as much. A row's q are its trits times 127 (absmax is the
// value of a trit, and rint(v (127 / v)) = 127), so the factor comes behind the product.
#ifndef TV_KERNELS_ANSWER_ROWS_CUH
#define TV_KERNELS_ANSWER_ROWS_CUH

#include "kernels/cuda/quad_rows.cuh"

#define TV_AR_STEPS 3
#define TV_AR_DIGITS 5
#define TV_AR_SPAN 20 // channels of a lane
#define TV_AR_CODES 32
#define TV_AR_FACTOR 127.0f
#define TV_AR_PITCH 80 // bytes of a row whose digits lie by channel

// What all answers of a launch share; unit and scale of a code: L 2^b, and the scale of a row that is not zero.
typedef struct tv_ar_table {
    float unit[TV_AR_CODES], scale[TV_AR_CODES];
} tv_ar_table;

// How a lane reads an answer: two words, one of its packed bytes and, with lane 0, the row's number, with the others the one that holds E.
typedef struct tv_ar_form {
    const uint8_t *packed, *more; // the words of the first answer
    int size;                     // of an answer
    int base, codes;
    int shift;     // of E in its word
    uint32_t mask; // of the bytes that are the answer's
} tv_ar_form;

typedef struct tv_ar_words {
    uint32_t packed, more;
} tv_ar_words;

// A lane that has no packed bytes reads the first word: the layers' weights for it are zeros.
__device__ static inline tv_ar_form tv_ar_form_of(const uint8_t *bytes, int cols, int base, int mantissa_bits)
{
    int packed = (cols + 4) / 5, q = tv_qr_quarter(), here = packed - 4 * q;
    return {bytes + (here > 0 ? 8 + 4 * q : 0),
            bytes + (q == 0 ? 0 : (8 + packed) / 4 * 4),
            (int)tv_vq_answer_bytes(cols),
            base,
            tv_lattice_codes(mantissa_bits),
            q == 0 ? 0 : 8 * ((8 + packed) % 4),
            here >= 4  ? 0xFFFFFFFFu
            : here > 0 ? (1u << (8 * here)) - 1u
                       : 0u};
}

// A barrier must follow.
__device__ static inline void tv_ar_load_table(tv_ar_table *table, int base, int mantissa_bits)
{
    int code = threadIdx.x;
    if (code >= TV_AR_CODES || code >= tv_lattice_codes(mantissa_bits))
        return;
    float unit = (float)tv_lattice_value(mantissa_bits, code) * tv_exp2i(base);
    table->unit[code] = unit;
    table->scale[code] = tv_usable_absmax(tv_magnitude(unit), false, NULL) / 127.0f;
}

// Of answer `index`; below 0 it is the first one, so that no load waits for a decision: tv_ar_code tells them apart.
__device__ static inline tv_ar_words tv_ar_load(const tv_ar_form &form, int32_t index)
{
    int64_t at = (int64_t)max(index, 0) * form.size;
    return {*(const uint32_t *)(form.packed + at), *(const uint32_t *)(form.more + at)};
}

// The code of an answer's exponent, or -1 for none and for one that is not sound. All lanes of the warp call it.
__device__ static inline int tv_ar_code(const tv_ar_form &form, int32_t index, const tv_ar_words &words)
{
    int code = (int8_t)(words.more >> form.shift) - form.base;
    uint32_t packed = words.packed & form.mask, even = packed & 0x00FF00FFu, odd = packed >> 8 & 0x00FF00FFu;
    uint32_t over = (255 - TV_TRIT_BYTE_MAX) * 0x00010001u; // carries out of a byte above the largest
    bool bad = (((even + over) | (odd + over)) & 0x01000100u) != 0;
    bad = bad || (tv_qr_quarter() == 0 ? (int32_t)words.more < 0 : code < 0 || code >= form.codes);
    code = __shfl_sync(0xFFFFFFFFu, code, tv_qr_lane_of(1));
    return tv_qr_any(bad) || index < 0 ? -1 : code;
}

// Answers index[0] and index[1] of a lane's rows: codes and packed bytes. *fault is raised for those that are not sound, if fault is not NULL.
__device__ static inline void tv_ar_read(const tv_ar_form &form, const int32_t index[2], int code[2],
                                         uint32_t packed[2], int32_t *fault)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        tv_ar_words words = tv_ar_load(form, index[h]);
        packed[h] = words.packed & form.mask;
        code[h] = tv_ar_code(form, index[h], words);
        if (fault && index[h] >= 0 && code[h] < 0)
            *fault = 1;
    }
}

// digits[i]: digit i of the word's four bytes. f = n + ((55 n + 1014) >> 10) is the fraction of 256 with n = floor(243 f / 256) for all n < 243,
// so tripling it brings digit 4 in front of the point, then digit 3 ...: two bytes a word, each with a byte above it.
__device__ static inline void tv_ar_digits(uint32_t packed, uint32_t digits[TV_AR_DIGITS])
{
    uint32_t even = packed & 0x00FF00FFu, odd = packed >> 8 & 0x00FF00FFu;
    even += (even * 55u + 1014u * 0x00010001u) >> 10 & 0x001F001Fu;
    odd += (odd * 55u + 1014u * 0x00010001u) >> 10 & 0x001F001Fu;
#pragma unroll
    for (int i = TV_AR_DIGITS - 1; i >= 0; i--) {
        even *= 3u, odd *= 3u;
        digits[i] = __byte_perm(even, odd, 0x7351u);
        even &= 0x00FF00FFu, odd &= 0x00FF00FFu;
    }
}

// The row g + 8 h of an operand; code as tv_ar_code gives it.
__device__ static inline void tv_ar_operand_row(const tv_ar_table &table, int code, uint32_t packed, int h,
                                                tv_qr_operand<TV_AR_STEPS> *out)
{
    uint32_t digits[TV_AR_DIGITS];
    tv_ar_digits(packed, digits);
#pragma unroll
    for (int i = 0; i < TV_AR_DIGITS; i++)
        out->a[i / 2][i % 2 * 2 + h] = digits[i];
    out->scale[h] = code < 0 ? 0.0f : table.scale[code];
}

__device__ static inline uint32_t tv_ar_byte(const int8_t *row, int k, int c)
{
    return c < k ? (uint32_t)(uint8_t)row[c] : 0u;
}

// Bytes `first` .. first + 19 of a row of k int8, zeros where it ends.
template <bool WHOLE>
__device__ static inline void tv_ar_read_bytes(const int8_t *row, int k, int first, uint32_t raw[TV_AR_SPAN / 4])
{
#pragma unroll
    for (int i = 0; i < TV_AR_SPAN / 4; i++) {
        int c = first + 4 * i;
        if constexpr (WHOLE)
            raw[i] = c < k ? *(const uint32_t *)(row + c) : 0;
        else
            raw[i] = tv_ar_byte(row, k, c) | tv_ar_byte(row, k, c + 1) << 8 | tv_ar_byte(row, k, c + 2) << 16 |
                     tv_ar_byte(row, k, c + 3) << 24;
    }
}

// The layer w8 [n, k], n, k <= 64, for such operands. All TV_QR_THREADS threads call it; a barrier must follow.
template <bool WHOLE>
__device__ static inline void tv_ar_load_layer(tv_qr_layer<TV_AR_STEPS> *layer, const int8_t *w8, int n, int k)
{
    int row = threadIdx.x / 4, q = threadIdx.x % 4, sum = 0;
    uint32_t raw[TV_AR_SPAN / 4], word[2 * TV_AR_STEPS] = {};
    tv_ar_read_bytes<WHOLE>(w8 + row * k, row < n ? k : 0, TV_AR_SPAN * q, raw);
#pragma unroll
    for (int i = 0; i < TV_AR_SPAN / 4; i++)
        sum = __dp4a((int)raw[i], 0x01010101, sum);
#pragma unroll
    for (int i = 0; i < TV_AR_DIGITS; i++)
#pragma unroll
        for (int b = 0; b < 4; b++)
            word[i] |= (raw[(5 * b + i) / 4] >> (8 * ((5 * b + i) % 4)) & 255u) << (8 * b);
#pragma unroll
    for (int step = 0; step < TV_AR_STEPS; step++)
        layer->b[row / 8][step][row % 8 * 4 + q] = make_uint2(word[2 * step], word[2 * step + 1]);
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
    if (q == 0)
        layer->zero[row] = TV_QR_ZERO - sum;
}

// The values of two rows in the form of quad_rows.cuh. `stage`: TV_QR_ROWS TV_AR_PITCH bytes of the warp's own.
__device__ static inline tv_qr_rows tv_ar_values(const tv_ar_table &table, const int code[2], const uint32_t packed[2],
                                                 int cols, uint8_t *stage)
{
    tv_qr_rows out;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        uint32_t digits[TV_AR_DIGITS];
        uint8_t *row = stage + (tv_qr_group() + 8 * h) * TV_AR_PITCH + TV_AR_SPAN * tv_qr_quarter();
        tv_ar_digits(packed[h], digits);
#pragma unroll
        for (int b = 0; b < 4; b++)
#pragma unroll
            for (int i = 0; i < TV_AR_DIGITS; i++)
                row[5 * b + i] = (uint8_t)(digits[i] >> (8 * b));
    }
    __syncwarp();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const uint8_t *row = stage + (tv_qr_group() + 8 * h) * TV_AR_PITCH;
        float unit = code[h] < 0 ? 0.0f : table.unit[code[h]];
#pragma unroll
        for (int j = 0; j < TV_QR_TILES; j++) {
            int c = tv_qr_channel(j), two = *(const uint16_t *)(row + c);
            int low = c < cols ? (two & 255) - 1 : 0, high = c + 1 < cols ? (two >> 8) - 1 : 0;
            // A zero is +0.
            out.v[h][j][0] = low == 0 || code[h] < 0 ? 0.0f : (float)low * unit;
            out.v[h][j][1] = high == 0 || code[h] < 0 ? 0.0f : (float)high * unit;
        }
    }
    __syncwarp();
    return out;
}

#endif
