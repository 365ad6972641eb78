// Rows of tokens for their experts: gathered, or in the form in which they travel.
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

// Token of a row from its item.
static int64_t item_token(int32_t item, int slots) { return item < 0 ? -(int64_t)item - 1 : item / slots; }

tv_status rows_gather_ref(const tv_rows_gather_args *a, void *stream)
{
    (void)stream;
    for (int64_t r = 0; a->cols && r < a->rows; r++) {
        int64_t t = item_token(a->item[r], a->slots);
        int8_t *q = a->out_q + r * a->cols;
        if (a->factor && a->item[r] < 0) {
            memset(q, 0, (size_t)a->cols);
            a->out_scale[r] = 0.0f;
            continue;
        }
        memcpy(q, a->q + t * a->cols, (size_t)a->cols);
        a->out_scale[r] = a->factor ? a->scale[t] * a->factor[a->item[r]] : a->scale[t];
    }
    return TV_OK;
}

tv_status rows_pack_ref(const tv_rows_pack_args *a, void *stream)
{
    int64_t row_bytes = tv_wire_row_bytes(a->cols, a->digits), packed = tv_row_bytes(a->cols * a->digits);
    for (int64_t r = 0; a->cols && r < a->rows; r++) {
        int64_t t = a->slots ? item_token(a->item[r], a->slots) : r;
        uint8_t *row = a->bytes + r * row_bytes, *tail = row + row_bytes - TV_WIRE_TAIL_BYTES;
        float scale = a->slots && a->factor ? a->scale[t] * a->factor[a->item[r]] : a->scale[t];
        int32_t expert = a->slots && a->expert ? a->expert[a->item[r]] : 0;
        // The op reads q only.
        tv_digits_args digits = {1, a->cols, a->digits, (int8_t *)a->q + t * a->cols, row};
        TV_TRY(digits_pack_ref(&digits, stream));
        memset(row + packed, 0, (size_t)(tail - row - packed));
        memcpy(tail, &scale, 4);
        memcpy(tail + 4, &expert, 4);
        memcpy(tail + 8, &a->unit, 4);
    }
    return TV_OK;
}

// One row; `segment` NULL: whose it is does not matter.
static tv_status unpack_row(const tv_rows_unpack_args *a, int64_t r, const tv_segment *segment)
{
    int64_t row_bytes = tv_wire_row_bytes(a->cols, a->digits), packed = tv_row_bytes(a->cols * a->digits);
    const uint8_t *row = a->bytes + r * row_bytes, *tail = row + row_bytes - TV_WIRE_TAIL_BYTES;
    int32_t expert, unit;
    float scale;
    memcpy(&scale, tail, 4);
    memcpy(&expert, tail + 4, 4);
    memcpy(&unit, tail + 8, 4);
    int bad = !(scale >= 0.0f) || tv_abs_bits(scale) >= TV_BITS_INF;
    if (segment)
        bad |= expert != a->first_expert + segment->expert || unit != segment->unit;
    for (int64_t i = 0; i < packed; i++)
        bad |= row[i] > TV_TRIT_BYTE_MAX;
    a->scale[r] = bad ? 0.0f : scale;
    if (bad) {
        *a->fault = 1;
        memset(a->q + r * a->cols, 0, (size_t)a->cols);
        return TV_OK;
    }
    tv_digits_args digits = {1, a->cols, a->digits, a->q + r * a->cols, (uint8_t *)row};
    return digits_unpack_ref(&digits, NULL);
}

tv_status rows_unpack_ref(const tv_rows_unpack_args *a, void *stream)
{
    (void)stream;
    for (int64_t r = 0; a->cols && !a->segments && r < a->rows; r++)
        TV_TRY(unpack_row(a, r, NULL));
    for (int64_t i = 0; a->cols && a->segments && i < a->segment_count; i++) {
        const tv_segment *s = &a->segments[i];
        for (int64_t r = s->first; r < s->first + s->rows; r++)
            TV_TRY(unpack_row(a, r, s));
    }
    return TV_OK;
}
