// Where the rows of the table's tensors lie: which of them this rank holds, owns and saves, and their addresses.
#include <inttypes.h>

#include "model/params.h"
#include "model/slab.h"

// The slabs while they are carved.
typedef struct slabs {
    tv_arena state, host, decoded, votes; // host: the part of the state that lies in host memory
} slabs;

// Block `part` of [first, first + count) cut into blocks of `block` rows.
static void cut_rows(int64_t first, int64_t count, int64_t block, int part, int64_t *part_first, int64_t *part_count)
{
    int64_t skipped = part * block < count ? part * block : count;
    *part_first = first + skipped;
    *part_count = count - skipped < block ? count - skipped : block;
}

// Every rank holds all rows; shares are blocks of equal length.
static void place_replicated(tv_param *param, const tv_params *params)
{
    int64_t rows = param->spec.rows;
    param->held_rows = rows;
    param->block = tv_ceil_div(rows, params->ranks);
    // 16-bit votes travel in pairs, so a rank's block must hold an even number of them.
    if (params->sharded && params->vote_bits == 16 && param->spec.cols % 2 == 1 && param->block % 2 == 1) {
        param->block++;
    }
    cut_rows(0, rows, param->block, params->rank, &param->share_first, &param->share_count);
    param->own_first = params->sharded ? param->share_first : 0;
    param->own_count = params->sharded ? param->share_count : rows;
}

// This rank holds the matrices of its place, and saves its share of them among its replicas.
static tv_status place_expert(tv_param *param, const tv_params *params)
{
    int places = params->expert_ranks, replicas = params->ranks / places;
    if (param->spec.stack % places != 0) {
        return TV_FAIL(TV_CONFIG,
                       "tensor '%s' has %" PRId64 " experts, which %d ranks cannot share evenly; take a "
                       "parallel.expert_ranks that divides them, or 0",
                       param->spec.name, param->spec.stack, places);
    }
    param->held_rows = param->spec.rows / places;
    param->first_row = params->rank % places * param->held_rows;
    param->own_first = param->first_row;
    param->own_count = param->held_rows;
    param->block = tv_ceil_div(param->held_rows, replicas);
    cut_rows(param->first_row, param->held_rows, param->block, params->rank / places, &param->share_first,
             &param->share_count);
    return TV_OK;
}

int tv_param_places(const tv_params *params, int bits)
{
    int64_t buckets = (int64_t)1 << bits;
    return buckets < params->table_ranks ? (int)buckets : params->table_ranks;
}

// The rows that place `params->rank` holds of a table; none beyond the places.
static void cut_buckets(const tv_params *params, int64_t rows, int bits, int64_t *first, int64_t *count)
{
    int places = tv_param_places(params, bits), place = params->rank < places ? params->rank : places;
    int next = place < places ? place + 1 : places;
    *first = tv_vq_bucket_first(rows, bits, tv_vq_place_first(bits, places, place));
    *count = tv_vq_bucket_first(rows, bits, tv_vq_place_first(bits, places, next)) - *first;
}

static tv_status place_table(tv_param *param, const tv_params *params, int given_ranks)
{
    const tv_tensor_spec *spec = &param->spec;
    if (given_ranks > (int64_t)1 << spec->bits) {
        return TV_FAIL(TV_CONFIG,
                       "parallel.table_ranks %d is more than the %" PRId64
                       " buckets of tensor '%s'; take at most as many, "
                       "or 0",
                       given_ranks, (int64_t)1 << spec->bits, spec->name);
    }
    cut_buckets(params, spec->rows, spec->bits, &param->first_row, &param->held_rows);
    param->own_first = param->share_first = param->first_row;
    param->own_count = param->share_count = param->block = param->held_rows;
    return TV_OK;
}

static void place_side(tv_side *side, const tv_params *params)
{
    if (side->spec.placement == TV_PLACE_TABLE) {
        cut_buckets(params, side->spec.rows, side->spec.bits, &side->first_row, &side->held_rows);
        side->share_first = side->first_row;
        side->share_count = side->held_rows;
        return;
    }
    cut_rows(0, side->spec.rows, tv_ceil_div(side->spec.rows, params->ranks), params->rank, &side->share_first,
             &side->share_count);
    int units = side->spec.placement == TV_PLACE_UNITS;
    side->first_row = units ? side->share_first : 0;
    side->held_rows = units ? side->share_count : side->spec.rows;
}

static tv_status place_all(tv_params *params, int given_table_ranks)
{
    for (int64_t i = 0; i < params->count; i++) {
        tv_param *param = &params->items[i];
        // Experts that all lie on every rank are as any other tensor.
        if (param->spec.placement == TV_PLACE_EXPERT && params->expert_ranks == 1) {
            param->spec.placement = TV_PLACE_REPLICATED;
        }
        if (param->spec.placement == TV_PLACE_EXPERT) {
            TV_TRY(place_expert(param, params));
        } else if (param->spec.placement == TV_PLACE_TABLE) {
            TV_TRY(place_table(param, params, given_table_ranks));
        } else {
            place_replicated(param, params);
        }
    }
    for (int64_t i = 0; i < params->side_count; i++) {
        place_side(&params->sides[i], params);
    }
    return TV_OK;
}

static void carve_param(tv_param *param, const tv_params *params, slabs *s)
{
    int64_t rows = param->held_rows, cols = param->spec.cols;
    int table = param->spec.placement == TV_PLACE_TABLE;
    int64_t padded = param->spec.placement == TV_PLACE_REPLICATED ? params->ranks * param->block : rows;
    int64_t groups = tv_row_groups(cols, param->group);
    param->T = tv_arena_take(&s->state, padded * tv_row_bytes(cols), 1);
    param->E = tv_arena_take(&s->state, padded * groups, 1);
    param->w8 = table ? NULL : tv_arena_take(&s->decoded, rows * cols, 1);
    param->w8t = NULL;
    if (params->training && !param->spec.lookup && !param->spec.ones && !table) {
        param->w8t = tv_arena_take(&s->decoded, rows * cols, 1);
    }
    param->T_accum = param->E_accum = NULL;
    param->votes = NULL;
    if (params->training && !param->spec.frozen) {
        param->T_accum = tv_arena_take(&s->state, param->own_count * cols, 1);
        param->E_accum = tv_arena_take(&s->state, param->own_count * groups, 1);
        int64_t items = table ? 0 : padded * cols;
        param->votes = table ? NULL : tv_arena_take(&s->votes, items + items % 2, (size_t)params->vote_bits / 8);
    }
}

static void carve(tv_params *params, slabs *s)
{
    for (int64_t i = 0; i < params->count; i++) {
        carve_param(&params->items[i], params, s);
    }
    for (int64_t i = 0; i < params->side_count; i++) {
        tv_side *side = &params->sides[i];
        side->data = tv_arena_take(side->spec.host ? &s->host : &s->state, side->held_rows * side->spec.cols,
                                   (size_t)tv_dtype_bytes(side->spec.dtype));
    }
}

static tv_status check_layout(const tv_params *params, const tv_params_layout_args *args)
{
    if (args->ranks < 1 || args->rank < 0 || args->rank >= args->ranks || args->expert_ranks < 0 ||
        args->table_ranks < 0 || (args->vote_bits != 8 && args->vote_bits != 16)) {
        return TV_FAIL(TV_INTERNAL, "layout for rank %d of %d with %d vote bits", args->rank, args->ranks,
                       args->vote_bits);
    }
    if (params->state_slab != NULL) {
        return TV_FAIL(TV_INTERNAL, "the parameter table is laid out twice");
    }
    if (args->expert_ranks > 0 && args->ranks % args->expert_ranks != 0) {
        return TV_FAIL(
            TV_CONFIG,
            "parallel.expert_ranks %d does not divide the %d ranks; start a multiple of it, or take a divisor "
            "or 0",
            args->expert_ranks, args->ranks);
    }
    if (args->table_ranks > args->ranks) {
        return TV_FAIL(TV_CONFIG,
                       "parallel.table_ranks %d is more than the %d ranks; start more, or take at most as many, or 0",
                       args->table_ranks, args->ranks);
    }
    return TV_OK;
}

static tv_status check_slabs(const slabs *s)
{
    TV_TRY(tv_arena_check(&s->state));
    TV_TRY(tv_arena_check(&s->host));
    TV_TRY(tv_arena_check(&s->decoded));
    return tv_arena_check(&s->votes);
}

tv_status tv_params_layout(tv_params *params, const tv_params_layout_args *args)
{
    slabs s;
    TV_TRY(check_layout(params, args));
    params->rank = args->rank;
    params->ranks = args->ranks;
    params->sharded = args->sharded;
    params->training = args->training;
    params->vote_bits = args->vote_bits;
    params->expert_ranks = args->expert_ranks > 0 ? args->expert_ranks : 1;
    params->table_ranks = args->table_ranks > 0 ? args->table_ranks : args->ranks;
    TV_TRY(place_all(params, args->table_ranks));
    tv_arena_init(&s.state, "the training state");
    tv_arena_init(&s.host, "the training state in host memory");
    tv_arena_init(&s.decoded, "the decoded weights");
    tv_arena_init(&s.votes, "the votes");
    carve(params, &s);
    TV_TRY(check_slabs(&s));
    params->state_bytes = s.state.high_water;
    params->host_bytes = s.host.high_water;
    params->decoded_bytes = s.decoded.high_water;
    params->vote_bytes = s.votes.high_water;
    if (args->backend == NULL) {
        return TV_OK;
    }
    params->backend = args->backend;
    TV_TRY(tv_backend_find("ref", &params->host));
    TV_TRY(tv_slab_bind(args->backend, &s.state, &params->state_slab));
    TV_TRY(tv_slab_bind(params->host, &s.host, &params->host_slab));
    TV_TRY(tv_slab_bind(args->backend, &s.decoded, &params->decoded_slab));
    TV_TRY(tv_slab_bind(args->backend, &s.votes, &params->vote_slab));
    carve(params, &s);
    return check_slabs(&s);
}

tv_vq_table tv_param_table(const tv_param *param)
{
    return (tv_vq_table){.rows = param->spec.rows,
                         .first_row = param->first_row,
                         .held_rows = param->held_rows,
                         .cols = param->spec.cols,
                         .bits = param->spec.pattern_bits,
                         .base = param->base,
                         .mantissa_bits = param->mantissa_bits,
                         .T = param->T,
                         .E = param->E,
                         .T_accum = param->T_accum,
                         .E_accum = param->E_accum};
}

int tv_params_in_lockstep(const tv_params *params)
{
    int tables = 0;
    for (int64_t i = 0; i < params->count; i++) {
        tables |= params->items[i].spec.placement == TV_PLACE_TABLE;
    }
    return params->expert_ranks > 1 || (tables && params->ranks > 1);
}
