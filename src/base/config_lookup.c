#include <stdarg.h>
#include <string.h>

#include "base/config_schema.h"
#include "base/nearest.h"

enum { NAMES_MAX = TV_CONFIG_FIELDS_MAX, LIST_BYTES = 512 };

const tv_config_field *tv_config_find(const char *section, const char *key)
{
    for (int64_t i = 0; i < tv_config_field_count; i++)
        if (strcmp(tv_config_fields[i].section, section) == 0 && strcmp(tv_config_fields[i].key, key) == 0)
            return &tv_config_fields[i];
    return NULL;
}

int64_t tv_config_find_section(const char *section)
{
    for (int64_t i = 0; i < tv_config_section_count; i++)
        if (strcmp(tv_config_sections[i].name, section) == 0)
            return i;
    return -1;
}

// "section.key" of the field whose key is nearest to `key` (`exact`: equal to it) in `section` (NULL: in all); NULL
// when there is none.
static const char *near_key(const char *section, const char *key, int exact)
{
    const char *names[NAMES_MAX] = {0};
    const tv_config_field *fields[NAMES_MAX];
    int64_t count = 0;
    for (int64_t i = 0; i < tv_config_field_count && count < NAMES_MAX; i++) {
        const tv_config_field *field = &tv_config_fields[i];
        if ((section && strcmp(field->section, section) != 0) || (exact && strcmp(field->key, key) != 0))
            continue;
        fields[count] = field;
        names[count++] = field->key;
    }
    const char *nearest = tv_nearest(key, names, count);
    for (int64_t i = 0; nearest && i < count; i++)
        if (names[i] == nearest)
            return fields[i]->name;
    return NULL;
}

static const char *near_full_name(const char *name)
{
    const char *names[NAMES_MAX] = {0};
    int64_t count = 0;
    for (; count < tv_config_field_count && count < NAMES_MAX; count++)
        names[count] = tv_config_fields[count].name;
    return tv_nearest(name, names, count);
}

static const char *near_section(const char *section)
{
    const char *names[NAMES_MAX] = {0};
    int64_t count = 0;
    for (; count < tv_config_section_count && count < NAMES_MAX; count++)
        names[count] = tv_config_sections[count].name;
    return tv_nearest(section, names, count);
}

// Append one more word of a comma-separated list.
static void list_add(char list[LIST_BYTES], const char *word)
{
    size_t used = strlen(list);
    snprintf(list + used, LIST_BYTES - used, "%s%s", used ? ", " : "", word);
}

tv_status tv_config_fail_section(const char *section)
{
    char echo[TV_CONFIG_ECHO_BYTES], list[LIST_BYTES] = "";
    tv_config_echo(section, strlen(section), echo);
    // A key at the left border is a common slip, so it goes first.
    const char *nearest = near_key(NULL, section, 1);
    if (!nearest)
        nearest = near_section(section);
    if (!nearest)
        nearest = near_key(NULL, section, 0);
    if (nearest)
        return TV_FAIL(TV_CONFIG, "section '%s' is unknown; did you mean '%s'?", echo, nearest);
    for (int64_t i = 0; i < tv_config_section_count; i++)
        list_add(list, tv_config_sections[i].name);
    return TV_FAIL(TV_CONFIG, "section '%s' is unknown; there are: %s", echo, list);
}

tv_status tv_config_fail_key(const char *section, const char *key)
{
    char name[256], echo[TV_CONFIG_ECHO_BYTES], list[LIST_BYTES] = "";
    snprintf(name, sizeof name, "%s.%s", section, key);
    tv_config_echo(name, strlen(name), echo);
    // The right key under the wrong section, then a slip of the pen in this section, then anywhere.
    const char *nearest = near_key(NULL, key, 1);
    if (!nearest)
        nearest = near_key(section, key, 0);
    if (!nearest)
        nearest = near_full_name(name);
    if (nearest)
        return TV_FAIL(TV_CONFIG, "key '%s' is unknown; did you mean '%s'?", echo, nearest);
    for (int64_t i = 0; i < tv_config_field_count; i++)
        if (strcmp(tv_config_fields[i].section, section) == 0)
            list_add(list, tv_config_fields[i].key);
    return TV_FAIL(TV_CONFIG, "key '%s' is unknown; section '%s' has: %s", echo, section, list);
}
