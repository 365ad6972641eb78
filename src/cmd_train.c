#include <stdio.h>
#include <stdlib.h>

#include "args.h"
#include "command.h"
#include "train/loop.h"
#include "train/trainer.h"

// The resolved config, the audit's tables and the arithmetic of the batch; touches nothing.
static tv_status dry_run(const tv_config *config, tv_comm *comm)
{
    char *text = NULL, counts[256];
    const tv_config_train *train = &config->train;
    TV_TRY(tv_rank_check(train->units, tv_comm_size(comm)));
    if (tv_comm_rank(comm) != 0)
        return TV_OK;
    TV_TRY(tv_config_text(config, &text));
    printf("%s\n", text);
    free(text);
    TV_TRY(tv_audit_print(config, tv_comm_size(comm), 0));
    int64_t unit = train->unit_windows * config->model.context;
    tv_rank_counts(train->units, counts, sizeof counts);
    printf("\nbatch: %lld windows x %lld bytes = %lld bytes a unit; %lld units = %lld bytes a step; %lld steps = %lld "
           "bytes\n",
           (long long)train->unit_windows, (long long)config->model.context, (long long)unit, (long long)train->units,
           (long long)(unit * train->units), (long long)train->steps, (long long)(unit * train->units * train->steps));
    printf("ranks: %s\n", counts);
    if (unit < 16384)
        printf("note: a unit of %lld tokens stands behind a vote; 16384 or more learn best with levels 1\n",
               (long long)unit);
    return TV_OK;
}

static tv_status run(tv_comm *comm, const tv_config *config, const tv_train_options *options, int dry)
{
    const tv_backend *backend = NULL;
    if (dry)
        return dry_run(config, comm);
    TV_TRY(tv_command_backend(config->run.backend, comm, (int)config->run.threads, &backend));
    tv_status st = tv_train_run(config, options, comm, backend);
    backend->close();
    return st;
}

tv_status tv_cmd_train(tv_comm *comm, int argc, char **argv)
{
    const char *path = NULL, *folder = NULL;
    tv_train_options options = {.resume = "auto"};
    int dry = 0;
    tv_arg_list sets = {0};
    const tv_arg args[] = {
        {"--config", TV_ARG_TEXT, &path, "FILE", 1},
        {"--set", TV_ARG_LIST, &sets, "key=value", 0},
        {"--run", TV_ARG_TEXT, &folder, "DIR", 0},
        {"--resume", TV_ARG_TEXT, &options.resume, "auto|never|DIR", 0},
        {"--max-time", TV_ARG_SECONDS, &options.max_seconds, "TIME", 0},
        {"--dry-run", TV_ARG_FLAG, &dry, "", 0},
    };
    const tv_arg_table table = {"train", args, sizeof args / sizeof *args, NULL};
    tv_config config = {0};
    tv_status st = tv_args_parse(&table, argc, argv);
    if (st == TV_OK)
        st = tv_command_config(path, sets.items, sets.count, &config);
    if (st == TV_OK && folder)
        st = tv_config_assign(&config, "run", "dir", folder);
    st = tv_comm_agree(comm, st);
    if (st == TV_OK)
        st = run(comm, &config, &options, dry);
    tv_config_free(&config);
    free(sets.items);
    return st;
}
