// The head of a GGUF file, version 3: key-values and the list of tensors. Source: docs/gguf.md of ggml.
//
//   "GGUF", u32 version, u64 tensors, u64 key-values
//   a key-value: string key, u32 type, value           string: u64 length, bytes
//   a tensor:    string name, u32 dimensions, u64 each (the fastest first), u32 type, u64 offset in the data
//   zeros up to the alignment
#include <stdlib.h>
#include <string.h>

#include "base/config_schema.h"
#include "export.h"

enum { VERSION = 3, ALIGNMENT = 32, QUANTIZATION_VERSION = 2 };
enum { U32 = 4, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9, U64 = 10, I64 = 11, F64 = 12 };

static const uint32_t ggml_types[] = {[TV_EXPORT_F32] = 0, [TV_EXPORT_F16] = 1,  [TV_EXPORT_TQ1_0] = 34,
                                      [TV_EXPORT_I8] = 24, [TV_EXPORT_I16] = 25, [TV_EXPORT_I32] = 26};

// Key-values on their way into the head, and how many there are.
typedef struct key_values {
    FILE *out;
    uint64_t count;
} key_values;

// Errors of the stream are found when it is closed.
static void put_u32(FILE *out, uint32_t value) { fwrite(&value, sizeof value, 1, out); }
static void put_u64(FILE *out, uint64_t value) { fwrite(&value, sizeof value, 1, out); }

static void put_string(FILE *out, const char *text)
{
    put_u64(out, strlen(text));
    fwrite(text, 1, strlen(text), out);
}

static void add_key(key_values *kv, const char *key, uint32_t type)
{
    put_string(kv->out, key);
    put_u32(kv->out, type);
    kv->count++;
}

static void add_string(key_values *kv, const char *key, const char *value)
{
    add_key(kv, key, STRING);
    put_string(kv->out, value);
}

static void add_u32(key_values *kv, const char *key, uint32_t value)
{
    add_key(kv, key, U32);
    put_u32(kv->out, value);
}

static void add_u64(key_values *kv, const char *key, int64_t value)
{
    add_key(kv, key, U64);
    put_u64(kv->out, (uint64_t)value);
}

static void add_f32(key_values *kv, const char *key, float value)
{
    add_key(kv, key, F32);
    fwrite(&value, sizeof value, 1, kv->out);
}

// trivote.<section>.<key> of the config.
static void add_field(key_values *kv, const tv_config *config, const tv_config_field *field)
{
    char key[128];
    const void *at = tv_config_field_at(config, field);
    snprintf(key, sizeof key, "trivote.%s", field->name);
    switch (field->type) {
    case TV_CONFIG_INT:
        add_key(kv, key, I64);
        fwrite(at, sizeof(int64_t), 1, kv->out);
        break;
    case TV_CONFIG_FLOAT:
        add_key(kv, key, F64);
        fwrite(at, sizeof(double), 1, kv->out);
        break;
    case TV_CONFIG_BOOL:
        add_key(kv, key, BOOL);
        fputc(*(const int64_t *)at != 0, kv->out);
        break;
    case TV_CONFIG_ENUM: add_string(kv, key, field->choices[*(const int64_t *)at]); break;
    case TV_CONFIG_WORD:
    case TV_CONFIG_TEXT: add_string(kv, key, *(char *const *)at); break;
    case TV_CONFIG_INTS: {
        int64_t count = *(const int64_t *)((const char *)config + field->count_offset);
        add_key(kv, key, ARRAY);
        put_u32(kv->out, I64);
        put_u64(kv->out, (uint64_t)count);
        fwrite(at, sizeof(int64_t), (size_t)count, kv->out);
        break;
    }
    case TV_CONFIG_LIST: break; // the whole config is there as text, too
    }
}

// The sections that say what the model computes.
static int is_of_model(const char *section)
{
    static const char *const sections[] = {"model", "moe", "codebook", "composite", "memgram", "graph", "focus"};
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        if (strcmp(section, sections[i]) == 0)
            return 1;
    return 0;
}

// The names that ggml's tools look for.
static void add_standard(key_values *kv, const tv_config *config)
{
    const tv_config_model *model = &config->model;
    add_u64(kv, "trivote.context_length", model->context);
    add_u64(kv, "trivote.embedding_length", model->width);
    add_u64(kv, "trivote.block_count", model->blocks);
    add_u64(kv, "trivote.feed_forward_length", model->ffn);
    add_u64(kv, "trivote.attention.head_count", model->heads);
    add_u64(kv, "trivote.rope.dimension_count", model->width / model->heads);
    add_f32(kv, "trivote.rope.freq_base", (float)model->rope_base);
    if (config->moe.experts > 0) {
        add_u32(kv, "trivote.expert_count", (uint32_t)config->moe.experts);
        add_u32(kv, "trivote.expert_used_count", (uint32_t)config->moe.top_k);
    }
}

static tv_status add_config(key_values *kv, const tv_checkpoint_info *info)
{
    tv_config config;
    TV_TRY(tv_config_init(&config));
    tv_status st =
        tv_config_read_text(&config, "the checkpoint's config", info->config_text, strlen(info->config_text));
    if (st == TV_OK)
        st = tv_config_check(&config);
    if (st == TV_OK)
        add_standard(kv, &config);
    for (int64_t i = 0; st == TV_OK && i < tv_config_field_count; i++)
        if (is_of_model(tv_config_fields[i].section))
            add_field(kv, &config, &tv_config_fields[i]);
    tv_config_free(&config);
    return st;
}

static tv_status add_key_values(key_values *kv, const tv_checkpoint_info *info)
{
    char digest[TV_HASH_HEX];
    tv_hash_format(info->digest, digest);
    add_string(kv, "general.architecture", "trivote");
    add_u32(kv, "general.alignment", ALIGNMENT);
    add_u32(kv, "general.quantization_version", QUANTIZATION_VERSION);
    TV_TRY(add_config(kv, info));
    add_string(kv, "trivote.program", info->program);
    add_string(kv, "trivote.digest", digest);
    add_u64(kv, "trivote.step", info->step);
    add_u64(kv, "trivote.bytes_seen", info->bytes_seen);
    add_string(kv, "trivote.config", info->config_text);
    return TV_OK;
}

static void put_tensor_info(FILE *out, const tv_export_tensor *tensor)
{
    put_string(out, tensor->name);
    put_u32(out, 2);
    put_u64(out, (uint64_t)tensor->cols);
    put_u64(out, (uint64_t)tensor->rows);
    put_u32(out, ggml_types[tensor->type]);
    put_u64(out, (uint64_t)tensor->offset);
}

static tv_status write_head(const tv_export *plan, FILE *out)
{
    key_values kv = {.out = NULL};
    char *text = NULL;
    size_t bytes = 0;
    kv.out = open_memstream(&text, &bytes);
    if (!kv.out)
        return TV_FAIL(TV_MEMORY, "no memory for the key-values");
    tv_status st = add_key_values(&kv, tv_checkpoint_describe(plan->checkpoint));
    int failed = ferror(kv.out) | fclose(kv.out);
    if (st == TV_OK && failed)
        st = TV_FAIL(TV_MEMORY, "no memory for the key-values");
    if (st == TV_OK) {
        fputs("GGUF", out);
        put_u32(out, VERSION);
        put_u64(out, (uint64_t)plan->count);
        put_u64(out, kv.count);
        fwrite(text, 1, bytes, out);
        for (int64_t i = 0; i < plan->count; i++)
            put_tensor_info(out, &plan->tensors[i]);
        while (ftell(out) % ALIGNMENT != 0)
            fputc(0, out);
    }
    free(text);
    return st;
}

const tv_export_format tv_export_gguf = {"gguf", 1, ALIGNMENT, write_head};
