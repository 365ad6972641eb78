// SIGKILL at each fail point of a save and of the pruning after it, by a thread and without: what is found afterwards is the old
// checkpoint or the whole new one.
#include "io_fixture.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"

enum { OLD_SALT = 1, NEW_SALT = 2, HITS_MOST = 200 };

static void save_new(const char *run, int background, int large)
{
    tv_comm *comm = NULL;
    tv_checkpoint_writer *writer = NULL;
    io_state state;
    tv_save_report report;
    tv_checkpoint_info info = io_info(2);
    io_state_make(&state, 0, 1, NEW_SALT);
    if (large)
        io_state_enlarge(&state);
    tv_save_args args = {.run_dir = run,
                         .info = &info,
                         .arrays = state.arrays,
                         .count = large ? IO_ARRAYS + 1 : IO_ARRAYS,
                         .background = background,
                         .keep = 1};
    if (tv_comm_open_self(&comm) != TV_OK || tv_checkpoint_writer_open(comm, TV_WRITERS_RANK, &writer) != TV_OK ||
        tv_checkpoint_save_start(writer, &args) != TV_OK || tv_checkpoint_save_finish(writer, &report) != TV_OK)
        _exit(3);
    _exit(0);
}

// Saves step 2 and prunes down to it in a child that dies when it comes to the point for the hit-th time. 1 when it died there.
static int save_in_child(const char *run, const char *point, int hit, int background, int large)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setenv("TV_FAULT", io_path("%s:hit=%d:kill", point, hit), 1);
        if (tv_fault_open(0) != TV_OK)
            _exit(2);
        save_new(run, background, large);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    int killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (!killed && status != 0)
        fail_msg("%s:hit=%d: status %d", point, hit, status);
    return killed;
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

static const struct {
    const char *name;
    int many;  // a large state's save passes it for each piece
    int after; // the new checkpoint counts already
} points[] = {
    {"save.begin", 0, 0},       {"save.mkdir", 0, 0},    {"save.create", 0, 0},  {"save.room", 0, 0},
    {"save.write", 1, 0},       {"save.fsync", 0, 0},    {"save.close", 0, 0},   {"save.reread", 1, 0},
    {"save.agree", 0, 0},       {"save.manifest", 0, 0}, {"save.list", 0, 0},    {"save.rename", 0, 0},
    {"save.sync_parent", 0, 1}, {"save.latest", 0, 1},   {"prune.rename", 0, 1}, {"prune.remove", 0, 1},
};

// How often the point was passed before the save lived on.
static int kill_at(int i, int background)
{
    for (int hit = 1; hit < HITS_MOST; hit++) {
        char *run = io_folder_new();
        io_save(run, 1, OLD_SALT);
        int killed = save_in_child(run, points[i].name, hit, background, points[i].many);
        int64_t newest = check_newest(run);
        assert_int_equal(newest, !killed || points[i].after ? 2 : 1);
        // The next run: it takes the rest away, saves the step again and goes on.
        tv_checkpoint_prune(run, 2, NULL);
        assert_int_equal(check_newest(run), newest);
        assert_int_equal(io_count_entries(run), io_exists(io_path("%s/step-000000001", run)) +
                                                    io_exists(io_path("%s/step-000000002", run)) + 1);
        if (!points[i].many || newest == 1)
            io_save(run, 2, NEW_SALT);
        assert_int_equal(check_newest(run), 2);
        io_folder_free(run);
        if (!killed)
            return hit - 1;
    }
    fail_msg("%s has no end", points[i].name);
    return 0;
}

static void test_killed(void **state)
{
    (void)state;
    for (int background = 0; background < 2; background++)
        for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
            int passed = kill_at((int)i, background);
            if (passed != (points[i].many ? IO_PIECES : 1))
                fail_msg("%s was passed %d times", points[i].name, passed);
        }
}

int main(void)
{
    tv_log_init(0, 1, TV_LOG_ERROR);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_killed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
