#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "base/pack.h"
#include "command.h"
#include "io/checkpoint.h"

#define EXPONENTS 256 // int8 values, offset 128

// What inspect tells of one ternary tensor.
typedef struct tensor_census {
    int64_t trits[3];             // -1, 0, +1
    int64_t exponents[EXPONENTS]; // by value + 128
} tensor_census;

static tv_status read_rows(tv_checkpoint *checkpoint, const tv_state_array *described, void **data)
{
    tv_state_array whole = *described;
    whole.first_row = 0;
    whole.count = whole.rows;
    *data = whole.data = malloc((size_t)(whole.rows * tv_state_row_bytes(&whole)) + 1);
    if (!*data)
        return TV_FAIL(TV_MEMORY, "no memory to read %s/%s", whole.name, whole.part);
    return tv_checkpoint_read(checkpoint, &whole, 1);
}

static tv_status count_array(tv_checkpoint *checkpoint, const tv_state_array *array, tensor_census *census)
{
    void *data = NULL;
    tv_status st = read_rows(checkpoint, array, &data);
    if (st == TV_OK && strcmp(array->part, "E") == 0) {
        for (int64_t i = 0; i < array->rows * array->cols; i++)
            census->exponents[((const int8_t *)data)[i] + 128]++;
    } else if (st == TV_OK) {
        for (int64_t row = 0; row < array->rows; row++)
            for (int64_t k = 0; k < array->logical_cols; k++) {
                uint8_t byte = ((const uint8_t *)data)[row * array->cols + k / 5];
                census->trits[tv_trit_digits[byte][k % 5]]++;
            }
    }
    free(data);
    return st;
}

static json_t *census_json(const tv_state_array *array, const tensor_census *census)
{
    json_t *exponents = json_object();
    for (int i = 0; i < EXPONENTS; i++) {
        char key[8];
        snprintf(key, sizeof key, "%d", i - 128);
        if (census->exponents[i])
            json_object_set_new(exponents, key, json_integer(census->exponents[i]));
    }
    return json_pack("{s:I, s:I, s:i, s:i, s:i, s:I, s:I, s:I, s:o}", "rows", (json_int_t)array->rows, "cols",
                     (json_int_t)array->logical_cols, "G", array->scale_group, "b", array->b, "m", array->m, "minus",
                     (json_int_t)census->trits[0], "zero", (json_int_t)census->trits[1], "plus",
                     (json_int_t)census->trits[2], "exponents", exponents);
}

// tensors[name] for every T of the checkpoint, its E found by name.
static tv_status take_census(tv_checkpoint *checkpoint, json_t *tensors)
{
    int64_t count;
    const tv_state_array *arrays = tv_checkpoint_arrays(checkpoint, &count);
    for (int64_t i = 0; i < count; i++) {
        if (strcmp(arrays[i].part, "T") != 0)
            continue;
        tensor_census census = {0};
        TV_TRY(count_array(checkpoint, &arrays[i], &census));
        for (int64_t j = 0; j < count; j++)
            if (strcmp(arrays[j].part, "E") == 0 && strcmp(arrays[j].name, arrays[i].name) == 0)
                TV_TRY(count_array(checkpoint, &arrays[j], &census));
        if (json_object_set_new(tensors, arrays[i].name, census_json(&arrays[i], &census)) != 0)
            return TV_FAIL(TV_MEMORY, "no memory for the report");
    }
    return TV_OK;
}

// Health of a table: rows that have usage, and the entropy of the codes by usage, in bits: log2 U - sum u log2 u / U, U = sum u.
static tv_status count_usage(tv_checkpoint *checkpoint, const tv_state_array *array, json_t *tables)
{
    void *data = NULL;
    int64_t used = 0, all = 0;
    double bits = 0;
    tv_status st = read_rows(checkpoint, array, &data);
    for (int64_t i = 0; st == TV_OK && i < array->rows; i++) {
        int usage = ((const int16_t *)data)[i];
        used += usage > 0;
        all += usage;
        bits += usage > 1 ? usage * log2(usage) : 0;
    }
    free(data);
    TV_TRY(st);
    json_t *table =
        json_pack("{s:I, s:I, s:I, s:f}", "rows", (json_int_t)array->rows, "rows_used", (json_int_t)used, "usage",
                  (json_int_t)all, "entropy_bits", all > 0 ? fmax(0, log2((double)all) - bits / (double)all) : 0.0);
    return json_object_set_new(tables, array->name, table) == 0 ? TV_OK
                                                                : TV_FAIL(TV_MEMORY, "no memory for the report");
}

// tables[name] for every int16 usage of the checkpoint.
static tv_status take_usage(tv_checkpoint *checkpoint, json_t *tables)
{
    int64_t count;
    const tv_state_array *arrays = tv_checkpoint_arrays(checkpoint, &count);
    for (int64_t i = 0; i < count; i++)
        if (strcmp(arrays[i].part, "usage") == 0 && arrays[i].dtype == TV_I16 && arrays[i].cols == 1)
            TV_TRY(count_usage(checkpoint, &arrays[i], tables));
    return TV_OK;
}

static void print_tables(json_t *tables)
{
    const char *name;
    json_t *table;
    if (json_object_size(tables) > 0)
        printf("\n%-28s %12s %12s %8s %14s\n", "table", "rows", "with usage", "share", "entropy, bits");
    json_object_foreach(tables, name, table)
    {
        json_int_t rows = json_integer_value(json_object_get(table, "rows"));
        json_int_t used = json_integer_value(json_object_get(table, "rows_used"));
        printf("%-28s %12lld %12lld %7.2f%% %14.3f\n", name, (long long)rows, (long long)used,
               100 * (double)used / (double)rows, json_real_value(json_object_get(table, "entropy_bits")));
    }
}

static void print_text(const tv_checkpoint_info *info, json_t *tensors, const char *digest)
{
    const char *name, *exponent;
    json_t *tensor, *n;
    printf("program   %s\nstep      %lld\nbytes     %lld\nunits     %lld\nseed      %lld\nwriters   %lld\ndigest    "
           "%s\n\n",
           info->program, (long long)info->step, (long long)info->bytes_seen, (long long)info->units,
           (long long)info->seed, (long long)info->writers, digest);
    printf("%-28s %8s %8s %7s %7s %7s  exponents\n", "tensor", "rows", "cols", "-1", "0", "+1");
    json_object_foreach(tensors, name, tensor)
    {
        double minus = (double)json_integer_value(json_object_get(tensor, "minus"));
        double zero = (double)json_integer_value(json_object_get(tensor, "zero"));
        double plus = (double)json_integer_value(json_object_get(tensor, "plus"));
        double all = minus + zero + plus > 0 ? minus + zero + plus : 1;
        printf("%-28s %8lld %8lld %6.2f%% %6.2f%% %6.2f%% ", name,
               (long long)json_integer_value(json_object_get(tensor, "rows")),
               (long long)json_integer_value(json_object_get(tensor, "cols")), 100 * minus / all, 100 * zero / all,
               100 * plus / all);
        json_object_foreach(json_object_get(tensor, "exponents"), exponent, n)
            printf(" %s:%lld", exponent, (long long)json_integer_value(n));
        printf("\n");
    }
}

static tv_status print_json(const tv_checkpoint_info *info, json_t *tensors, json_t *tables, const char *digest)
{
    json_t *report =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:O, s:O}", "program", info->program, "step",
                  (json_int_t)info->step, "bytes_seen", (json_int_t)info->bytes_seen, "units", (json_int_t)info->units,
                  "seed", (json_int_t)info->seed, "writers", (json_int_t)info->writers, "digest", digest, "config",
                  info->config_text, "tensors", tensors, "tables", tables);
    if (!report)
        return TV_FAIL(TV_MEMORY, "no memory for the report");
    json_dumpf(report, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(report);
    return TV_OK;
}

static tv_status inspect(const char *dir, int json)
{
    tv_checkpoint *checkpoint = NULL;
    json_t *tensors = json_object(), *tables = json_object();
    char hex[TV_HASH_HEX];
    tv_status st;
    TV_TRY_GOTO(st, done, tv_checkpoint_open(dir, 1, &checkpoint));
    TV_TRY_GOTO(st, done, take_census(checkpoint, tensors));
    TV_TRY_GOTO(st, done, take_usage(checkpoint, tables));
    const tv_checkpoint_info *info = tv_checkpoint_describe(checkpoint);
    tv_hash_format(info->digest, hex);
    if (json)
        st = print_json(info, tensors, tables, hex);
    else {
        print_text(info, tensors, hex);
        print_tables(tables);
    }
done:
    json_decref(tables);
    json_decref(tensors);
    tv_checkpoint_close(checkpoint);
    return st;
}

tv_status tv_cmd_inspect(tv_comm *comm, int argc, char **argv)
{
    const char *dir = NULL;
    int json = 0;
    const tv_arg args[] = {
        {"--checkpoint", TV_ARG_TEXT, &dir, "DIR", 1},
        {"--json", TV_ARG_FLAG, &json, "", 0},
    };
    const tv_arg_table table = {"inspect", args, sizeof args / sizeof *args, NULL};
    (void)comm;
    TV_TRY(tv_args_parse(&table, argc, argv));
    return inspect(dir, json);
}
