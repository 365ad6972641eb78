// The step-* folders of a run: listing, choosing, pruning.
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "io/atomic_file.h"
#include "io/checkpoint.h"
#include "io/checkpoint_internal.h"

tv_status tv_checkpoint_folder(const char *run_dir, int64_t step, char **out)
{
    char name[32];
    snprintf(name, sizeof name, "step-%09" PRId64, step);
    return tv_checkpoint_path(run_dir, name, out);
}

// "step-" and 9 to 18 digits as tv_checkpoint_folder writes them; *rest points behind the digits. -1 for anything else.
static int64_t parse_step(const char *name, const char **rest)
{
    if (strncmp(name, "step-", 5) != 0)
        return -1;
    const char *digits = name + 5, *end = digits;
    while (isdigit((unsigned char)*end))
        end++;
    *rest = end;
    if (end - digits < 9 || end - digits > 18 || (end - digits > 9 && *digits == '0'))
        return -1;
    return strtoll(digits, NULL, 10);
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

tv_status tv_checkpoint_list(const char *run_dir, int64_t **steps, int64_t *count)
{
    *steps = NULL;
    *count = 0;
    DIR *folder = opendir(run_dir);
    if (!folder)
        return errno == ENOENT ? TV_OK : TV_FAIL(TV_IO, "cannot read the run folder %s: %s", run_dir, strerror(errno));
    tv_status st = TV_OK;
    int64_t room = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        const char *rest;
        int64_t step = parse_step(entry->d_name, &rest);
        if (step < 0 || *rest)
            continue;
        if (*count == room) {
            room = room ? 2 * room : 16;
            int64_t *grown = realloc(*steps, (size_t)room * sizeof *grown);
            if (!grown) {
                st = TV_FAIL(TV_MEMORY, "no memory to list %s", run_dir);
                break;
            }
            *steps = grown;
        }
        (*steps)[(*count)++] = step;
    }
    closedir(folder);
    if (st != TV_OK) {
        free(*steps);
        *steps = NULL;
        *count = 0;
    } else if (*count) {
        qsort(*steps, (size_t)*count, sizeof **steps, newest_first);
    }
    return st;
}

// Valid, and of the step in its name.
static tv_status check_candidate(const char *dir, int64_t step)
{
    tv_checkpoint *checkpoint = NULL;
    TV_TRY(tv_checkpoint_open(dir, 1, &checkpoint));
    int64_t written = tv_checkpoint_describe(checkpoint)->step;
    tv_checkpoint_close(checkpoint);
    if (written != step)
        return TV_FAIL(TV_CHECKPOINT, "%s holds step %" PRId64 ", not the step of its name", dir, written);
    return TV_OK;
}

static tv_status check_attempts(const char *run_dir, const char *dir, int64_t step)
{
    int64_t attempts = tv_checkpoint_attempts(run_dir, step);
    if (attempts >= TV_ATTEMPTS_MOST)
        return TV_FAIL(TV_CHECKPOINT,
                       "%s: %" PRId64 " restarts in a row failed on it; --resume %s takes it all the same", dir,
                       attempts, dir);
    return TV_OK;
}

// The newest valid one of the run folder; the others are logged. NULL when the folder holds no checkpoint at all. When it holds some
// and none can be used, that is an error: a fresh start would train from step 0 beside work that may only need its disk back.
static tv_status choose_newest(const char *run_dir, char **dir)
{
    int64_t *steps = NULL, count = 0;
    *dir = NULL;
    TV_TRY(tv_checkpoint_list(run_dir, &steps, &count));
    tv_status st = TV_OK;
    for (int64_t i = 0; i < count && !*dir; i++) {
        char *candidate = NULL;
        TV_TRY_GOTO(st, done, tv_checkpoint_folder(run_dir, steps[i], &candidate));
        tv_status found = check_attempts(run_dir, candidate, steps[i]);
        if (found == TV_OK)
            found = check_candidate(candidate, steps[i]);
        if (found == TV_OK) {
            *dir = candidate;
            continue;
        }
        tv_log_warn("checkpoint skipped: %s", tv_status_message());
        free(candidate);
        if (found == TV_MEMORY) {
            st = found;
            goto done;
        }
    }
    if (count > 0 && !*dir)
        st = TV_FAIL(TV_CHECKPOINT,
                     "%s holds %lld checkpoints and none can be used; mend or move them, or give another --run",
                     run_dir, (long long)count);
done:
    free(steps);
    return st;
}

tv_status tv_checkpoint_newest(tv_comm *comm, const char *run_dir, char **dir)
{
    *dir = NULL;
    char *chosen = NULL;
    tv_status st = tv_comm_rank(comm) == 0 ? choose_newest(run_dir, &chosen) : TV_OK;
    TV_TRY_GOTO(st, done, tv_comm_agree(comm, st));
    uint64_t bytes = chosen ? strlen(chosen) + 1 : 0;
    TV_TRY_GOTO(st, done, tv_comm_broadcast_bytes(comm, &bytes, sizeof bytes, 0));
    if (bytes == 0)
        goto done;
    if (!chosen && !(chosen = malloc(bytes)))
        st = TV_FAIL(TV_MEMORY, "no memory for the path of a checkpoint");
    TV_TRY_GOTO(st, done, tv_comm_agree(comm, st));
    TV_TRY_GOTO(st, done, tv_comm_broadcast_bytes(comm, chosen, bytes, 0));
    *dir = chosen;
    chosen = NULL;
done:
    free(chosen);
    return st;
}

// ---- pruning

static int listed(const tv_manifest *manifest, const char *name)
{
    if (strcmp(name, TV_MANIFEST_NAME) == 0 || strcmp(name, TV_CHECKSUMS_NAME) == 0)
        return 1;
    for (int64_t i = 0; i < manifest->file_count; i++)
        if (strcmp(name, manifest->files[i].name) == 0)
            return 1;
    return 0;
}

// A name in the folder that the manifest does not know, copied; NULL when there is none.
static char *find_foreign(const char *dir, const tv_manifest *manifest)
{
    char *foreign = NULL;
    DIR *folder = opendir(dir);
    if (!folder)
        return NULL;
    for (struct dirent *entry; !foreign && (entry = readdir(folder));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && !listed(manifest, entry->d_name))
            foreign = strdup(entry->d_name);
    closedir(folder);
    return foreign;
}

// First out of sight in one step, then removed: a crash in between leaves a *.tmp-* folder and never half a checkpoint.
static void remove_checkpoint(const char *dir, const tv_manifest *manifest)
{
    char *doomed = NULL, *foreign = find_foreign(dir, manifest);
    if (foreign)
        tv_log_warn("old checkpoint %s is kept: it holds %s, which its manifest does not know", dir, foreign);
    else if (asprintf(&doomed, "%s.tmp-old-%ld", dir, (long)getpid()) < 0)
        doomed = NULL;
    else if (tv_fault_errno(TV_FAULT_PRUNE_RENAME_POINT) || rename(dir, doomed) != 0)
        tv_log_warn("cannot rename %s to %s: %s", dir, doomed, strerror(errno));
    else if (tv_io_fault(TV_FAULT_PRUNE_REMOVE_POINT) != TV_OK || tv_dir_remove(doomed) != TV_OK)
        tv_log_warn("old checkpoint: %s", tv_status_message());
    free(doomed);
    free(foreign);
}

// step-*.tmp-* is a save or a removal that did not end; the caller holds the run's lock, so nobody is at work on it.
static void remove_leftovers(const char *run_dir)
{
    DIR *folder = opendir(run_dir);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        const char *rest;
        char *path = NULL;
        struct stat about;
        if (parse_step(entry->d_name, &rest) < 0 || strncmp(rest, ".tmp-", 5) != 0 ||
            tv_checkpoint_path(run_dir, entry->d_name, &path) != TV_OK)
            continue;
        if (lstat(path, &about) == 0 && S_ISDIR(about.st_mode) && tv_dir_remove(path) != TV_OK)
            tv_log_warn("left-over folder: %s", tv_status_message());
        free(path);
    }
    closedir(folder);
}

static int same_folder(const char *a, const char *b)
{
    struct stat x, y;
    return a && b && stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

void tv_checkpoint_prune(const char *run_dir, int64_t keep, const char *resumed_from)
{
    tv_checkpoint_prune_after(run_dir, keep, resumed_from, -1);
}

void tv_checkpoint_prune_after(const char *run_dir, int64_t keep, const char *resumed_from, int64_t good)
{
    int64_t *steps = NULL, count = 0, parsed = 0;
    int valid_kept = 0;
    remove_leftovers(run_dir);
    if (tv_checkpoint_list(run_dir, &steps, &count) != TV_OK)
        tv_log_warn("old checkpoints stay: %s", tv_status_message());
    for (int64_t i = 0; i < count; i++) {
        char *dir = NULL;
        tv_manifest manifest = {0};
        if (tv_checkpoint_folder(run_dir, steps[i], &dir) == TV_OK &&
            tv_checkpoint_load_manifest(dir, 0, &manifest) == TV_OK) {
            parsed++;
            // Hashing is dear: it happens only when something is about to go and no newer one is known to be good.
            int surplus = parsed > keep && !same_folder(dir, resumed_from);
            if (surplus && valid_kept)
                remove_checkpoint(dir, &manifest);
            else if (!valid_kept && count > keep)
                valid_kept = steps[i] == good || check_candidate(dir, steps[i]) == TV_OK;
        }
        tv_manifest_free(&manifest);
        free(dir);
    }
    free(steps);
}
