#include "model_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pack.h"
#include "base/rng.h"
#include "base/state.h"

enum { DATA_SEED = 77, STATE_SEED = 5 };

// Rows that start at 0 would hide what a test looks for.
static void forget_zeros(tv_params *params)
{
    for (int64_t i = 0; i < params->count; i++)
        params->items[i].spec.zeros = 0;
}

void fixture_try(tv_status status, const char *file, int line)
{
    if (status != TV_OK) {
        print_error("%s:%d: %s: %s\n", file, line, tv_status_name(status), tv_status_message());
        _fail(file, line);
    }
}

const tv_backend *fixture_backend(const char *name)
{
    const tv_backend *backend = NULL;
    if (tv_backend_find(name, &backend) != TV_OK) {
        print_message("skipped: %s\n", tv_status_message());
        skip();
    }
    TEST_TRY(backend->open(0, 1, 2));
    return backend;
}

tv_config fixture_odd_config(void)
{
    tv_config config;
    memset(&config, 0, sizeof config);
    config.model = (tv_config_model){.width = 20,
                                     .blocks = 2,
                                     .heads = 2,
                                     .context = 7,
                                     .ffn = 23,
                                     .sequencer = 1,
                                     .scale_type = TV_T4,
                                     .rope_base = 10000.0};
    config.loss.cross_entropy_weight = 1;
    return config;
}

double fixture_normal(uint32_t seed, uint64_t element)
{
    tv_rng_key key = {seed, TV_RNG_GENERATE, 0, 0};
    uint64_t bits = tv_rng64(key, element);
    double u = ((double)(uint32_t)bits + 0.5) / 4294967296.0, v = (double)(bits >> 32) / 4294967296.0;
    return sqrt(-2.0 * log(u)) * cos(2.0 * 3.14159265358979323846 * v);
}

static int32_t *take_ints(const tv_backend *backend, int64_t count)
{
    void *memory = NULL;
    TEST_TRY(backend->alloc((size_t)count * sizeof(int32_t), &memory));
    TEST_TRY(backend->zero(memory, (size_t)count * sizeof(int32_t), NULL));
    return memory;
}

// Random bytes to backend memory; element `first` on of their sequence.
static void fill_bytes(const tv_backend *backend, int32_t *out, int64_t tokens, int64_t first)
{
    tv_rng_key key = {DATA_SEED, TV_RNG_GENERATE, 1, 0};
    size_t bytes = (size_t)tokens * sizeof *out;
    int32_t *host = malloc(bytes);
    assert_non_null(host);
    for (int64_t t = 0; t < tokens; t++) {
        host[t] = (int32_t)(tv_rng16(key, (uint64_t)(t + first)) % 256);
    }
    TEST_TRY(backend->copy(out, host, bytes, TV_COPY_TO_DEVICE, NULL));
    free(host);
}

void *fixture_copy(const tv_backend *backend, const void *memory, size_t bytes)
{
    void *host = malloc(bytes);
    assert_non_null(host);
    TEST_TRY(backend->copy(host, memory, bytes, TV_COPY_TO_HOST, NULL));
    return host;
}

static tv_unit start_unit(const tv_config *config, int64_t tokens, int training)
{
    return (tv_unit){.tokens = tokens,
                     .context = config->model.context,
                     .training = training,
                     .tau = 0.5f,
                     .levels = 1,
                     .seed = STATE_SEED};
}

void fixture_open(fixture *f, const tv_backend *backend, const tv_config *config, int64_t tokens, int training)
{
    memset(f, 0, sizeof *f);
    f->backend = backend;
    TEST_TRY(tv_model_create(&f->model, config));
    tv_params_layout_args layout = {.backend = backend, .ranks = 1, .training = training, .vote_bits = 8};
    TEST_TRY(tv_model_plan(&f->model, &layout, tokens));
    forget_zeros(&f->model.params);
    TEST_TRY(tv_params_initialise(&f->model.params, STATE_SEED, 64));
    TEST_TRY(tv_params_decode(&f->model.params, 1, NULL));
    f->ids = take_ints(backend, tokens);
    f->targets = take_ints(backend, tokens);
    f->fault = take_ints(backend, 1);
    fill_bytes(f->backend, f->ids, tokens, 0);
    fill_bytes(f->backend, f->targets, tokens, tokens);
    f->unit = start_unit(config, tokens, training);
    f->unit.ids = f->ids;
    f->unit.targets = f->targets;
    f->unit.fault = f->fault;
}

void fixture_close(fixture *f)
{
    f->backend->free(f->fault);
    f->backend->free(f->targets);
    f->backend->free(f->ids);
    tv_model_free(&f->model);
}

// Spread the exponents by -1, 0, +1 around their start and give norm weights both signs, so that a wrong index shows.
static void disturb_state(tv_params *params)
{
    for (int64_t i = 0; i < params->count; i++) {
        tv_param *param = &params->items[i];
        int64_t groups = param->spec.rows * tv_row_groups(param->spec.cols, param->group);
        tv_rng_key key = {DATA_SEED, TV_RNG_GENERATE, param->id, 0};
        for (int64_t g = 0; g < groups; g++) {
            param->E[g] = (int8_t)(param->exponent + (int)(tv_rng16(key, (uint64_t)g) % 3) - 1);
        }
        if (param->spec.ones) {
            int8_t trits[512];
            assert_true(param->spec.cols <= 512);
            for (int64_t c = 0; c < param->spec.cols; c++) {
                trits[c] = c % 5 == 3 ? -1 : 1;
            }
            tv_pack_row(trits, param->spec.cols, param->T);
        }
    }
    TEST_TRY(tv_params_decode(params, 1, NULL));
}

static void plan_part(part_fixture *f, tv_arena *saved, tv_arena *scratch)
{
    f->plan.saved = *saved;
    f->plan.scratch = *scratch;
    f->plan.has_rotary = 0;
    TEST_TRY(f->part->ops->plan(f->part, &f->plan));
    int64_t values = f->plan.tokens * f->config.model.width;
    f->x = tv_arena_take(&f->plan.saved, values, sizeof(float));
    f->dx = tv_arena_take(&f->plan.saved, values, sizeof(float));
    TEST_TRY(tv_arena_check(&f->plan.saved));
    TEST_TRY(tv_arena_check(&f->plan.scratch));
    *saved = f->plan.saved;
    *scratch = f->plan.scratch;
}

void part_fixture_open(part_fixture *f, tv_part *part, const tv_config *config, int64_t tokens)
{
    memset(f, 0, sizeof *f);
    f->backend = fixture_backend("ref");
    f->part = part;
    f->config = *config;
    tv_params_init(&f->params, (int)config->model.scale_mantissa_bits);
    TEST_TRY(part->ops->declare(part, &f->params, &f->config));
    tv_params_layout_args layout = {.backend = f->backend, .ranks = 1, .training = 1, .vote_bits = 8};
    TEST_TRY(tv_params_layout(&f->params, &layout));
    forget_zeros(&f->params);
    TEST_TRY(tv_params_initialise(&f->params, STATE_SEED, 64));
    disturb_state(&f->params);

    f->plan = (tv_plan){
        .tokens = tokens, .context = config->model.context, .training = 1, .config = &f->config, .params = &f->params};
    tv_arena saved, scratch;
    tv_arena_init(&saved, "saved");
    tv_arena_init(&scratch, "scratch");
    plan_part(f, &saved, &scratch);
    size_t saved_bytes = saved.high_water, scratch_bytes = scratch.high_water;
    TEST_TRY(f->backend->alloc(saved_bytes, &f->saved_slab));
    TEST_TRY(f->backend->alloc(scratch_bytes, &f->scratch_slab));
    tv_arena_bind(&saved, f->saved_slab, saved_bytes);
    tv_arena_bind(&scratch, f->scratch_slab, scratch_bytes);
    plan_part(f, &saved, &scratch);

    f->ids = take_ints(f->backend, tokens);
    f->targets = take_ints(f->backend, tokens);
    f->fault = take_ints(f->backend, 1);
    fill_bytes(f->backend, f->ids, tokens, 0);
    fill_bytes(f->backend, f->targets, tokens, tokens);
    f->unit = start_unit(config, tokens, 1);
    f->unit.backend = f->backend;
    f->unit.params = &f->params;
    f->unit.ids = f->ids;
    f->unit.targets = f->targets;
    f->unit.fault = f->fault;
    for (int64_t i = 0; i < tokens * config->model.width; i++) {
        f->x[i] = (float)fixture_normal(1, (uint64_t)i);
        f->dx[i] = (float)fixture_normal(2, (uint64_t)i);
    }
}

void part_fixture_close(part_fixture *f)
{
    f->backend->free(f->fault);
    f->backend->free(f->targets);
    f->backend->free(f->ids);
    f->backend->free(f->scratch_slab);
    f->backend->free(f->saved_slab);
    f->part->ops->free(f->part);
    tv_params_free(&f->params);
}

enum { SHARED_ARRAYS = 9, SHARED_ROWS_MAX = 128 };

// How often each row of an array is written, and the sums of the row hashes.
typedef struct shares {
    int written[SHARED_ARRAYS][SHARED_ROWS_MAX];
    tv_hash128 sums[SHARED_ARRAYS];
} shares;

static void add_shares(shares *all, const tv_state_array *arrays)
{
    tv_hash128 own[SHARED_ARRAYS];
    tv_state_hash(arrays, SHARED_ARRAYS, own);
    for (int64_t i = 0; i < SHARED_ARRAYS; i++) {
        assert_in_range(arrays[i].rows, 0, SHARED_ROWS_MAX);
        for (int64_t r = 0; r < arrays[i].count; r++)
            all->written[i][arrays[i].first_row + r]++;
        all->sums[i].low += own[i].low;
        all->sums[i].high += own[i].high;
    }
}

// The digest of what `ranks` ranks write, which must be every row once.
static tv_hash128 digest_of(fixture_params *open_params, int ranks, int places)
{
    shares all = {0};
    tv_hash128 digest = {0, 0};
    for (int rank = 0; rank < ranks; rank++) {
        tv_params params;
        tv_state_array *arrays = NULL;
        int64_t count = 0;
        open_params(&params, rank, ranks, places);
        TEST_TRY(tv_params_state(&params, 1, NULL, 1, &arrays, &count));
        assert_int_equal(count, SHARED_ARRAYS);
        add_shares(&all, arrays);
        for (int64_t i = 0; rank == ranks - 1 && i < count; i++)
            for (int64_t r = 0; r < arrays[i].rows; r++)
                assert_int_equal(all.written[i][r], 1);
        if (rank == ranks - 1)
            TEST_TRY(tv_state_digest(arrays, count, all.sums, &digest));
        free(arrays);
        tv_params_free(&params);
    }
    return digest;
}

void fixture_check_shares(fixture_params *open_params, int ranks, int places, int alone)
{
    assert_true(tv_hash_equal(digest_of(open_params, ranks, places), digest_of(open_params, 1, alone)));
}
