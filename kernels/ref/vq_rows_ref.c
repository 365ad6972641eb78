// Codebooks: initial state, and rows on their way from the table to those who asked.
#include "kernels/ref/ref_ops.h"
#include "kernels/ref/vq_common.h"

// The pattern of the row's bucket into its first trits.
static void stamp_pattern(const tv_vq_table *table, int64_t row, int8_t *trits)
{
    int64_t bucket = tv_vq_bucket_of(table->rows, table->bits, row);
    for (int c = 0; c < table->bits; c++)
        trits[c] = (int8_t)tv_vq_pattern(bucket, c);
}

tv_status vq_init_ref(const tv_vq_init_args *a, void *stream)
{
    const tv_vq_table *table = &a->table;
    int64_t bytes = tv_row_bytes(table->cols);
    tv_init_args init = {.rows = table->held_rows,
                         .cols = table->cols,
                         .first_row = table->first_row,
                         .group = (int)table->cols,
                         .exponent = a->exponent,
                         .threshold = a->threshold,
                         .seed = a->seed,
                         .tensor_id = a->tensor_id,
                         .T = table->T,
                         .E = table->E,
                         .T_accum = table->T_accum,
                         .E_accum = table->E_accum};
    if (!table->cols)
        return TV_OK;
    TV_TRY(init_ref(&init, stream));
    for (int64_t n = 0; n < table->held_rows && (table->bits || a->zeros); n++) {
        int8_t trits[TV_VQ_COLS_MAX] = {0};
        if (!a->zeros)
            tv_unpack_row(table->T + n * bytes, table->cols, trits);
        stamp_pattern(table, table->first_row + n, trits);
        tv_pack_row(trits, table->cols, table->T + n * bytes);
        if (table->T_accum)
            memset(table->T_accum + n * table->cols, 0, (size_t)table->bits);
    }
    return TV_OK;
}

tv_status vq_answer_ref(const tv_vq_answer_args *a, void *stream)
{
    (void)stream;
    const tv_vq_table *table = &a->table;
    int64_t size = tv_vq_answer_bytes(table->cols), packed = tv_row_bytes(table->cols);
    int8_t none[TV_VQ_COLS_MAX] = {0};
    for (int64_t i = 0; i < a->count; i++) {
        uint8_t *answer = a->bytes + i * size;
        int32_t row = a->row[i], score = a->score[i];
        int64_t at = row - table->first_row;
        int held = row >= 0 && at >= 0 && at < table->held_rows;
        if (!held && row != -1)
            *a->fault = 1;
        row = held ? row : -1;
        memset(answer, 0, (size_t)size);
        memcpy(answer, &row, 4);
        memcpy(answer + 4, &score, 4);
        if (held)
            memcpy(answer + 8, table->T + at * packed, (size_t)packed);
        else
            tv_pack_row(none, table->cols, answer + 8);
        answer[8 + packed] = (uint8_t)(held ? table->E[at] : table->base);
    }
    return TV_OK;
}

tv_status vq_answer_unpack_ref(const tv_vq_answer_unpack_args *a, void *stream)
{
    (void)stream;
    int64_t size = tv_vq_answer_bytes(a->cols), packed = tv_row_bytes(a->cols);
    for (int64_t i = 0; i < a->count; i++) {
        const uint8_t *answer = a->bytes + i * size;
        int E = (int8_t)answer[8 + packed];
        int32_t row, score;
        memcpy(&row, answer, 4);
        memcpy(&score, answer + 4, 4);
        int bad = row < -1 || row >= a->rows || E < a->base || E >= a->base + tv_lattice_codes(a->mantissa_bits);
        for (int64_t k = 0; k < packed; k++)
            bad |= answer[8 + k] > TV_TRIT_BYTE_MAX;
        if (bad)
            *a->fault = 1;
        a->row[i] = bad ? -1 : row;
        a->score[i] = bad ? INT32_MIN : score;
    }
    return TV_OK;
}

tv_status vq_rows_ref(const tv_vq_rows_args *a, void *stream)
{
    (void)stream;
    int64_t size = tv_vq_answer_bytes(a->cols), packed = tv_row_bytes(a->cols);
    for (int64_t t = 0; a->cols && t < a->tokens; t++) {
        a->scale[t] = tv_exp2i(a->base);
        if (a->from[t] < 0) {
            *a->fault = 1;
            memset(a->w8 + t * a->cols, 0, (size_t)a->cols);
            continue;
        }
        const uint8_t *answer = a->bytes + a->from[t] * size;
        tv_vq_table one = {.held_rows = 1,
                           .cols = a->cols,
                           .base = a->base,
                           .mantissa_bits = a->mantissa_bits,
                           .T = (uint8_t *)answer + 8, // read only
                           .E = (int8_t *)answer + 8 + packed};
        tv_vq_decode_row(&one, 0, a->w8 + t * a->cols);
    }
    return TV_OK;
}
