// One answer: this many ranks give the digest that one rank gives on the CPU, with both forms of the vote exchange, votes in
// buckets of any size,
// while the run really moves things and the ranks really share the work. Started under mpirun with 1 to 4 ranks. The first
// argument is "dense", "moe", "vq", "memgram", "graph", "loss", "focus", "modality" or "full", the second names the backend of the many; without one it is the CPU's too.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/pack.h"
#include "train/trainer.h"

#define STEPS 12
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            return TV_FAIL(TV_INTERNAL, "%s does not hold", #condition);                                               \
    } while (0)

// Trits and exponents that this rank holds of all tensors, copied.
typedef struct picture {
    int8_t *trits, *exponents;
    int64_t trit_count, exponent_count;
} picture;

static void free_picture(picture *p)
{
    free(p->trits), free(p->exponents);
    *p = (picture){0};
}

// T and E of one tensor into the picture's next places; packed has room for T.
static tv_status picture_add(const tv_params *params, const tv_param *p, uint8_t *packed, picture *out)
{
    int64_t rows = p->held_rows, row_bytes = tv_row_bytes(p->spec.cols),
            groups = rows * tv_row_groups(p->spec.cols, p->group);
    TV_TRY(params->backend->copy(packed, p->T, (size_t)(rows * row_bytes), TV_COPY_TO_HOST, NULL));
    TV_TRY(params->backend->copy(out->exponents + out->exponent_count, p->E, (size_t)groups, TV_COPY_TO_HOST, NULL));
    for (int64_t row = 0; row < rows; row++)
        tv_unpack_row(packed + row * row_bytes, p->spec.cols, out->trits + out->trit_count + row * p->spec.cols);
    out->trit_count += rows * p->spec.cols;
    out->exponent_count += groups;
    return TV_OK;
}

static tv_status take_picture(const tv_params *params, picture *out)
{
    size_t weights = 0;
    *out = (picture){0};
    for (int64_t i = 0; i < params->count; i++)
        weights += (size_t)(params->items[i].spec.rows * params->items[i].spec.cols);
    uint8_t *packed = malloc(weights);
    out->trits = malloc(weights);
    out->exponents = malloc(weights);
    tv_status st = packed && out->trits && out->exponents ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for a picture");
    for (int64_t i = 0; st == TV_OK && i < params->count; i++)
        st = picture_add(params, &params->items[i], packed, out);
    free(packed);
    return st;
}

static double share_changed(const int8_t *a, const int8_t *b, int64_t count)
{
    int64_t changed = 0;
    for (int64_t i = 0; i < count; i++)
        changed += a[i] != b[i];
    return (double)changed / (double)count;
}

// With experts or tables on several ranks most tokens go to another one; else none does.
static tv_status check_tokens(const tv_trainer *trainer, int64_t before)
{
    int64_t travelled = tv_comm_wire_bytes(trainer->comm, TV_WIRE_TOKENS) - before;
    if (!tv_params_in_lockstep(&trainer->model.params))
        CHECK(travelled == 0);
    else
        CHECK(travelled > 0);
    return TV_OK;
}

// `mover`: the options are those of the invariance config, which moves trits and exponents fast.
static tv_status run_steps(tv_trainer *trainer, int mover, tv_hash128 *digest)
{
    picture before, after;
    tv_comm *comm = trainer->comm;
    int64_t tokens = tv_comm_wire_bytes(comm, TV_WIRE_TOKENS), votes = tv_comm_wire_bytes(comm, TV_WIRE_VOTES),
            state = tv_comm_wire_bytes(comm, TV_WIRE_STATE);
    TV_TRY(take_picture(&trainer->model.params, &before));
    for (int s = 0; s < STEPS; s++) {
        tv_step_report report;
        TV_TRY(tv_trainer_step(trainer, 0, &report));
    }
    TV_TRY(take_picture(&trainer->model.params, &after));
    if (mover) {
        // Of a table only the rows that were used move, and few of them are enough.
        int tables = trainer->config.codebook.rows > 0 || trainer->config.memgram.rows > 0;
        CHECK(share_changed(before.trits, after.trits, before.trit_count) >= (tables ? 0.005 : 0.05));
        CHECK(share_changed(before.exponents, after.exponents, before.exponent_count) >= (tables ? 0.001 : 0.01));
    }
    CHECK(trainer->units_run == STEPS * trainer->config.train.units / tv_comm_size(comm));
    CHECK(tv_comm_wire_bytes(comm, TV_WIRE_VOTES) - votes == STEPS * tv_ballot_vote_bytes(&trainer->model.params));
    CHECK(tv_comm_wire_bytes(comm, TV_WIRE_STATE) - state == STEPS * tv_ballot_state_bytes(&trainer->model.params));
    free_picture(&before), free_picture(&after);
    TV_TRY(check_tokens(trainer, tokens));
    TV_TRY(tv_trainer_check_replicas(trainer));
    return tv_trainer_digest(trainer, digest);
}

// Votes of all tensors but the last ones of a bucket travel before the backward is over.
static tv_status check_buckets(const tv_trainer *trainer)
{
    int64_t steps = trainer->step, most = trainer->config.vote.bucket_bytes;
    if (tv_comm_size(trainer->comm) == 1)
        CHECK(trainer->box.buckets == 0);
    else if (most == 0 || most > tv_ballot_vote_bytes(&trainer->model.params))
        CHECK(trainer->box.buckets == steps);
    else if (most == 1)
        CHECK(trainer->box.buckets == steps * trainer->box.vote_count);
    else
        CHECK(trainer->box.buckets > 2 * steps && trainer->box.buckets < steps * trainer->box.vote_count);
    return TV_OK;
}

static tv_status run(tv_comm *comm, const tv_backend *backend, const char *file, const char *const *sets,
                     tv_hash128 *digest)
{
    int mover = strncmp(sets[0], "train.seed", 10) == 0;
    tv_config config;
    tv_trainer trainer = {0};
    TV_TRY(tv_config_init(&config));
    tv_status st = tv_config_read_file(&config, file);
    for (; st == TV_OK && *sets; sets++)
        st = tv_config_set(&config, *sets);
    if (st == TV_OK)
        st = tv_config_check(&config);
    if (st == TV_OK)
        st = tv_trainer_open(&trainer, &config, comm, backend);
    if (st == TV_OK)
        st = run_steps(&trainer, mover, digest);
    if (st == TV_OK && config.moe.experts == 0)
        st = check_buckets(&trainer);
    tv_trainer_close(&trainer);
    tv_config_free(&config);
    return st;
}

// Where the one rank and the many compute.
typedef struct contest {
    tv_comm *comm;
    const tv_backend *host, *backend;
    const char *file; // the config
} contest;

// Both exchange forms on all ranks, each with votes in buckets of another size, against one rank alone.
static tv_status compare(const contest *c, const char *option, const char *whole_buckets, const char *sharded_buckets)
{
    tv_comm *comm = c->comm, *self = NULL;
    tv_hash128 alone, whole, sharded;
    char hex[TV_HASH_HEX];
    const char *plain[] = {option, NULL}, *together[] = {option, whole_buckets, NULL},
               *split[] = {option, "vote.exchange=sharded", sharded_buckets, NULL};
    TV_TRY(tv_comm_open_self(&self));
    tv_status st = run(self, c->host, c->file, plain, &alone);
    tv_comm_close(self);
    TV_TRY(tv_comm_agree(comm, st));
    TV_TRY(tv_comm_agree(comm, run(comm, c->backend, c->file, together, &whole)));
    TV_TRY(tv_comm_agree(comm, run(comm, c->backend, c->file, split, &sharded)));
    tv_hash_format(alone, hex);
    tv_log_info("%-32s %s", option, hex);
    CHECK(tv_hash_equal(alone, whole));
    CHECK(tv_hash_equal(alone, sharded));
    return TV_OK;
}

static tv_status compare_all(const contest *c)
{
    static const char *const options[] = {"train.seed=1",
                                          "train.seed=2",
                                          "vote.levels=7",
                                          "vote.levels=15",
                                          "vote.combine=mean",
                                          "update.flip_cap=0.002",
                                          "update.rule=budget",
                                          "model.latent_kv=8",
                                          "model.scale_mantissa_bits=2",
                                          "update.threshold_warmup=8"};
    static const char *const buckets[] = {"vote.bucket_bytes=3000", "vote.bucket_bytes=1", "vote.bucket_bytes=0",
                                          "vote.bucket_bytes=16777216"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        TV_TRY(compare(c, options[i], buckets[i % 4], buckets[(i + 1) % 4]));
    return TV_OK;
}

// A mixture of experts, split over as many ranks as can share them, over fewer, and over none; small units on all experts.
static tv_status compare_experts(const contest *c)
{
    static const char *const options[] = {"train.seed=1",
                                          "parallel.expert_ranks=1",
                                          "moe.wire_digits=1",
                                          "moe.wire_digits=5",
                                          "moe.top_k=1",
                                          "moe.shared=24",
                                          "moe.dense_dispatch_max_tokens=128",
                                          "vote.levels=7",
                                          "vote.levels=15",
                                          "update.flip_cap=0.002",
                                          "update.rule=budget"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        TV_TRY(compare(c, options[i], "vote.bucket_bytes=3000", "vote.bucket_bytes=0"));
    if (tv_comm_size(c->comm) == 4)
        TV_TRY(compare(c, "moe.balance=false", "parallel.expert_ranks=2", "parallel.expert_ranks=2"));
    return TV_OK;
}

// Codebooks, split over all ranks, over two and over one; searched whole; restarts and none.
static tv_status compare_tables(const contest *c)
{
    static const char *const options[] = {"train.seed=1",
                                          "train.seed=2",
                                          "codebook.probes=1",
                                          "codebook.probes=32",
                                          "codebook.exact_rows=10000",
                                          "codebook.width=30",
                                          "codebook.restart_every=0",
                                          "loss.commitment_groups=part",
                                          "vote.levels=7",
                                          "vote.combine=mean",
                                          "model.scale_mantissa_bits=2",
                                          "update.rule=budget",
                                          "update.rule=classic"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        TV_TRY(compare(c, options[i], "vote.bucket_bytes=3000", "vote.bucket_bytes=0"));
    // With two tables of codes and experts at once; tables on fewer ranks than there are.
    TV_TRY(compare(c, "moe.experts=12", "vote.bucket_bytes=3000", "vote.bucket_bytes=0"));
    if (tv_comm_size(c->comm) < 2)
        return TV_OK;
    return compare(c, "composite.rows=0", "parallel.table_ranks=1", "parallel.table_ranks=2");
}

// Losses that may move some of the tensors only, so that a backward has several passes.
static tv_status compare_losses(const contest *c)
{
    static const char *const options[] = {
        "train.seed=1",
        "loss.commitment_groups=part",
        "loss.commitment_groups=[codebook.down, composite.down]",
        "loss.cross_entropy_groups=[codebook.table, memgram, composite, head, block.1]",
        "loss.commitment_weight=0",
        "moe.experts=0",
        "loss.cross_entropy_groups=all",
        "update.rule=budget"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        TV_TRY(compare(c, options[i], "vote.bucket_bytes=3000", "vote.bucket_bytes=0"));
    return TV_OK;
}

// N-grams of bytes and motifs; without motifs; rows that any number of ranks shares.
static tv_status compare_grams(const contest *c)
{
    static const char *const options[] = {
        "train.seed=1",          "train.seed=2",       "codebook.rows=0",   "memgram.orders=[2, 3, 4, 5, 6, 7, 8]",
        "memgram.decay_every=1", "vote.levels=7",      "vote.combine=mean", "model.scale_mantissa_bits=2",
        "update.rule=budget",    "update.rule=classic"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        TV_TRY(compare(c, options[i], "vote.bucket_bytes=3000", "vote.bucket_bytes=0"));
    TV_TRY(compare(c, "moe.experts=12", "vote.bucket_bytes=3000", "vote.bucket_bytes=0"));
    if (tv_comm_size(c->comm) < 2)
        return TV_OK;
    return compare(c, "memgram.rows=2", "parallel.table_ranks=1", "parallel.table_ranks=2");
}

// One to three hops; lists and stores of other sizes; the index in place of the search.
static tv_status compare_graphs(const contest *c)
{
    static const char *const options[] = {"train.seed=1",         "train.seed=2",       "graph.hops=1",
                                          "graph.hops=3",         "graph.lora_rank=0",  "graph.edges_per_node=8",
                                          "graph.max_edges=2000", "graph.dense=true",   "graph.decay_every=1",
                                          "vote.levels=7",        "vote.combine=mean",  "model.scale_mantissa_bits=2",
                                          "update.rule=budget",   "update.rule=classic"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        TV_TRY(compare(c, options[i], "vote.bucket_bytes=3000", "vote.bucket_bytes=0"));
    TV_TRY(compare(c, "memgram.rows=301", "vote.bucket_bytes=3000", "vote.bucket_bytes=0"));
    TV_TRY(compare(c, "composite.rows=301", "graph.dense=false", "graph.dense=true"));
    if (tv_comm_size(c->comm) < 2)
        return TV_OK;
    return compare(c, "moe.experts=12", "parallel.table_ranks=1", "parallel.table_ranks=2");
}

// States that go on from step to step, and none; segments and cuts of other lengths.
static tv_status compare_focus(const contest *c)
{
    static const char *const options[] = {"train.seed=1",      "train.seed=2",       "focus.bptt=1",
                                          "focus.bptt=64",     "focus.segment=8",    "focus.segment=1",
                                          "data.order=random", "vote.levels=7",      "vote.combine=mean",
                                          "focus.width=33",    "update.rule=budget", "model.scale_mantissa_bits=2"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        TV_TRY(compare(c, options[i], "vote.bucket_bytes=3000", "vote.bucket_bytes=0"));
    TV_TRY(compare(c, "focus.codebook_rows=61", "vote.bucket_bytes=3000", "vote.bucket_bytes=0"));
    return compare(c, "moe.experts=12", "vote.bucket_bytes=3000", "vote.bucket_bytes=0");
}

// Images and sounds; one of the two; texts in order.
static tv_status compare_modalities(const contest *c)
{
    static const char *const options[] = {"train.seed=1",        "train.seed=2",       "data.order=stream",
                                          "model.latent_kv=16",  "vote.levels=7",      "vote.combine=mean",
                                          "update.rule=classic", "update.rule=budget", "model.scale_mantissa_bits=2",
                                          "memgram.rows=1009"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        TV_TRY(compare(c, options[i], "vote.bucket_bytes=3000", "vote.bucket_bytes=0"));
    return compare(c, "moe.experts=12", "vote.bucket_bytes=3000", "vote.bucket_bytes=0");
}

// Every part on; the commitment in a pass of its own.
static tv_status compare_full(const contest *c)
{
    static const char *const options[] = {"train.seed=1", "memgram.strength=true", "data.order=random",
                                          "loss.commitment_groups=[part]", "update.rule=budget"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        TV_TRY(compare(c, options[i], "vote.bucket_bytes=3000", "vote.bucket_bytes=0"));
    return TV_OK;
}

// The fastest backend in host memory, and the named one. Where that cannot run *usable is 0.
static tv_status open_backends(contest *c, const char *name, int *usable)
{
    int place = tv_comm_local_rank(c->comm), places = tv_comm_local_size(c->comm);
    for (const tv_backend *const *b = tv_backend_list(); *b; b++)
        if ((*b)->host_memory)
            c->host = *b;
    c->backend = c->host;
    *usable = 1;
    TV_TRY(tv_comm_agree(c->comm, c->host->open(place, places, 1)));
    if (!name)
        return TV_OK;
    tv_status st = tv_backend_find(name, &c->backend);
    if (st == TV_OK)
        st = c->backend->open(place, places, 1);
    if (tv_comm_agree(c->comm, st) != TV_OK || tv_rank_devices_check(c->comm, c->backend) != TV_OK) {
        printf("skipped: %s\n", tv_status_message());
        *usable = 0;
    }
    return TV_OK;
}

static tv_status run_all(tv_comm *comm, const char *kind, const char *name, int *usable)
{
    static const struct {
        const char *kind, *file;
        tv_status (*compare)(const contest *c);
    } kinds[] = {{"loss", "tests/data/invariance-loss.yaml", compare_losses},
                 {"moe", "tests/data/invariance-moe.yaml", compare_experts},
                 {"vq", "tests/data/invariance-vq.yaml", compare_tables},
                 {"memgram", "tests/data/invariance-memgram.yaml", compare_grams},
                 {"graph", "tests/data/invariance-graph.yaml", compare_graphs},
                 {"focus", "tests/data/invariance-focus.yaml", compare_focus},
                 {"modality", "tests/data/invariance-modality.yaml", compare_modalities},
                 {"full", "tests/data/invariance-full.yaml", compare_full},
                 {"dense", "tests/data/invariance.yaml", compare_all}};
    size_t i = 0;
    while (i + 1 < sizeof kinds / sizeof *kinds && strcmp(kind, kinds[i].kind) != 0)
        i++;
    contest c = {.comm = comm, .file = kinds[i].file};
    TV_TRY(open_backends(&c, name, usable));
    if (*usable)
        TV_TRY(kinds[i].compare(&c));
    if (*usable && c.backend != c.host)
        c.backend->close();
    c.host->close();
    return TV_OK;
}

int main(int argc, char **argv)
{
    tv_comm *comm = NULL;
    int usable = 1;
    tv_status st = tv_comm_open(&argc, &argv, &comm);
    if (st == TV_OK) {
        tv_log_init(tv_comm_rank(comm), tv_comm_size(comm), TV_LOG_INFO);
        st = tv_comm_agree(comm, run_all(comm, argc > 1 ? argv[1] : "dense", argc > 2 ? argv[2] : NULL, &usable));
    }
    if (st != TV_OK)
        tv_log_error("%s: %s", tv_status_place(), tv_status_message());
    tv_comm_close(comm);
    return st != TV_OK ? 1 : usable ? 0 : 77;
}
