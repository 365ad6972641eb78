// Saving: every rank writes a shard into an unfinished folder; rank 0 publishes it by one rename (docs/checkpoint.md,
// "Save").
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "io/atomic_file.h"
#include "io/checkpoint.h"
#include "io/checkpoint_hook.h"
#include "io/checkpoint_internal.h"
#include "io/shard_h5.h"

void (*tv_checkpoint_save_hook)(const char *stage);

typedef struct save_job {
    tv_comm *comm;
    const char *run_dir;
    const tv_checkpoint_info *info;
    const tv_state_array *arrays;
    int64_t count;
    char *folder;    // where the checkpoint will be
    char *temporary; // where it grows
    char run_id[48];
    int made;    // rank 0: the temporary folder is there
    int replace; // rank 0: a damaged checkpoint of this step is there
    int present; // an equal checkpoint is there already
} save_job;

static int is_root(const save_job *job) { return tv_comm_rank(job->comm) == 0; }

static tv_status check_arrays(const save_job *job)
{
    for (int64_t i = 0; i < job->count; i++) {
        const tv_state_array *a = &job->arrays[i];
        TV_TRY(tv_manifest_check_name("name", a->name));
        TV_TRY(tv_manifest_check_name("part", a->part));
        TV_TRY(tv_manifest_check_name("group", a->group));
        if (a->dtype < 0 || a->dtype >= TV_DTYPE_COUNT || a->rows < 0 || a->cols < 1 || a->first_row < 0 ||
            a->count < 0 || a->count > a->rows || (a->count > 0 && (a->first_row > a->rows - a->count || !a->data)))
            return TV_FAIL(TV_INTERNAL,
                           "%s %s: %" PRId64 " rows from row %" PRId64 " are no block of [%" PRId64 ", %" PRId64 "]",
                           a->name, a->part, a->count, a->first_row, a->rows, a->cols);
    }
    return TV_OK;
}

// Collective. The same on every rank: sums of row hashes do not depend on who holds a row.
static tv_status compute_digest(const save_job *job, tv_hash128 *digest)
{
    tv_hash128 *sums = calloc((size_t)job->count + 1, sizeof *sums);
    tv_status st = sums ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for the digest of %" PRId64 " arrays", job->count);
    TV_TRY_GOTO(st, done, tv_comm_agree(job->comm, st));
    tv_state_hash(job->arrays, job->count, sums);
    _Static_assert(sizeof *sums == 2 * sizeof(uint64_t), "a hash is two words");
    TV_TRY_GOTO(st, done, tv_comm_sum_u64(job->comm, &sums[0].low, 2 * job->count, TV_WIRE_OTHER));
    st = tv_state_digest(job->arrays, job->count, sums, digest);
    st = tv_comm_agree(job->comm, st);
done:
    free(sums);
    return st;
}

static tv_status make_paths(save_job *job)
{
    TV_TRY(tv_checkpoint_folder(job->run_dir, job->info->step, &job->folder));
    if (asprintf(&job->temporary, "%s.tmp-%s", job->folder, job->run_id) < 0) {
        job->temporary = NULL;
        return TV_FAIL(TV_MEMORY, "no memory for the path %s", job->folder);
    }
    return TV_OK;
}

// Rank 0. A valid checkpoint of this step stays: it is either the same state or something the user must decide about.
static tv_status look_for_present(save_job *job)
{
    struct stat about;
    tv_manifest manifest;
    if (lstat(job->folder, &about) != 0)
        return errno == ENOENT ? TV_OK : TV_FAIL(TV_IO, "cannot stat %s: %s", job->folder, strerror(errno));
    if (tv_checkpoint_verify(job->folder) != TV_OK) {
        tv_log_warn("a checkpoint of step %" PRId64 " is there but not valid, it will be set aside: %s",
                    job->info->step, tv_status_message());
        job->replace = 1;
        return TV_OK;
    }
    TV_TRY(tv_checkpoint_load_manifest(job->folder, 1, &manifest));
    job->present = tv_hash_equal(manifest.info.digest, job->info->digest);
    tv_manifest_free(&manifest);
    if (!job->present)
        return TV_FAIL(
            TV_CHECKPOINT,
            "%s is there already and holds another state (another run's?); move it away or choose another run.dir",
            job->folder);
    return TV_OK;
}

// Rank 0.
static tv_status check_space(const save_job *job)
{
    struct statvfs about;
    int64_t needed = tv_checkpoint_size_bound(job->arrays, job->count, tv_comm_size(job->comm));
    if (statvfs(job->run_dir, &about) != 0)
        return TV_FAIL(TV_IO, "cannot ask for the free space of %s: %s", job->run_dir, strerror(errno));
    uint64_t free_bytes = (uint64_t)about.f_bavail * about.f_frsize;
    if ((uint64_t)needed > free_bytes)
        return TV_FAIL(TV_IO,
                       "not enough space in %s: the checkpoint needs up to %" PRId64 " bytes and %" PRIu64
                       " are free; free some space "
                       "or lower checkpoint.keep",
                       job->run_dir, needed, free_bytes);
    return TV_OK;
}

// Rank 0. Everything before the writing: the run folder, what is there already, room, the unfinished folder.
static tv_status begin(save_job *job)
{
    TV_TRY(tv_dir_make(job->run_dir));
    snprintf(job->run_id, sizeof job->run_id, "%ld-%lld", (long)getpid(), (long long)time(NULL));
    TV_TRY(make_paths(job));
    TV_TRY(look_for_present(job));
    if (job->present)
        return TV_OK;
    TV_TRY(check_space(job));
    if (mkdir(job->temporary, 0755) != 0)
        return TV_FAIL(TV_IO, "cannot make the folder %s: %s", job->temporary, strerror(errno));
    job->made = 1;
    tv_checkpoint_stage("folder-made");
    return TV_OK;
}

// Collective. The others learn the folder's name, and whether there is anything to do.
static tv_status share_start(save_job *job)
{
    TV_TRY(tv_comm_broadcast_bytes(job->comm, &job->present, sizeof job->present, 0));
    TV_TRY(tv_comm_broadcast_bytes(job->comm, job->run_id, sizeof job->run_id, 0));
    tv_status st = is_root(job) ? TV_OK : make_paths(job);
    return tv_comm_agree(job->comm, st);
}

// Local. This rank's shard on disk, and its part of the manifest as JSON text.
static tv_status write_shard(const save_job *job, char **text, size_t *bytes)
{
    char name[64], *path = NULL;
    int64_t file_bytes = 0;
    tv_hash128 hash;
    tv_manifest part = {0};
    tv_checkpoint_info info = *job->info;
    info.config_text = NULL; // rank 0's is enough
    tv_status st = TV_OK;
    snprintf(name, sizeof name, "shard-%05d-of-%05d.h5", tv_comm_rank(job->comm), tv_comm_size(job->comm));
    TV_TRY_GOTO(st, done, tv_checkpoint_path(job->temporary, name, &path));
    TV_TRY_GOTO(st, done, tv_shard_write(path, job->arrays, job->count));
    TV_TRY_GOTO(st, done, tv_file_hash(path, &file_bytes, &hash));
    TV_TRY_GOTO(st, done, tv_manifest_start(&info, job->arrays, job->count, &part));
    TV_TRY_GOTO(st, done, tv_manifest_add_file(&part, name, file_bytes, hash));
    for (int64_t i = 0; i < job->count; i++) {
        const tv_state_array *a = &job->arrays[i];
        if (a->count == 0)
            continue;
        tv_manifest_block block = {0, a->first_row, a->count,
                                   tv_hash_bytes(a->data, (size_t)(a->count * tv_state_row_bytes(a)))};
        TV_TRY_GOTO(st, done, tv_manifest_add_block(&part, i, block));
    }
    TV_TRY_GOTO(st, done, tv_manifest_text(&part, text, bytes));
done:
    tv_manifest_free(&part);
    free(path);
    return st;
}

// Collective. All ranks' texts behind each other; sizes[r] bytes are rank r's.
static tv_status gather_texts(const save_job *job, const char *text, int64_t *sizes, char **all)
{
    int ranks = tv_comm_size(job->comm), rank = tv_comm_rank(job->comm);
    int64_t total = 0, before = 0;
    TV_TRY(tv_comm_all_gather_bytes(job->comm, sizes, sizeof *sizes, TV_WIRE_OTHER));
    for (int r = 0; r < ranks; r++) {
        before += r < rank ? sizes[r] : 0;
        total += sizes[r];
    }
    *all = malloc((size_t)total + 1);
    tv_status st = *all ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for the %" PRId64 " bytes of the manifest", total);
    TV_TRY(tv_comm_agree(job->comm, st));
    memcpy(*all + before, text, (size_t)sizes[rank]);
    return tv_comm_all_gather_v_bytes(job->comm, *all, sizes, TV_WIRE_OTHER);
}

// Rank 0. One manifest of all ranks' parts, checked as a reader will check it.
static tv_status merge_parts(const save_job *job, const char *all, const int64_t *sizes, tv_manifest *manifest)
{
    TV_TRY(tv_manifest_parse(all, (size_t)sizes[0], manifest));
    free(manifest->info.config_text);
    manifest->info.config_text = strdup(job->info->config_text ? job->info->config_text : "");
    if (!manifest->info.config_text)
        return TV_FAIL(TV_MEMORY, "no memory for the config's text");
    for (int r = 1; r < tv_comm_size(job->comm); r++) {
        tv_manifest part;
        all += sizes[r - 1];
        TV_TRY(tv_manifest_parse(all, (size_t)sizes[r], &part));
        tv_status st = tv_manifest_merge(manifest, &part);
        tv_manifest_free(&part);
        TV_TRY(st);
    }
    return tv_manifest_check(manifest);
}

// Rank 0. manifest.json and checksums.xxh128, on disk.
static tv_status write_manifest(const save_job *job, const char *all, const int64_t *sizes)
{
    tv_manifest manifest = {0};
    char *text = NULL, *list = NULL, *path = NULL;
    size_t bytes = 0, list_bytes = 0;
    tv_status st = TV_OK;
    TV_TRY_GOTO(st, done, merge_parts(job, all, sizes, &manifest));
    TV_TRY_GOTO(st, done, tv_manifest_text(&manifest, &text, &bytes));
    TV_TRY_GOTO(st, done, tv_checkpoint_path(job->temporary, TV_MANIFEST_NAME, &path));
    TV_TRY_GOTO(st, done, tv_file_replace(path, text, bytes));
    tv_checkpoint_stage("manifest-written");
    free(path);
    path = NULL;
    TV_TRY_GOTO(st, done, tv_manifest_checksums(&manifest, tv_hash_bytes(text, bytes), &list, &list_bytes));
    TV_TRY_GOTO(st, done, tv_checkpoint_path(job->temporary, TV_CHECKSUMS_NAME, &path));
    TV_TRY_GOTO(st, done, tv_file_replace(path, list, list_bytes));
    tv_checkpoint_stage("checksums-written");
    TV_TRY_GOTO(st, done, tv_path_sync(job->temporary));
    tv_checkpoint_stage("folder-synced");
done:
    free(path);
    free(list);
    free(text);
    tv_manifest_free(&manifest);
    return st;
}

// Rank 0. A damaged checkpoint of the same step makes room but is not deleted.
static tv_status set_aside(const save_job *job)
{
    char *aside = NULL;
    if (asprintf(&aside, "%s.damaged-%s", job->folder, job->run_id) < 0)
        return TV_FAIL(TV_MEMORY, "no memory for the path %s", job->folder);
    tv_status st = TV_OK;
    if (rename(job->folder, aside) != 0)
        st = TV_FAIL(TV_IO, "cannot rename %s to %s: %s", job->folder, aside, strerror(errno));
    free(aside);
    return st;
}

// Rank 0. From the rename on the checkpoint counts; what fails after it is a warning.
static tv_status publish(save_job *job)
{
    if (job->replace)
        TV_TRY(set_aside(job));
    if (rename(job->temporary, job->folder) != 0)
        return TV_FAIL(TV_IO, "cannot rename %s to %s: %s", job->temporary, job->folder, strerror(errno));
    job->made = 0;
    tv_checkpoint_stage("published");
    if (tv_path_sync(job->run_dir) != TV_OK)
        tv_log_warn("checkpoint %s is complete, but a power cut now could lose it: %s", job->folder,
                    tv_status_message());
    tv_checkpoint_stage("parent-synced");
    char *path = NULL, text[48];
    int length = snprintf(text, sizeof text, "%s\n", strrchr(job->folder, '/') + 1);
    tv_status st = tv_checkpoint_path(job->run_dir, "latest", &path);
    if (st == TV_OK)
        st = tv_file_replace(path, text, (size_t)length);
    if (st != TV_OK)
        tv_log_warn("the hint 'latest' is not written: %s", tv_status_message());
    free(path);
    tv_checkpoint_stage("latest-written");
    return TV_OK;
}

// Collective. The steps between the unfinished folder and the published one.
static tv_status write_and_publish(save_job *job)
{
    char *text = NULL, *all = NULL;
    size_t bytes = 0;
    int64_t *sizes = calloc((size_t)tv_comm_size(job->comm), sizeof *sizes);
    tv_status st =
        sizes ? write_shard(job, &text, &bytes) : TV_FAIL(TV_MEMORY, "no memory for the sizes of the shards");
    TV_TRY_GOTO(st, done, tv_comm_agree(job->comm, st));
    tv_checkpoint_stage("shards-agreed");
    sizes[tv_comm_rank(job->comm)] = (int64_t)bytes;
    TV_TRY_GOTO(st, done, gather_texts(job, text, sizes, &all));
    if (is_root(job))
        st = write_manifest(job, all, sizes);
    if (is_root(job) && st == TV_OK)
        st = publish(job);
    st = tv_comm_agree(job->comm, st);
done:
    free(sizes);
    free(all);
    free(text);
    return st;
}

// Rank 0. Takes the unfinished folder away and keeps the message of what went wrong.
static void drop(const save_job *job)
{
    char message[1024];
    snprintf(message, sizeof message, "%s", tv_status_message());
    if (tv_dir_remove(job->temporary) != TV_OK)
        tv_log_warn("unfinished checkpoint: %s", tv_status_message());
    (void)TV_FAIL(TV_IO, "%s", message);
}

tv_status tv_checkpoint_save(tv_comm *comm, const char *run_dir, tv_checkpoint_info *info, const tv_state_array *arrays,
                             int64_t count)
{
    save_job job = {.comm = comm, .run_dir = run_dir, .info = info, .arrays = arrays, .count = count};
    TV_TRY(tv_comm_agree(comm, check_arrays(&job)));
    TV_TRY(compute_digest(&job, &info->digest));
    info->writers = tv_comm_size(comm);
    tv_checkpoint_stage("start");
    tv_status st = is_root(&job) ? begin(&job) : TV_OK;
    TV_TRY_GOTO(st, done, tv_comm_agree(comm, st));
    TV_TRY_GOTO(st, done, share_start(&job));
    if (!job.present)
        st = write_and_publish(&job);
done:
    if (st != TV_OK && job.made)
        drop(&job);
    free(job.temporary);
    free(job.folder);
    return st;
}
