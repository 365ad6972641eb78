#include "attention_case.h"

#include <math.h>

attention_case attention_random(op_random *random, int64_t windows, int64_t context, int64_t heads, int64_t width)
{
    attention_case c = {windows * context, heads, width, context, {NULL}, {NULL}};
    for (int i = 0; i < 4; i++) {
        c.operand[i] = op_int8s(random, c.tokens * heads * width, -127, 127);
        c.scale[i] = op_floats(random, c.tokens * heads, 0.02f);
        for (int64_t j = 0; j < c.tokens * heads; j++)
            c.scale[i][j] = op_int(random, 0, 9) == 0 ? 0.0f : fabsf(c.scale[i][j]);
    }
    return c;
}

void attention_forward(const op_backend *on, const attention_case *c, int evaluation, attention_result *r)
{
    size_t items = (size_t)(c->tokens * c->heads * c->width), rows = (size_t)(c->tokens * c->heads) * 4;
    r->out = op_host(items * 4);
    r->top = evaluation ? NULL : op_host(rows);
    r->norm = evaluation ? NULL : op_host(rows);
    op_call call = op_begin(on);
    tv_attention_args a = {.tokens = c->tokens, .heads = c->heads, .width = c->width, .context = c->context};
    a.q = op_in(&call, c->operand[0], items);
    a.k = op_in(&call, c->operand[1], items);
    a.v = op_in(&call, c->operand[2], items);
    a.q_scale = op_in(&call, c->scale[0], rows);
    a.k_scale = op_in(&call, c->scale[1], rows);
    a.v_scale = op_in(&call, c->scale[2], rows);
    a.out = op_out(&call, r->out, items * 4);
    a.top = op_out(&call, r->top, rows);
    a.norm = op_out(&call, r->norm, rows);
    op_end(&call, on->backend->attention(&a, NULL));
}

void attention_backward(const op_backend *on, const attention_case *c, attention_result *r)
{
    size_t items = (size_t)(c->tokens * c->heads * c->width), rows = (size_t)(c->tokens * c->heads) * 4;
    float **gradient[3] = {&r->dq, &r->dk, &r->dv};
    op_call call = op_begin(on);
    tv_attention_backward_args a = {.tokens = c->tokens, .heads = c->heads, .width = c->width, .context = c->context};
    const int8_t **operand[4] = {&a.q, &a.k, &a.v, &a.g};
    const float **scale[4] = {&a.q_scale, &a.k_scale, &a.v_scale, &a.g_scale};
    for (int i = 0; i < 4; i++) {
        *operand[i] = op_in(&call, c->operand[i], items);
        *scale[i] = op_in(&call, c->scale[i], rows);
    }
    a.top = op_in(&call, r->top, rows);
    a.norm = op_in(&call, r->norm, rows);
    float **place[3] = {&a.dq, &a.dk, &a.dv};
    for (int i = 0; i < 3; i++) {
        *gradient[i] = op_host(items * 4);
        for (size_t j = 0; j < items; j++)
            (*gradient[i])[j] = 1e30f; // must be overwritten, not added to
        *place[i] = op_out(&call, *gradient[i], items * 4);
    }
    op_end(&call, on->backend->attention_backward(&a, NULL));
}

void attention_same(const op_backend *on, const attention_case *c)
{
    attention_result want, got, again, plain;
    int64_t items = c->tokens * c->heads * c->width, rows = c->tokens * c->heads;
    attention_forward(op_ref(), c, 0, &want);
    attention_forward(on, c, 0, &got);
    op_same_floats("out", on, want.out, got.out, items);
    op_same_floats("top", on, want.top, got.top, rows);
    op_same_floats("norm", on, want.norm, got.norm, rows);
    attention_forward(on, c, 1, &plain);
    op_same_floats("out in evaluation", on, want.out, plain.out, items);
    again = got;
    attention_backward(op_ref(), c, &want);
    attention_backward(on, c, &got);
    attention_backward(on, c, &again);
    op_same_floats("dq", on, want.dq, got.dq, items);
    op_same_floats("dk", on, want.dk, got.dk, items);
    op_same_floats("dv", on, want.dv, got.dv, items);
    op_same_floats("dq of a second run", on, got.dq, again.dq, items);
    op_same_floats("dk of a second run", on, got.dk, again.dk, items);
    op_same_floats("dv of a second run", on, got.dv, again.dv, items);
}
