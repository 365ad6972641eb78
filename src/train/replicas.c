// Whether ranks that hold the same state hold the same bits.
#include <stdlib.h>

#include "base/fault.h"
#include "comm/guard.h"
#include "comm/watch.h"
#include "train/trainer.h"

// Hashes that must be equal on some ranks, and what they are of.
typedef struct hash_list {
    const char **names;
    tv_hash128 *hashes;
    int64_t count;
} hash_list;

static tv_status open_list(hash_list *list, int64_t capacity)
{
    list->names = calloc((size_t)capacity + 1, sizeof *list->names);
    list->hashes = calloc((size_t)capacity + 1, sizeof *list->hashes);
    if (!list->names || !list->hashes)
        return TV_FAIL(TV_MEMORY, "no memory for the hashes of %lld tensors", (long long)capacity);
    return TV_OK;
}

static void close_list(hash_list *list)
{
    free(list->names);
    free(list->hashes);
}

// T and E of one tensor, all held rows, hashed where they lie.
static tv_status hash_tensor(const tv_trainer *trainer, const tv_param *p, hash_list *list)
{
    tv_row_hash_args args = {.rows = p->held_rows,
                             .first_row = p->first_row,
                             .row_bytes = (size_t)tv_row_bytes(p->spec.cols),
                             .data = p->T,
                             .sum = &list->hashes[list->count]};
    list->names[list->count++] = p->spec.name;
    TV_TRY(trainer->backend->row_hash(&args, NULL));
    args.row_bytes = (size_t)tv_row_groups(p->spec.cols, p->group);
    args.data = p->E;
    return trainer->backend->row_hash(&args, NULL);
}

static tv_status hash_side(const tv_trainer *trainer, const tv_side *side, hash_list *list)
{
    tv_row_hash_args args = {.rows = side->held_rows,
                             .first_row = side->first_row,
                             .row_bytes = (size_t)(side->spec.cols * tv_dtype_bytes(side->spec.dtype)),
                             .data = side->data,
                             .sum = &list->hashes[list->count]};
    list->names[list->count++] = side->spec.name;
    return trainer->backend->row_hash(&args, NULL);
}

static tv_status hash_state(tv_trainer *trainer, hash_list *everywhere, hash_list *experts)
{
    tv_params *params = &trainer->model.params;
    TV_TRY(tv_params_validate(params, NULL));
    TV_TRY(open_list(everywhere, params->count + params->side_count));
    TV_TRY(open_list(experts, params->count));
    for (int64_t i = 0; i < params->count; i++) {
        const tv_param *p = &params->items[i];
        if (p->spec.placement == TV_PLACE_TABLE)
            continue; // its rows are on one rank each
        TV_TRY(hash_tensor(trainer, p, p->spec.placement == TV_PLACE_EXPERT ? experts : everywhere));
    }
    for (int64_t i = 0; i < params->side_count; i++)
        if (params->sides[i].spec.placement == TV_PLACE_REPLICATED)
            TV_TRY(hash_side(trainer, &params->sides[i], everywhere));
    return TV_OK;
}

static tv_status compare_experts(const tv_places *places, const hash_list *list)
{
    if (places->replicas == NULL)
        return TV_OK;
    tv_status st = tv_guard_compare(places->replicas, list->names, list->hashes, list->count);
    if (st == TV_OK)
        return st;
    return tv_status_context(st, "experts of place %d, where replica i is rank i x %d + %d",
                             tv_comm_rank(places->experts), places->expert_ranks, tv_comm_rank(places->experts));
}

tv_status tv_trainer_check_replicas(tv_trainer *trainer)
{
    hash_list everywhere = {0}, experts = {0};
    tv_watch_mark(TV_PHASE_CHECK, trainer->step);
    tv_status st = tv_comm_agree(trainer->comm, hash_state(trainer, &everywhere, &experts));
    if (st == TV_OK)
        st = tv_guard_compare(trainer->comm, everywhere.names, everywhere.hashes, everywhere.count);
    if (st == TV_OK && experts.count > 0)
        st = tv_comm_agree(trainer->comm, compare_experts(&trainer->places, &experts));
    close_list(&experts);
    close_list(&everywhere);
    return st;
}

tv_status tv_trainer_spoil(tv_trainer *trainer)
{
    if (tv_fault_at(TV_FAULT_STATE_FLIP_POINT).spoil == 0)
        return TV_OK;
    const tv_params *params = &trainer->model.params;
    const tv_param *p = &params->items[0];
    for (int64_t i = 1; i < params->count; i++)
        if (params->items[i].held_rows * params->items[i].spec.cols > p->held_rows * p->spec.cols)
            p = &params->items[i];
    uint8_t *place = p->T + p->held_rows / 2 * tv_row_bytes(p->spec.cols), byte = 0;
    TV_TRY(trainer->backend->copy(&byte, place, 1, TV_COPY_TO_HOST, NULL));
    byte ^= 1;
    return trainer->backend->copy(place, &byte, 1, TV_COPY_TO_DEVICE, NULL);
}
