// SIGKILL between any two steps of a save and of the pruning after it: what is found afterwards is the old checkpoint
// or the whole new one.
#include "io_fixture.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "io/checkpoint_hook.h"

enum { OLD_SALT = 1, NEW_SALT = 2, STAGES_MAX = 64 };

static int stages_left, report;

// In the child: tell the parent the stage's name, and die there when it is the one.
static void count_down(const char *stage)
{
    if (stages_left-- > 0)
        return;
    if (write(report, stage, strlen(stage)) < 0)
        _exit(2);
    raise(SIGKILL);
}

// Saves step 2 and prunes down to it in a child that dies at stage `number`. The stage's name, "" when it lived on.
static void save_in_child(const char *run, int number, char name[64])
{
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        stages_left = number;
        report = ends[1];
        tv_checkpoint_save_hook = count_down;
        io_save(run, 2, NEW_SALT);
        tv_checkpoint_prune(run, 1, NULL);
        _exit(0);
    }
    close(ends[1]);
    ssize_t length = read(ends[0], name, 63);
    close(ends[0]);
    name[length > 0 ? length : 0] = '\0';
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(name[0] ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : status == 0);
}

// The newest valid checkpoint is step 1 or 2, and holds all of that state.
static int64_t check_newest(const char *run)
{
    tv_comm *comm = NULL;
    tv_checkpoint *checkpoint = NULL;
    char *dir = NULL;
    assert_ok(tv_comm_open_self(&comm));
    assert_ok(tv_checkpoint_newest(comm, run, &dir));
    if (!dir)
        fail_msg("no checkpoint in %s is left", run);
    assert_ok(tv_checkpoint_open(dir, 1, &checkpoint));
    int64_t step = tv_checkpoint_describe(checkpoint)->step;
    assert_true(step == 1 || step == 2);
    io_state_check(checkpoint, 0, 1, step == 1 ? OLD_SALT : NEW_SALT);
    tv_checkpoint_close(checkpoint);
    free(dir);
    tv_comm_close(comm);
    return step;
}

static int is_after_publishing(const char *stage)
{
    static const char *const after[] = {"published", "parent-synced", "latest-written", "prune-renamed", "pruned"};
    for (size_t i = 0; i < sizeof after / sizeof *after; i++)
        if (strcmp(stage, after[i]) == 0)
            return 1;
    return 0;
}

static void test_killed(void **state)
{
    (void)state;
    static const char *const stages[] = {
        "start",        "folder-made",   "shard-created",    "dataset-written",   "shard-closed",
        "shard-synced", "shards-agreed", "manifest-written", "checksums-written", "folder-synced",
        "published",    "parent-synced", "latest-written",   "prune-renamed",     "pruned"};
    enum { COUNT = sizeof stages / sizeof *stages };
    int seen[COUNT] = {0}, lived = 0;
    for (int number = 0; number < STAGES_MAX && !lived; number++) {
        char *run = io_folder_new(), name[64];
        io_save(run, 1, OLD_SALT);
        save_in_child(run, number, name);
        lived = name[0] == '\0';
        for (int i = 0; i < COUNT; i++)
            seen[i] += strcmp(name, stages[i]) == 0;
        int64_t newest = check_newest(run);
        assert_int_equal(newest, lived || is_after_publishing(name) ? 2 : 1);
        // The next run: it takes the rest away, saves the step again and goes on.
        tv_checkpoint_prune(run, 2, NULL);
        assert_int_equal(check_newest(run), newest);
        assert_int_equal(io_count_entries(run), io_exists(io_path("%s/step-000000001", run)) +
                                                    io_exists(io_path("%s/step-000000002", run)) + 1);
        io_save(run, 2, NEW_SALT);
        assert_int_equal(check_newest(run), 2);
        io_folder_free(run);
    }
    assert_true(lived);
    for (int i = 0; i < COUNT; i++)
        if (seen[i] != (strcmp(stages[i], "dataset-written") == 0 ? IO_ARRAYS : 1))
            fail_msg("stage %s was reached %d times", stages[i], seen[i]);
}

int main(void)
{
    tv_log_init(0, 1, TV_LOG_ERROR);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_killed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
