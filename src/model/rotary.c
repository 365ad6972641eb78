#include <stdlib.h>

#include "base/fmath_tables.h"
#include "model/attention.h"

// Made on the host in the project's own arithmetic, so that every backend holds the same bits.
static tv_status fill_tables(const tv_plan *plan, int64_t width)
{
    const tv_backend *backend = plan->params->backend;
    size_t items = (size_t)(plan->context * (width / 2)), bytes = items * sizeof(float);
    float *host = malloc(2 * bytes + 1);
    if (host == NULL) {
        return TV_FAIL(TV_MEMORY, "no memory for rotary tables of %zu bytes", 2 * bytes);
    }
    tv_rotary_table(plan->context, width / 2, plan->config->model.rope_base, host, host + items);
    tv_status st = backend->copy(plan->rotary_cos, host, bytes, TV_COPY_TO_DEVICE, NULL);
    if (st == TV_OK) {
        st = backend->copy(plan->rotary_sin, host + items, bytes, TV_COPY_TO_DEVICE, NULL);
    }
    free(host);
    return st;
}

tv_status tv_rotary_plan(tv_plan *plan, int64_t width)
{
    if (plan->has_rotary) {
        return TV_OK;
    }
    plan->has_rotary = 1;
    plan->rotary_cos = tv_arena_take(&plan->saved, plan->context * (width / 2), sizeof(float));
    plan->rotary_sin = tv_arena_take(&plan->saved, plan->context * (width / 2), sizeof(float));
    return plan->saved.base == NULL || plan->saved.overflow ? TV_OK : fill_tables(plan, width);
}
