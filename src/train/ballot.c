#include "train/ballot.h"

#include <stdlib.h>
#include <string.h>

#include "train/schedule.h"

#define HISTOGRAM_BINS 256
#define BATCH 48 // tensors whose ballots are handed to the backend together
enum { COUNT_FLIPS = HISTOGRAM_BINS, COUNT_ZEROS, COUNT_MOVES, COUNT_END };

// Votes that the all-reduce of a tensor sends: N K, rounded up to an even count for 16-bit lanes.
static int64_t sum_items(const tv_params *params, const tv_param *p)
{
    int64_t items = p->spec.rows * p->spec.cols;
    return params->vote_bits == 16 ? items + items % 2 : items;
}

static void list_votes(tv_ballot_box *box)
{
    const tv_params *params = box->params;
    int64_t limit = box->config->train.units * box->config->vote.levels;
    for (int64_t i = 0; i < params->count; i++) {
        const tv_param *p = &params->items[i];
        int64_t items = params->sharded ? p->block * p->spec.cols : sum_items(params, p);
        if (p->votes)
            box->votes[box->vote_count++] = (tv_votes){p->votes, params->vote_bits, limit, items};
    }
}

tv_status tv_ballot_box_open(tv_ballot_box *box, tv_params *params, tv_comm *comm, const tv_config *config)
{
    *box = (tv_ballot_box){.params = params, .comm = comm, .config = config};
    void *counts;
    TV_TRY(params->backend->alloc(COUNT_END * sizeof(int64_t), &counts));
    box->counts = counts;
    box->rank_ties = calloc((size_t)tv_comm_size(comm), sizeof(int64_t));
    box->votes = calloc((size_t)params->count, sizeof *box->votes);
    if (!box->rank_ties || !box->votes)
        return TV_FAIL(TV_MEMORY, "no memory for the ballot's counts");
    list_votes(box);
    return TV_OK;
}

void tv_ballot_box_close(tv_ballot_box *box)
{
    if (box->counts)
        box->params->backend->free(box->counts);
    free(box->votes);
    free(box->rank_ties);
    *box = (tv_ballot_box){0};
}

tv_status tv_ballot_exchange(tv_ballot_box *box)
{
    if (tv_comm_size(box->comm) == 1)
        return TV_OK;
    if (box->params->sharded)
        TV_TRY(tv_vote_scatter(box->comm, box->votes, box->vote_count, NULL));
    else
        TV_TRY(tv_vote_sum(box->comm, box->votes, box->vote_count, NULL));
    return tv_vote_finish(box->comm, NULL);
}

static tv_status gather_blocks(tv_ballot_box *box, void *data, int64_t block_bytes)
{
    return tv_comm_device_all_gather_bytes(box->comm, data, (size_t)block_bytes, TV_WIRE_STATE, NULL);
}

tv_status tv_ballot_share(tv_ballot_box *box)
{
    tv_params *params = box->params;
    if (!params->sharded || tv_comm_size(box->comm) == 1)
        return TV_OK;
    TV_TRY(tv_comm_device_begin(box->comm));
    for (int64_t i = 0; i < params->count; i++) {
        tv_param *p = &params->items[i];
        if (!p->votes)
            continue;
        TV_TRY(gather_blocks(box, p->T, p->block * tv_row_bytes(p->spec.cols)));
        TV_TRY(gather_blocks(box, p->E, p->block * tv_row_groups(p->spec.cols, p->group)));
    }
    TV_TRY(tv_comm_device_end(box->comm));
    return tv_comm_device_wait(box->comm, NULL);
}

int64_t tv_ballot_vote_bytes(const tv_params *params)
{
    int64_t items = 0;
    if (params->ranks == 1)
        return 0;
    for (int64_t i = 0; i < params->count; i++) {
        const tv_param *p = &params->items[i];
        if (p->spec.frozen)
            continue;
        items += params->sharded ? params->ranks * p->block * p->spec.cols : sum_items(params, p);
    }
    return items * (params->vote_bits / 8);
}

int64_t tv_ballot_state_bytes(const tv_params *params)
{
    int64_t bytes = 0;
    if (params->ranks == 1 || !params->sharded)
        return 0;
    for (int64_t i = 0; i < params->count; i++) {
        const tv_param *p = &params->items[i];
        if (!p->spec.frozen)
            bytes += params->ranks * p->block * (tv_row_bytes(p->spec.cols) + tv_row_groups(p->spec.cols, p->group));
    }
    return bytes;
}

// Votes of the own rows.
static const void *own_votes(const tv_params *params, const tv_param *p)
{
    return (const char *)p->votes + p->own_first * p->spec.cols * (params->vote_bits / 8);
}

static tv_ballot_args ballot_args(const tv_ballot_box *box, const tv_param *p, int64_t step, double loss)
{
    const tv_config *config = box->config;
    return (tv_ballot_args){
        .rows = p->own_count,
        .cols = p->spec.cols,
        .first_row = p->own_first,
        .T = p->T + p->own_first * tv_row_bytes(p->spec.cols),
        .T_accum = p->T_accum,
        .votes = own_votes(box->params, p),
        .vote_bits = box->params->vote_bits,
        .rule = (tv_rule)config->update.rule,
        .combine = (tv_combine)config->vote.combine,
        .units = (int)config->train.units,
        .quorum = (int)config->vote.quorum,
        .threshold = tv_schedule_threshold(config, step),
        .eta_q = tv_schedule_eta_q(config, step),
        .classic_step = tv_schedule_classic_step(loss),
        .theta_min = (int)config->update.theta_min,
        .cut = -1,
        .seed = (uint32_t)config->train.seed,
        .tensor_id = p->id,
        .step = (uint32_t)step,
        .histogram = box->counts,
        .stats = box->counts + COUNT_FLIPS,
    };
}

// Histogram of this rank's rows (local) and of all rows (total).
static tv_status count_candidates(tv_ballot_box *box, const tv_ballot_args *args, int64_t *local, int64_t *total)
{
    const tv_backend *backend = box->params->backend;
    size_t bytes = HISTOGRAM_BINS * sizeof(int64_t);
    TV_TRY(backend->zero(box->counts, bytes, NULL));
    TV_TRY(backend->ballot_histogram(args, NULL));
    TV_TRY(backend->copy(local, box->counts, bytes, TV_COPY_TO_HOST, NULL));
    memcpy(total, local, bytes);
    if (box->params->sharded)
        TV_TRY(tv_comm_sum_i64(box->comm, total, HISTOGRAM_BINS, TV_WIRE_OTHER));
    return TV_OK;
}

// Smallest k >= floor_k with at most `budget` candidates above it; *above is their number.
static int find_cut(const int64_t *histogram, int floor_k, int64_t budget, int64_t *above)
{
    int cut = HISTOGRAM_BINS - 1;
    *above = 0;
    while (cut > floor_k && *above + histogram[cut] <= budget)
        *above += histogram[cut--];
    return cut;
}

static tv_status set_budget(tv_ballot_box *box, const tv_param *p, int64_t step, tv_ballot_args *args)
{
    int64_t local[HISTOGRAM_BINS], total[HISTOGRAM_BINS], above;
    TV_TRY(count_candidates(box, args, local, total));
    int64_t budget = (int64_t)(tv_schedule_rho(box->config, step) * (float)(p->spec.rows * p->spec.cols));
    args->theta = find_cut(total, args->theta_min, budget, &above);
    if (args->theta > args->theta_min && total[args->theta] > 0)
        args->tie_q = (uint32_t)(65536 * (budget - above) / total[args->theta]);
    return TV_OK;
}

static tv_status set_flip_cap(tv_ballot_box *box, const tv_param *p, tv_ballot_args *args)
{
    int64_t local[HISTOGRAM_BINS], total[HISTOGRAM_BINS], above;
    TV_TRY(count_candidates(box, args, local, total));
    int64_t cap = (int64_t)(box->config->update.flip_cap * (double)(p->spec.rows * p->spec.cols));
    args->cut = find_cut(total, 0, cap, &above);
    args->tie_quota = cap - above;
    if (!box->params->sharded)
        return TV_OK;
    // Ties are cut in element order over all ranks: what lower ranks hold comes first.
    int rank = tv_comm_rank(box->comm);
    box->rank_ties[rank] = local[args->cut];
    TV_TRY(tv_comm_all_gather_bytes(box->comm, box->rank_ties, sizeof(int64_t), TV_WIRE_OTHER));
    int64_t before = 0;
    for (int r = 0; r < rank; r++)
        before += box->rank_ties[r];
    args->tie_quota = args->tie_quota > before ? args->tie_quota - before : 0;
    return TV_OK;
}

static tv_ballot_e_args exponent_args(const tv_ballot_box *box, const tv_param *p, int64_t step)
{
    int64_t row_bytes = tv_row_bytes(p->spec.cols), groups = tv_row_groups(p->spec.cols, p->group);
    return (tv_ballot_e_args){
        .rows = p->own_count,
        .cols = p->spec.cols,
        .first_row = p->own_first,
        .group = p->group,
        .base = p->base,
        .mantissa_bits = p->mantissa_bits,
        .T = p->T + p->own_first * row_bytes,
        .E = p->E + p->own_first * groups,
        .E_accum = p->E_accum,
        .votes = own_votes(box->params, p),
        .vote_bits = box->params->vote_bits,
        .eta_e_q = tv_schedule_exponent_q(box->config, step),
        .threshold = (int)box->config->update.exponent_threshold,
        .seed = (uint32_t)box->config->train.seed,
        .tensor_id = p->id,
        .step = (uint32_t)step,
        .stats = box->counts + COUNT_MOVES,
    };
}

// Some tensors' turns at the ballot.
typedef struct ballot_batch {
    tv_ballot_args trits[BATCH];
    tv_ballot_e_args exponents[BATCH];
    int64_t count;
} ballot_batch;

static tv_status run_batch(const tv_backend *backend, ballot_batch *batch)
{
    int64_t count = batch->count;
    batch->count = 0;
    if (count == 0)
        return TV_OK;
    if (batch->trits[0].rule == TV_RULE_CLASSIC) { // on the old trits
        TV_TRY(tv_ballot_e_many(backend, batch->exponents, count, NULL));
        return tv_ballot_many(backend, batch->trits, count, NULL);
    }
    TV_TRY(tv_ballot_many(backend, batch->trits, count, NULL));
    return tv_ballot_e_many(backend, batch->exponents, count, NULL);
}

static tv_status run_tensor(tv_ballot_box *box, const tv_param *p, int64_t step, double loss, ballot_batch *batch)
{
    tv_ballot_args args = ballot_args(box, p, step, loss);
    if (args.rule == TV_RULE_BUDGET)
        TV_TRY(set_budget(box, p, step, &args));
    else if (box->config->update.flip_cap > 0)
        TV_TRY(set_flip_cap(box, p, &args));
    batch->trits[batch->count] = args;
    batch->exponents[batch->count++] = exponent_args(box, p, step);
    return batch->count == BATCH ? run_batch(box->params->backend, batch) : TV_OK;
}

tv_status tv_ballot_run(tv_ballot_box *box, int64_t step, double loss, tv_ballot_report *report)
{
    const tv_params *params = box->params;
    size_t bytes = (COUNT_END - COUNT_FLIPS) * sizeof(int64_t);
    int64_t counts[COUNT_END - COUNT_FLIPS];
    ballot_batch batch = {.count = 0};
    *report = (tv_ballot_report){0};
    TV_TRY(params->backend->zero(box->counts + COUNT_FLIPS, bytes, NULL));
    for (int64_t i = 0; i < params->count; i++) {
        const tv_param *p = &params->items[i];
        if (!p->votes)
            continue;
        report->weights += p->spec.rows * p->spec.cols;
        TV_TRY(run_tensor(box, p, step, loss, &batch));
    }
    TV_TRY(run_batch(params->backend, &batch));
    TV_TRY(params->backend->copy(counts, box->counts + COUNT_FLIPS, bytes, TV_COPY_TO_HOST, NULL));
    if (params->sharded)
        TV_TRY(tv_comm_sum_i64(box->comm, counts, COUNT_END - COUNT_FLIPS, TV_WIRE_METRICS));
    report->flips = counts[0];
    report->zeros = counts[1];
    report->exponent_moves = counts[2];
    return TV_OK;
}
