// trivote digest and trivote verify.
#include <stdio.h>
#include <stdlib.h>

#include "args.h"
#include "base/state.h"
#include "command.h"
#include "io/checkpoint.h"

// Row-hash sum of one whole array of the checkpoint.
static tv_status hash_array(tv_checkpoint *checkpoint, const tv_state_array *described, tv_hash128 *sum)
{
    tv_state_array whole = *described;
    whole.first_row = 0;
    whole.count = whole.rows;
    whole.data = malloc((size_t)(whole.rows * tv_state_row_bytes(&whole)) + 1);
    if (!whole.data)
        return TV_FAIL(TV_MEMORY, "no memory to read %s/%s", whole.name, whole.part);
    tv_status st = tv_checkpoint_read(checkpoint, &whole);
    if (st == TV_OK)
        tv_state_hash(&whole, 1, sum);
    free(whole.data);
    return st;
}

tv_status tv_command_digest(struct tv_checkpoint *checkpoint, tv_hash128 *digest)
{
    int64_t count;
    const tv_state_array *arrays = tv_checkpoint_arrays(checkpoint, &count);
    tv_hash128 *sums = calloc((size_t)count + 1, sizeof *sums);
    tv_status st = sums ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for the hashes of %lld arrays", (long long)count);
    for (int64_t i = 0; st == TV_OK && i < count; i++)
        st = hash_array(checkpoint, &arrays[i], &sums[i]);
    if (st == TV_OK)
        st = tv_state_digest(arrays, count, sums, digest);
    if (st == TV_OK && !tv_hash_equal(*digest, tv_checkpoint_describe(checkpoint)->digest))
        st = TV_FAIL(TV_CHECKPOINT, "the state's digest is not the manifest's; the checkpoint was changed after it was written");
    free(sums);
    return st;
}

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
        st = tv_command_digest(checkpoint, &digest);
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
    TV_TRY(tv_checkpoint_verify(dir));
    TV_TRY(open_and_digest(dir, hex, &step));
    if (json)
        printf("{\"valid\": true, \"step\": %lld, \"digest\": \"%s\"}\n", (long long)step, hex);
    else
        printf("valid: step=%lld digest=%s\n", (long long)step, hex);
    return TV_OK;
}
