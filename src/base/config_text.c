// The resolved config as YAML, through libyaml's emitter, which knows how to quote.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/config_schema.h"

typedef struct writer {
    yaml_emitter_t emitter;
    int failed;
} writer;

static int write_bytes(void *out, unsigned char *data, size_t bytes) { return fwrite(data, 1, bytes, out) == bytes; }

// Emit the event that `made` says was made. Once something has failed, nothing more is done.
static void emit(writer *w, yaml_event_t *event, int made)
{
    if (!made || !yaml_emitter_emit(&w->emitter, event)) // emit also frees the event
        w->failed = 1;
}

static void emit_scalar(writer *w, const char *text, yaml_scalar_style_t style)
{
    yaml_event_t event;
    if (w->failed)
        return;
    emit(w, &event,
         yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)strlen(text), 1, 1, style));
}

static void emit_mapping_start(writer *w)
{
    yaml_event_t event;
    if (!w->failed)
        emit(w, &event, yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE));
}

static void emit_mapping_end(writer *w)
{
    yaml_event_t event;
    if (!w->failed)
        emit(w, &event, yaml_mapping_end_event_initialize(&event));
}

static void emit_list(writer *w, char *const *items, int64_t count)
{
    yaml_event_t event;
    if (!w->failed)
        emit(w, &event, yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_FLOW_SEQUENCE_STYLE));
    for (int64_t i = 0; i < count; i++)
        emit_scalar(w, items[i], YAML_DOUBLE_QUOTED_SCALAR_STYLE);
    if (!w->failed)
        emit(w, &event, yaml_sequence_end_event_initialize(&event));
}

static void emit_ints(writer *w, const int64_t *values, int64_t count)
{
    char text[TV_CONFIG_NUMBER_BYTES];
    yaml_event_t event;
    if (!w->failed)
        emit(w, &event, yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_FLOW_SEQUENCE_STYLE));
    for (int64_t i = 0; i < count; i++) {
        snprintf(text, sizeof text, "%" PRId64, values[i]);
        emit_scalar(w, text, YAML_PLAIN_SCALAR_STYLE);
    }
    if (!w->failed)
        emit(w, &event, yaml_sequence_end_event_initialize(&event));
}

static void emit_field(writer *w, const tv_config *config, const tv_config_field *field)
{
    char value[TV_CONFIG_NUMBER_BYTES];
    const void *at = tv_config_field_at(config, field);
    emit_scalar(w, field->key, YAML_PLAIN_SCALAR_STYLE);
    switch (field->type) {
    case TV_CONFIG_LIST:
        emit_list(w, *(char *const *const *)at, *(const int64_t *)((const char *)config + field->count_offset));
        break;
    case TV_CONFIG_INTS: emit_ints(w, at, *(const int64_t *)((const char *)config + field->count_offset)); break;
    case TV_CONFIG_TEXT: emit_scalar(w, *(char *const *)at, YAML_DOUBLE_QUOTED_SCALAR_STYLE); break;
    case TV_CONFIG_WORD: emit_scalar(w, *(char *const *)at, YAML_PLAIN_SCALAR_STYLE); break;
    default: tv_config_field_format(config, field, value); emit_scalar(w, value, YAML_PLAIN_SCALAR_STYLE);
    }
}

static void emit_config(writer *w, const tv_config *config)
{
    yaml_event_t event;
    emit(w, &event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING));
    if (!w->failed)
        emit(w, &event, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1));
    emit_mapping_start(w);
    for (int64_t i = 0; i < tv_config_field_count; i++) {
        const tv_config_field *field = &tv_config_fields[i];
        if (i == 0 || strcmp(field->section, field[-1].section) != 0) {
            if (i > 0)
                emit_mapping_end(w);
            emit_scalar(w, field->section, YAML_PLAIN_SCALAR_STYLE);
            emit_mapping_start(w);
        }
        emit_field(w, config, field);
    }
    emit_mapping_end(w);
    emit_mapping_end(w);
    if (!w->failed)
        emit(w, &event, yaml_document_end_event_initialize(&event, 1));
    if (!w->failed)
        emit(w, &event, yaml_stream_end_event_initialize(&event));
}

// Texts that the emitter cannot write come from a caller that set bytes which are no UTF-8; YAML gives none.
static tv_status emit_failure(const yaml_emitter_t *emitter)
{
    if (emitter->error == YAML_EMITTER_ERROR)
        return TV_FAIL(TV_CONFIG, "the config cannot be written as YAML: %s", emitter->problem);
    return TV_FAIL(TV_MEMORY, "no memory to write the config");
}

tv_status tv_config_text(const tv_config *config, char **text)
{
    writer w = {.failed = 0};
    char *out = NULL;
    size_t bytes = 0;
    *text = NULL;
    FILE *stream = open_memstream(&out, &bytes);
    if (!stream)
        return TV_FAIL(TV_MEMORY, "no memory to write the config");
    tv_status st = TV_OK;
    if (!yaml_emitter_initialize(&w.emitter)) {
        st = TV_FAIL(TV_MEMORY, "no memory to write the config");
    } else {
        yaml_emitter_set_output(&w.emitter, write_bytes, stream);
        yaml_emitter_set_unicode(&w.emitter, 1);
        yaml_emitter_set_width(&w.emitter, -1); // never fold
        emit_config(&w, config);
        if (w.failed)
            st = emit_failure(&w.emitter);
        yaml_emitter_delete(&w.emitter);
    }
    if (fclose(stream) != 0 && st == TV_OK)
        st = TV_FAIL(TV_MEMORY, "no memory to write the config");
    if (st == TV_OK)
        *text = out;
    else
        free(out);
    return st;
}
