// Rows of tokens for their experts, and what they bring back.
//
// Five values of k digits are k bytes: with B = 3^k and u = q + (B - 1) / 2, the number u0 + u1 B + .. + u4 B^4 has the same base-3 digits
// as the bytes b0 + b1 243 + ..; so a group is one number on both sides.
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"

enum { GROUP = 5, BYTE_VALUES = 243 };

static const uint32_t power3[6] = {1, 3, 9, 27, 81, 243};

// k digits a value, k a constant where it matters.
TV_ROWS void pack_groups(const int8_t *restrict q, int64_t groups, int digits, uint8_t *restrict bytes)
{
    uint32_t base = power3[digits];
    int half = (int)(base - 1) / 2;
    for (int64_t g = 0; g < groups; g++) {
        uint64_t number = 0;
        for (int i = GROUP - 1; i >= 0; i--)
            number = number * base + (uint32_t)(q[g * GROUP + i] + half);
        for (int b = 0; b < digits; b++, number /= BYTE_VALUES)
            bytes[g * digits + b] = (uint8_t)(number % BYTE_VALUES);
    }
}

TV_ROWS void unpack_groups(const uint8_t *restrict bytes, int64_t groups, int digits, int8_t *restrict q)
{
    uint32_t base = power3[digits];
    int half = (int)(base - 1) / 2;
    for (int64_t g = 0; g < groups; g++) {
        uint64_t number = 0;
        for (int b = digits - 1; b >= 0; b--)
            number = number * BYTE_VALUES + bytes[g * digits + b];
        for (int i = 0; i < GROUP; i++, number /= base)
            q[g * GROUP + i] = (int8_t)((int)(number % base) - half);
    }
}

// Whole groups, then the rest of the row as a group with values 0, whose digits are the pads.
TV_ROWS void pack_row(const int8_t *q, int64_t cols, int digits, uint8_t *bytes)
{
    int8_t rest[GROUP] = {0};
    uint8_t last[GROUP];
    int64_t groups = cols / GROUP, left = cols % GROUP;
    switch (digits) {
    case 1: pack_groups(q, groups, 1, bytes); break;
    case 2: pack_groups(q, groups, 2, bytes); break;
    case 3: pack_groups(q, groups, 3, bytes); break;
    case 4: pack_groups(q, groups, 4, bytes); break;
    default: pack_groups(q, groups, 5, bytes); break;
    }
    memcpy(rest, q + groups * GROUP, (size_t)left);
    pack_groups(rest, 1, digits, last);
    memcpy(bytes + groups * digits, last, (size_t)tv_row_bytes(left * digits));
}

TV_ROWS void unpack_row(const uint8_t *bytes, int64_t cols, int digits, int8_t *q)
{
    int8_t rest[GROUP];
    uint8_t last[GROUP] = {0};
    int64_t groups = cols / GROUP, left = cols % GROUP;
    switch (digits) {
    case 1: unpack_groups(bytes, groups, 1, q); break;
    case 2: unpack_groups(bytes, groups, 2, q); break;
    case 3: unpack_groups(bytes, groups, 3, q); break;
    case 4: unpack_groups(bytes, groups, 4, q); break;
    default: unpack_groups(bytes, groups, 5, q); break;
    }
    memcpy(last, bytes + groups * digits, (size_t)tv_row_bytes(left * digits));
    unpack_groups(last, 1, digits, rest);
    memcpy(q + groups * GROUP, rest, (size_t)left);
}

static int64_t item_token(int32_t item, int slots) { return item < 0 ? -(int64_t)item - 1 : item / slots; }

static void gather_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_rows_gather_args *a = args;
    for (int64_t r = first; r < last; r++) {
        int64_t t = item_token(a->item[r], a->slots);
        int lost = a->factor != NULL && a->item[r] < 0;
        if (lost)
            memset(a->out_q + r * a->cols, 0, (size_t)a->cols);
        else
            memcpy(a->out_q + r * a->cols, a->q + t * a->cols, (size_t)a->cols);
        a->out_scale[r] = lost ? 0.0f : a->factor != NULL ? a->scale[t] * a->factor[a->item[r]] : a->scale[t];
    }
}

tv_status TV_ISA_NAME(rows_gather)(const tv_rows_gather_args *a, void *stream)
{
    (void)stream;
    if (a->cols > 0)
        tv_cpu_for(a->rows, a->cols / 16, gather_rows, a);
    return TV_OK;
}

static void pack_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_rows_pack_args *a = args;
    int64_t row_bytes = tv_wire_row_bytes(a->cols, a->digits), packed = tv_row_bytes(a->cols * a->digits);
    for (int64_t r = first; r < last; r++) {
        int64_t t = a->slots != 0 ? item_token(a->item[r], a->slots) : r;
        uint8_t *row = a->bytes + r * row_bytes, *tail = row + row_bytes - TV_WIRE_TAIL_BYTES;
        float scale = a->slots != 0 && a->factor != NULL ? a->scale[t] * a->factor[a->item[r]] : a->scale[t];
        int32_t expert = a->slots != 0 && a->expert != NULL ? a->expert[a->item[r]] : 0;
        pack_row(a->q + t * a->cols, a->cols, a->digits, row);
        memset(row + packed, 0, (size_t)(tail - row - packed));
        memcpy(tail, &scale, 4);
        memcpy(tail + 4, &expert, 4);
        memcpy(tail + 8, &a->unit, 4);
    }
}

tv_status TV_ISA_NAME(rows_pack)(const tv_rows_pack_args *a, void *stream)
{
    (void)stream;
    if (a->cols > 0)
        tv_cpu_for(a->rows, a->cols, pack_rows, a);
    return TV_OK;
}

typedef struct unpack_job {
    const tv_rows_unpack_args *args;
    const tv_segment *segment; // NULL: whose rows they are does not matter
} unpack_job;

static int is_bad(const tv_rows_unpack_args *a, const tv_segment *segment, const uint8_t *row)
{
    int64_t row_bytes = tv_wire_row_bytes(a->cols, a->digits), packed = tv_row_bytes(a->cols * a->digits);
    const uint8_t *tail = row + row_bytes - TV_WIRE_TAIL_BYTES;
    int32_t expert, unit;
    float scale;
    uint8_t most = 0;
    memcpy(&scale, tail, 4);
    memcpy(&expert, tail + 4, 4);
    memcpy(&unit, tail + 8, 4);
    for (int64_t i = 0; i < packed; i++)
        most = row[i] > most ? row[i] : most;
    return !(scale >= 0.0f) || tv_abs_bits(scale) >= TV_BITS_INF || most > TV_TRIT_BYTE_MAX ||
           (segment != NULL && (expert != a->first_expert + segment->expert || unit != segment->unit));
}

static void unpack_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const unpack_job *job = args;
    const tv_rows_unpack_args *a = job->args;
    int64_t row_bytes = tv_wire_row_bytes(a->cols, a->digits), start = job->segment != NULL ? job->segment->first : 0;
    for (int64_t r = start + first; r < start + last; r++) {
        const uint8_t *row = a->bytes + r * row_bytes;
        if (is_bad(a, job->segment, row)) {
            tv_fault_raise(a->fault);
            memset(a->q + r * a->cols, 0, (size_t)a->cols);
            a->scale[r] = 0.0f;
            continue;
        }
        unpack_row(row, a->cols, a->digits, a->q + r * a->cols);
        memcpy(a->scale + r, row + row_bytes - TV_WIRE_TAIL_BYTES, 4);
    }
}

tv_status TV_ISA_NAME(rows_unpack)(const tv_rows_unpack_args *a, void *stream)
{
    (void)stream;
    unpack_job job = {a, NULL};
    if (a->cols == 0)
        return TV_OK;
    if (a->segments == NULL)
        tv_cpu_for(a->rows, a->cols, unpack_rows, &job);
    for (int64_t i = 0; a->segments != NULL && i < a->segment_count; i++) {
        job.segment = &a->segments[i];
        tv_cpu_for(job.segment->rows, a->cols, unpack_rows, &job);
    }
    return TV_OK;
}

static void combine_tokens(const void *args, int64_t first, int64_t last, int thread)
{
    const tv_moe_combine_args *a = args;
    float *restrict sum = tv_cpu_scratch(thread);
    for (int64_t t = first; t < last; t++) {
        float *restrict y = a->y + t * a->cols;
        memset(sum, 0, (size_t)a->cols * sizeof *sum);
        for (int j = 0; j < a->slots; j++) {
            int64_t r = a->place[t * a->slots + j];
            const int8_t *restrict q = a->q + r * a->cols;
            float weight = a->gate != NULL ? a->gate[t * a->slots + j] * a->scale[r] : a->scale[r];
            for (int64_t c = 0; c < a->cols; c++)
                sum[c] = fmaf(weight, (float)q[c], sum[c]);
        }
        for (int64_t c = 0; c < a->cols; c++)
            y[c] = a->accumulate ? y[c] + sum[c] : sum[c];
    }
}

tv_status TV_ISA_NAME(moe_combine)(const tv_moe_combine_args *a, void *stream)
{
    (void)stream;
    TV_TRY(tv_cpu_scratch_reserve((size_t)a->cols * sizeof(float)));
    tv_cpu_for(a->tokens, a->cols * a->slots / 8, combine_tokens, a);
    return TV_OK;
}

static void combine_backward_pairs(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    const tv_moe_combine_backward_args *a = args;
    for (int64_t i = first; i < last; i++) {
        const float *restrict dy = a->dy + i / a->slots * a->cols;
        int64_t r = a->place[i], c = 0;
        const int8_t *restrict q = a->q + r * a->cols;
        float lane[TV_LANES] = {0}, scale = a->scale[r];
        for (; c + TV_LANES <= a->cols; c += TV_LANES)
            for (int l = 0; l < TV_LANES; l++)
                lane[l] = fmaf(dy[c + l], (float)q[c + l] * scale, lane[l]);
        for (int l = 0; c + l < a->cols; l++)
            lane[l] = fmaf(dy[c + l], (float)q[c + l] * scale, lane[l]);
        a->grad[i] = tv_lanes_combine(lane);
    }
}

tv_status TV_ISA_NAME(moe_combine_backward)(const tv_moe_combine_backward_args *a, void *stream)
{
    (void)stream;
    if (a->cols > 0)
        tv_cpu_for(a->tokens * a->slots, a->cols / 8, combine_backward_pairs, a);
    return TV_OK;
}
