// Command-line options of a command: one table parses them and prints the usage.
#ifndef TV_ARGS_H
#define TV_ARGS_H

#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

// TV_ARG_SECONDS: a length of time above 0, as seconds or with units, d, h, m and s: "5400", "90m", "1h30m", "1.5h".
typedef enum tv_arg_kind {
    TV_ARG_FLAG,
    TV_ARG_TEXT,
    TV_ARG_INT,
    TV_ARG_FLOAT,
    TV_ARG_SECONDS,
    TV_ARG_LIST
} tv_arg_kind;

// Values of an option that may stand several times.
typedef struct tv_arg_list {
    const char **items; // malloc'd, the strings are argv's
    int64_t count;
} tv_arg_list;

typedef struct tv_arg {
    const char *name; // "--config"
    tv_arg_kind kind;
    void *value;       // int *, const char **, int64_t *, double *, double *, tv_arg_list *
    const char *place; // "FILE", for the usage line
    int required;
} tv_arg;

typedef struct tv_arg_table {
    const char *command; // "train"
    const tv_arg *args;
    int64_t count;
    tv_arg_list *operands; // words that are no option; NULL: none are allowed
} tv_arg_table;

// Parse argv[0 .. argc - 1] (what follows the command's name). "--name value" and "--name=value". Errors (TV_USAGE) name the option, the
// nearest known one, and show the usage. --help and -h print it and return TV_HELP.
tv_status tv_args_parse(const tv_arg_table *table, int argc, char **argv);
void tv_args_print_usage(const tv_arg_table *table, FILE *out);

#endif
