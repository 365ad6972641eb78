// The audit: what a config costs, from the parameter table in measuring mode. Nothing is allocated for the model.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "io/checkpoint.h"

#define KINDS 4
static const char *const kind_names[KINDS] = {"T", "E", "T_accum", "E_accum"};

typedef struct audit {
    int64_t weights;           // logical ternary weights
    int64_t kind_bytes[KINDS]; // global state, one copy
    int64_t float_tensors;     // persistent arrays whose type is none of the integer ones
    int64_t rank_state, rank_decoded, rank_votes, rank_saved, rank_scratch; // bytes of the busiest rank (0)
    int64_t checkpoint_bytes;
    json_t *parts; // part -> weights
} audit;

static tv_status add_part(json_t *parts, const tv_tensor_spec *spec)
{
    json_int_t before = json_integer_value(json_object_get(parts, spec->part));
    if (json_object_set_new(parts, spec->part, json_integer(before + spec->rows * spec->cols)) != 0)
        return TV_FAIL(TV_MEMORY, "no memory for the audit");
    return TV_OK;
}

static void add_array(audit *a, const tv_state_array *array)
{
    for (int k = 0; k < KINDS; k++)
        if (strcmp(array->part, kind_names[k]) == 0)
            a->kind_bytes[k] += array->rows * tv_state_row_bytes(array);
    switch (array->dtype) {
    case TV_U8:
    case TV_I8:
    case TV_I16:
    case TV_I32: return;
    case TV_DTYPE_COUNT: break;
    }
    a->float_tensors++;
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
        .vote_bits = config->train.units * config->vote.levels <= 127 ? 8 : 16,
    };
    TV_TRY_GOTO(st, done, tv_model_create(&model, config));
    TV_TRY_GOTO(st, done, tv_model_plan(&model, &layout, tokens));
    for (int64_t i = 0; i < model.params.count; i++) {
        const tv_tensor_spec *spec = &model.params.items[i].spec;
        a->weights += spec->rows * spec->cols;
        TV_TRY_GOTO(st, done, add_part(a->parts, spec));
    }
    TV_TRY_GOTO(st, done, tv_params_state(&model.params, 1, NULL, 0, &arrays, &count));
    for (int64_t i = 0; i < count; i++)
        add_array(a, &arrays[i]);
    a->rank_state = (int64_t)model.params.state_bytes;
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

static double per_weight(const audit *a)
{
    int64_t bytes = 0;
    for (int k = 0; k < KINDS; k++)
        bytes += a->kind_bytes[k];
    return a->weights ? (double)bytes / (double)a->weights : 0;
}

static void print_text(const audit *a, int ranks)
{
    const char *name;
    json_t *n;
    int64_t state = 0;
    printf("%-34s %16s\n", "part", "ternary weights");
    json_object_foreach(a->parts, name, n) printf("%-34s %16lld\n", name, (long long)json_integer_value(n));
    printf("%-34s %16lld\n\n", "all", (long long)a->weights);
    printf("%-34s %16s\n", "state", "bytes");
    for (int k = 0; k < KINDS; k++) {
        printf("%-34s %16lld\n", kind_names[k], (long long)a->kind_bytes[k]);
        state += a->kind_bytes[k];
    }
    printf("%-34s %16lld\n%-34s %16.4f\n", "all", (long long)state, "state bytes a weight", per_weight(a));
    printf("float tensors: %lld\n\n", (long long)a->float_tensors);
    printf("%-34s %16s   (%d ranks)\n", "memory of a rank", "bytes", ranks);
    printf("%-34s %16lld\n%-34s %16lld\n%-34s %16lld\n", "state", (long long)a->rank_state, "decoded weights",
           (long long)a->rank_decoded, "votes", (long long)a->rank_votes);
    printf("%-34s %16lld\n%-34s %16lld\n\n", "saved activations, streams", (long long)a->rank_saved, "scratch",
           (long long)a->rank_scratch);
    printf("%-34s %16lld\n", "checkpoint, at most", (long long)a->checkpoint_bytes);
}

static tv_status print_json(const audit *a, int ranks)
{
    json_t *kinds = json_object();
    for (int k = 0; k < KINDS; k++)
        json_object_set_new(kinds, kind_names[k], json_integer(a->kind_bytes[k]));
    json_t *rank = json_pack("{s:I, s:I, s:I, s:I, s:I}", "state", (json_int_t)a->rank_state, "decoded",
                             (json_int_t)a->rank_decoded, "votes", (json_int_t)a->rank_votes, "saved",
                             (json_int_t)a->rank_saved, "scratch", (json_int_t)a->rank_scratch);
    json_t *report = json_pack("{s:I, s:O, s:o, s:f, s:I, s:i, s:o, s:I}", "weights", (json_int_t)a->weights, "parts",
                               a->parts, "state_bytes", kinds, "state_bytes_per_weight", per_weight(a), "float_tensors",
                               (json_int_t)a->float_tensors, "ranks", ranks, "rank_bytes", rank, "checkpoint_bytes",
                               (json_int_t)a->checkpoint_bytes);
    if (!report)
        return TV_FAIL(TV_MEMORY, "no memory for the audit");
    json_dumpf(report, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    printf("\n");
    json_decref(report);
    return TV_OK;
}

tv_status tv_audit_print(const tv_config *config, int ranks, int json)
{
    audit a = {.parts = json_object()};
    tv_status st = a.parts ? measure(config, ranks, &a) : TV_FAIL(TV_MEMORY, "no memory for the audit");
    if (st == TV_OK && json)
        st = print_json(&a, ranks);
    else if (st == TV_OK)
        print_text(&a, ranks);
    json_decref(a.parts);
    return st;
}
