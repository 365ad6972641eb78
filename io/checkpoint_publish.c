// Rank 0's last steps of a save: one manifest of all ranks' parts, and the rename that makes the folder a checkpoint.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "io/atomic_file.h"
#include "io/checkpoint_internal.h"
#include "io/checkpoint_saving.h"

// One manifest of all writers' parts, checked as a reader will check it.
static tv_status merge_parts(const tv_checkpoint_writer *w, tv_manifest *manifest)
{
    const char *next = w->texts;
    TV_TRY(tv_manifest_parse(next, (size_t)w->text_sizes[0], manifest));
    free(manifest->info.config_text);
    manifest->info.config_text = strdup(w->info.config_text);
    manifest->info.digest = w->info.digest;
    if (!manifest->info.config_text)
        return TV_FAIL(TV_MEMORY, "no memory for the config's text");
    for (int r = 1; r < tv_comm_size(w->comm); r++) {
        tv_manifest part;
        next += w->text_sizes[r - 1];
        if (w->text_sizes[r] == 0)
            continue; // another rank wrote its rows
        TV_TRY(tv_manifest_parse(next, (size_t)w->text_sizes[r], &part));
        tv_status st = tv_manifest_merge(manifest, &part);
        tv_manifest_free(&part);
        TV_TRY(st);
    }
    return tv_manifest_check(manifest);
}

static tv_status write_file(const tv_checkpoint_writer *w, const char *name, const char *text, size_t bytes)
{
    char *path = NULL;
    TV_TRY(tv_checkpoint_path(w->temporary, name, &path));
    tv_status st = tv_file_replace(path, text, bytes);
    free(path);
    return st;
}

// manifest.json and checksums.xxh128, on disk.
static tv_status write_manifest(const tv_checkpoint_writer *w)
{
    tv_manifest manifest = {0};
    char *text = NULL, *list = NULL;
    size_t bytes = 0, list_bytes = 0;
    tv_status st = TV_OK;
    TV_TRY_GOTO(st, done, merge_parts(w, &manifest));
    TV_TRY_GOTO(st, done, tv_manifest_text(&manifest, &text, &bytes));
    TV_TRY_GOTO(st, done, tv_io_fault(TV_FAULT_SAVE_MANIFEST_POINT));
    TV_TRY_GOTO(st, done, write_file(w, TV_MANIFEST_NAME, text, bytes));
    TV_TRY_GOTO(st, done, tv_manifest_checksums(&manifest, tv_hash_bytes(text, bytes), &list, &list_bytes));
    TV_TRY_GOTO(st, done, tv_io_fault(TV_FAULT_SAVE_LIST_POINT));
    TV_TRY_GOTO(st, done, write_file(w, TV_CHECKSUMS_NAME, list, list_bytes));
    st = tv_path_sync(w->temporary);
done:
    free(list);
    free(text);
    tv_manifest_free(&manifest);
    return st;
}

// A damaged checkpoint of the same step makes room but is not deleted.
static tv_status set_aside(const tv_checkpoint_writer *w)
{
    char *aside = NULL;
    if (asprintf(&aside, "%s.damaged-%s", w->folder, w->run_id) < 0)
        return TV_FAIL(TV_MEMORY, "no memory for the path %s", w->folder);
    tv_status st = TV_OK;
    if (rename(w->folder, aside) != 0)
        st = TV_FAIL(TV_IO, "cannot rename %s to %s: %s", w->folder, aside, strerror(errno));
    free(aside);
    return st;
}

static tv_status write_latest(const tv_checkpoint_writer *w)
{
    char *path = NULL, text[48];
    int length = snprintf(text, sizeof text, "%s\n", strrchr(w->folder, '/') + 1);
    TV_TRY(tv_io_fault(TV_FAULT_SAVE_LATEST_POINT));
    TV_TRY(tv_checkpoint_path(w->run_dir, "latest", &path));
    tv_status st = tv_file_replace(path, text, (size_t)length);
    free(path);
    return st;
}

static tv_status sync_run_folder(const tv_checkpoint_writer *w)
{
    TV_TRY(tv_io_fault(TV_FAULT_SAVE_SYNC_PARENT_POINT));
    return tv_path_sync(w->run_dir);
}

tv_status tv_save_publish(tv_checkpoint_writer *w)
{
    TV_TRY(write_manifest(w));
    if (w->replace)
        TV_TRY(set_aside(w));
    if (tv_fault_errno(TV_FAULT_SAVE_RENAME_POINT) || rename(w->temporary, w->folder) != 0)
        return TV_FAIL(tv_io_code(errno), "cannot rename %s to %s: %s", w->temporary, w->folder, strerror(errno));
    // From here on the checkpoint counts; what fails after it is a warning.
    w->made = 0;
    if (sync_run_folder(w) != TV_OK)
        tv_log_warn("checkpoint %s is complete, but a power cut now could lose it: %s", w->folder, tv_status_message());
    if (write_latest(w) != TV_OK)
        tv_log_warn("the hint 'latest' is not written: %s", tv_status_message());
    tv_checkpoint_attempts_clear(w->run_dir);
    if (w->keep > 0)
        tv_checkpoint_prune_after(w->run_dir, w->keep, w->resumed_from, w->info.step);
    return TV_OK;
}

void tv_save_drop(tv_checkpoint_writer *w)
{
    if (w->made && tv_dir_remove(w->temporary) != TV_OK)
        tv_log_warn("unfinished checkpoint: %s", tv_status_message());
    w->made = 0;
}
