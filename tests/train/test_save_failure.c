// A save that fails on one rank with something worse than a full disk ends the run on all ranks; none of them goes on into the next
// step alone and waits for ever. Started under mpirun with 2 or 3 ranks; a hang is the time-out's.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "train/loop.h"

static tv_backend failing;
static int failing_rank;

// validate runs in the check before each save: on one rank it fails.
static tv_status validate_fails(const tv_validate_args *args, void *stream)
{
    (void)args, (void)stream;
    return TV_FAIL(TV_MEMORY, "no memory on rank %d", failing_rank);
}

static tv_status make_config(tv_config *config, const char *folder)
{
    TV_TRY(tv_config_init(config));
    TV_TRY(tv_config_read_file(config, "tests/data/invariance.yaml"));
    TV_TRY(tv_config_set(config, "train.steps=6"));
    TV_TRY(tv_config_set(config, "checkpoint.every=2"));
    TV_TRY(tv_config_assign(config, "run", "dir", folder));
    return tv_config_check(config);
}

// TV_OK when every rank's run ended with an error, the failing rank's with its own.
static tv_status run(tv_comm *comm, const char *folder)
{
    const tv_backend *backend = NULL;
    tv_config config = {0};
    TV_TRY(make_config(&config, folder));
    TV_TRY(tv_backend_find("auto", &backend));
    TV_TRY(backend->open(tv_comm_local_rank(comm), tv_comm_local_size(comm), 1));
    failing = *backend;
    failing_rank = tv_comm_size(comm) - 1;
    if (tv_comm_rank(comm) == failing_rank)
        failing.validate = validate_fails;
    tv_status st = tv_train_run(&config, &(tv_train_options){"auto", 0}, comm, &failing);
    backend->close();
    tv_config_free(&config);
    tv_status wanted = tv_comm_rank(comm) == failing_rank ? TV_MEMORY : TV_REMOTE;
    if (st != wanted)
        return TV_FAIL(TV_INTERNAL, "the run ended with %s, not %s", tv_status_name(st), tv_status_name(wanted));
    return strstr(tv_status_message(), "no memory on rank") ? TV_OK : TV_FAIL(TV_INTERNAL, "the reason is lost");
}

int main(int argc, char **argv)
{
    tv_comm *comm = NULL;
    char folder[256], command[300];
    tv_status st = tv_comm_open(&argc, &argv, &comm);
    if (st == TV_OK) {
        tv_log_init(tv_comm_rank(comm), tv_comm_size(comm), TV_LOG_INFO);
        snprintf(folder, sizeof folder, "%s/trivote-save-failure-%d", P_tmpdir, tv_comm_size(comm));
        snprintf(command, sizeof command, "rm -rf '%s'", folder);
        if (tv_comm_rank(comm) == 0 && system(command) != 0)
            return 1;
        st = tv_comm_agree(comm, run(comm, folder));
        if (tv_comm_rank(comm) == 0 && system(command) != 0)
            return 1;
    }
    if (st != TV_OK)
        tv_log_error("%s: %s", tv_status_place(), tv_status_message());
    tv_comm_close(comm);
    return st == TV_OK ? 0 : 1;
}
