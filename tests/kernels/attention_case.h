// What the tests of attention share: random cases, calls of both directions, the comparison with ref.
#ifndef TV_TESTS_ATTENTION_CASE_H
#define TV_TESTS_ATTENTION_CASE_H

#include "op_test.h"

typedef struct attention_case {
    int64_t tokens, heads, width, context;
    int8_t *operand[4]; // q, k, v, g
    float *scale[4];
} attention_case;

typedef struct attention_result {
    float *out, *top, *norm, *dq, *dk, *dv;
} attention_result;

// A tenth of the scales is 0.
attention_case attention_random(op_random *random, int64_t windows, int64_t context, int64_t heads, int64_t width);
// evaluation: top and norm are not asked for.
void attention_forward(const op_backend *on, const attention_case *c, int evaluation, attention_result *r);
// From r->top and r->norm.
void attention_backward(const op_backend *on, const attention_case *c, attention_result *r);
// Both directions give ref's bits, and the backward gives them twice.
void attention_same(const op_backend *on, const attention_case *c);

#endif
