// trivote digest and trivote verify.
#include <stdio.h>

#include "args.h"
#include "command.h"
#include "io/checkpoint.h"

// Options of digest and verify: --checkpoint DIR [--json].
static tv_status parse(const char *command, int argc, char **argv, const char **dir, int *json)
{
    const tv_arg args[] = {
        {"--checkpoint", TV_ARG_TEXT, dir, "DIR", 1},
        {"--json", TV_ARG_FLAG, json, "", 0},
    };
    const tv_arg_table table = {command, args, sizeof args / sizeof *args, NULL};
    return tv_args_parse(&table, argc, argv);
}

static tv_status open_and_digest(const char *dir, char hex[TV_HASH_HEX], int64_t *step)
{
    tv_checkpoint *checkpoint = NULL;
    tv_hash128 digest;
    tv_status st = tv_checkpoint_open(dir, 1, &checkpoint);
    if (st == TV_OK)
        st = tv_checkpoint_digest(checkpoint, &digest);
    if (st == TV_OK) {
        tv_hash_format(digest, hex);
        *step = tv_checkpoint_describe(checkpoint)->step;
    }
    tv_checkpoint_close(checkpoint);
    return st;
}

tv_status tv_cmd_digest(tv_comm *comm, int argc, char **argv)
{
    const char *dir = NULL;
    char hex[TV_HASH_HEX];
    int json = 0;
    int64_t step;
    (void)comm;
    TV_TRY(parse("digest", argc, argv, &dir, &json));
    TV_TRY(open_and_digest(dir, hex, &step));
    if (json)
        printf("{\"step\": %lld, \"digest\": \"%s\"}\n", (long long)step, hex);
    else
        printf("%s\n", hex);
    return TV_OK;
}

tv_status tv_cmd_verify(tv_comm *comm, int argc, char **argv)
{
    const char *dir = NULL;
    char hex[TV_HASH_HEX];
    int json = 0;
    int64_t step;
    (void)comm;
    TV_TRY(parse("verify", argc, argv, &dir, &json));
    TV_TRY(open_and_digest(dir, hex, &step));
    if (json)
        printf("{\"valid\": true, \"step\": %lld, \"digest\": \"%s\"}\n", (long long)step, hex);
    else
        printf("valid: step=%lld digest=%s\n", (long long)step, hex);
    return TV_OK;
}
