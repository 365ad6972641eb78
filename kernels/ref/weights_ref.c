// Packed trits and weights: pack, unpack, decode, initial state, validation, row hashes.
#include "base/hash.h"
#include "base/pack.h"
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

tv_status pack_ref(const tv_pack_args *a, void *stream)
{
    (void)stream;
    for (int64_t n = 0; n < a->rows; n++)
        tv_pack_row(a->trits + n * a->cols, a->cols, a->bytes + n * tv_row_bytes(a->cols));
    return TV_OK;
}

tv_status unpack_ref(const tv_pack_args *a, void *stream)
{
    (void)stream;
    for (int64_t n = 0; n < a->rows; n++)
        tv_unpack_row(a->bytes + n * tv_row_bytes(a->cols), a->cols, a->trits + n * a->cols);
    return TV_OK;
}

tv_status decode_ref(const tv_decode_args *a, void *stream)
{
    (void)stream;
    int64_t rows = a->rows, cols = a->cols;
    for (int64_t n = 0; n < rows; n++) {
        const uint8_t *T = a->T + n * tv_row_bytes(cols);
        const int8_t *E = a->E + n * tv_row_groups(cols, a->group);
        for (int64_t k = 0; k < cols; k++) {
            int t = tv_trit_digits[T[k / 5]][k % 5] - 1;
            int8_t w = (int8_t)(t * tv_lattice_value(a->mantissa_bits, E[k / a->group] - a->base));
            if (a->w8)
                a->w8[n * cols + k] = w;
            if (a->w8t)
                a->w8t[k * rows + n] = w;
        }
    }
    return TV_OK;
}

// Trits of one row, straight into packed form.
static void init_trits(const tv_init_args *a, int64_t row, uint8_t *T)
{
    static const int power[5] = {1, 3, 9, 27, 81};
    tv_draws draws = tv_draws_start((tv_rng_key){a->seed, TV_RNG_INIT_T, a->tensor_id, 0});
    for (int64_t i = 0; i < tv_row_bytes(a->cols); i++) {
        int byte = 0;
        for (int j = 0; j < 5; j++) {
            int64_t k = 5 * i + j;
            int digit = TV_TRIT_PAD_DIGIT;
            if (k < a->cols)
                digit = a->ones ? 2 : (int)(tv_draws_at(&draws, (uint64_t)(row * a->cols + k)) * 3 >> 16);
            byte += digit * power[j];
        }
        T[i] = (uint8_t)byte;
    }
}

tv_status init_ref(const tv_init_args *a, void *stream)
{
    (void)stream;
    int64_t cols = a->cols, bytes = tv_row_bytes(cols), groups = tv_row_groups(cols, a->group);
    uint32_t width = (uint32_t)(2 * a->threshold - 1);
    tv_draws draws = tv_draws_start((tv_rng_key){a->seed, TV_RNG_INIT_ACCUM, a->tensor_id, 0});
    for (int64_t n = 0; n < a->rows; n++) {
        int64_t row = a->first_row + n;
        init_trits(a, row, a->T + n * bytes);
        for (int64_t g = 0; g < groups; g++) {
            a->E[n * groups + g] = (int8_t)a->exponent;
            if (a->E_accum)
                a->E_accum[n * groups + g] = 0;
        }
        for (int64_t k = 0; a->T_accum && k < cols; k++) {
            uint32_t r = tv_draws_at(&draws, (uint64_t)(row * cols + k));
            a->T_accum[n * cols + k] = (int8_t)((int)(r * width >> 16) - (a->threshold - 1));
        }
    }
    return TV_OK;
}

// 1 when byte i of a row of `cols` trits breaks the format.
static int byte_is_invalid(uint8_t byte, int64_t i, int64_t cols)
{
    if (byte > TV_TRIT_BYTE_MAX)
        return 1;
    for (int j = 0; j < 5; j++)
        if (5 * i + j >= cols && tv_trit_digits[byte][j] != TV_TRIT_PAD_DIGIT)
            return 1;
    return 0;
}

tv_status validate_ref(const tv_validate_args *a, void *stream)
{
    (void)stream;
    int64_t bytes = tv_row_bytes(a->cols), groups = tv_row_groups(a->cols, a->group);
    int last = a->base + tv_lattice_codes(a->mantissa_bits) - 1;
    for (int64_t n = 0; n < a->rows; n++) {
        for (int64_t i = 0; i < bytes; i++)
            a->counts[0] += byte_is_invalid(a->T[n * bytes + i], i, a->cols);
        for (int64_t g = 0; g < groups; g++)
            a->counts[1] += a->E[n * groups + g] < a->base || a->E[n * groups + g] > last;
    }
    return TV_OK;
}

tv_status row_hash_ref(const tv_row_hash_args *a, void *stream)
{
    (void)stream;
    if (a->row_bytes)
        tv_hash_rows_add(a->sum, a->data, a->rows, a->row_bytes, a->first_row);
    return TV_OK;
}
