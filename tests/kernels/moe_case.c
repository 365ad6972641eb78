#include "moe_case.h"

moe_case moe_random_case(op_random *random, int most)
{
    moe_case c = {.experts = op_int(random, 1, 4), .segment_count = op_int(random, 0, 5)};
    c.segments = op_host((size_t)c.segment_count * sizeof *c.segments);
    for (int64_t i = 0; i < c.segment_count; i++) {
        tv_segment *s = &c.segments[i];
        s->first = c.rows + (op_int(random, 0, 2) == 0 ? op_int(random, 1, 5) : 0);
        s->rows = op_int(random, 0, 3) == 0 ? op_int(random, 0, 2) : op_int(random, 0, most);
        s->padded = c.columns + (op_int(random, 0, 3) == 0 ? TV_SEGMENT_PAD : 0);
        s->expert = op_int(random, 0, (int)c.experts - 1);
        s->unit = op_int(random, 0, 2);
        s->tokens = (int32_t)s->rows;
        c.rows = s->first + s->rows;
        c.columns = s->padded + (s->rows + TV_SEGMENT_PAD - 1) / TV_SEGMENT_PAD * TV_SEGMENT_PAD;
    }
    if (op_int(random, 0, 1) == 0)
        return c;
    c.item = op_host((size_t)c.rows * sizeof *c.item);
    for (int64_t i = 0; i < c.segment_count; i++) {
        tv_segment *s = &c.segments[i];
        for (int64_t r = s->first; r < s->first + s->rows; r++) {
            c.item[r] = op_int(random, 0, 2) == 0 ? -(int32_t)r - 1 : (int32_t)r;
            s->tokens -= c.item[r] < 0;
        }
    }
    return c;
}

const tv_segment *moe_in(op_call *call, const moe_case *c)
{
    return op_in(call, c->segments, (size_t)c->segment_count * sizeof *c->segments);
}

int8_t *moe_columns(const moe_case *rows, const tv_segment *s, const int8_t *qt, int64_t channels)
{
    int8_t *own = op_host((size_t)(channels * s->tokens) + 1);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t r = 0, at = 0; r < s->rows; r++)
            if (!rows->item || rows->item[s->first + r] >= 0)
                own[c * s->tokens + at++] = qt[c * rows->columns + s->padded + r];
    return own;
}
