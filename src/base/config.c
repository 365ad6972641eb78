#include "base/config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_schema.h"

tv_status tv_config_init(tv_config *config)
{
    memset(config, 0, sizeof *config);
    for (int64_t i = 0; i < tv_config_field_count; i++) {
        const tv_config_field *field = &tv_config_fields[i];
        int quoted = field->type == TV_CONFIG_TEXT || field->type == TV_CONFIG_LIST;
        tv_config_scalar scalar = {field->initial, strlen(field->initial), !quoted};
        tv_status st = tv_config_field_set(config, field, &scalar);
        if (st != TV_OK) {
            tv_config_free(config);
            return st;
        }
    }
    return TV_OK;
}

void tv_config_free(tv_config *config)
{
    if (!config)
        return;
    for (int64_t i = 0; i < tv_config_field_count; i++)
        tv_config_field_clear(config, &tv_config_fields[i]);
    memset(config, 0, sizeof *config);
}

tv_status tv_config_assign(tv_config *config, const char *section, const char *key, const char *text)
{
    const tv_config_field *field = tv_config_find(section, key);
    if (!field)
        return TV_FAIL(TV_INTERNAL, "there is no key '%s.%s'", section, key);
    tv_config_scalar scalar = {text, strlen(text), 0};
    return tv_config_field_set(config, field, &scalar);
}

enum { BITS_BYTES = (TV_LOSS_GROUPS_MAX + 1) * (TV_LOSS_GROUP_BYTES + 1) };

static void format_list(const tv_config *config, const tv_config_field *field, char out[BITS_BYTES])
{
    char *const *items = *(char *const *const *)tv_config_field_at(config, field);
    int64_t count = *(const int64_t *)((const char *)config + field->count_offset);
    size_t used = 0;
    out[0] = '\0';
    for (int64_t i = 0; i < count && used < BITS_BYTES; i++)
        used += (size_t)snprintf(out + used, BITS_BYTES - used, "%s%s", i > 0 ? "," : "", items[i]);
}

// The value as it acts on the run's bits: with a file to validate on nothing is held out of the training text.
static void format_bits(const tv_config *config, const tv_config_field *field, char out[BITS_BYTES])
{
    if (tv_config_field_at(config, field) == (const void *)&config->data.valid_bytes && config->data.valid &&
        config->data.valid[0])
        snprintf(out, BITS_BYTES, "0");
    else if (field->type == TV_CONFIG_LIST)
        format_list(config, field, out);
    else
        tv_config_field_format(config, field, out);
}

// Keys that define the run's bits; those of parts that are off do not.
static int acts_on_bits(const tv_config *config, const tv_config_field *field)
{
    const char *section = field->section;
    char value[BITS_BYTES];
    if (strncmp(field->name, "loss.cross_entropy", 18) == 0) {
        format_bits(config, field, value);
        return strcmp(value, field->initial) != 0; // hashes from before there were such keys stay
    }
    int of_codebook =
        strcmp(section, "codebook") == 0 || strcmp(section, "composite") == 0 || strcmp(section, "loss") == 0;
    if (strcmp(section, "moe") == 0)
        return field->bits && config->moe.experts > 0;
    if (strcmp(section, "graph") == 0)
        return field->bits && config->graph.hops > 0;
    if (strcmp(section, "memgram") == 0)
        return field->bits && config->memgram.rows > 0;
    if (strcmp(section, "modality") == 0)
        return field->bits && (config->modality.image_width > 0 || config->modality.audio_width > 0);
    if (strcmp(section, "focus") == 0)
        return field->bits && config->focus.width > 0;
    if (strcmp(field->name, "data.order") == 0)
        return config->data.order != TV_ORDER_RANDOM;
    int tables = config->codebook.rows > 0 || (config->focus.width > 0 && config->focus.codebook_rows > 0);
    return field->bits && (tables || !of_codebook);
}

tv_status tv_config_hash(const tv_config *config, tv_hash128 *hash)
{
    char *text = NULL, value[BITS_BYTES];
    size_t bytes = 0;
    FILE *lines = open_memstream(&text, &bytes);
    if (!lines)
        return TV_FAIL(TV_MEMORY, "no memory to hash the config");
    for (int64_t i = 0; i < tv_config_field_count; i++)
        if (acts_on_bits(config, &tv_config_fields[i])) {
            format_bits(config, &tv_config_fields[i], value);
            fprintf(lines, "%s=%s\n", tv_config_fields[i].name, value);
        }
    int failed = ferror(lines);
    if (fclose(lines) != 0 || failed) {
        free(text);
        return TV_FAIL(TV_MEMORY, "no memory to hash the config");
    }
    *hash = tv_hash_bytes(text, bytes);
    free(text);
    return TV_OK;
}

tv_status tv_config_difference(const tv_config *config, const char *text, char *out, size_t bytes)
{
    tv_config other;
    size_t used = 0;
    if (bytes)
        out[0] = '\0';
    TV_TRY(tv_config_init(&other));
    tv_status st = tv_config_read_text(&other, "the stored config", text, strlen(text));
    for (int64_t i = 0; st == TV_OK && i < tv_config_field_count && used < bytes; i++) {
        char here[BITS_BYTES], there[BITS_BYTES];
        if (!acts_on_bits(config, &tv_config_fields[i]) && !acts_on_bits(&other, &tv_config_fields[i]))
            continue;
        format_bits(config, &tv_config_fields[i], here);
        format_bits(&other, &tv_config_fields[i], there);
        if (strcmp(here, there) != 0)
            used += (size_t)snprintf(out + used, bytes - used, "%s%s: %s here, %s there", used ? "; " : "",
                                     tv_config_fields[i].name, here, there);
    }
    tv_config_free(&other);
    return st;
}
