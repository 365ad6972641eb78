// trivote export: the weights of a checkpoint in another format.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "args.h"
#include "command.h"
#include "export.h"

static tv_status find_format(const char *name, const tv_export_format **out)
{
    const tv_export_format *const formats[] = {&tv_export_gguf, &tv_export_safetensors};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(name, formats[i]->name) == 0) {
            *out = formats[i];
            return TV_OK;
        }
    return TV_FAIL(TV_USAGE, "--format is gguf or safetensors, not '%s'", name);
}

static void print_summary(const tv_export *plan, const char *path)
{
    int64_t types[TV_EXPORT_TYPE_COUNT] = {0}, bytes = 0;
    for (int64_t i = 0; i < plan->count; i++) {
        types[plan->tensors[i].type]++;
        bytes += plan->tensors[i].bytes;
    }
    printf("%s: %" PRId64 " tensors, %" PRId64 " bytes of data (", path, plan->count, bytes);
    for (int type = 0, listed = 0; type < TV_EXPORT_TYPE_COUNT; type++)
        if (types[type])
            printf("%s%" PRId64 " %s", listed++ ? ", " : "", types[type], tv_export_type_name((tv_export_type)type));
    printf(")\n");
}

static tv_status export_checkpoint(const char *dir, const tv_export_format *format, const char *path, int force)
{
    tv_checkpoint *checkpoint = NULL;
    tv_export plan = {.tensors = NULL};
    tv_status st;
    TV_TRY_GOTO(st, done, tv_checkpoint_open(dir, 1, &checkpoint));
    TV_TRY_GOTO(st, done, tv_export_plan(checkpoint, format, &plan));
    TV_TRY_GOTO(st, done, tv_export_write(&plan, format, path, force));
    print_summary(&plan, path);
done:
    tv_export_free(&plan);
    tv_checkpoint_close(checkpoint);
    return st;
}

tv_status tv_cmd_export(tv_comm *comm, int argc, char **argv)
{
    const char *dir = NULL, *name = NULL, *path = NULL;
    int force = 0;
    const tv_export_format *format = NULL;
    const tv_arg args[] = {
        {"--checkpoint", TV_ARG_TEXT, &dir, "DIR", 1},
        {"--format", TV_ARG_TEXT, &name, "gguf|safetensors", 1},
        {"--out", TV_ARG_TEXT, &path, "FILE", 1},
        {"--force", TV_ARG_FLAG, &force, "", 0},
    };
    const tv_arg_table table = {"export", args, sizeof args / sizeof *args, NULL};
    (void)comm;
    TV_TRY(tv_args_parse(&table, argc, argv));
    TV_TRY(find_format(name, &format));
    return export_checkpoint(dir, format, path, force);
}
