// One part of the model alone on made-up input: its forward, and forward and backward together.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "model/slab.h"

static tv_status configure(tv_config *config, const tv_bench_key *keys)
{
    char set[64];
    TV_TRY(tv_config_init(config));
    for (; keys->key != NULL; keys++) {
        snprintf(set, sizeof set, "%s=%lld", keys->key, (long long)keys->value);
        TV_TRY(tv_config_set(config, set));
    }
    return TV_OK;
}

static tv_status plan(tv_bench_part *b)
{
    tv_arena_init(&b->plan.saved, "the saved activations");
    tv_arena_init(&b->plan.scratch, "the scratch buffers");
    TV_TRY(b->part->ops->plan(b->part, &b->plan));
    TV_TRY(tv_slab_bind(b->backend, &b->plan.saved, &b->saved));
    TV_TRY(tv_slab_bind(b->backend, &b->plan.scratch, &b->scratch));
    return b->part->ops->plan(b->part, &b->plan);
}

// Lines of letters.
static void *make_ids(tv_bench_pool *pool, int64_t tokens)
{
    int32_t *ids = malloc((size_t)tokens * sizeof *ids);
    for (int64_t t = 0; ids != NULL && t < tokens; t++)
        ids[t] = t % 61 < 59 ? 'a' + (int32_t)(t % 26) : '\n';
    void *copy = ids != NULL ? tv_bench_copy(pool, ids, tokens * (int64_t)sizeof *ids) : NULL;
    if (ids == NULL)
        pool->status = TV_FAIL(TV_MEMORY, "no memory for a text of %lld bytes", (long long)tokens);
    free(ids);
    return copy;
}

tv_status tv_bench_part_open(tv_bench_part *b, const tv_backend *backend, const tv_bench_part_args *args)
{
    tv_params_layout_args layout = {.backend = backend, .ranks = 1, .training = 1, .vote_bits = 8};
    memset(b, 0, sizeof *b);
    b->backend = b->pool.backend = backend;
    tv_params_init(&b->params, 0);
    TV_TRY(configure(&b->config, args->keys));
    TV_TRY(args->create(&b->part));
    TV_TRY(b->part->ops->declare(b->part, &b->params, &b->config));
    TV_TRY(tv_params_layout(&b->params, &layout));
    TV_TRY(tv_params_initialise(&b->params, 1, 64));
    TV_TRY(tv_params_decode(&b->params, 1, NULL));
    int64_t context = b->config.model.context, values = args->tokens * b->config.model.width;
    b->plan = (tv_plan){
        .tokens = args->tokens, .context = context, .training = 1, .config = &b->config, .params = &b->params};
    TV_TRY(plan(b));
    b->x = tv_bench_floats(&b->pool, values, 1.0f);
    b->dx = tv_bench_floats(&b->pool, values, 1.0f);
    b->unit = (tv_unit){.backend = backend,
                        .params = &b->params,
                        .tokens = args->tokens,
                        .context = context,
                        .ids = make_ids(&b->pool, args->tokens),
                        .training = 1,
                        .tau = 0.5f,
                        .levels = 1,
                        .fault = tv_bench_zeros(&b->pool, sizeof(int32_t))};
    return b->pool.status;
}

void tv_bench_part_close(tv_bench_part *b)
{
    tv_bench_pool_free(&b->pool);
    if (b->part != NULL)
        b->part->ops->free(b->part);
    b->backend->free(b->scratch);
    b->backend->free(b->saved);
    tv_params_free(&b->params);
    tv_config_free(&b->config);
}

static tv_status run_forward(const tv_backend *backend, const void *args)
{
    const tv_bench_part *b = args;
    tv_unit unit = b->unit;
    (void)backend;
    return b->part->ops->forward(b->part, &unit, b->x);
}

static tv_status run_both(const tv_backend *backend, const void *args)
{
    const tv_bench_part *b = args;
    tv_unit unit = b->unit;
    TV_TRY(tv_params_clear_votes(&((tv_bench_part *)args)->params, NULL)); // int8 sums would overflow
    TV_TRY(run_forward(backend, args));
    return b->part->ops->backward(b->part, &unit, b->dx);
}

tv_status tv_bench_part_time(const tv_bench_part *b, double *forward, double *both)
{
    const tv_bench_job one = {"", run_forward, b, 0, 0}, two = {"", run_both, b, 0, 0};
    TV_TRY(tv_bench_time_job(b->backend, &one, forward));
    return tv_bench_time_job(b->backend, &two, both);
}
