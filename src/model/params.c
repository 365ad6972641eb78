#include "model/params.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { DECODE_BATCH = 48 };

void tv_params_init(tv_params *params, int mantissa_bits)
{
    memset(params, 0, sizeof *params);
    params->mantissa_bits = mantissa_bits;
    params->ranks = params->expert_ranks = params->table_ranks = 1;
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
    if (params->host != NULL) {
        params->host->free(params->host_slab);
    }
    free(params->sides);
    free(params->items);
    tv_params_init(params, params->mantissa_bits);
}

static tv_status check_spec(const tv_params *params, const tv_tensor_spec *spec)
{
    if (spec->name[0] == '\0' || spec->rows < 1 || spec->cols < 1) {
        return TV_FAIL(TV_INTERNAL, "tensor '%s' has no name or an empty shape %" PRId64 " x %" PRId64, spec->name,
                       spec->rows, spec->cols);
    }
    int64_t stack = spec->stack > 1 ? spec->stack : 1, height = spec->rows / stack;
    if (spec->stack < 0 || spec->rows % stack != 0 || (spec->placement == TV_PLACE_EXPERT && spec->stack < 1)) {
        return TV_FAIL(TV_INTERNAL, "tensor '%s' of %" PRId64 " rows is declared as a stack of %" PRId64 " matrices",
                       spec->name, spec->rows, spec->stack);
    }
    int table = spec->placement == TV_PLACE_TABLE;
    if (table &&
        (spec->cols > TV_VQ_COLS_MAX || tv_scale_group(spec->scale_type) < spec->cols || spec->bits < 0 ||
         spec->bits > TV_VQ_BITS_MAX || spec->pattern_bits > spec->cols ||
         (spec->pattern_bits != 0 && spec->pattern_bits != spec->bits) || spec->rows > INT32_MAX || stack != 1)) {
        return TV_FAIL(TV_INTERNAL, "tensor '%s' of %" PRId64 " x %" PRId64 " is not declared as a table can be",
                       spec->name, spec->rows, spec->cols);
    }
    // A looked-up table is never an operand of a product, so its sums cannot overflow.
    int64_t longest = height > spec->cols ? height : spec->cols;
    int64_t limit = tv_reduced_length_max(params->mantissa_bits);
    if (!spec->lookup && !table && longest > limit) {
        return TV_FAIL(TV_CONFIG,
                       "tensor '%s' is %" PRId64 " x %" PRId64
                       "; with model.scale_mantissa_bits %d int32 sums hold at most %" PRId64
                       " terms: make the layer narrower",
                       spec->name, height, spec->cols, params->mantissa_bits, limit);
    }
    return TV_OK;
}

static tv_status check_name(const tv_params *params, const tv_tensor_spec *spec, uint32_t id)
{
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

// One more item in a list.
static tv_status make_room(void **items, int64_t count, int64_t *capacity, size_t item_bytes)
{
    if (count < *capacity) {
        return TV_OK;
    }
    int64_t larger = *capacity == 0 ? 64 : 2 * *capacity;
    void *moved = realloc(*items, (size_t)larger * item_bytes);
    if (moved == NULL) {
        return TV_FAIL(TV_MEMORY, "no memory for a table of %" PRId64 " tensors", larger);
    }
    *items = moved;
    *capacity = larger;
    return TV_OK;
}

tv_status tv_params_add(tv_params *params, const tv_tensor_spec *spec, int64_t *index)
{
    uint32_t id = tv_hash_name(spec->name);
    TV_TRY(check_spec(params, spec));
    TV_TRY(check_name(params, spec, id));
    void *items = params->items;
    TV_TRY(make_room(&items, params->count, &params->capacity, sizeof *params->items));
    params->items = items;
    tv_param *param = &params->items[params->count];
    memset(param, 0, sizeof *param);
    param->spec = *spec;
    param->id = id;
    param->group = tv_scale_group(spec->scale_type);
    int table = spec->placement == TV_PLACE_TABLE;
    param->mantissa_bits = params->mantissa_bits;
    int start = spec->ones
                    ? 0
                    : tv_initial_exponent(spec->lookup || spec->unit_scale || table ? 1 : spec->cols, spec->residual);
    tv_lattice_start(params->mantissa_bits, start, &param->base, &param->exponent);
    *index = params->count++;
    return TV_OK;
}

tv_status tv_params_add_side(tv_params *params, const tv_side_spec *spec, int64_t *index)
{
    if (spec->name[0] == '\0' || spec->part[0] == '\0' || spec->group[0] == '\0' || spec->rows < 1 || spec->cols < 1 ||
        spec->dtype < 0 || spec->dtype >= TV_DTYPE_COUNT || spec->placement == TV_PLACE_EXPERT) {
        return TV_FAIL(TV_INTERNAL, "side state '%s/%s' of %" PRId64 " x %" PRId64 " is not declared as state can be",
                       spec->name, spec->part, spec->rows, spec->cols);
    }
    for (int64_t i = 0; i < params->side_count; i++) {
        const tv_side_spec *other = &params->sides[i].spec;
        if (strcmp(other->name, spec->name) == 0 && strcmp(other->part, spec->part) == 0) {
            return TV_FAIL(TV_INTERNAL, "side state '%s/%s' is declared twice", spec->name, spec->part);
        }
    }
    void *sides = params->sides;
    TV_TRY(make_room(&sides, params->side_count, &params->side_capacity, sizeof *params->sides));
    params->sides = sides;
    params->sides[params->side_count] = (tv_side){.spec = *spec};
    *index = params->side_count++;
    return TV_OK;
}

// Straight into packed form, with the patterns of the rows' buckets.
static tv_status initialise_table(const tv_params *params, const tv_param *param, uint32_t seed, int threshold)
{
    tv_vq_init_args args = {.table = tv_param_table(param),
                            .exponent = param->exponent,
                            .threshold = threshold,
                            .zeros = param->spec.zeros,
                            .seed = seed,
                            .tensor_id = param->id};
    return params->backend->vq.init(&args, NULL);
}

tv_status tv_params_initialise(tv_params *params, uint32_t seed, int threshold)
{
    for (int64_t i = 0; i < params->count; i++) {
        tv_param *param = &params->items[i];
        if (param->spec.placement == TV_PLACE_TABLE) {
            TV_TRY(initialise_table(params, param, seed, threshold));
            continue;
        }
        tv_init_args args = {.rows = param->held_rows,
                             .first_row = param->first_row,
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
        args.T = tv_param_T(param, param->own_first);
        args.E = tv_param_E(param, param->own_first);
        args.T_accum = param->T_accum;
        args.E_accum = param->E_accum;
        TV_TRY(params->backend->init(&args, NULL));
    }
    for (int64_t i = 0; i < params->side_count; i++) {
        const tv_side *side = &params->sides[i];
        size_t bytes = (size_t)(side->held_rows * side->spec.cols * tv_dtype_bytes(side->spec.dtype));
        const tv_backend *place = side->spec.host ? params->host : params->backend;
        TV_TRY(place->zero(side->data, bytes, NULL));
    }
    return params->backend->sync(NULL);
}

// Decodings that are handed to the backend together.
typedef struct decode_batch {
    tv_decode_args list[DECODE_BATCH];
    int64_t count;
} decode_batch;

static tv_status run_decodes(const tv_params *params, decode_batch *batch, void *stream)
{
    int64_t count = batch->count;
    batch->count = 0;
    return count == 0 ? TV_OK : tv_decode_many(params->backend, batch->list, count, stream);
}

static tv_status decode_param(const tv_params *params, const tv_param *param, decode_batch *batch, void *stream)
{
    int64_t rows = tv_param_matrix_rows(param), cols = param->spec.cols, matrices = tv_param_matrices(param);
    for (int64_t i = 0; i < matrices; i++) {
        int64_t first = param->first_row + i * rows, weights = i * rows * cols;
        batch->list[batch->count++] = (tv_decode_args){.rows = rows,
                                                       .cols = cols,
                                                       .group = param->group,
                                                       .base = param->base,
                                                       .mantissa_bits = param->mantissa_bits,
                                                       .T = tv_param_T(param, first),
                                                       .E = tv_param_E(param, first),
                                                       .w8 = param->w8 + weights,
                                                       .w8t = param->w8t == NULL ? NULL : param->w8t + weights};
        if (batch->count == DECODE_BATCH) {
            TV_TRY(run_decodes(params, batch, stream));
        }
    }
    return TV_OK;
}

tv_status tv_params_decode(tv_params *params, int all, void *stream)
{
    decode_batch batch = {.count = 0};
    for (int64_t i = 0; i < params->count; i++) {
        tv_param *param = &params->items[i];
        if (param->w8 != NULL && (all || !param->spec.frozen)) {
            TV_TRY(decode_param(params, param, &batch, stream));
        }
    }
    return run_decodes(params, &batch, stream);
}

tv_status tv_params_clear_votes(tv_params *params, void *stream)
{
    return params->backend->zero(params->vote_slab, params->vote_bytes, stream);
}

static tv_status validate_param(const tv_params *params, const tv_param *param, int64_t *counts, void *stream)
{
    const tv_backend *backend = params->backend;
    tv_validate_args args = {.rows = param->held_rows,
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
