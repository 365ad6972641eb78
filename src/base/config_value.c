// One value of the schema table: from YAML's text into the struct, and back.
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_schema.h"
#include "base/nearest.h"

enum { CHOICES_MAX = 16, RANGE_BYTES = 160 };

int tv_config_scalar_is_null(const tv_config_scalar *scalar)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; scalar->plain && i < sizeof nulls / sizeof *nulls; i++)
        if (strcmp(scalar->text, nulls[i]) == 0)
            return 1;
    return 0;
}

const char *tv_config_echo(const char *text, size_t bytes, char out[TV_CONFIG_ECHO_BYTES])
{
    const size_t room = TV_CONFIG_ECHO_BYTES - 4; // for "..." and the terminator
    size_t length = bytes < room ? bytes : room;
    while (length < bytes && length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80)
        length--; // never cut a character of UTF-8 in two
    for (size_t i = 0; i < length; i++)
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7F ? '?' : text[i];
    snprintf(out + length, 4, "%s", length < bytes ? "..." : "");
    return out;
}

static void join_choices(const char *const *choices, char *out, size_t bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (; *choices && used < bytes; choices++)
        used += (size_t)snprintf(out + used, bytes - used, "%s%s", used ? ", " : "", *choices);
}

void tv_config_field_range(const tv_config_field *field, char *out, size_t bytes)
{
    out[0] = '\0';
    if (field->choices)
        join_choices(field->choices, out, bytes);
    else if (field->type == TV_CONFIG_BOOL)
        snprintf(out, bytes, "true, false");
    else if (field->type == TV_CONFIG_INT || field->type == TV_CONFIG_INTS)
        snprintf(out, bytes, "%" PRId64 "..%" PRId64, (int64_t)field->min, (int64_t)field->max);
    else if (field->type == TV_CONFIG_FLOAT)
        snprintf(out, bytes, "%.15g..%.15g", field->min, field->max);
}

// "key 'x.y': <problem>", the value named in it.
static tv_status fail_type(const tv_config_field *field, const tv_config_scalar *scalar, const char *wanted)
{
    char echo[TV_CONFIG_ECHO_BYTES];
    return TV_FAIL(TV_CONFIG, "key '%s': %s%s%s is no %s", field->name, scalar->plain ? "'" : "the quoted text \"",
                   tv_config_echo(scalar->text, scalar->bytes, echo), scalar->plain ? "'" : "\"", wanted);
}

static tv_status fail_range(const tv_config_field *field, const char *text)
{
    char range[RANGE_BYTES], echo[TV_CONFIG_ECHO_BYTES];
    tv_config_field_range(field, range, sizeof range);
    return TV_FAIL(TV_CONFIG, "key '%s': %s is outside %s", field->name, tv_config_echo(text, strlen(text), echo),
                   range);
}

static tv_status fail_choice(const tv_config_field *field, const tv_config_scalar *scalar)
{
    char list[RANGE_BYTES], echo[TV_CONFIG_ECHO_BYTES];
    int64_t count = 0;
    while (field->choices[count])
        count++;
    const char *nearest = field->type == TV_CONFIG_INT ? NULL : tv_nearest(scalar->text, field->choices, count);
    join_choices(field->choices, list, sizeof list);
    return TV_FAIL(TV_CONFIG, "key '%s': '%s' is none of %s%s%s%s", field->name,
                   tv_config_echo(scalar->text, scalar->bytes, echo), list, nearest ? "; did you mean '" : "",
                   nearest ? nearest : "", nearest ? "'?" : "");
}

static int64_t find_choice(const char *const *choices, const char *text)
{
    for (int64_t i = 0; choices[i]; i++)
        if (strcmp(choices[i], text) == 0)
            return i;
    return -1;
}

// Length of [+-]?digits. A leading zero is not taken: YAML 1.1 reads it as octal, YAML 1.2 as decimal.
static size_t match_int(const char *text)
{
    size_t sign = text[0] == '-' || text[0] == '+', digits = strspn(text + sign, "0123456789");
    return digits == 0 || (digits > 1 && text[sign] == '0') ? 0 : sign + digits;
}

// Whether the whole text is [+-]?(digits)(.digits?)?([eE][+-]?digits)? or the same without digits before the point.
static int match_float(const char *text)
{
    static const char digits[] = "0123456789";
    text += *text == '-' || *text == '+';
    size_t whole = strspn(text, digits), fraction = 0;
    text += whole;
    if (*text == '.') {
        fraction = strspn(text + 1, digits);
        text += 1 + fraction;
    }
    if (whole + fraction == 0)
        return 0;
    if (*text == 'e' || *text == 'E') {
        text += 1 + (text[1] == '-' || text[1] == '+');
        size_t exponent = strspn(text, digits);
        if (exponent == 0)
            return 0;
        text += exponent;
    }
    return *text == '\0';
}

static tv_status parse_int(const tv_config_field *field, const tv_config_scalar *scalar, int64_t *out)
{
    size_t length = match_int(scalar->text);
    if (!scalar->plain || length == 0 || length != scalar->bytes)
        return fail_type(field, scalar, "whole number");
    if (field->choices && find_choice(field->choices, scalar->text) < 0)
        return fail_choice(field, scalar);
    errno = 0;
    long long value = strtoll(scalar->text, NULL, 10);
    if (errno == ERANGE || value < (int64_t)field->min || value > (int64_t)field->max)
        return fail_range(field, scalar->text);
    *out = value;
    return TV_OK;
}

static tv_status parse_float(const tv_config_field *field, const tv_config_scalar *scalar, double *out)
{
    if (!scalar->plain || strlen(scalar->text) != scalar->bytes || !match_float(scalar->text))
        return fail_type(field, scalar, "number");
    double value = strtod(scalar->text, NULL);
    if (!isfinite(value) || value < field->min || value > field->max)
        return fail_range(field, scalar->text);
    *out = value == 0 ? 0 : value; // no -0, which would print and hash in a way of its own
    return TV_OK;
}

// 1 when the text is well-formed UTF-8 (RFC 3629): YAML holds nothing else.
static int is_utf8(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    while (*p) {
        int more = *p < 0x80                 ? 0
                   : *p >= 0xC2 && *p < 0xE0 ? 1
                   : *p >= 0xE0 && *p < 0xF0 ? 2
                   : *p >= 0xF0 && *p < 0xF5 ? 3
                                             : -1;
        unsigned low = *p == 0xE0   ? 0xA0
                       : *p == 0xF0 ? 0x90
                                    : 0x80,
                 high = *p == 0xED   ? 0x9F
                        : *p == 0xF4 ? 0x8F
                                     : 0xBF;
        if (more < 0)
            return 0;
        for (p++; more > 0; more--, p++, low = 0x80, high = 0xBF)
            if (*p < low || *p > high)
                return 0;
    }
    return 1;
}

static tv_status check_text(const tv_config_field *field, const tv_config_scalar *scalar)
{
    if (tv_config_scalar_is_null(scalar))
        return TV_FAIL(TV_CONFIG, "key '%s' has no value; write \"\" for an empty text", field->name);
    if (strlen(scalar->text) != scalar->bytes)
        return TV_FAIL(TV_CONFIG, "key '%s': the text holds a NUL byte", field->name);
    if (!is_utf8(scalar->text))
        return TV_FAIL(TV_CONFIG, "key '%s': the text is not UTF-8", field->name);
    if (scalar->bytes < (size_t)field->min)
        return TV_FAIL(TV_CONFIG, "key '%s' must not be empty", field->name);
    if (scalar->bytes > (size_t)field->max)
        return TV_FAIL(TV_CONFIG, "key '%s': a text of %zu bytes; at most %d are allowed", field->name, scalar->bytes,
                       (int)field->max);
    return TV_OK;
}

static tv_status replace_text(char **slot, const char *text)
{
    char *copy = strdup(text);
    if (!copy)
        return TV_FAIL(TV_MEMORY, "no memory for a text of the config");
    free(*slot);
    *slot = copy;
    return TV_OK;
}

static tv_status set_choice(const tv_config_field *field, const tv_config_scalar *scalar, void *at)
{
    int64_t index = strlen(scalar->text) == scalar->bytes ? find_choice(field->choices, scalar->text) : -1;
    if (index < 0)
        return fail_choice(field, scalar);
    if (field->type == TV_CONFIG_WORD)
        return replace_text(at, field->choices[index]);
    *(int64_t *)at = index;
    return TV_OK;
}

static tv_status set_single_item(tv_config *config, const tv_config_field *field, const tv_config_scalar *scalar)
{
    TV_TRY(check_text(field, scalar));
    char **items = calloc(1, sizeof *items);
    if (!items)
        return TV_FAIL(TV_MEMORY, "no memory for key '%s'", field->name);
    tv_status st = replace_text(items, scalar->text);
    if (st == TV_OK)
        return tv_config_field_set_list(config, field, items, 1);
    free(items);
    return st;
}

// One number, or several with commas between them as the schema's default has them.
static tv_status parse_ints(tv_config *config, const tv_config_field *field, const tv_config_scalar *scalar)
{
    int64_t *values = (int64_t *)((char *)config + field->offset), parsed[TV_CONFIG_INTS_MAX], count = 0;
    char item[TV_CONFIG_ECHO_BYTES];
    const char *at = scalar->text, *end = at + scalar->bytes;
    for (; at <= end && count < TV_CONFIG_INTS_MAX; count++) {
        size_t length = strcspn(at, ","), kept = length < sizeof item ? length : sizeof item - 1;
        snprintf(item, sizeof item, "%.*s", (int)kept, at);
        tv_config_scalar one = {item, length, scalar->plain};
        TV_TRY(parse_int(field, &one, &parsed[count]));
        at += length + 1 + strspn(at + length + (at + length < end), " ");
    }
    if (at <= end)
        return TV_FAIL(TV_CONFIG, "key '%s': more than %d items", field->name, TV_CONFIG_INTS_MAX);
    memcpy(values, parsed, (size_t)count * sizeof *values);
    *(int64_t *)((char *)config + field->count_offset) = count;
    return TV_OK;
}

tv_status tv_config_field_set(tv_config *config, const tv_config_field *field, const tv_config_scalar *scalar)
{
    void *at = (char *)config + field->offset;
    switch (field->type) {
    case TV_CONFIG_INT: return parse_int(field, scalar, at);
    case TV_CONFIG_FLOAT: return parse_float(field, scalar, at);
    case TV_CONFIG_BOOL:
        if (!scalar->plain || (strcmp(scalar->text, "true") != 0 && strcmp(scalar->text, "false") != 0))
            return fail_type(field, scalar, "truth value; write true or false");
        *(int64_t *)at = scalar->text[0] == 't';
        return TV_OK;
    case TV_CONFIG_ENUM:
    case TV_CONFIG_WORD: return set_choice(field, scalar, at);
    case TV_CONFIG_TEXT: TV_TRY(check_text(field, scalar)); return replace_text(at, scalar->text);
    case TV_CONFIG_LIST: return set_single_item(config, field, scalar);
    case TV_CONFIG_INTS: return parse_ints(config, field, scalar);
    }
    return TV_FAIL(TV_INTERNAL, "key '%s' has no type", field->name);
}

tv_status tv_config_field_check_item(const tv_config_field *field, const tv_config_scalar *scalar)
{
    int64_t value;
    return field->type == TV_CONFIG_INTS ? parse_int(field, scalar, &value) : check_text(field, scalar);
}

static void free_items(char **items, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        free(items[i]);
    free(items);
}

void tv_config_field_clear(tv_config *config, const tv_config_field *field)
{
    void *at = (char *)config + field->offset;
    if (field->type == TV_CONFIG_LIST) {
        int64_t *count = (int64_t *)((char *)config + field->count_offset);
        free_items(*(char ***)at, *count);
        *(char ***)at = NULL;
        *count = 0;
    } else if (field->type == TV_CONFIG_TEXT || field->type == TV_CONFIG_WORD) {
        free(*(char **)at);
        *(char **)at = NULL;
    }
}

// The items have been checked one by one.
static tv_status set_ints(tv_config *config, const tv_config_field *field, char **items, int64_t count)
{
    int64_t *values = (int64_t *)((char *)config + field->offset);
    if (count > TV_CONFIG_INTS_MAX) {
        free_items(items, count);
        return TV_FAIL(TV_CONFIG, "key '%s': more than %d items", field->name, TV_CONFIG_INTS_MAX);
    }
    for (int64_t i = 0; i < count; i++)
        values[i] = strtoll(items[i], NULL, 10);
    *(int64_t *)((char *)config + field->count_offset) = count;
    free_items(items, count);
    return TV_OK;
}

tv_status tv_config_field_set_list(tv_config *config, const tv_config_field *field, char **items, int64_t count)
{
    char ***list = (char ***)((char *)config + field->offset);
    int64_t *list_count = (int64_t *)((char *)config + field->count_offset);
    if (count < 1) {
        free_items(items, count);
        return TV_FAIL(TV_CONFIG, "key '%s': the list is empty; it needs at least one item", field->name);
    }
    if (field->type == TV_CONFIG_INTS)
        return set_ints(config, field, items, count);
    tv_config_field_clear(config, field);
    *list = items;
    *list_count = count;
    return TV_OK;
}

static void format_ints(const tv_config *config, const tv_config_field *field, char out[TV_CONFIG_NUMBER_BYTES])
{
    const int64_t *values = tv_config_field_at(config, field);
    int64_t count = *(const int64_t *)((const char *)config + field->count_offset);
    size_t used = 0;
    for (int64_t i = 0; i < count && used < TV_CONFIG_NUMBER_BYTES; i++)
        used +=
            (size_t)snprintf(out + used, TV_CONFIG_NUMBER_BYTES - used, "%s%" PRId64, i > 0 ? ", " : "[", values[i]);
    if (used < TV_CONFIG_NUMBER_BYTES)
        snprintf(out + used, TV_CONFIG_NUMBER_BYTES - used, "]");
}

void tv_config_field_format(const tv_config *config, const tv_config_field *field, char out[TV_CONFIG_NUMBER_BYTES])
{
    const void *at = tv_config_field_at(config, field);
    if (field->type == TV_CONFIG_INTS) {
        format_ints(config, field, out);
        return;
    }
    if (field->type == TV_CONFIG_FLOAT) {
        double value = *(const double *)at;
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(out, TV_CONFIG_NUMBER_BYTES, "%.*g", digits, value);
            if (strtod(out, NULL) == value)
                return;
        }
        return;
    }
    int64_t value = *(const int64_t *)at;
    if (field->type == TV_CONFIG_ENUM)
        snprintf(out, TV_CONFIG_NUMBER_BYTES, "%s", field->choices[value]);
    else if (field->type == TV_CONFIG_BOOL)
        snprintf(out, TV_CONFIG_NUMBER_BYTES, "%s", value ? "true" : "false");
    else
        snprintf(out, TV_CONFIG_NUMBER_BYTES, "%" PRId64, value);
}
