// The parameter table seen as plain arrays in host memory: for checkpoint, digest and audit.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "model/params.h"

enum { PIECES_MAX = 4 };

// One array of a tensor and the rows of it that are wanted.
typedef struct piece {
    const char *part;
    int64_t cols, logical_cols;
    int8_t *base;       // backend address of row base_first; NULL when only measured
    int64_t base_first; // first row that this rank holds
    int64_t first, count;
    int replicated;
} piece;

// Fills pieces[0 .. return value). For loading T and E cover all rows and the counters the own ones; else all cover
// this rank's share.
static int list_pieces(const tv_params *params, const tv_param *param, int full, int load, piece pieces[PIECES_MAX])
{
    int64_t cols = param->spec.cols, groups = tv_row_groups(cols, param->group);
    int64_t first = load ? 0 : param->share_first, count = load ? param->spec.rows : param->share_count;
    pieces[0] = (piece){"T", tv_row_bytes(cols), cols, (int8_t *)param->T, 0, first, count, 1};
    pieces[1] = (piece){"E", groups, groups, param->E, 0, first, count, 1};
    if (!full || !params->training || param->spec.frozen) {
        return 2;
    }
    first = load ? param->own_first : param->share_first;
    count = load ? param->own_count : param->share_count;
    pieces[2] = (piece){"T_accum", cols, cols, param->T_accum, param->own_first, first, count, !params->sharded};
    pieces[3] = (piece){"E_accum", groups, groups, param->E_accum, param->own_first, first, count, !params->sharded};
    return 4;
}

static int8_t *piece_data(const piece *p)
{
    return p->base == NULL ? NULL : p->base + (p->first - p->base_first) * p->cols;
}

static tv_state_array describe(const tv_param *param, const piece *p)
{
    return (tv_state_array){.name = param->spec.name,
                            .part = p->part,
                            .group = "tensors",
                            .dtype = strcmp(p->part, "T") == 0 ? TV_U8 : TV_I8,
                            .rows = param->spec.rows,
                            .cols = p->cols,
                            .logical_cols = p->logical_cols,
                            .first_row = p->first,
                            .count = p->count,
                            .b = param->base,
                            .m = param->mantissa_bits,
                            .scale_group = param->group,
                            .replicated = p->replicated};
}

static size_t staging_bytes(const tv_params *params, int full, int load)
{
    tv_arena arena;
    tv_arena_init(&arena, "staging");
    for (int64_t i = 0; i < params->count; i++) {
        piece pieces[PIECES_MAX];
        int n = list_pieces(params, &params->items[i], full, load, pieces);
        for (int j = 0; j < n; j++) {
            tv_arena_take(&arena, pieces[j].count * pieces[j].cols, 1);
        }
    }
    return arena.high_water;
}

static int is_host(const tv_params *params) { return params->backend != NULL && params->backend->host_memory; }

// The arrays in table order; data in the table (host backend), in staging, or NULL without either.
static tv_status list_arrays(tv_params *params, int full, int load, void *staging, tv_state_array **arrays,
                             int64_t *count)
{
    tv_state_array *list = calloc((size_t)(PIECES_MAX * params->count + 1), sizeof *list);
    if (list == NULL) {
        return TV_FAIL(TV_MEMORY, "no memory to list %" PRId64 " tensors", params->count);
    }
    tv_arena arena;
    tv_arena_init(&arena, "staging");
    if (staging != NULL) {
        tv_arena_bind(&arena, staging, staging_bytes(params, full, load));
    }
    int64_t used = 0;
    for (int64_t i = 0; i < params->count; i++) {
        piece pieces[PIECES_MAX];
        int n = list_pieces(params, &params->items[i], full, load, pieces);
        for (int j = 0; j < n; j++, used++) {
            void *staged = tv_arena_take(&arena, pieces[j].count * pieces[j].cols, 1);
            list[used] = describe(&params->items[i], &pieces[j]);
            list[used].data = is_host(params) ? (void *)piece_data(&pieces[j]) : staged;
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
    for (int64_t i = 0; i < params->count; i++) {
        piece pieces[PIECES_MAX];
        int n = list_pieces(params, &params->items[i], 1, load, pieces);
        for (int j = 0; j < n; j++) {
            if (at == count || strcmp(arrays[at].name, params->items[i].spec.name) != 0 ||
                strcmp(arrays[at].part, pieces[j].part) != 0) {
                continue;
            }
            void *host = arrays[at++].data, *place = piece_data(&pieces[j]);
            size_t bytes = (size_t)(pieces[j].count * pieces[j].cols);
            TV_TRY(load ? params->backend->copy(place, host, bytes, TV_COPY_TO_DEVICE, NULL)
                        : params->backend->copy(host, place, bytes, TV_COPY_TO_HOST, NULL));
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
