// The parameter table seen as plain arrays in host memory: for checkpoint, digest and audit.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "model/params.h"

enum { PIECES_MAX = 4 };

// One array of a tensor or of side state, and the rows of it that are wanted.
typedef struct piece {
    tv_state_array array; // without data
    uint8_t *base;        // backend address of row base_first; NULL when only measured
    int64_t base_first;   // first row that this rank holds of the array
    int host;             // base lies in host memory, whatever the backend
} piece;

// Rows of an array.
typedef struct rows {
    int64_t first, count;
} rows;

static int64_t piece_items(const piece *p) { return p->array.count * p->array.cols; }

static size_t item_bytes(const piece *p) { return (size_t)tv_dtype_bytes(p->array.dtype); }

static void *piece_data(const piece *p)
{
    if (p->base == NULL) {
        return NULL;
    }
    return p->base + (p->array.first_row - p->base_first) * tv_state_row_bytes(&p->array);
}

// T, E and counters of a tensor start from this.
static piece tensor_piece(const tv_param *param, const char *part, rows wanted, int replicated)
{
    return (piece){.array = {.name = param->spec.name,
                             .part = part,
                             .group = "tensors",
                             .dtype = TV_I8,
                             .rows = param->spec.rows,
                             .first_row = wanted.first,
                             .count = wanted.count,
                             .b = param->base,
                             .m = param->mantissa_bits,
                             .scale_group = param->group,
                             .replicated = replicated}};
}

static piece *finish_piece(piece *p, int64_t cols, int64_t logical_cols, void *base, int64_t base_first)
{
    p->array.cols = cols;
    p->array.logical_cols = logical_cols;
    p->base = base;
    p->base_first = base_first;
    return p + 1;
}

// Fills pieces[0 .. return value). For loading T and E cover the held rows and the counters the own ones; else all cover
// this rank's share.
static int list_tensor(const tv_params *params, const tv_param *param, int full, int load, piece pieces[PIECES_MAX])
{
    int64_t cols = param->spec.cols, groups = tv_row_groups(cols, param->group);
    int table = param->spec.placement == TV_PLACE_TABLE;
    int whole = table ? params->ranks == 1 : param->held_rows == param->spec.rows;
    rows share = {param->share_first, param->share_count}, held = {param->first_row, param->held_rows},
         own = {param->own_first, param->own_count};
    piece *next = pieces;
    *next = tensor_piece(param, "T", load ? held : share, whole);
    next->array.dtype = TV_U8;
    next = finish_piece(next, tv_row_bytes(cols), cols, param->T, param->first_row);
    *next = tensor_piece(param, "E", load ? held : share, whole);
    next = finish_piece(next, groups, groups, param->E, param->first_row);
    if (!full || !params->training || param->spec.frozen) {
        return 2;
    }
    whole = param->spec.placement == TV_PLACE_REPLICATED ? !params->sharded : whole;
    *next = tensor_piece(param, "T_accum", load ? own : share, whole);
    next = finish_piece(next, cols, cols, param->T_accum, param->own_first);
    *next = tensor_piece(param, "E_accum", load ? own : share, whole);
    finish_piece(next, groups, groups, param->E_accum, param->own_first);
    return 4;
}

static int list_side(const tv_params *params, const tv_side *side, int load, piece pieces[PIECES_MAX])
{
    const tv_side_spec *spec = &side->spec;
    pieces[0] = (piece){.array = {.name = spec->name,
                                  .part = spec->part,
                                  .group = spec->group,
                                  .dtype = spec->dtype,
                                  .rows = spec->rows,
                                  .first_row = load ? side->first_row : side->share_first,
                                  .count = load ? side->held_rows : side->share_count,
                                  .replicated = spec->placement == TV_PLACE_REPLICATED || params->ranks == 1},
                        .host = spec->host};
    finish_piece(&pieces[0], spec->cols, spec->cols, side->data, side->first_row);
    return 1;
}

// The pieces of entry `i`: the tensors in table order, then the side state.
static int list_pieces(const tv_params *params, int64_t i, int full, int load, piece pieces[PIECES_MAX])
{
    return i < params->count ? list_tensor(params, &params->items[i], full, load, pieces)
                             : list_side(params, &params->sides[i - params->count], load, pieces);
}

static int64_t entries(const tv_params *params) { return params->count + params->side_count; }

static size_t staging_bytes(const tv_params *params, int full, int load)
{
    tv_arena arena;
    tv_arena_init(&arena, "staging");
    for (int64_t i = 0; i < entries(params); i++) {
        piece pieces[PIECES_MAX];
        int n = list_pieces(params, i, full, load, pieces);
        for (int j = 0; j < n; j++) {
            tv_arena_take(&arena, piece_items(&pieces[j]), item_bytes(&pieces[j]));
        }
    }
    return arena.high_water;
}

static int is_host(const tv_params *params) { return params->backend != NULL && params->backend->host_memory; }

// The arrays in table order; data in the table (host backend), in staging, or NULL without either.
static tv_status list_arrays(tv_params *params, int full, int load, void *staging, tv_state_array **arrays,
                             int64_t *count)
{
    tv_state_array *list = calloc((size_t)(PIECES_MAX * entries(params) + 1), sizeof *list);
    if (list == NULL) {
        return TV_FAIL(TV_MEMORY, "no memory to list %" PRId64 " tensors", entries(params));
    }
    tv_arena arena;
    tv_arena_init(&arena, "staging");
    if (staging != NULL) {
        tv_arena_bind(&arena, staging, staging_bytes(params, full, load));
    }
    int64_t used = 0;
    for (int64_t i = 0; i < entries(params); i++) {
        piece pieces[PIECES_MAX];
        int n = list_pieces(params, i, full, load, pieces);
        for (int j = 0; j < n; j++, used++) {
            void *staged = tv_arena_take(&arena, piece_items(&pieces[j]), item_bytes(&pieces[j]));
            list[used] = pieces[j].array;
            list[used].data = is_host(params) ? piece_data(&pieces[j]) : staged;
        }
    }
    *arrays = list;
    *count = used;
    return TV_OK;
}

// Copy between staging and the backend, all pieces that `arrays` (of list_arrays) names.
static tv_status copy_arrays(const tv_params *params, const tv_state_array *arrays, int64_t count, int load)
{
    int64_t at = 0;
    for (int64_t i = 0; i < entries(params); i++) {
        piece pieces[PIECES_MAX];
        int n = list_pieces(params, i, 1, load, pieces);
        for (int j = 0; j < n; j++) {
            if (at == count || strcmp(arrays[at].name, pieces[j].array.name) != 0 ||
                strcmp(arrays[at].part, pieces[j].array.part) != 0) {
                continue;
            }
            void *host = arrays[at++].data, *place = piece_data(&pieces[j]);
            size_t bytes = (size_t)piece_items(&pieces[j]) * item_bytes(&pieces[j]);
            const tv_backend *backend = pieces[j].host ? params->host : params->backend;
            TV_TRY(load ? backend->copy(place, host, bytes, TV_COPY_TO_DEVICE, NULL)
                        : backend->copy(host, place, bytes, TV_COPY_TO_HOST, NULL));
        }
    }
    return at == count ? TV_OK : TV_FAIL(TV_INTERNAL, "state array '%s' is not of this table", arrays[at].name);
}

size_t tv_params_state_staging_bytes(const tv_params *params, int full)
{
    return is_host(params) ? 0 : staging_bytes(params, full, 0);
}

tv_status tv_params_state(tv_params *params, int full, void *staging, int copy_out, tv_state_array **arrays,
                          int64_t *count)
{
    TV_TRY(list_arrays(params, full, 0, staging, arrays, count));
    if (!copy_out || is_host(params)) {
        return TV_OK;
    }
    tv_status st = staging == NULL || params->backend == NULL
                       ? TV_FAIL(TV_INTERNAL, "no staging memory to copy the state to")
                       : copy_arrays(params, *arrays, *count, 0);
    if (st != TV_OK) {
        free(*arrays);
        *arrays = NULL;
        *count = 0;
    }
    return st;
}

tv_status tv_params_state_for_load(tv_params *params, int full, void **staging, tv_state_array **arrays, int64_t *count)
{
    *staging = NULL;
    if (!is_host(params)) {
        size_t bytes = staging_bytes(params, full, 1);
        *staging = aligned_alloc(TV_ARENA_ALIGN, bytes + (TV_ARENA_ALIGN - bytes % TV_ARENA_ALIGN));
        if (*staging == NULL) {
            return TV_FAIL(TV_MEMORY, "no memory to stage %zu bytes of state", bytes);
        }
    }
    tv_status st = list_arrays(params, full, 1, *staging, arrays, count);
    if (st != TV_OK) {
        free(*staging);
        *staging = NULL;
    }
    return st;
}

tv_status tv_params_state_loaded(tv_params *params, const tv_state_array *arrays, int64_t count, void *staging)
{
    if (is_host(params) || staging == NULL) {
        return TV_OK;
    }
    return copy_arrays(params, arrays, count, 1);
}
