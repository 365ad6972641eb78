// YAML into the config, by libyaml's events: they carry the line of every value, and show anchors, aliases and tags.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/config_schema.h"

#define FILE_BYTES_MAX (1 << 20) // a config is a page of text; more is another file, named by mistake

typedef struct reader {
    tv_config *config;
    const char *place; // file name, or "--set a.b=c"
    int lined;         // messages carry line numbers
    const char *text;
    size_t bytes;
    yaml_parser_t parser;
    yaml_event_t event; // the present one
    int64_t field_lines[TV_CONFIG_FIELDS_MAX],
        section_lines[TV_CONFIG_SECTIONS_MAX]; // where each was first given, 0: not yet
} reader;

static int64_t event_line(const reader *r) { return (int64_t)r->event.start_mark.line + 1; }

// Put the place in front of the message. Lack of memory has no place in a file.
static tv_status locate(const reader *r, int64_t line, tv_status st)
{
    if (st != TV_CONFIG)
        return st;
    return r->lined ? tv_status_context(st, "%s:%" PRId64, r->place, line) : tv_status_context(st, "%s", r->place);
}

#define FAIL_AT(r, line, ...) locate((r), (line), TV_FAIL(TV_CONFIG, __VA_ARGS__))

// ---- events -------------------------------------------------------------------------------------------------------

// libyaml has no line for bytes that are no UTF-8, only their offset.
static int64_t line_of_offset(const reader *r, size_t offset)
{
    int64_t line = 1;
    for (size_t i = 0; i < offset && i < r->bytes; i++)
        line += r->text[i] == '\n';
    return line;
}

static int indented_by_tab(const reader *r, int64_t line)
{
    size_t at = 0;
    while (at < r->bytes && line > 1)
        line -= r->text[at++] == '\n';
    while (at < r->bytes && r->text[at] == ' ')
        at++;
    return at < r->bytes && r->text[at] == '\t';
}

static tv_status syntax_error(const reader *r)
{
    const yaml_parser_t *p = &r->parser;
    const char *context = p->context ? p->context : "", *problem = p->problem ? p->problem : "unknown problem";
    if (p->error == YAML_MEMORY_ERROR)
        return TV_FAIL(TV_MEMORY, "no memory to read %s", r->place);
    if (p->error == YAML_READER_ERROR)
        return FAIL_AT(r, line_of_offset(r, p->problem_offset), "not valid YAML: %s; the text must be UTF-8", problem);
    int64_t line = (int64_t)p->problem_mark.line + 1;
    return FAIL_AT(r, line, "not valid YAML: %s%s%s%s", context, *context ? ", " : "", problem,
                   indented_by_tab(r, line) ? "; indent with blanks, not with tabs" : "");
}

// What the present event has of YAML that a config does without.
static tv_status refuse_extras(const reader *r)
{
    const yaml_event_t *e = &r->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (e->type == YAML_ALIAS_EVENT)
        return FAIL_AT(r, event_line(r), "aliases are not taken here; write the value instead of *%.60s",
                       e->data.alias.anchor);
    if (e->type == YAML_SCALAR_EVENT)
        anchor = e->data.scalar.anchor, tag = e->data.scalar.tag;
    else if (e->type == YAML_SEQUENCE_START_EVENT)
        anchor = e->data.sequence_start.anchor, tag = e->data.sequence_start.tag;
    else if (e->type == YAML_MAPPING_START_EVENT)
        anchor = e->data.mapping_start.anchor, tag = e->data.mapping_start.tag;
    if (anchor)
        return FAIL_AT(r, event_line(r), "anchors are not taken here; remove &%.60s", anchor);
    if (tag)
        return FAIL_AT(r, event_line(r), "tags are not taken here; remove the tag %.60s", tag);
    return TV_OK;
}

// Step to the next event.
static tv_status next(reader *r)
{
    yaml_event_delete(&r->event);
    if (!yaml_parser_parse(&r->parser, &r->event)) {
        memset(&r->event, 0, sizeof r->event);
        return syntax_error(r);
    }
    return refuse_extras(r);
}

static tv_config_scalar event_scalar(const reader *r)
{
    return (tv_config_scalar){
        .text = (const char *)r->event.data.scalar.value,
        .bytes = r->event.data.scalar.length,
        .plain = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE,
    };
}

static int event_is_null(const reader *r)
{
    tv_config_scalar scalar;
    if (r->event.type != YAML_SCALAR_EVENT)
        return 0;
    scalar = event_scalar(r);
    return tv_config_scalar_is_null(&scalar);
}

// ---- values -------------------------------------------------------------------------------------------------------

// Append the present scalar to a list of strings.
static tv_status push_item(const reader *r, const tv_config_field *field, char ***items, int64_t *count)
{
    tv_config_scalar scalar = event_scalar(r);
    TV_TRY(locate(r, event_line(r), tv_config_field_check_item(field, &scalar)));
    if (*count == TV_CONFIG_PATHS_MAX)
        return FAIL_AT(r, event_line(r), "key '%s': more than %d items", field->name, TV_CONFIG_PATHS_MAX);
    char **larger = realloc(*items, (size_t)(*count + 1) * sizeof *larger);
    if (!larger)
        return TV_FAIL(TV_MEMORY, "no memory for key '%s'", field->name);
    *items = larger;
    larger[*count] = strdup(scalar.text);
    if (!larger[*count])
        return TV_FAIL(TV_MEMORY, "no memory for key '%s'", field->name);
    *count += 1;
    return TV_OK;
}

static tv_status read_list(reader *r, const tv_config_field *field)
{
    char **items = NULL;
    int64_t count = 0, line = event_line(r);
    tv_status st;
    TV_TRY_GOTO(st, failed, next(r));
    while (r->event.type != YAML_SEQUENCE_END_EVENT) {
        if (r->event.type != YAML_SCALAR_EVENT) {
            st = FAIL_AT(r, event_line(r), "key '%s': an item must be one text, not a list or a mapping", field->name);
            goto failed;
        }
        TV_TRY_GOTO(st, failed, push_item(r, field, &items, &count));
        TV_TRY_GOTO(st, failed, next(r));
    }
    return locate(r, line, tv_config_field_set_list(r->config, field, items, count));
failed:
    for (int64_t i = 0; i < count; i++)
        free(items[i]);
    free(items);
    return st;
}

// The present event is the value of `field`; at the end it is the value's last event.
static tv_status read_value(reader *r, const tv_config_field *field)
{
    int is_list = r->event.type == YAML_SEQUENCE_START_EVENT;
    if (is_list && (field->type == TV_CONFIG_LIST || field->type == TV_CONFIG_INTS))
        return read_list(r, field);
    if (r->event.type != YAML_SCALAR_EVENT)
        return FAIL_AT(r, event_line(r), "key '%s' takes %s, not a %s", field->name,
                       field->type == TV_CONFIG_LIST   ? "a text or a list of texts"
                       : field->type == TV_CONFIG_INTS ? "a list of whole numbers"
                                                       : "one value",
                       is_list ? "list" : "mapping");
    tv_config_scalar scalar = event_scalar(r);
    return locate(r, event_line(r), tv_config_field_set(r->config, field, &scalar));
}

// ---- the document -------------------------------------------------------------------------------------------------

// The present event must be a plain name; *name stays valid until the next event.
static tv_status read_name(const reader *r, const char *what, const char **name)
{
    if (r->event.type != YAML_SCALAR_EVENT)
        return FAIL_AT(r, event_line(r), "the name of a %s must be one word", what);
    *name = (const char *)r->event.data.scalar.value;
    if (strlen(*name) != r->event.data.scalar.length)
        return FAIL_AT(r, event_line(r), "the name of a %s holds a NUL byte", what);
    return TV_OK;
}

// Remember that `name` was given here; refuse the second time.
static tv_status claim(const reader *r, const char *what, const char *name, int64_t *line)
{
    if (*line)
        return FAIL_AT(r, event_line(r), "%s '%s' is given twice, first on line %" PRId64, what, name, *line);
    *line = event_line(r);
    return TV_OK;
}

static tv_status read_key(reader *r, const char *section)
{
    const char *key = NULL;
    TV_TRY(read_name(r, "key", &key));
    const tv_config_field *field = tv_config_find(section, key);
    if (!field)
        return locate(r, event_line(r), tv_config_fail_key(section, key));
    TV_TRY(claim(r, "key", field->name, &r->field_lines[field - tv_config_fields]));
    TV_TRY(next(r));
    return read_value(r, field);
}

static tv_status read_section(reader *r)
{
    const char *name = NULL;
    TV_TRY(read_name(r, "section", &name));
    int64_t index = tv_config_find_section(name);
    if (index < 0)
        return locate(r, event_line(r), tv_config_fail_section(name));
    name = tv_config_sections[index].name; // the event's own text goes with the event
    TV_TRY(claim(r, "section", name, &r->section_lines[index]));
    TV_TRY(next(r));
    if (event_is_null(r))
        return TV_OK; // all its keys are commented out
    if (r->event.type != YAML_MAPPING_START_EVENT)
        return FAIL_AT(r, event_line(r), "section '%s' must hold keys, each as 'key: value' on an indented line", name);
    TV_TRY(next(r));
    while (r->event.type != YAML_MAPPING_END_EVENT) {
        TV_TRY(read_key(r, name));
        TV_TRY(next(r));
    }
    return TV_OK;
}

static tv_status read_root(reader *r)
{
    if (event_is_null(r))
        return TV_OK;
    if (r->event.type != YAML_MAPPING_START_EVENT)
        return FAIL_AT(r, event_line(r),
                       "a config must be made of sections, as 'train:' with its keys indented below it");
    TV_TRY(next(r));
    while (r->event.type != YAML_MAPPING_END_EVENT) {
        TV_TRY(read_section(r));
        TV_TRY(next(r));
    }
    return TV_OK;
}

// One document or none; its root is read as sections, or as the value of `field`.
static tv_status read_stream(reader *r, const tv_config_field *field)
{
    TV_TRY(next(r)); // stream start
    TV_TRY(next(r));
    if (r->event.type == YAML_STREAM_END_EVENT) {
        tv_config_scalar nothing = {"", 0, field && field->type != TV_CONFIG_TEXT};
        return field ? locate(r, 1, tv_config_field_set(r->config, field, &nothing)) : TV_OK;
    }
    TV_TRY(next(r)); // after document start
    TV_TRY(field ? read_value(r, field) : read_root(r));
    TV_TRY(next(r)); // document end
    TV_TRY(next(r));
    if (r->event.type != YAML_STREAM_END_EVENT)
        return FAIL_AT(r, event_line(r), "a second document starts here; a config is one");
    return TV_OK;
}

static tv_status read_with(reader *r, const tv_config_field *field)
{
    if (!yaml_parser_initialize(&r->parser))
        return TV_FAIL(TV_MEMORY, "no memory to read %s", r->place);
    yaml_parser_set_input_string(&r->parser, (const unsigned char *)r->text, r->bytes);
    tv_status st = read_stream(r, field);
    yaml_event_delete(&r->event);
    yaml_parser_delete(&r->parser);
    return st;
}

tv_status tv_config_read_text(tv_config *config, const char *name, const char *text, size_t bytes)
{
    reader r = {.config = config, .place = name, .lined = 1, .text = text, .bytes = bytes};
    return read_with(&r, NULL);
}

tv_status tv_config_read_file(tv_config *config, const char *path)
{
    char *text = NULL;
    tv_status st = TV_OK;
    FILE *file = fopen(path, "rb");
    if (!file)
        return TV_FAIL(TV_CONFIG, "%s: cannot open the config: %s", path, strerror(errno));
    text = malloc(FILE_BYTES_MAX + 1);
    if (!text) {
        st = TV_FAIL(TV_MEMORY, "no memory to read %s", path);
        goto done;
    }
    errno = 0;
    size_t bytes = fread(text, 1, FILE_BYTES_MAX + 1, file);
    if (ferror(file))
        st = TV_FAIL(TV_CONFIG, "%s: cannot read the config: %s", path, strerror(errno));
    else if (bytes > FILE_BYTES_MAX)
        st = TV_FAIL(TV_CONFIG, "%s: more than %d bytes, so this is no config", path, FILE_BYTES_MAX);
    else
        st = tv_config_read_text(config, path, text, bytes);
done:
    free(text);
    fclose(file);
    return st;
}

// ---- one assignment -----------------------------------------------------------------------------------------------

// The field named by the first `bytes` bytes of `name`.
static tv_status find_assigned(const char *assignment, size_t bytes, const tv_config_field **field)
{
    char name[128];
    if (bytes >= sizeof name)
        return TV_FAIL(TV_CONFIG, "the key is longer than any known one");
    memcpy(name, assignment, bytes);
    name[bytes] = '\0';
    char *dot = strchr(name, '.');
    if (!dot)
        return tv_config_fail_section(name);
    *dot = '\0';
    if (tv_config_find_section(name) < 0)
        return tv_config_fail_section(name);
    *field = tv_config_find(name, dot + 1);
    return *field ? TV_OK : tv_config_fail_key(name, dot + 1);
}

tv_status tv_config_set(tv_config *config, const char *assignment)
{
    const tv_config_field *field = NULL;
    char echo[TV_CONFIG_ECHO_BYTES], place[TV_CONFIG_ECHO_BYTES + 8];
    snprintf(place, sizeof place, "--set %s", tv_config_echo(assignment, strlen(assignment), echo));
    reader r = {.config = config, .place = place, .lined = 0};
    const char *equals = strchr(assignment, '=');
    if (!equals)
        return locate(&r, 1, TV_FAIL(TV_CONFIG, "there is no '='; write --set section.key=value"));
    TV_TRY(locate(&r, 1, find_assigned(assignment, (size_t)(equals - assignment), &field)));
    r.text = equals + 1;
    r.bytes = strlen(equals + 1);
    return read_with(&r, field);
}
