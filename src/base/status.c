#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 1024, PLACE_BYTES = 96 };

static _Thread_local char last_message[MESSAGE_BYTES];
static _Thread_local char last_place[PLACE_BYTES];

typedef struct status_entry {
    const char *name, *text;
    int exit_code;
} status_entry;

static const status_entry entries[TV_STATUS_COUNT] = {
#define STATUS_ENTRY(name, exit_code, text) [TV_##name] = {#name, text, exit_code},
    TV_STATUS_LIST(STATUS_ENTRY)
#undef STATUS_ENTRY
};

// A code outside the list can only come from a wrong cast; it reads as an internal error.
static const status_entry *entry_of(tv_status status)
{
    return (unsigned)status < TV_STATUS_COUNT ? &entries[status] : &entries[TV_INTERNAL];
}

const char *tv_status_name(tv_status status) { return entry_of(status)->name; }

const char *tv_status_text(tv_status status) { return entry_of(status)->text; }

int tv_status_exit_code(tv_status status) { return entry_of(status)->exit_code; }

// Adds what fits of `text` to a message.
static void append(char message[MESSAGE_BYTES], const char *text)
{
    size_t used = strlen(message), length = strlen(text), room = MESSAGE_BYTES - 1 - used;
    if (length > room)
        length = room;
    memcpy(message + used, text, length);
    message[used + length] = '\0';
}

tv_status tv_status_set(tv_status status, const char *file, int line, const char *format, ...)
{
    // The arguments may point into the old message, so the new one is made beside it.
    char message[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    memcpy(last_message, message, sizeof message);

    const char *slash = strrchr(file, '/');
    snprintf(last_place, sizeof last_place, "%s:%d", slash ? slash + 1 : file, line);
    return status;
}

tv_status tv_status_context(tv_status status, const char *format, ...)
{
    char message[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    append(message, ": ");
    append(message, last_message);
    memcpy(last_message, message, sizeof message);
    return status;
}

const char *tv_status_message(void) { return last_message; }

const char *tv_status_place(void) { return last_place; }
