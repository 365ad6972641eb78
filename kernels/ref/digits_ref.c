// Wire form of small integers: k balanced-ternary digits a value, five digits a byte.
#include "base/pack.h"
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

static const int power3[6] = {1, 3, 9, 27, 81, 243};

// With `half` = (3^k - 1)/2 added, the balanced digits (each plus 1) of q are the plain base-3 digits of q + half.
static void pack_row(const int8_t *q, int64_t cols, int digits, uint8_t *bytes)
{
    int half = (power3[digits] - 1) / 2, byte = 0, place = 0;
    for (int64_t c = 0; c < cols; c++) {
        int rest = q[c] + half;
        for (int j = 0; j < digits; j++, rest /= 3) {
            byte += rest % 3 * power3[place];
            if (++place == 5) {
                *bytes++ = (uint8_t)byte;
                byte = place = 0;
            }
        }
    }
    if (place == 0)
        return;
    for (; place < 5; place++)
        byte += TV_TRIT_PAD_DIGIT * power3[place];
    *bytes = (uint8_t)byte;
}

tv_status digits_pack_ref(const tv_digits_args *a, void *stream)
{
    (void)stream;
    int64_t row_bytes = tv_row_bytes(a->cols * a->digits);
    for (int64_t t = 0; t < a->rows; t++)
        pack_row(a->q + t * a->cols, a->cols, a->digits, a->bytes + t * row_bytes);
    return TV_OK;
}

tv_status digits_unpack_ref(const tv_digits_args *a, void *stream)
{
    (void)stream;
    int64_t row_bytes = tv_row_bytes(a->cols * a->digits);
    int half = (power3[a->digits] - 1) / 2;
    for (int64_t t = 0; t < a->rows; t++) {
        const uint8_t *bytes = a->bytes + t * row_bytes;
        for (int64_t c = 0; c < a->cols; c++) {
            int sum = 0;
            for (int j = 0; j < a->digits; j++) {
                int64_t d = c * a->digits + j;
                sum += tv_trit_digits[bytes[d / 5]][d % 5] * power3[j];
            }
            a->q[t * a->cols + c] = (int8_t)(sum - half);
        }
    }
    return TV_OK;
}
