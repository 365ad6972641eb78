// trivote: command dispatch, exit codes, one message for one error.
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/nearest.h"
#include "command.h"
#include "train/requests.h"

static tv_status cmd_version(tv_comm *comm, int argc, char **argv);
static tv_status cmd_help(tv_comm *comm, int argc, char **argv);

static const tv_command commands[] = {
    {"train", "train a model; resumes its run folder", 1, tv_cmd_train},
    {"eval", "bits per byte of a checkpoint on a text", 1, tv_cmd_eval},
    {"generate", "continue a prompt", 0, tv_cmd_generate},
    {"inspect", "what a checkpoint holds", 0, tv_cmd_inspect},
    {"report", "a run's curves and figures as one HTML page", 0, tv_cmd_report},
    {"digest", "digest of a checkpoint's state", 0, tv_cmd_digest},
    {"verify", "check every byte of a checkpoint", 0, tv_cmd_verify},
    {"export", "the weights of a checkpoint as GGUF or safetensors", 0, tv_cmd_export},
    {"audit", "weights, state bytes and memory of a config", 0, tv_cmd_audit},
    {"bench", "time the kernels, or the exchange between ranks", 1, tv_cmd_bench},
    {"version", "print the version", 0, cmd_version},
    {"help", "print the commands and all config keys", 0, cmd_help},
};
#define COMMAND_COUNT ((int64_t)(sizeof commands / sizeof *commands))

static tv_status cmd_version(tv_comm *comm, int argc, char **argv)
{
    (void)comm, (void)argc, (void)argv;
    printf("trivote %s\n", TV_VERSION);
    return TV_OK;
}

static tv_status cmd_help(tv_comm *comm, int argc, char **argv)
{
    (void)comm, (void)argc, (void)argv;
    printf("usage: trivote COMMAND [OPTION]...   (many ranks: mpirun -np N trivote ...)\n\ncommands:\n");
    for (int64_t i = 0; i < COMMAND_COUNT; i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].help);
    printf("\nexit codes: 0 ok, 1 failure, 2 usage or config, 70 a rank hangs, 74 the disk is full, "
           "75 stopped on request after saving (docs/operations.md)\n\nconfig keys:\n");
    tv_config_print_help(stdout);
    return TV_OK;
}

static tv_status find_command(const char *name, const tv_command **out)
{
    const char *names[COMMAND_COUNT];
    for (int64_t i = 0; i < COMMAND_COUNT; i++) {
        names[i] = commands[i].name;
        if (strcmp(name, names[i]) == 0) {
            *out = &commands[i];
            return TV_OK;
        }
    }
    const char *nearest = tv_nearest(name, names, COMMAND_COUNT);
    return TV_FAIL(TV_USAGE, "unknown command '%s'%s%s%s; 'trivote help' lists them", name,
                   nearest ? " (did you mean '" : "", nearest ? nearest : "", nearest ? "'?)" : "");
}

static tv_status run_command(int argc, char **argv, tv_comm *comm)
{
    const tv_command *command = NULL;
    if (argc < 2)
        return TV_FAIL(TV_USAGE, "no command given; 'trivote help' lists them");
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    if (strcmp(name, "--version") == 0)
        name = "version";
    TV_TRY(find_command(name, &command));
    if (!command->collective && tv_comm_size(comm) > 1)
        return TV_FAIL(TV_USAGE, "trivote %s runs as one process; start it without mpirun or srun", command->name);
    return command->run(comm, argc - 2, argv + 2);
}

// One error, one message: after an agreement rank 0 has it, its own or another rank's. Broken communication speaks on every rank that
// has an error of its own, since nobody else knows of it.
static int speaks(const tv_comm *comm, tv_status st)
{
    if (st == TV_OK || st == TV_HELP)
        return 0;
    if (comm == NULL || tv_comm_rank(comm) == 0 || st == TV_COMM || st == TV_HANG)
        return 1;
    return tv_comm_is_broken(comm) && st != TV_REMOTE;
}

int main(int argc, char **argv)
{
    tv_comm *comm = NULL;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1 && strcmp(argv[1], "train") == 0)
        tv_requests_install(); // before MPI, which takes its time
    tv_status st = tv_comm_open(&argc, &argv, &comm);
    if (st == TV_OK) {
        tv_log_init(tv_comm_rank(comm), tv_comm_size(comm), TV_LOG_INFO);
        st = tv_fault_open(tv_comm_rank(comm));
        if (st == TV_OK)
            st = run_command(argc, argv, comm);
        if (st == TV_OK && (fflush(stdout) != 0 || ferror(stdout)))
            st = TV_FAIL(TV_IO, "cannot write the output; is the disk full or the reader gone?");
        st = tv_comm_agree(comm, st);
    }
    if (st == TV_STOPPED)
        tv_log_info("%s", tv_status_message());
    else if (speaks(comm, st))
        tv_log_error("%s", tv_status_message());
    tv_comm_close(comm);
    return tv_status_exit_code(st);
}
