// The audit: what a config costs, from the parameter table in measuring mode. Nothing is allocated for the model.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "io/checkpoint.h"

enum { VOTE_TOKENS = 16384 }; // behind a vote, for one level to be enough

typedef struct audit {
    int64_t weights;     // logical ternary weights
    int64_t state_bytes; // global, one copy
    // Persistent arrays whose type is none of the integer ones. tv_dtype has no other, so more than 0 is a broken table.
    int64_t float_tensors;
    int64_t rank_state, rank_decoded, rank_votes, rank_saved, rank_scratch; // bytes of the busiest rank (0)
    int64_t rank_host; // of the state, in host memory on every backend
    int64_t rank_copy; // of a save beside training, in host memory
    int64_t checkpoint_bytes;
    int passes;    // of a backward
    json_t *parts; // part -> weights
    json_t *kinds; // array name (T, E, ...) -> bytes
} audit;

// object[key] += amount
static tv_status add_to(json_t *object, const char *key, int64_t amount)
{
    json_int_t before = json_integer_value(json_object_get(object, key));
    if (json_object_set_new(object, key, json_integer(before + amount)) != 0)
        return TV_FAIL(TV_MEMORY, "no memory for the audit");
    return TV_OK;
}

static tv_status add_array(audit *a, const tv_state_array *array)
{
    int64_t bytes = array->rows * tv_state_row_bytes(array);
    a->state_bytes += bytes;
    a->float_tensors += array->dtype < 0 || array->dtype >= TV_DTYPE_COUNT;
    return add_to(a->kinds, array->part, bytes);
}

static tv_status measure(const tv_config *config, int ranks, audit *a)
{
    tv_model model = {0};
    tv_state_array *arrays = NULL;
    int64_t count = 0;
    tv_status st;
    int64_t tokens = config->train.unit_windows * config->model.context;
    tv_params_layout_args layout = {
        .ranks = ranks,
        .sharded = config->vote.exchange == TV_EXCHANGE_SHARDED,
        .training = 1,
        .table_ranks = (int)config->parallel.table_ranks,
        .vote_bits = config->train.units * config->vote.levels <= 127 ? 8 : 16,
    };
    TV_TRY_GOTO(st, done, tv_config_expert_ranks(config, ranks, &layout.expert_ranks));
    TV_TRY_GOTO(st, done, tv_model_create(&model, config));
    TV_TRY_GOTO(st, done, tv_model_plan(&model, &layout, tokens));
    for (int64_t i = 0; i < model.params.count; i++) {
        const tv_tensor_spec *spec = &model.params.items[i].spec;
        a->weights += spec->rows * spec->cols;
        TV_TRY_GOTO(st, done, add_to(a->parts, spec->part, spec->rows * spec->cols));
    }
    TV_TRY_GOTO(st, done, tv_params_state(&model.params, 1, NULL, 0, &arrays, &count));
    for (int64_t i = 0; i < count; i++)
        TV_TRY_GOTO(st, done, add_array(a, &arrays[i]));
    for (int64_t i = 0; config->checkpoint.async && i < count; i++)
        a->rank_copy += arrays[i].count * tv_state_row_bytes(&arrays[i]);
    a->passes = model.losses.passes;
    a->rank_state = (int64_t)model.params.state_bytes;
    a->rank_host = (int64_t)model.params.host_bytes;
    a->rank_decoded = (int64_t)model.params.decoded_bytes;
    a->rank_votes = (int64_t)model.params.vote_bytes;
    a->rank_saved = (int64_t)tv_model_saved_bytes(&model);
    a->rank_scratch = (int64_t)tv_model_scratch_bytes(&model);
    a->checkpoint_bytes = tv_checkpoint_size_bytes(arrays, count);
done:
    free(arrays);
    tv_model_free(&model);
    return st;
}

static double per_weight(const audit *a) { return a->weights ? (double)a->state_bytes / (double)a->weights : 0; }

static void print_text(const audit *a, int ranks)
{
    const char *name;
    json_t *n;
    printf("%-34s %16s\n", "part", "ternary weights");
    json_object_foreach(a->parts, name, n) printf("%-34s %16lld\n", name, (long long)json_integer_value(n));
    printf("%-34s %16lld\n\n", "all", (long long)a->weights);
    printf("%-34s %16s\n", "state", "bytes");
    json_object_foreach(a->kinds, name, n) printf("%-34s %16lld\n", name, (long long)json_integer_value(n));
    printf("%-34s %16lld\n%-34s %16.4f\n", "all", (long long)a->state_bytes, "state bytes a weight", per_weight(a));
    printf("float tensors: %lld\n\n", (long long)a->float_tensors);
    printf("%-34s %16s   (%d ranks)\n", "memory of a rank", "bytes", ranks);
    printf("%-34s %16lld\n%-34s %16lld\n%-34s %16lld\n", "state", (long long)a->rank_state, "decoded weights",
           (long long)a->rank_decoded, "votes", (long long)a->rank_votes);
    printf("%-34s %16lld\n%-34s %16lld\n\n", "saved activations, streams", (long long)a->rank_saved, "scratch",
           (long long)a->rank_scratch);
    if (a->rank_host > 0)
        printf("%-34s %16lld\n", "state, in host memory", (long long)a->rank_host);
    printf("%-34s %16lld\n", "host copy for checkpoint.async", (long long)a->rank_copy);
    printf("%-34s %16lld\n", "checkpoint, at most", (long long)a->checkpoint_bytes);
}

// An expert sees the tokens of a unit that chose it, on average top_k of n_e parts of them.
static void print_expert_note(const tv_config *config)
{
    const tv_config_moe *moe = &config->moe;
    int64_t unit = config->train.unit_windows * config->model.context;
    if (moe->experts == 0 || moe->top_k * unit / moe->experts >= VOTE_TOKENS)
        return;
    printf(
        "note: votes of an expert stand on about %lld tokens (moe.top_k %lld x %lld a unit / moe.experts %lld); %d or "
        "more learn best with levels 1\n",
        (long long)(moe->top_k * unit / moe->experts), (long long)moe->top_k, (long long)unit, (long long)moe->experts,
        VOTE_TOKENS);
}

static void print_pass_note(const audit *a)
{
    if (a->passes > 1)
        printf("note: the groups of the section loss make %d passes of the backward, which some parts run each by "
               "itself\n",
               a->passes);
}

static tv_status print_json(const audit *a, int ranks)
{
    json_t *rank = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "state", (json_int_t)a->rank_state, "host_state",
                             (json_int_t)a->rank_host, "decoded", (json_int_t)a->rank_decoded, "votes",
                             (json_int_t)a->rank_votes, "saved", (json_int_t)a->rank_saved, "scratch",
                             (json_int_t)a->rank_scratch, "save_copy", (json_int_t)a->rank_copy);
    json_t *report = json_pack("{s:I, s:O, s:O, s:f, s:I, s:i, s:o, s:I}", "weights", (json_int_t)a->weights, "parts",
                               a->parts, "state_bytes", a->kinds, "state_bytes_per_weight", per_weight(a),
                               "float_tensors", (json_int_t)a->float_tensors, "ranks", ranks, "rank_bytes", rank,
                               "checkpoint_bytes", (json_int_t)a->checkpoint_bytes);
    if (!report)
        return TV_FAIL(TV_MEMORY, "no memory for the audit");
    json_dumpf(report, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    printf("\n");
    json_decref(report);
    return TV_OK;
}

tv_status tv_audit_print(const tv_config *config, int ranks, int json)
{
    audit a = {.parts = json_object(), .kinds = json_object()};
    tv_status st = a.parts && a.kinds ? measure(config, ranks, &a) : TV_FAIL(TV_MEMORY, "no memory for the audit");
    if (st == TV_OK && json)
        st = print_json(&a, ranks);
    if (st == TV_OK && !json) {
        print_text(&a, ranks);
        print_expert_note(config);
        print_pass_note(&a);
    }
    json_decref(a.parts);
    json_decref(a.kinds);
    return st;
}
