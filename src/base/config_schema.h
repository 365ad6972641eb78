// The schema table of the configuration: one row a key. All that reads, writes, prints or hashes a config walks it.
#ifndef TV_BASE_CONFIG_SCHEMA_H
#define TV_BASE_CONFIG_SCHEMA_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/config.h"
#include "base/status.h"

#define TV_CONFIG_FIELDS_MAX 128  // rows of the table, at most
#define TV_CONFIG_SECTIONS_MAX 32 // sections, at most
#define TV_CONFIG_TEXT_MAX 4096   // bytes of one string, without its terminator

typedef enum tv_config_type {
    TV_CONFIG_INT,   // int64_t
    TV_CONFIG_FLOAT, // double
    TV_CONFIG_BOOL,  // int64_t, 0 or 1
    TV_CONFIG_ENUM,  // int64_t, the index into choices
    TV_CONFIG_WORD,  // char *, one of choices
    TV_CONFIG_TEXT,  // char *
    TV_CONFIG_LIST,  // char **, and an int64_t count at count_offset
    TV_CONFIG_INTS   // int64_t [TV_CONFIG_INTS_MAX], and an int64_t count at count_offset
} tv_config_type;

typedef struct tv_config_field {
    const char *section, *key, *name; // name: "section.key"
    tv_config_type type;
    size_t offset, count_offset; // into tv_config
    const char
        *initial;    // the default as it stands in a file, without quotes; for LIST its only item, for INTS all of them
    double min, max; // of the value; of INTS each value; for TEXT and the items of LIST of the length in bytes
    const char *const *choices; // NULL-terminated; ENUM, WORD, and INT with few allowed values
    int bits;                   // 1: defines the run's bits, so it is hashed and may not change on resume
    const char *help;           // one line
} tv_config_field;

extern const tv_config_field tv_config_fields[];
extern const int64_t tv_config_field_count;

typedef struct tv_config_section {
    const char *name, *help;
} tv_config_section;

extern const tv_config_section tv_config_sections[];
extern const int64_t tv_config_section_count;

// A value as YAML gave it: NUL-terminated, but a quoted one may hold NULs of its own within `bytes`.
typedef struct tv_config_scalar {
    const char *text;
    size_t bytes;
    int plain; // written without quotes
} tv_config_scalar;

// Plain and empty, ~ or null: YAML's way to say that there is no value.
int tv_config_scalar_is_null(const tv_config_scalar *scalar);
// The scalar for a message: cut to fit, control characters as '?'. Returns `out`.
#define TV_CONFIG_ECHO_BYTES 64
const char *tv_config_echo(const char *text, size_t bytes, char out[TV_CONFIG_ECHO_BYTES]);

// Store a value. Errors (TV_CONFIG): "key 'x.y': 'abc' is no whole number", without the place, which the caller knows.
tv_status tv_config_field_set(tv_config *config, const tv_config_field *field, const tv_config_scalar *scalar);
// LIST and INTS only: check one item; the second takes over `items` and its strings, also when it fails.
tv_status tv_config_field_check_item(const tv_config_field *field, const tv_config_scalar *scalar);
tv_status tv_config_field_set_list(tv_config *config, const tv_config_field *field, char **items, int64_t count);
// Free what a TEXT, WORD or LIST owns.
void tv_config_field_clear(tv_config *config, const tv_config_field *field);

static inline const void *tv_config_field_at(const tv_config *config, const tv_config_field *field)
{
    return (const char *)config + field->offset;
}

// Write a value that is no TEXT, WORD or LIST as it stands in a file. A float gets the fewest of 15 to 17 digits that
// read back to it.
#define TV_CONFIG_NUMBER_BYTES 40
void tv_config_field_format(const tv_config *config, const tv_config_field *field, char out[TV_CONFIG_NUMBER_BYTES]);
// "2..65536", "restart, budget, classic" or "" when any text is allowed.
void tv_config_field_range(const tv_config_field *field, char *out, size_t bytes);

// The row of a key; NULL when unknown.
const tv_config_field *tv_config_find(const char *section, const char *key);
// The section's number; -1 when unknown.
int64_t tv_config_find_section(const char *section);
// TV_CONFIG with a message that says what is unknown and what is near it, or else what is allowed.
tv_status tv_config_fail_section(const char *section);
tv_status tv_config_fail_key(const char *section, const char *key);

#endif
