#include "model/params.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "model/slab.h"

// The three slabs while they are carved.
typedef struct slabs {
    tv_arena state, decoded, votes;
} slabs;

void tv_params_init(tv_params *params, int mantissa_bits)
{
    memset(params, 0, sizeof *params);
    params->mantissa_bits = mantissa_bits;
    params->ranks = 1;
}

void tv_params_free(tv_params *params)
{
    if (params == NULL) {
        return;
    }
    if (params->backend != NULL) {
        params->backend->free(params->vote_slab);
        params->backend->free(params->decoded_slab);
        params->backend->free(params->state_slab);
    }
    free(params->items);
    tv_params_init(params, params->mantissa_bits);
}

static tv_status check_spec(const tv_params *params, const tv_tensor_spec *spec, uint32_t id)
{
    if (spec->name[0] == '\0' || spec->rows < 1 || spec->cols < 1) {
        return TV_FAIL(TV_INTERNAL, "tensor '%s' has no name or an empty shape %" PRId64 " x %" PRId64, spec->name,
                       spec->rows, spec->cols);
    }
    // A looked-up table is never an operand of a product, so its sums cannot overflow.
    int64_t longest = spec->rows > spec->cols ? spec->rows : spec->cols;
    int64_t limit = tv_reduced_length_max(params->mantissa_bits);
    if (!spec->lookup && longest > limit) {
        return TV_FAIL(TV_CONFIG,
                       "tensor '%s' is %" PRId64 " x %" PRId64
                       "; with model.scale_mantissa_bits %d int32 sums hold at most %" PRId64
                       " terms: make the layer narrower",
                       spec->name, spec->rows, spec->cols, params->mantissa_bits, limit);
    }
    for (int64_t i = 0; i < params->count; i++) {
        const tv_param *other = &params->items[i];
        if (strcmp(other->spec.name, spec->name) == 0) {
            return TV_FAIL(TV_INTERNAL, "tensor '%s' is declared twice, by '%s' and by '%s'", spec->name,
                           other->spec.part, spec->part);
        }
        if (other->id == id) {
            return TV_FAIL(TV_CONFIG,
                           "tensors '%s' and '%s' share the id %08" PRIx32
                           " and would draw the same random numbers: rename one",
                           other->spec.name, spec->name, id);
        }
    }
    return TV_OK;
}

tv_status tv_params_add(tv_params *params, const tv_tensor_spec *spec, int64_t *index)
{
    uint32_t id = tv_hash_name(spec->name);
    TV_TRY(check_spec(params, spec, id));
    if (params->count == params->capacity) {
        int64_t capacity = params->capacity == 0 ? 64 : 2 * params->capacity;
        tv_param *items = realloc(params->items, (size_t)capacity * sizeof *items);
        if (items == NULL) {
            return TV_FAIL(TV_MEMORY, "no memory for a table of %" PRId64 " tensors", capacity);
        }
        params->items = items;
        params->capacity = capacity;
    }
    tv_param *param = &params->items[params->count];
    memset(param, 0, sizeof *param);
    param->spec = *spec;
    param->id = id;
    param->group = tv_scale_group(spec->scale_type);
    param->mantissa_bits = params->mantissa_bits;
    int start = spec->ones ? 0 : tv_initial_exponent(spec->lookup ? 1 : spec->cols, spec->residual);
    tv_lattice_start(params->mantissa_bits, start, &param->base, &param->exponent);
    *index = params->count++;
    return TV_OK;
}

// Rows of this rank, from the split into blocks of equal length.
static void place_rows(tv_param *param, const tv_params *params)
{
    int64_t rows = param->spec.rows;
    param->block = tv_ceil_div(rows, params->ranks);
    // 16-bit votes travel in pairs, so a rank's block must hold an even number of them.
    if (params->sharded && params->vote_bits == 16 && param->spec.cols % 2 == 1 && param->block % 2 == 1) {
        param->block++;
    }
    int64_t first = params->rank * param->block;
    first = first < rows ? first : rows;
    param->share_first = first;
    param->share_count = rows - first < param->block ? rows - first : param->block;
    param->own_first = params->sharded ? param->share_first : 0;
    param->own_count = params->sharded ? param->share_count : rows;
}

static void carve_param(tv_param *param, const tv_params *params, slabs *s)
{
    int64_t rows = param->spec.rows, cols = param->spec.cols, padded = params->ranks * param->block;
    int64_t groups = tv_row_groups(cols, param->group);
    param->T = tv_arena_take(&s->state, padded * tv_row_bytes(cols), 1);
    param->E = tv_arena_take(&s->state, padded * groups, 1);
    param->w8 = tv_arena_take(&s->decoded, rows * cols, 1);
    param->w8t = NULL;
    if (params->training && !param->spec.lookup && !param->spec.ones) {
        param->w8t = tv_arena_take(&s->decoded, rows * cols, 1);
    }
    param->T_accum = param->E_accum = NULL;
    param->votes = NULL;
    if (params->training && !param->spec.frozen) {
        param->T_accum = tv_arena_take(&s->state, param->own_count * cols, 1);
        param->E_accum = tv_arena_take(&s->state, param->own_count * groups, 1);
        int64_t items = padded * cols;
        param->votes = tv_arena_take(&s->votes, items + items % 2, (size_t)params->vote_bits / 8);
    }
}

static void carve(tv_params *params, slabs *s)
{
    for (int64_t i = 0; i < params->count; i++) {
        carve_param(&params->items[i], params, s);
    }
}

tv_status tv_params_layout(tv_params *params, const tv_params_layout_args *args)
{
    if (args->ranks < 1 || args->rank < 0 || args->rank >= args->ranks ||
        (args->vote_bits != 8 && args->vote_bits != 16)) {
        return TV_FAIL(TV_INTERNAL, "layout for rank %d of %d with %d vote bits", args->rank, args->ranks,
                       args->vote_bits);
    }
    if (params->state_slab != NULL) {
        return TV_FAIL(TV_INTERNAL, "the parameter table is laid out twice");
    }
    params->rank = args->rank;
    params->ranks = args->ranks;
    params->sharded = args->sharded;
    params->training = args->training;
    params->vote_bits = args->vote_bits;
    for (int64_t i = 0; i < params->count; i++) {
        place_rows(&params->items[i], params);
    }
    slabs s;
    tv_arena_init(&s.state, "the training state");
    tv_arena_init(&s.decoded, "the decoded weights");
    tv_arena_init(&s.votes, "the votes");
    carve(params, &s);
    TV_TRY(tv_arena_check(&s.state));
    TV_TRY(tv_arena_check(&s.decoded));
    TV_TRY(tv_arena_check(&s.votes));
    params->state_bytes = s.state.high_water;
    params->decoded_bytes = s.decoded.high_water;
    params->vote_bytes = s.votes.high_water;
    if (args->backend == NULL) {
        return TV_OK;
    }
    params->backend = args->backend;
    TV_TRY(tv_slab_bind(args->backend, &s.state, &params->state_slab));
    TV_TRY(tv_slab_bind(args->backend, &s.decoded, &params->decoded_slab));
    TV_TRY(tv_slab_bind(args->backend, &s.votes, &params->vote_slab));
    carve(params, &s);
    TV_TRY(tv_arena_check(&s.state));
    TV_TRY(tv_arena_check(&s.decoded));
    return tv_arena_check(&s.votes);
}

tv_status tv_params_initialise(tv_params *params, uint32_t seed, int threshold)
{
    for (int64_t i = 0; i < params->count; i++) {
        tv_param *param = &params->items[i];
        tv_init_args args = {.rows = param->spec.rows,
                             .cols = param->spec.cols,
                             .group = param->group,
                             .exponent = param->exponent,
                             .ones = param->spec.ones,
                             .threshold = threshold,
                             .seed = seed,
                             .tensor_id = param->id,
                             .T = param->T,
                             .E = param->E};
        TV_TRY(params->backend->init(&args, NULL));
        if (param->T_accum == NULL) {
            continue;
        }
        // The own rows once more, with their counters: an element's numbers depend on its global place alone.
        args.rows = param->own_count;
        args.first_row = param->own_first;
        args.T = param->T + param->own_first * tv_row_bytes(args.cols);
        args.E = param->E + param->own_first * tv_row_groups(args.cols, args.group);
        args.T_accum = param->T_accum;
        args.E_accum = param->E_accum;
        TV_TRY(params->backend->init(&args, NULL));
    }
    return params->backend->sync(NULL);
}

tv_status tv_params_decode(tv_params *params, int all, void *stream)
{
    enum { BATCH = 48 };
    tv_decode_args list[BATCH];
    int64_t count = 0;
    for (int64_t i = 0; i < params->count; i++) {
        tv_param *param = &params->items[i];
        if (!all && param->spec.frozen) {
            continue;
        }
        list[count++] = (tv_decode_args){.rows = param->spec.rows,
                                         .cols = param->spec.cols,
                                         .group = param->group,
                                         .base = param->base,
                                         .mantissa_bits = param->mantissa_bits,
                                         .T = param->T,
                                         .E = param->E,
                                         .w8 = param->w8,
                                         .w8t = param->w8t};
        if (count == BATCH) {
            TV_TRY(tv_decode_many(params->backend, list, count, stream));
            count = 0;
        }
    }
    return count == 0 ? TV_OK : tv_decode_many(params->backend, list, count, stream);
}

tv_status tv_params_clear_votes(tv_params *params, void *stream)
{
    return params->backend->zero(params->vote_slab, params->vote_bytes, stream);
}

static tv_status validate_param(const tv_params *params, const tv_param *param, int64_t *counts, void *stream)
{
    const tv_backend *backend = params->backend;
    tv_validate_args args = {.rows = param->spec.rows,
                             .cols = param->spec.cols,
                             .group = param->group,
                             .base = param->base,
                             .mantissa_bits = param->mantissa_bits,
                             .T = param->T,
                             .E = param->E,
                             .counts = counts};
    int64_t found[2];
    TV_TRY(backend->zero(counts, sizeof found, stream));
    TV_TRY(backend->validate(&args, stream));
    TV_TRY(backend->copy(found, counts, sizeof found, TV_COPY_TO_HOST, stream));
    if (found[0] != 0 || found[1] != 0) {
        return TV_FAIL(TV_NUMERIC,
                       "tensor '%s' holds %" PRId64 " invalid trit bytes and %" PRId64
                       " exponents outside their window: go back to an older checkpoint",
                       param->spec.name, found[0], found[1]);
    }
    return TV_OK;
}

tv_status tv_params_validate(tv_params *params, void *stream)
{
    void *counts = NULL;
    TV_TRY(params->backend->alloc(2 * sizeof(int64_t), &counts));
    tv_status st = TV_OK;
    for (int64_t i = 0; i < params->count && st == TV_OK; i++) {
        st = validate_param(params, &params->items[i], counts, stream);
    }
    params->backend->free(counts);
    return st;
}
