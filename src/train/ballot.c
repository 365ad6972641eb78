#include "train/ballot.h"

#include <stdlib.h>
#include <string.h>

#include "train/schedule.h"

#define HISTOGRAM_BINS 256
#define BATCH 48 // tensors whose ballots are handed to the backend together
enum { COUNT_FLIPS, COUNT_ZEROS, COUNT_MOVES, COUNTS, COUNT_END = HISTOGRAM_BINS + TV_LANE_COUNT * COUNTS };

static int lane_of(const tv_param *p) { return p->spec.placement == TV_PLACE_EXPERT ? TV_LANE_EXPERT : TV_LANE_DENSE; }

// What the ballots of a lane's tensors count, summed over tensors.
static int64_t *lane_counts(const tv_ballot_box *box, int lane) { return box->counts + HISTOGRAM_BINS + lane * COUNTS; }

// The ranks that share out the rows of a lane's tensors for the ballot; NULL: each of them moves every row.
static tv_comm *sharers(const tv_ballot_box *box, int lane)
{
    if (lane == TV_LANE_EXPERT)
        return box->places->experts;
    return box->params->sharded ? box->places->comm : NULL;
}

// Votes that the all-reduce of a tensor sends: N K, of an expert the held rows', rounded up to an even count for 16-bit
// lanes.
static int64_t sum_items(const tv_params *params, const tv_param *p)
{
    int64_t items = p->held_rows * p->spec.cols;
    return params->vote_bits == 16 ? items + items % 2 : items;
}

static tv_status open_lane(tv_ballot_box *box, int number, tv_comm *comm)
{
    const tv_params *params = box->params;
    tv_vote_lane *lane = &box->lanes[number];
    int64_t limit = box->config->train.units * box->config->vote.levels;
    lane->comm = comm != NULL && tv_comm_size(comm) > 1 ? comm : NULL;
    lane->scatter = number == TV_LANE_DENSE && params->sharded;
    lane->votes = calloc((size_t)params->count, sizeof *lane->votes);
    lane->owners = calloc((size_t)params->count, sizeof *lane->owners);
    if (!lane->votes || !lane->owners)
        return TV_FAIL(TV_MEMORY, "no memory to list the votes of %lld tensors", (long long)params->count);
    for (int64_t i = 0; i < params->count; i++) {
        const tv_param *p = &params->items[i];
        int64_t items = lane->scatter ? p->block * p->spec.cols : sum_items(params, p);
        if (p->votes && lane_of(p) == number) {
            lane->owners[lane->count] = i;
            lane->votes[lane->count++] = (tv_votes){p->votes, params->vote_bits, limit, items};
        }
    }
    lane->ready = lane->sent = lane->count;
    box->vote_count += lane->count;
    return TV_OK;
}

tv_status tv_ballot_box_open(tv_ballot_box *box, tv_params *params, const tv_places *places, const tv_config *config)
{
    *box = (tv_ballot_box){.params = params, .places = places, .config = config};
    void *counts;
    TV_TRY(params->backend->alloc(COUNT_END * sizeof(int64_t), &counts));
    box->counts = counts;
    box->rank_ties = calloc((size_t)tv_comm_size(places->comm), sizeof(int64_t));
    if (!box->rank_ties)
        return TV_FAIL(TV_MEMORY, "no memory for the ballot's counts");
    TV_TRY(open_lane(box, TV_LANE_DENSE, places->comm));
    return open_lane(box, TV_LANE_EXPERT, places->replicas);
}

void tv_ballot_box_close(tv_ballot_box *box)
{
    if (box->counts)
        box->params->backend->free(box->counts);
    for (int i = 0; i < TV_LANE_COUNT; i++) {
        free(box->lanes[i].owners);
        free(box->lanes[i].votes);
    }
    free(box->rank_ties);
    *box = (tv_ballot_box){0};
}

// Queue the exchange of what is ready, behind what computes it.
static tv_status send_bucket(tv_ballot_box *box, tv_vote_lane *lane)
{
    const tv_votes *votes = lane->votes + lane->ready;
    int64_t count = lane->sent - lane->ready;
    void *stream = tv_comm_device_stream(lane->comm);
    if (count == 0)
        return TV_OK;
    TV_TRY(tv_comm_device_follow(lane->comm, stream, NULL));
    if (lane->scatter)
        TV_TRY(tv_vote_scatter(lane->comm, votes, count, stream));
    else
        TV_TRY(tv_vote_sum(lane->comm, votes, count, stream));
    lane->sent = lane->ready;
    lane->waiting_bytes = 0;
    box->buckets++;
    return TV_OK;
}

static tv_status lane_ready(tv_ballot_box *box, tv_vote_lane *lane, int64_t first)
{
    const tv_params *params = box->params;
    int64_t most = box->config->vote.bucket_bytes, blocks = lane->scatter ? params->ranks : 1;
    while (lane->ready > 0 && lane->owners[lane->ready - 1] >= first) {
        lane->ready--;
        lane->waiting_bytes += blocks * lane->votes[lane->ready].items * (params->vote_bits / 8);
        if (most > 0 && lane->waiting_bytes >= most)
            TV_TRY(send_bucket(box, lane));
    }
    return TV_OK;
}

tv_status tv_ballot_exchange_ready(tv_ballot_box *box, int64_t first)
{
    for (int i = 0; i < TV_LANE_COUNT; i++)
        if (box->lanes[i].comm)
            TV_TRY(lane_ready(box, &box->lanes[i], first));
    return TV_OK;
}

tv_status tv_ballot_exchange_finish(tv_ballot_box *box)
{
    TV_TRY(tv_ballot_exchange_ready(box, 0));
    for (int i = 0; i < TV_LANE_COUNT; i++) {
        if (box->lanes[i].comm)
            TV_TRY(send_bucket(box, &box->lanes[i]));
        box->lanes[i].ready = box->lanes[i].sent = box->lanes[i].count;
    }
    for (int i = 0; i < TV_LANE_COUNT; i++)
        if (box->lanes[i].comm)
            TV_TRY(tv_vote_finish(box->lanes[i].comm, tv_comm_device_stream(box->lanes[i].comm)));
    return TV_OK;
}

static tv_status gather_blocks(tv_ballot_box *box, void *data, int64_t block_bytes)
{
    return tv_comm_device_all_gather_bytes(box->places->comm, data, (size_t)block_bytes, TV_WIRE_STATE, NULL);
}

tv_status tv_ballot_share(tv_ballot_box *box)
{
    tv_params *params = box->params;
    tv_comm *comm = box->places->comm;
    if (!params->sharded || tv_comm_size(comm) == 1)
        return TV_OK;
    TV_TRY(tv_comm_device_begin(comm));
    for (int64_t i = 0; i < params->count; i++) {
        tv_param *p = &params->items[i];
        if (!p->votes || lane_of(p) != TV_LANE_DENSE)
            continue;
        TV_TRY(gather_blocks(box, p->T, p->block * tv_row_bytes(p->spec.cols)));
        TV_TRY(gather_blocks(box, p->E, p->block * tv_row_groups(p->spec.cols, p->group)));
    }
    TV_TRY(tv_comm_device_end(comm));
    return tv_comm_device_wait(comm, NULL);
}

int64_t tv_ballot_vote_bytes(const tv_params *params)
{
    int64_t items = 0;
    if (params->ranks == 1)
        return 0;
    for (int64_t i = 0; i < params->count; i++) {
        const tv_param *p = &params->items[i];
        if (p->spec.frozen || p->spec.placement == TV_PLACE_TABLE ||
            (lane_of(p) == TV_LANE_EXPERT && params->ranks == params->expert_ranks))
            continue;
        items += params->sharded && lane_of(p) == TV_LANE_DENSE ? params->ranks * p->block * p->spec.cols
                                                                : sum_items(params, p);
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
        if (!p->spec.frozen && p->spec.placement == TV_PLACE_REPLICATED)
            bytes += params->ranks * p->block * (tv_row_bytes(p->spec.cols) + tv_row_groups(p->spec.cols, p->group));
    }
    return bytes;
}

tv_step_rule tv_ballot_rule(const tv_config *config, int64_t step, double loss)
{
    return (tv_step_rule){.rule = (tv_rule)config->update.rule,
                          .combine = (tv_combine)config->vote.combine,
                          .units = (int)config->train.units,
                          .quorum = (int)config->vote.quorum,
                          .threshold = tv_schedule_threshold(config, step),
                          .eta_q = tv_schedule_eta_q(config, step),
                          .classic_step = tv_schedule_classic_step(loss),
                          .theta_min = (int)config->update.theta_min,
                          .eta_e_q = tv_schedule_exponent_q(config, step),
                          .exponent_threshold = (int)config->update.exponent_threshold};
}

// Votes of the own rows.
static const void *own_votes(const tv_params *params, const tv_param *p)
{
    return (const char *)p->votes + (p->own_first - p->first_row) * p->spec.cols * (params->vote_bits / 8);
}

static tv_ballot_args ballot_args(const tv_ballot_box *box, const tv_param *p, int64_t step, const tv_step_rule *rule)
{
    return (tv_ballot_args){
        .rows = p->own_count,
        .cols = p->spec.cols,
        .first_row = p->own_first,
        .T = tv_param_T(p, p->own_first),
        .T_accum = p->T_accum,
        .votes = own_votes(box->params, p),
        .vote_bits = box->params->vote_bits,
        .rule = rule->rule,
        .combine = rule->combine,
        .units = rule->units,
        .quorum = rule->quorum,
        .threshold = rule->threshold,
        .eta_q = rule->eta_q,
        .classic_step = rule->classic_step,
        .theta_min = rule->theta_min,
        .cut = -1,
        .seed = (uint32_t)box->config->train.seed,
        .tensor_id = p->id,
        .step = (uint32_t)step,
        .histogram = box->counts,
        .stats = lane_counts(box, lane_of(p)) + COUNT_FLIPS,
    };
}

// Histogram of this rank's rows (local) and of all rows (total).
static tv_status count_candidates(tv_ballot_box *box, const tv_param *p, const tv_ballot_args *args, int64_t *local,
                                  int64_t *total)
{
    tv_comm *comm = sharers(box, lane_of(p));
    const tv_backend *backend = box->params->backend;
    size_t bytes = HISTOGRAM_BINS * sizeof(int64_t);
    TV_TRY(backend->zero(box->counts, bytes, NULL));
    TV_TRY(backend->ballot_histogram(args, NULL));
    TV_TRY(backend->copy(local, box->counts, bytes, TV_COPY_TO_HOST, NULL));
    memcpy(total, local, bytes);
    if (comm)
        TV_TRY(tv_comm_sum_i64(comm, total, HISTOGRAM_BINS, TV_WIRE_OTHER));
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
    TV_TRY(count_candidates(box, p, args, local, total));
    int64_t budget = (int64_t)(tv_schedule_rho(box->config, step) * (float)(p->spec.rows * p->spec.cols));
    args->theta = find_cut(total, args->theta_min, budget, &above);
    if (args->theta > args->theta_min && total[args->theta] > 0)
        args->tie_q = (uint32_t)(65536 * (budget - above) / total[args->theta]);
    return TV_OK;
}

static tv_status set_flip_cap(tv_ballot_box *box, const tv_param *p, tv_ballot_args *args)
{
    int64_t local[HISTOGRAM_BINS], total[HISTOGRAM_BINS], above;
    TV_TRY(count_candidates(box, p, args, local, total));
    int64_t cap = (int64_t)(box->config->update.flip_cap * (double)(p->spec.rows * p->spec.cols));
    args->cut = find_cut(total, 0, cap, &above);
    args->tie_quota = cap - above;
    tv_comm *comm = sharers(box, lane_of(p));
    if (!comm)
        return TV_OK;
    // Ties are cut in element order over all ranks: what lower ranks hold comes first.
    int rank = tv_comm_rank(comm);
    box->rank_ties[rank] = local[args->cut];
    TV_TRY(tv_comm_all_gather_bytes(comm, box->rank_ties, sizeof(int64_t), TV_WIRE_OTHER));
    int64_t before = 0;
    for (int r = 0; r < rank; r++)
        before += box->rank_ties[r];
    args->tie_quota = args->tie_quota > before ? args->tie_quota - before : 0;
    return TV_OK;
}

static tv_ballot_e_args exponent_args(const tv_ballot_box *box, const tv_param *p, int64_t step,
                                      const tv_step_rule *rule)
{
    return (tv_ballot_e_args){
        .rows = p->own_count,
        .cols = p->spec.cols,
        .first_row = p->own_first,
        .group = p->group,
        .base = p->base,
        .mantissa_bits = p->mantissa_bits,
        .T = tv_param_T(p, p->own_first),
        .E = tv_param_E(p, p->own_first),
        .E_accum = p->E_accum,
        .votes = own_votes(box->params, p),
        .vote_bits = box->params->vote_bits,
        .eta_e_q = rule->eta_e_q,
        .threshold = rule->exponent_threshold,
        .seed = (uint32_t)box->config->train.seed,
        .tensor_id = p->id,
        .step = (uint32_t)step,
        .stats = lane_counts(box, lane_of(p)) + COUNT_MOVES,
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

static tv_status run_tensor(tv_ballot_box *box, const tv_param *p, int64_t step, const tv_step_rule *rule,
                            ballot_batch *batch)
{
    tv_ballot_args args = ballot_args(box, p, step, rule);
    if (args.rule == TV_RULE_BUDGET)
        TV_TRY(set_budget(box, p, step, &args));
    else if (box->config->update.flip_cap > 0)
        TV_TRY(set_flip_cap(box, p, &args));
    batch->trits[batch->count] = args;
    batch->exponents[batch->count++] = exponent_args(box, p, step, rule);
    return batch->count == BATCH ? run_batch(box->params->backend, batch) : TV_OK;
}

// What all ranks counted.
static tv_status read_counts(tv_ballot_box *box, tv_ballot_report *report)
{
    int64_t counts[TV_LANE_COUNT][COUNTS];
    TV_TRY(box->params->backend->copy(counts, lane_counts(box, 0), sizeof counts, TV_COPY_TO_HOST, NULL));
    for (int i = 0; i < TV_LANE_COUNT; i++) {
        if (sharers(box, i))
            TV_TRY(tv_comm_sum_i64(sharers(box, i), counts[i], COUNTS, TV_WIRE_METRICS));
        report->flips += counts[i][COUNT_FLIPS];
        report->zeros += counts[i][COUNT_ZEROS];
        report->exponent_moves += counts[i][COUNT_MOVES];
    }
    return TV_OK;
}

tv_status tv_ballot_run(tv_ballot_box *box, int64_t step, double loss, tv_ballot_report *report)
{
    const tv_params *params = box->params;
    const tv_step_rule rule = tv_ballot_rule(box->config, step, loss);
    ballot_batch batch = {.count = 0};
    *report = (tv_ballot_report){0};
    TV_TRY(params->backend->zero(lane_counts(box, 0), TV_LANE_COUNT * COUNTS * sizeof(int64_t), NULL));
    for (int64_t i = 0; i < params->count; i++) {
        const tv_param *p = &params->items[i];
        if (!p->votes)
            continue;
        report->weights += p->spec.rows * p->spec.cols;
        TV_TRY(run_tensor(box, p, step, &rule, &batch));
    }
    TV_TRY(run_batch(params->backend, &batch));
    return read_counts(box, report);
}
