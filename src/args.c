#include "args.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"

static void usage_text(const tv_arg_table *table, char *text, size_t bytes)
{
    size_t used = (size_t)snprintf(text, bytes, "trivote %s", table->command);
    for (int64_t i = 0; i < table->count && used < bytes; i++) {
        const tv_arg *a = &table->args[i];
        const char *open = a->required ? "" : "[", *close = a->required ? "" : "]";
        used += (size_t)snprintf(text + used, bytes - used, " %s%s%s%s%s%s", open, a->name,
                                 a->kind == TV_ARG_FLAG ? "" : " ", a->kind == TV_ARG_FLAG ? "" : a->place, close,
                                 a->kind == TV_ARG_LIST ? "..." : "");
    }
    if (table->operands && used < bytes)
        snprintf(text + used, bytes - used, " NAME...");
}

void tv_args_print_usage(const tv_arg_table *table, FILE *out)
{
    char text[1024];
    usage_text(table, text, sizeof text);
    fprintf(out, "usage: %s\n", text);
}

static tv_status fail_unknown(const tv_arg_table *table, const char *name)
{
    const char *names[32];
    char text[768];
    int64_t count = 0;
    for (; count < table->count && count < 32; count++)
        names[count] = table->args[count].name;
    const char *nearest = tv_nearest(name, names, count);
    usage_text(table, text, sizeof text);
    return TV_FAIL(TV_USAGE, "unknown option %s%s%s%s; usage: %s", name, nearest ? " (did you mean " : "",
                   nearest ? nearest : "", nearest ? "?)" : "", text);
}

static tv_status push(tv_arg_list *list, const char *text)
{
    const char **items = realloc(list->items, (size_t)(list->count + 1) * sizeof *items);
    if (!items)
        return TV_FAIL(TV_MEMORY, "no memory for the arguments");
    items[list->count++] = text;
    list->items = items;
    return TV_OK;
}

// Sum of numbers with units; one number alone may go without. 0 when the text is none.
static double read_seconds(const char *text)
{
    double sum = 0;
    const char *at = text;
    while (*at) {
        char *end = NULL;
        double x = strtod(at, &end);
        double unit = *end == 'd' ? 86400 : *end == 'h' ? 3600 : *end == 'm' ? 60 : *end == 's' ? 1 : 0;
        if (end == at || !(x >= 0 && x <= 1e9))
            return 0;
        if (*end == '\0' && at == text)
            return x;
        if (unit == 0)
            return 0;
        sum += x * unit;
        at = end + 1;
    }
    return sum;
}

static tv_status store(const tv_arg *arg, const char *text)
{
    char *end = NULL;
    errno = 0;
    switch (arg->kind) {
    case TV_ARG_TEXT: *(const char **)arg->value = text; return TV_OK;
    case TV_ARG_LIST: return push(arg->value, text);
    case TV_ARG_INT: {
        long long n = strtoll(text, &end, 10);
        if (errno || end == text || *end)
            return TV_FAIL(TV_USAGE, "%s takes a whole number, not '%s'", arg->name, text);
        *(int64_t *)arg->value = n;
        return TV_OK;
    }
    case TV_ARG_FLOAT: {
        double x = strtod(text, &end);
        if (end == text || *end || !isfinite(x))
            return TV_FAIL(TV_USAGE, "%s takes a number, not '%s'", arg->name, text);
        *(double *)arg->value = x;
        return TV_OK;
    }
    case TV_ARG_SECONDS:
        *(double *)arg->value = read_seconds(text);
        if (*(double *)arg->value > 0)
            return TV_OK;
        return TV_FAIL(TV_USAGE, "%s takes a time such as 3h, 45m, 1h30m or a number of seconds, not '%s'", arg->name,
                       text);
    case TV_ARG_FLAG: break;
    }
    return TV_FAIL(TV_INTERNAL, "option %s has no kind", arg->name);
}

static const tv_arg *find(const tv_arg_table *table, const char *word, size_t length)
{
    for (int64_t i = 0; i < table->count; i++)
        if (strlen(table->args[i].name) == length && memcmp(table->args[i].name, word, length) == 0)
            return &table->args[i];
    return NULL;
}

// One option at argv[*i]; moves *i past its value.
static tv_status parse_option(const tv_arg_table *table, int argc, char **argv, int *i)
{
    const char *word = argv[*i], *equals = strchr(word, '=');
    const tv_arg *arg = find(table, word, equals ? (size_t)(equals - word) : strlen(word));
    if (!arg)
        return fail_unknown(table, word);
    if (arg->kind == TV_ARG_FLAG) {
        if (equals)
            return TV_FAIL(TV_USAGE, "%s takes no value", arg->name);
        *(int *)arg->value = 1;
        return TV_OK;
    }
    if (!equals && *i + 1 >= argc)
        return TV_FAIL(TV_USAGE, "%s needs a value: %s %s", arg->name, arg->name, arg->place);
    return store(arg, equals ? equals + 1 : argv[++*i]);
}

static tv_status check_required(const tv_arg_table *table)
{
    for (int64_t i = 0; i < table->count; i++) {
        const tv_arg *arg = &table->args[i];
        if (arg->required && arg->kind == TV_ARG_TEXT && !*(const char **)arg->value) {
            char text[768];
            usage_text(table, text, sizeof text);
            return TV_FAIL(TV_USAGE, "%s %s is missing; usage: %s", arg->name, arg->place, text);
        }
    }
    return TV_OK;
}

tv_status tv_args_parse(const tv_arg_table *table, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            tv_args_print_usage(table, stdout);
            return TV_HELP;
        }
        if (strncmp(argv[i], "--", 2) == 0)
            TV_TRY(parse_option(table, argc, argv, &i));
        else if (table->operands)
            TV_TRY(push(table->operands, argv[i]));
        else
            return fail_unknown(table, argv[i]);
    }
    return check_required(table);
}
