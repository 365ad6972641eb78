// A full disk at any byte of a save: an error, nothing half-done, the process lives on and can save later.
#include "io_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"

enum { CHILD_SKIPS = 77 };

// Runs `work` in a child that must end by itself: HDF5's exit is part of what is tested, so the child uses exit.
static int in_child(void (*work)(const char *run), const char *run)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        work(run);
        exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status))
        fail_msg("the child died of signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

// In the child: cmocka's asserts would run the parent's later tests, so a broken claim ends the process.
static void claim(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "%s: %s\n", what, tv_status_message());
    _exit(1);
}

static tv_status save_state(const char *run, int64_t step, int large)
{
    tv_comm *comm = NULL;
    io_state state;
    tv_checkpoint_info info = io_info(step);
    claim(tv_comm_open_self(&comm) == TV_OK, "communicator");
    io_state_make(&state, 0, 1, (int)step);
    if (large)
        io_state_enlarge(&state);
    tv_status st = tv_checkpoint_save(comm, run, &info, state.arrays, large ? IO_ARRAYS + 1 : IO_ARRAYS);
    io_state_free(&state);
    tv_comm_close(comm);
    return st;
}

static tv_status save(const char *run, int64_t step) { return save_state(run, step, 0); }

static tv_status save_large(const char *run, int64_t step) { return save_state(run, step, 1); }

static int64_t size_of(const char *path)
{
    struct stat about;
    claim(stat(path, &about) == 0, path);
    return about.st_size;
}

static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;
    claim(getrlimit(RLIMIT_FSIZE, &limit) == 0, "getrlimit");
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    claim(setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit");
}

// The limit moves over the whole length of the shard; smaller files then fit or not.
static void save_under_limits(const char *run)
{
    enum { LIMITS = 40 };
    signal(SIGXFSZ, SIG_IGN);
    claim(save(run, 1) == TV_OK, "first save");
    int64_t size = size_of(io_path("%s/step-000000001/shard-00000-of-00001.h5", run));
    for (int i = 0; i <= LIMITS; i++) {
        rlim_t limit = (rlim_t)(i == LIMITS ? size - 1 : size * i / LIMITS);
        limit_file_size(limit);
        tv_status st = save(run, 2);
        claim(st == TV_IO && strstr(tv_status_message(), "File too large"), "save under a limit");
        claim(io_count_entries(run) == 2, "only step 1 and latest are there");
    }
    limit_file_size(RLIM_INFINITY);
    claim(tv_checkpoint_verify(io_path("%s/step-000000001", run)) == TV_OK, "step 1 is untouched");
    claim(save(run, 2) == TV_OK, "save after the limit is gone");
    claim(tv_checkpoint_verify(io_path("%s/step-000000002", run)) == TV_OK, "step 2 is valid");
}

static void test_file_size_limit(void **state)
{
    (void)state;
    char *run = io_folder_new();
    assert_int_equal(in_child(save_under_limits, run), 0);
    io_folder_free(run);
}

static void set_fault(const char *text)
{
    setenv("TV_FAULT", text, 1);
    claim(tv_fault_open(0) == TV_OK, text);
}

static int tells_bytes(void)
{
    const char *needs = strstr(tv_status_message(), "the checkpoint needs up to ");
    return needs && strstr(needs, " bytes and ") && strstr(needs, " are free");
}

// No room at every point of a save that touches the disk, and at every single write: the old checkpoint stays, nothing else does, the
// message has the figures.
static void save_with_faults(const char *run)
{
    static const char *const points[] = {"save.mkdir", "save.create",   "save.room", "save.write", "save.close",
                                         "save.fsync", "save.manifest", "save.list", "save.rename"};
    int writes = 0;
    claim(save_large(run, 1) == TV_OK, "first save");
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        for (int hit = 1, failed = 1; failed; hit++) {
            set_fault(io_path("%s:hit=%d:errno=%s", points[i], hit, hit % 2 ? "ENOSPC" : "EDQUOT"));
            tv_status st = save_large(run, 2);
            failed = st != TV_OK;
            writes += failed && strcmp(points[i], "save.write") == 0;
            claim(!failed || (st == TV_DISK_FULL && tells_bytes()), points[i]);
            claim(failed == (io_count_entries(run) == 2), "only step 1 and latest are there");
            claim(tv_checkpoint_verify(io_path("%s/step-000000001", run)) == TV_OK, "step 1 is untouched");
            if (!failed)
                claim(tv_checkpoint_verify(io_path("%s/step-000000002", run)) == TV_OK, "step 2 is valid");
            claim(rename(io_path("%s/step-000000002", run), io_path("%s/../gone-%zu", run, i)) == 0 || failed, "aside");
        }
    claim(writes == IO_PIECES, "a shard is written in several pieces");
}

static void test_faults(void **state)
{
    (void)state;
    char *place = io_folder_new(), *run = strdup(io_path("%s/run", place));
    assert_int_equal(in_child(save_with_faults, run), 0);
    free(run);
    io_folder_free(place);
}

// A bit that flips on its way to the disk, or on the disk, is seen before the checkpoint counts.
static void save_with_flips(const char *run)
{
    int flips = 0;
    claim(save_large(run, 1) == TV_OK, "first save");
    for (int hit = 1, failed = 1; failed; hit++) {
        set_fault(io_path("save.write:hit=%d:flip-bit", hit));
        tv_status st = save_large(run, 2);
        failed = st != TV_OK;
        claim(!failed || (st == TV_IO && strstr(tv_status_message(), "other bytes than were written")),
              "a flipped bit");
        flips += failed;
    }
    claim(flips == IO_PIECES, "a shard is written in several pieces");
    for (int hit = 1; hit <= IO_PIECES; hit++) {
        set_fault(io_path("save.reread:hit=%d:flip-bit", hit));
        claim(save_large(run, 3) == TV_IO && strstr(tv_status_message(), "other bytes than were written"),
              "the disk flips a bit");
    }
}

static void test_flips(void **state)
{
    (void)state;
    char *run = io_folder_new();
    assert_int_equal(in_child(save_with_flips, run), 0);
    io_folder_free(run);
}

static char filler[512];

static int is_there(const char *pattern)
{
    glob_t found;
    int there = glob(pattern, 0, NULL, &found) == 0;
    globfree(&found);
    return there;
}

// Takes all the space that is left while the save waits at its fail point: a moment after a file of this pattern is there.
static void *fill_disk(void *pattern)
{
    static const char block[4096];
    const struct timespec moment = {.tv_nsec = 20000000};
    for (int i = 0; i < 500 && !is_there(pattern); i++)
        nanosleep(&moment, NULL);
    nanosleep(&(struct timespec){.tv_nsec = 150000000}, NULL);
    int fd = open(filler, O_WRONLY | O_CREAT | O_APPEND, 0600);
    while (fd >= 0 && write(fd, block, sizeof block) > 0)
        continue;
    close(fd);
    return NULL;
}

static tv_status save_while_filling(const char *run, const char *faults, const char *sign)
{
    pthread_t thread;
    char pattern[512];
    snprintf(pattern, sizeof pattern, "%s/%s", run, sign);
    set_fault(faults);
    claim(pthread_create(&thread, NULL, fill_disk, pattern) == 0, "thread");
    tv_status st = save_large(run, 2);
    pthread_join(thread, NULL);
    set_fault("");
    return st;
}

// save.write: the room for a shard is taken before its first byte, so that a disk which fills up later only lacks the manifest's. Where a
// file system cannot take room, a piece finds the disk full: the first one, and the last.
static void save_on_small_disk(const char *run)
{
    static const struct {
        const char *faults, *sign, *message;
    } cases[] = {
        {"save.mkdir:delay=0.5", "latest", ".h5"},
        {"save.create:delay=0.5", "step-*.tmp-*", ".h5"},
        {"save.room:delay=0.5", "step-*.tmp-*/*.h5", "cannot take the room for"},
        {"save.write:delay=0.5", "step-*.tmp-*/*.h5", "manifest.json"},
        {"save.room:errno=EOPNOTSUPP,save.write:delay=0.5", "step-*.tmp-*/*.h5", "cannot write"},
        {"save.room:errno=EOPNOTSUPP,save.write:hit=4:delay=0.5", "step-*.tmp-*/*.h5", "cannot write"},
        {"save.manifest:delay=0.5", "step-*.tmp-*/*.h5", "manifest.json"},
        {"save.list:delay=0.5", "step-*.tmp-*/manifest.json", "checksums.xxh128"},
    };
    _Static_assert(IO_PIECES == 4, "the last piece's number stands above");
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", run, "tmpfs", 0, "size=64m") != 0) {
        printf("skipped: a small disk cannot be mounted here: %s\n", strerror(errno));
        exit(CHILD_SKIPS);
    }
    snprintf(filler, sizeof filler, "%s/filler", run);
    claim(save_large(run, 1) == TV_OK, "first save");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        claim(save_while_filling(run, cases[i].faults, cases[i].sign) == TV_DISK_FULL && tells_bytes(),
              cases[i].faults);
        claim(strstr(tv_status_message(), cases[i].message) != NULL, cases[i].faults);
        claim(io_count_entries(run) == 3, "only step 1, latest and the filler are there");
        // Still full: now the check before the save says so.
        claim(save_large(run, 2) == TV_DISK_FULL && strstr(tv_status_message(), "not enough space") && tells_bytes(),
              "the check of free space");
        claim(io_count_entries(run) == 3, "nothing was begun");
        claim(unlink(filler) == 0, "filler");
    }
    // After publishing only the hint is lost, which is a warning.
    claim(save_while_filling(run, "save.sync_parent:delay=0.5", "step-000000002") == TV_OK,
          "a save whose hint does not fit");
    claim(unlink(filler) == 0, "filler");
    claim(tv_checkpoint_verify(io_path("%s/step-000000001", run)) == TV_OK, "step 1 is untouched");
    claim(tv_checkpoint_verify(io_path("%s/step-000000002", run)) == TV_OK, "step 2 is valid");
    claim(save_large(run, 3) == TV_OK, "save with room again");
}

static void test_small_disk(void **state)
{
    (void)state;
    char *run = io_folder_new();
    int code = in_child(save_on_small_disk, run);
    io_folder_free(run);
    if (code == CHILD_SKIPS)
        skip();
    assert_int_equal(code, 0);
}

int main(void)
{
    tv_log_init(0, 1, TV_LOG_ERROR);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_file_size_limit), cmocka_unit_test(test_faults),
                                       cmocka_unit_test(test_flips), cmocka_unit_test(test_small_disk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
