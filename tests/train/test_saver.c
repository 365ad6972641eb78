// Saves beside training, under mpirun with 1 to 3 ranks: the same digests as saves that training waits for, full disks by each policy,
// writers by node, requests that come while one is pending, and checkpoints that fail restarts. Faults come from fail points.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "base/log.h"
#include "io/checkpoint_internal.h"
#include "train/loop.h"
#include "train/resume.h"
#include "train/saver.h"

static tv_comm *comm;
static const tv_backend *backend;
static char folder[256];

static int is_root(void) { return tv_comm_rank(comm) == 0; }

// All ranks meet before and after: nobody looks at a folder that another one removes.
static tv_status clean(void)
{
    char command[300];
    TV_TRY(tv_comm_barrier(comm));
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    tv_status st = is_root() && system(command) != 0 ? TV_FAIL(TV_IO, "cannot remove %s", folder) : TV_OK;
    return tv_comm_agree(comm, st);
}

static tv_status expect(int holds, const char *what)
{
    return tv_comm_agree(comm, holds ? TV_OK : TV_FAIL(TV_INTERNAL, "broken: %s (%s)", what, tv_status_message()));
}

static int exists(int step)
{
    char path[300];
    struct stat about;
    snprintf(path, sizeof path, "%s/step-%09d/manifest.json", folder, step);
    return stat(path, &about) == 0;
}

// One run of six steps with these settings (";" between them) and this fault; *st is its verdict.
static tv_status run(const char *settings, const char *fault, const char *resume, tv_status *st)
{
    char copy[512], *rest = NULL;
    tv_config config = {0};
    TV_TRY(tv_config_init(&config));
    TV_TRY(tv_config_read_file(&config, "tests/data/invariance.yaml"));
    TV_TRY(tv_config_set(&config, "train.steps=6"));
    TV_TRY(tv_config_set(&config, "checkpoint.every=2"));
    TV_TRY(tv_config_set(&config, "checkpoint.keep=9"));
    snprintf(copy, sizeof copy, "%s", settings);
    for (char *one = strtok_r(copy, ";", &rest); one; one = strtok_r(NULL, ";", &rest))
        TV_TRY(tv_config_set(&config, one));
    TV_TRY(tv_config_assign(&config, "run", "dir", folder));
    TV_TRY(tv_config_check(&config));
    setenv("TV_FAULT", fault, 1);
    TV_TRY(tv_fault_open(tv_comm_rank(comm)));
    *st = tv_train_run(&config, &(tv_train_options){.resume = resume}, comm, backend);
    setenv("TV_FAULT", "", 1);
    TV_TRY(tv_fault_open(tv_comm_rank(comm)));
    tv_config_free(&config);
    return tv_comm_barrier(comm);
}

static tv_status digest_of(int step, tv_hash128 *digest)
{
    char path[300];
    tv_checkpoint *checkpoint = NULL;
    snprintf(path, sizeof path, "%s/step-%09d", folder, step);
    TV_TRY(tv_checkpoint_open(path, 1, &checkpoint));
    tv_status st = tv_checkpoint_digest(checkpoint, digest);
    tv_checkpoint_close(checkpoint);
    return st;
}

// Digests of steps 2, 4 and 6 after a run with these settings.
static tv_status digests(const char *settings, const char *fault, tv_hash128 out[3])
{
    tv_status st;
    TV_TRY(clean());
    TV_TRY(run(settings, fault, "auto", &st));
    TV_TRY(expect(st == TV_OK, settings));
    for (int i = 0; i < 3; i++)
        TV_TRY(digest_of(2 * i + 2, &out[i]));
    return TV_OK;
}

// Slow disks too: the copy is that of its step, whatever training has done since.
static tv_status test_digests(void)
{
    static const struct {
        const char *settings, *fault;
    } cases[] = {
        {"checkpoint.async=true", ""},
        {"checkpoint.async=true", "save.create:hit=*:delay=0.3"},
        {"checkpoint.async=true", "save.manifest:hit=*:delay=0.3"},
        {"checkpoint.async=true;checkpoint.writers=node", "save.create:hit=*:delay=0.2"},
        {"checkpoint.async=false;checkpoint.writers=2", ""},
        {"checkpoint.async=true;vote.exchange=sharded;checkpoint.writers=1", ""},
    };
    tv_hash128 plain[3], other[3];
    TV_TRY(digests("checkpoint.async=false", "", plain));
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        TV_TRY(digests(cases[c].settings, cases[c].fault, other));
        for (int i = 0; i < 3; i++)
            TV_TRY(expect(tv_hash_equal(plain[i], other[i]), cases[c].settings));
    }
    return TV_OK;
}

// While step 2 is written for long, the save of step 4 is left out; the last one never is.
static tv_status test_skip(void)
{
    tv_status st;
    TV_TRY(clean());
    TV_TRY(run("checkpoint.async=true;checkpoint.when_busy=skip", "save.create:rank=0:delay=5", "auto", &st));
    TV_TRY(expect(st == TV_OK && exists(2) && exists(6), "the first and the last save"));
    return expect(!exists(4), "a save that is due while another is pending is left out");
}

static tv_status test_disk_full(void)
{
    static const char *const faults[] = {"save.mkdir:hit=2:errno=ENOSPC", "save.write:rank=0:hit=2:errno=EDQUOT"};
    static const char *const modes[] = {"checkpoint.async=true", "checkpoint.async=false"};
    char settings[128];
    tv_status st;
    for (int i = 0; i < 4; i++) {
        const char *fault = faults[i % 2];
        TV_TRY(clean());
        snprintf(settings, sizeof settings, "%s;checkpoint.on_disk_full=skip", modes[i / 2]);
        TV_TRY(run(settings, fault, "auto", &st));
        TV_TRY(expect(st == TV_OK && exists(6) && exists(2) + exists(4) == 1, "skip: one checkpoint is missing"));
        TV_TRY(clean());
        snprintf(settings, sizeof settings, "%s;checkpoint.on_disk_full=pause", modes[i / 2]);
        TV_TRY(run(settings, fault, "auto", &st));
        TV_TRY(expect(st == TV_OK && exists(6), "pause: the run goes to its end"));
        TV_TRY(clean());
        snprintf(settings, sizeof settings, "%s;checkpoint.on_disk_full=stop", modes[i / 2]);
        TV_TRY(run(settings, fault, "auto", &st));
        TV_TRY(expect(st == TV_DISK_FULL && tv_status_exit_code(st) == 74 && !exists(6), "stop: the run ends with 74"));
        TV_TRY(expect(strstr(tv_status_message(), "needs up to") && strstr(tv_status_message(), " free"), "figures"));
        TV_TRY(run(settings, "", "auto", &st));
        TV_TRY(expect(st == TV_OK && exists(6), "stop: the next start goes on"));
    }
    return TV_OK;
}

// A run that fails while a save is pending finishes that save.
static tv_status test_rescue(void)
{
    tv_status st;
    TV_TRY(clean());
    TV_TRY(run("checkpoint.async=true", "save.create:rank=0:delay=1,step.start:hit=4:errno=EIO", "auto", &st));
    TV_TRY(expect(st != TV_OK && exists(2), "the pending save is finished"));
    TV_TRY(run("checkpoint.async=true", "", "auto", &st));
    return expect(st == TV_OK && exists(6), "and taken up");
}

// Three restarts in a row fail on the newest: then the older one is taken. A named folder is taken whatever happened.
static tv_status test_attempts(void)
{
    tv_status st;
    char path[300];
    tv_hash128 plain[3], again;
    TV_TRY(digests("checkpoint.async=true", "", plain));
    TV_TRY(clean());
    TV_TRY(run("train.stop_at=4", "", "auto", &st));
    TV_TRY(expect(st == TV_OK && exists(2) && exists(4), "two checkpoints"));
    for (int i = 0; i < TV_ATTEMPTS_MOST; i++) {
        TV_TRY(run("", i % 2 ? "resume.load:errno=EIO" : "resume.ready:errno=EIO", "auto", &st));
        TV_TRY(expect(st != TV_OK && !exists(6), "a restart that fails"));
    }
    if (is_root())
        TV_TRY(expect(tv_checkpoint_attempts(folder, 4) == TV_ATTEMPTS_MOST, "they are counted"));
    else
        TV_TRY(expect(1, ""));
    snprintf(path, sizeof path, "%s/step-000000004", folder);
    TV_TRY(run("train.stop_at=4", "resume.ready:errno=EIO", path, &st));
    TV_TRY(expect(st != TV_OK, "the named one was taken, and forgives"));
    for (int i = 0; i < TV_ATTEMPTS_MOST; i++)
        TV_TRY(run("", "resume.load:errno=EIO", "auto", &st));
    // Step 2 is taken, and step 4 is there already with the same digest.
    TV_TRY(run("", "", "auto", &st));
    TV_TRY(expect(st == TV_OK && exists(6), "the older checkpoint leads to the end"));
    TV_TRY(digest_of(6, &again));
    TV_TRY(expect(tv_hash_equal(again, plain[2]), "the same state"));
    return is_root() ? expect(tv_checkpoint_attempts(folder, 4) == 0, "all is forgotten") : expect(1, "");
}

static tv_status run_tests(void)
{
    static const struct {
        const char *name;
        tv_status (*test)(void);
    } tests[] = {{"digests", test_digests},
                 {"skip", test_skip},
                 {"disk full", test_disk_full},
                 {"rescue", test_rescue},
                 {"attempts", test_attempts}};
    tv_status st = TV_OK;
    TV_TRY(tv_backend_find("auto", &backend));
    TV_TRY(backend->open(tv_comm_local_rank(comm), tv_comm_local_size(comm), 1));
    for (size_t i = 0; st == TV_OK && i < sizeof tests / sizeof *tests; i++) {
        st = tests[i].test();
        if (st == TV_OK && is_root())
            printf("%s: ok\n", tests[i].name);
    }
    backend->close();
    return st;
}

int main(int argc, char **argv)
{
    tv_status st = tv_comm_open(&argc, &argv, &comm);
    if (st == TV_OK) {
        tv_log_init(tv_comm_rank(comm), tv_comm_size(comm), TV_LOG_WARN);
        snprintf(folder, sizeof folder, "%s/trivote-saver-%d", P_tmpdir, tv_comm_size(comm));
        st = tv_comm_agree(comm, run_tests());
        if (st == TV_OK)
            st = clean();
    }
    if (st != TV_OK)
        tv_log_error("%s: %s", tv_status_place(), tv_status_message());
    tv_comm_close(comm);
    return st == TV_OK ? 0 : 1;
}
