#include <stdlib.h>

#include "args.h"
#include "command.h"
#include "train/trainer.h"

tv_status tv_cmd_audit(tv_comm *comm, int argc, char **argv)
{
    const char *path = NULL;
    int64_t ranks = 1;
    int json = 0;
    tv_arg_list sets = {0};
    const tv_arg args[] = {
        {"--config", TV_ARG_TEXT, &path, "FILE", 1},
        {"--set", TV_ARG_LIST, &sets, "key=value", 0},
        {"--ranks", TV_ARG_INT, &ranks, "R", 0},
        {"--json", TV_ARG_FLAG, &json, "", 0},
    };
    const tv_arg_table table = {"audit", args, sizeof args / sizeof *args, NULL};
    tv_config config = {0};
    (void)comm;
    tv_status st = tv_args_parse(&table, argc, argv);
    if (st == TV_OK)
        st = tv_command_config(path, sets.items, sets.count, &config);
    if (st == TV_OK)
        st = tv_rank_check(config.train.units, ranks);
    if (st == TV_OK)
        st = tv_audit_print(&config, (int)ranks, json);
    tv_config_free(&config);
    free(sets.items);
    return st;
}
