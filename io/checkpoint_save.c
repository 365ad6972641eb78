// Saving: shards into an unfinished folder, which rank 0 publishes by one rename (docs/checkpoint.md, "Saving"). What touches the disk for
// long is work of this rank's own and may run on a thread; what ranks say to each other stays with the caller's.
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
#include "base/thread.h"
#include "io/atomic_file.h"
#include "io/checkpoint.h"
#include "io/checkpoint_internal.h"
#include "io/checkpoint_saving.h"

static int is_root(const tv_checkpoint_writer *w) { return tv_comm_rank(w->comm) == 0; }

tv_status tv_checkpoint_writer_open(tv_comm *comm, int64_t writers, tv_checkpoint_writer **out)
{
    *out = NULL;
    tv_checkpoint_writer *w = calloc(1, sizeof *w);
    tv_status st = tv_comm_agree(comm, w ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for the saving of checkpoints"));
    if (st == TV_OK) {
        w->comm = comm;
        st = tv_save_groups_open(w, writers);
    }
    if (st == TV_OK)
        *out = w;
    else
        tv_checkpoint_writer_close(w);
    return st;
}

// ---- work

static void *run_thread(void *argument)
{
    tv_checkpoint_writer *w = argument;
    w->outcome = w->work(w);
    if (w->outcome != TV_OK)
        snprintf(w->message, sizeof w->message, "%s", tv_status_message());
    atomic_store(&w->busy, 0);
    return NULL;
}

// Without a thread, or when the system has none to give, the work is done here.
static void start_work(tv_checkpoint_writer *w, tv_status (*work)(tv_checkpoint_writer *), int background)
{
    w->work = work;
    w->outcome = TV_OK;
    atomic_store(&w->busy, 1);
    w->started = background && tv_thread_start(&w->thread, run_thread, w);
    if (!w->started)
        run_thread(w);
}

// The outcome, with its message as this thread's.
static tv_status join_work(tv_checkpoint_writer *w)
{
    if (w->started)
        pthread_join(w->thread, NULL);
    w->started = 0;
    return w->outcome == TV_OK ? TV_OK : TV_FAIL(w->outcome, "%s", w->message);
}

// ---- start

static tv_status check_arrays(const tv_save_args *args)
{
    for (int64_t i = 0; i < args->count; i++) {
        const tv_state_array *a = &args->arrays[i];
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

static void forget(tv_checkpoint_writer *w)
{
    free(w->info.config_text);
    free(w->run_dir);
    free(w->resumed_from);
    free(w->arrays);
    free(w->sums);
    free(w->folder);
    free(w->temporary);
    free(w->text);
    free(w->texts);
    free(w->text_sizes);
    w->info = (tv_checkpoint_info){0};
    w->run_dir = w->resumed_from = w->folder = w->temporary = w->text = w->texts = NULL;
    w->arrays = NULL;
    w->sums = NULL;
    w->text_sizes = NULL;
    w->text_bytes = 0;
    w->made = w->replace = w->present = 0;
    w->stage = TV_SAVE_IDLE;
}

// What outlives the call is copied.
static tv_status remember(tv_checkpoint_writer *w, const tv_save_args *args)
{
    size_t bytes = (size_t)args->count * sizeof *w->arrays;
    w->info = *args->info;
    w->info.writers = w->count;
    w->info.config_text = strdup(args->info->config_text ? args->info->config_text : "");
    w->run_dir = strdup(args->run_dir);
    w->resumed_from = args->resumed_from ? strdup(args->resumed_from) : NULL;
    w->keep = args->keep;
    w->array_count = args->count;
    w->arrays = calloc((size_t)args->count + 1, sizeof *w->arrays);
    w->sums = calloc((size_t)args->count + 1, sizeof *w->sums);
    w->text_sizes = calloc((size_t)tv_comm_size(w->comm), sizeof *w->text_sizes);
    if (!w->info.config_text || !w->run_dir || (args->resumed_from && !w->resumed_from) || !w->arrays || !w->sums ||
        !w->text_sizes)
        return TV_FAIL(TV_MEMORY, "no memory to save %" PRId64 " arrays", args->count);
    if (bytes > 0)
        memcpy(w->arrays, args->arrays, bytes);
    w->needed_bytes = tv_checkpoint_size_bound(args->arrays, args->count, w->count);
    TV_TRY(tv_io_fault(TV_FAULT_SAVE_BEGIN_POINT));
    return check_arrays(args);
}

static tv_status make_paths(tv_checkpoint_writer *w)
{
    TV_TRY(tv_checkpoint_folder(w->run_dir, w->info.step, &w->folder));
    if (asprintf(&w->temporary, "%s.tmp-%s", w->folder, w->run_id) < 0) {
        w->temporary = NULL;
        return TV_FAIL(TV_MEMORY, "no memory for the path %s", w->folder);
    }
    return TV_OK;
}

// Collective. The same on every rank: sums of row hashes do not depend on who holds a row.
static tv_status share_digest(tv_checkpoint_writer *w)
{
    _Static_assert(sizeof *w->sums == 2 * sizeof(uint64_t), "a hash is two words");
    TV_TRY(tv_comm_sum_u64(w->comm, &w->sums[0].low, 2 * w->array_count, TV_WIRE_OTHER));
    return tv_comm_agree(w->comm, tv_state_digest(w->arrays, w->array_count, w->sums, &w->info.digest));
}

// Rank 0. Whether something of the folder's name is there.
static tv_status find_present(const tv_checkpoint_writer *w, int64_t *there)
{
    struct stat about;
    *there = lstat(w->folder, &about) == 0;
    if (!*there && errno != ENOENT)
        return TV_FAIL(TV_IO, "cannot stat %s: %s", w->folder, strerror(errno));
    return TV_OK;
}

// Rank 0. A valid checkpoint of this step stays: it is either the same state or something the user must decide about.
static tv_status judge_present(tv_checkpoint_writer *w)
{
    tv_manifest manifest;
    if (tv_checkpoint_verify(w->folder) != TV_OK) {
        tv_log_warn("a checkpoint of step %" PRId64 " is there but not valid, it will be set aside: %s", w->info.step,
                    tv_status_message());
        w->replace = 1;
        return TV_OK;
    }
    TV_TRY(tv_checkpoint_load_manifest(w->folder, 1, &manifest));
    w->present = tv_hash_equal(manifest.info.digest, w->info.digest);
    tv_manifest_free(&manifest);
    if (!w->present)
        return TV_FAIL(
            TV_CHECKPOINT,
            "%s is there already and holds another state (another run's?); move it away or choose another run.dir",
            w->folder);
    return TV_OK;
}

// Collective. Rare, so that the digest may be computed for it alone.
static tv_status compare_present(tv_checkpoint_writer *w)
{
    tv_state_hash(w->arrays, w->array_count, w->sums);
    TV_TRY(share_digest(w));
    TV_TRY(tv_comm_agree(w->comm, is_root(w) ? judge_present(w) : TV_OK));
    return tv_comm_broadcast_bytes(w->comm, &w->present, sizeof w->present, 0);
}

tv_status tv_checkpoint_free_bytes(const char *run_dir, int64_t *bytes)
{
    struct statvfs about;
    if (statvfs(run_dir, &about) != 0)
        return TV_FAIL(TV_IO, "cannot ask for the free space of %s: %s", run_dir, strerror(errno));
    *bytes = (int64_t)(about.f_bavail * about.f_frsize);
    return TV_OK;
}

// Rank 0.
static tv_status make_folder(tv_checkpoint_writer *w)
{
    int64_t free_bytes = 0;
    TV_TRY(tv_checkpoint_free_bytes(w->run_dir, &free_bytes));
    if (w->needed_bytes > free_bytes)
        return TV_FAIL(TV_DISK_FULL,
                       "not enough space in %s: the checkpoint needs up to %" PRId64 " bytes and %" PRId64
                       " are free; free some space or lower checkpoint.keep",
                       w->run_dir, w->needed_bytes, free_bytes);
    if (tv_fault_errno(TV_FAULT_SAVE_MKDIR_POINT) || mkdir(w->temporary, 0755) != 0)
        return TV_FAIL(tv_io_code(errno), "cannot make the folder %s: %s", w->temporary, strerror(errno));
    w->made = 1;
    return TV_OK;
}

// Rank 0.
static tv_status open_run_folder(tv_checkpoint_writer *w, int64_t *there)
{
    TV_TRY(tv_dir_make(w->run_dir));
    snprintf(w->run_id, sizeof w->run_id, "%ld-%lld", (long)getpid(), (long long)time(NULL));
    TV_TRY(make_paths(w));
    return find_present(w, there);
}

// Collective. The unfinished folder is there and every rank knows its name, unless an equal checkpoint is there already.
static tv_status open_folder(tv_checkpoint_writer *w)
{
    int64_t there = 0;
    TV_TRY(tv_comm_agree(w->comm, is_root(w) ? open_run_folder(w, &there) : TV_OK));
    TV_TRY(tv_comm_broadcast_bytes(w->comm, &there, sizeof there, 0));
    if (there)
        TV_TRY(compare_present(w));
    if (w->present)
        return TV_OK;
    TV_TRY(tv_comm_agree(w->comm, is_root(w) ? make_folder(w) : TV_OK));
    TV_TRY(tv_comm_broadcast_bytes(w->comm, w->run_id, sizeof w->run_id, 0));
    return tv_comm_agree(w->comm, is_root(w) ? TV_OK : make_paths(w));
}

// Says what a full disk would have needed, keeps the message, takes the folder away. Other ranks only forget.
static tv_status give_up(tv_checkpoint_writer *w, tv_status st)
{
    char message[1024];
    int64_t free_bytes = 0;
    snprintf(message, sizeof message, "%s", tv_status_message());
    tv_save_drop(w);
    int tell = st == TV_DISK_FULL && !strstr(message, " bytes and ") &&
               tv_checkpoint_free_bytes(w->run_dir, &free_bytes) == TV_OK;
    int64_t needed = w->needed_bytes;
    forget(w);
    if (!tell)
        return TV_FAIL(st, "%s", message);
    return TV_FAIL(st,
                   "%.700s; the checkpoint needs up to %" PRId64 " bytes and %" PRId64
                   " are free now: free some space or lower checkpoint.keep",
                   message, needed, free_bytes);
}

tv_status tv_checkpoint_save_start(tv_checkpoint_writer *w, const tv_save_args *args)
{
    tv_status st = w->stage == TV_SAVE_IDLE ? TV_OK : TV_FAIL(TV_INTERNAL, "a save begins before the last one ended");
    TV_TRY(tv_comm_agree(w->comm, st));
    TV_TRY_GOTO(st, failed, tv_comm_agree(w->comm, remember(w, args)));
    TV_TRY_GOTO(st, failed, open_folder(w));
    w->stage = TV_SAVE_WRITING;
    w->background = args->background;
    w->outcome = TV_OK;
    if (w->present)
        return TV_OK;
    TV_TRY_GOTO(st, failed, tv_comm_agree(w->comm, tv_save_take_blocks(w, args->background && !args->kept)));
    start_work(w, tv_save_write_shard, args->background);
    return TV_OK;
failed:
    return give_up(w, st);
}

// ---- the steps after it

int tv_checkpoint_save_pending(const tv_checkpoint_writer *w) { return w->stage != TV_SAVE_IDLE; }

int tv_checkpoint_save_busy(const tv_checkpoint_writer *w)
{
    return w->stage != TV_SAVE_IDLE && w->started && atomic_load(&w->busy);
}

// Collective. All ranks' texts behind each other; text_sizes[r] bytes are rank r's.
static tv_status gather_texts(tv_checkpoint_writer *w)
{
    int ranks = tv_comm_size(w->comm), rank = tv_comm_rank(w->comm);
    int64_t total = 0, before = 0;
    w->text_sizes[rank] = (int64_t)w->text_bytes;
    TV_TRY(tv_comm_all_gather_bytes(w->comm, w->text_sizes, sizeof *w->text_sizes, TV_WIRE_OTHER));
    for (int r = 0; r < ranks; r++) {
        before += r < rank ? w->text_sizes[r] : 0;
        total += w->text_sizes[r];
    }
    w->texts = malloc((size_t)total + 1);
    tv_status st = w->texts ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for the %" PRId64 " bytes of the manifest", total);
    TV_TRY(tv_comm_agree(w->comm, st));
    if (w->text_bytes > 0)
        memcpy(w->texts + before, w->text, w->text_bytes);
    return tv_comm_all_gather_v_bytes(w->comm, w->texts, w->text_sizes, TV_WIRE_OTHER);
}

static tv_status end_writing(tv_checkpoint_writer *w)
{
    tv_status st = join_work(w);
    if (st == TV_OK)
        st = tv_io_fault(TV_FAULT_SAVE_AGREE_POINT);
    TV_TRY(tv_comm_agree(w->comm, st));
    TV_TRY(share_digest(w));
    TV_TRY(gather_texts(w));
    w->stage = TV_SAVE_PUBLISHING;
    if (is_root(w))
        start_work(w, tv_save_publish, w->background);
    return TV_OK;
}

static void report(const tv_checkpoint_writer *w, tv_save_report *out)
{
    *out = (tv_save_report){.done = 1, .step = w->info.step, .digest = w->info.digest};
}

tv_status tv_checkpoint_save_advance(tv_checkpoint_writer *w, tv_save_report *out)
{
    tv_status st = TV_OK;
    *out = (tv_save_report){.step = w->info.step};
    if (w->stage == TV_SAVE_WRITING && !w->present) {
        st = end_writing(w);
        return st == TV_OK ? TV_OK : give_up(w, st);
    }
    if (w->stage == TV_SAVE_PUBLISHING)
        st = tv_comm_agree(w->comm, is_root(w) ? join_work(w) : TV_OK);
    if (st != TV_OK)
        return give_up(w, st);
    report(w, out);
    forget(w);
    return TV_OK;
}

tv_status tv_checkpoint_save_finish(tv_checkpoint_writer *w, tv_save_report *out)
{
    *out = (tv_save_report){0};
    while (tv_checkpoint_save_pending(w))
        TV_TRY(tv_checkpoint_save_advance(w, out));
    return TV_OK;
}

void tv_checkpoint_writer_close(tv_checkpoint_writer *w)
{
    if (!w)
        return;
    if (w->started)
        pthread_join(w->thread, NULL);
    forget(w);
    tv_comm_close(w->group);
    free(w->blocks);
    free(w->owners);
    free(w->memory);
    free(w);
}

tv_status tv_checkpoint_save(tv_comm *comm, const char *run_dir, tv_checkpoint_info *info, const tv_state_array *arrays,
                             int64_t count)
{
    tv_checkpoint_writer *w = NULL;
    tv_save_report saved;
    tv_save_args args = {.run_dir = run_dir, .info = info, .arrays = arrays, .count = count};
    TV_TRY(tv_checkpoint_writer_open(comm, TV_WRITERS_RANK, &w));
    tv_status st = tv_checkpoint_save_start(w, &args);
    if (st == TV_OK)
        st = tv_checkpoint_save_finish(w, &saved);
    if (st == TV_OK) {
        info->digest = saved.digest;
        info->writers = w->count;
    }
    tv_checkpoint_writer_close(w);
    return st;
}
