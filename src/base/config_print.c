// The schema table for people: trivote help, and docs/config.md.
#include <string.h>

#include "base/config_schema.h"

enum { DEFAULT_BYTES = 64, RANGE_BYTES = 160 };

static const char *type_name(tv_config_type type)
{
    static const char *const names[] = {
        [TV_CONFIG_INT] = "int",   [TV_CONFIG_FLOAT] = "float", [TV_CONFIG_BOOL] = "bool", [TV_CONFIG_ENUM] = "word",
        [TV_CONFIG_WORD] = "word", [TV_CONFIG_TEXT] = "text",   [TV_CONFIG_LIST] = "list", [TV_CONFIG_INTS] = "list",
    };
    return names[type];
}

// The default as it may stand in a file.
static const char *default_text(const tv_config_field *field, char out[DEFAULT_BYTES])
{
    int is_list = field->type == TV_CONFIG_LIST || field->type == TV_CONFIG_INTS;
    const char *open = is_list ? "[" : field->type == TV_CONFIG_TEXT && !field->initial[0] ? "\"" : "";
    const char *close = *open == '[' ? "]" : open;
    snprintf(out, DEFAULT_BYTES, "%s%s%s", open, field->initial, close);
    return out;
}

static int starts_section(const tv_config_field *field)
{
    return field == tv_config_fields || strcmp(field->section, field[-1].section) != 0;
}

static const char *section_help(const tv_config_field *field)
{
    return tv_config_sections[tv_config_find_section(field->section)].help;
}

void tv_config_print_help(FILE *out)
{
    char initial[DEFAULT_BYTES], range[RANGE_BYTES];
    for (int64_t i = 0; i < tv_config_field_count; i++) {
        const tv_config_field *field = &tv_config_fields[i];
        if (starts_section(field))
            fprintf(out, "%s  %s: %s\n", i > 0 ? "\n" : "", field->section, section_help(field));
        tv_config_field_range(field, range, sizeof range);
        fprintf(out, "    %-28s %-5s  %-15s  %s%s%s%s\n", field->name, type_name(field->type),
                default_text(field, initial), field->help, *range ? " (" : "", range, *range ? ")" : "");
    }
}

static void print_table_head(const tv_config_field *field, FILE *out)
{
    fprintf(out, "\n## %s\n\n%s\n\n", field->section, section_help(field));
    fprintf(out, "| key | type | default | allowed | fixed | meaning |\n|---|---|---|---|---|---|\n");
}

static const char page_head[] =
    "# Configuration\n\n"
    "A config is one YAML file of sections with keys. A key that is left out has its default. Every key can also be\n"
    "set on the command line, after the file: `--set train.steps=1000`, `--set 'data.train=[a.txt, b.txt]'`.\n\n"
    "Unknown keys, keys given twice, values of another type or outside their range are errors that name the line and\n"
    "the nearest known key. A number, true and false stand without quotes; whole numbers have no leading zeros.\n"
    "Anchors, aliases, tags and further documents are not taken.\n\n"
    "`fixed`: the key is part of what defines the state's bits. It may not change when a run is resumed; all others\n"
    "may, as long as the bytes of `data.train` stay the same. `data.valid_bytes` counts as 0 when `data.valid` names\n"
    "a file.\n\n"
    "This page is written from the program's own table. The resolved config of a run lies in its folder and in each\n"
    "of its checkpoints.\n";

void tv_config_print_markdown(FILE *out)
{
    char initial[DEFAULT_BYTES], range[RANGE_BYTES];
    fputs(page_head, out);
    for (int64_t i = 0; i < tv_config_field_count; i++) {
        const tv_config_field *field = &tv_config_fields[i];
        if (starts_section(field))
            print_table_head(field, out);
        tv_config_field_range(field, range, sizeof range);
        const char *allowed = *range ? range : field->min > 0 ? "not empty" : "any";
        fprintf(out, "| `%s` | %s | `%s` | %s | %s | %s |\n", field->key, type_name(field->type),
                default_text(field, initial), allowed, field->bits ? "yes" : "", field->help);
    }
}
