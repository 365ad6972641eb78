// The file: head, tensors, padding, and a name only when all of it is there.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "export.h"
#include "io/atomic_file.h"

enum { BUFFER_BYTES = 1 << 20 };

typedef struct export_file {
    const char *path;
    char *temporary;
    FILE *stream;
    int64_t written, planned;
} export_file;

static tv_status fail_write(const export_file *file, const char *what)
{
    const char *cure = errno == ENOSPC || errno == EDQUOT ? ", free some space and export again" : "";
    return TV_FAIL(TV_IO, "cannot %s %s after %" PRId64 " of %" PRId64 " bytes: %s; nothing is left of it%s", what,
                   file->temporary, file->written, file->planned, strerror(errno), cure);
}

static tv_status put(export_file *file, const void *data, int64_t bytes)
{
    if (tv_fault_errno(TV_FAULT_EXPORT_WRITE_POINT) ||
        (bytes > 0 && fwrite(data, 1, (size_t)bytes, file->stream) != (size_t)bytes))
        return fail_write(file, "write");
    file->written += bytes;
    return TV_OK;
}

static tv_status put_zeros(export_file *file, int64_t bytes)
{
    static const uint8_t zeros[64];
    for (int64_t step; bytes > 0; bytes -= step) {
        step = bytes < (int64_t)sizeof zeros ? bytes : (int64_t)sizeof zeros;
        TV_TRY(put(file, zeros, step));
    }
    return TV_OK;
}

// All tensors, the last one padded, too, as ggml's readers want it.
static int64_t data_bytes(const tv_export *plan, const tv_export_format *format)
{
    const tv_export_tensor *last = plan->count > 0 ? &plan->tensors[plan->count - 1] : NULL;
    return last ? tv_ceil_div(last->offset + last->bytes, format->alignment) * format->alignment : 0;
}

static tv_status put_head(export_file *file, const tv_export *plan, const tv_export_format *format)
{
    char *head = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&head, &bytes);
    if (!stream)
        return TV_FAIL(TV_MEMORY, "no memory for the head of %s", file->path);
    tv_status st = format->write_head(plan, stream);
    int failed = ferror(stream) | fclose(stream);
    if (st == TV_OK && failed)
        st = TV_FAIL(TV_MEMORY, "no memory for the head of %s", file->path);
    file->planned = (int64_t)bytes + data_bytes(plan, format);
    if (st == TV_OK)
        st = put(file, head, (int64_t)bytes);
    free(head);
    return st;
}

// Buffers of one tensor's pieces: rows as the checkpoint holds them, and one row as the file does.
typedef struct piece {
    int64_t rows; // at most
    uint8_t *values, *row;
    int8_t *exponents;
} piece;

static tv_status piece_open(piece *p, const tv_export_tensor *tensor)
{
    p->rows = tv_export_piece_rows(tensor->values);
    if (p->rows > tensor->rows)
        p->rows = tensor->rows;
    p->values = malloc((size_t)(p->rows * tv_state_row_bytes(tensor->values)) + 1);
    p->exponents = malloc((size_t)(tensor->exponents ? p->rows * tensor->exponents->cols : 0) + 1);
    p->row = malloc((size_t)tensor->row_bytes + 1);
    return p->values && p->exponents && p->row ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for rows of %s", tensor->name);
}

static void piece_close(piece *p)
{
    free(p->values);
    free(p->exponents);
    free(p->row);
}

static tv_status put_piece(export_file *file, tv_export_rows *rows, const piece *p, int64_t count)
{
    const tv_export_tensor *tensor = rows->tensor;
    int64_t value_bytes = tv_state_row_bytes(tensor->values), groups = tensor->exponents ? tensor->exponents->cols : 0;
    for (int64_t r = 0; r < count; r++) {
        tv_export_encode(rows, p->values + r * value_bytes, groups ? p->exponents + r * groups : NULL, p->row);
        TV_TRY(put(file, p->row, tensor->row_bytes));
    }
    return TV_OK;
}

static tv_status put_tensor(export_file *file, tv_checkpoint *checkpoint, const tv_export_tensor *tensor)
{
    tv_export_rows rows = {.trits = NULL};
    piece p = {.rows = 0};
    tv_status st;
    TV_TRY_GOTO(st, done, tv_export_rows_open(&rows, tensor));
    TV_TRY_GOTO(st, done, piece_open(&p, tensor));
    for (int64_t first = 0; first < tensor->rows; first += p.rows) {
        int64_t count = tensor->rows - first < p.rows ? tensor->rows - first : p.rows;
        TV_TRY_GOTO(st, done, tv_export_read(checkpoint, tensor->values, first, count, p.values));
        if (tensor->exponents)
            TV_TRY_GOTO(st, done, tv_export_read(checkpoint, tensor->exponents, first, count, p.exponents));
        TV_TRY_GOTO(st, done, put_piece(file, &rows, &p, count));
    }
done:
    piece_close(&p);
    tv_export_rows_close(&rows);
    return st;
}

static tv_status put_all(export_file *file, const tv_export *plan, const tv_export_format *format)
{
    TV_TRY(put_head(file, plan, format));
    int64_t start = file->written;
    for (int64_t i = 0; i < plan->count; i++) {
        const tv_export_tensor *tensor = &plan->tensors[i];
        TV_TRY(put_zeros(file, start + tensor->offset - file->written));
        TV_TRY(put_tensor(file, plan->checkpoint, tensor));
        if (file->written != start + tensor->offset + tensor->bytes)
            return TV_FAIL(TV_INTERNAL, "%s: %" PRId64 " bytes written, not %" PRId64, tensor->name,
                           file->written - start - tensor->offset, tensor->bytes);
    }
    return put_zeros(file, file->planned - file->written);
}

static tv_status check_target(const char *path, int force)
{
    struct stat about;
    if (lstat(path, &about) != 0)
        return errno == ENOENT ? TV_OK : TV_FAIL(TV_IO, "cannot write to %s: %s", path, strerror(errno));
    if (!S_ISREG(about.st_mode))
        return TV_FAIL(TV_USAGE, "%s is there and is no regular file; give --out another name", path);
    if (!force)
        return TV_FAIL(TV_USAGE, "%s is there already; give --out another name, or --force to replace it", path);
    return TV_OK;
}

static tv_status file_open(export_file *file, const char *path)
{
    *file = (export_file){.path = path};
    if (asprintf(&file->temporary, "%s.tmp", path) < 0) {
        file->temporary = NULL;
        return TV_FAIL(TV_MEMORY, "no memory for the path %s", path);
    }
    int fd = open(file->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    file->stream = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!file->stream) {
        tv_status st = TV_FAIL(TV_IO, "cannot create %s: %s", file->temporary, strerror(errno));
        if (fd >= 0)
            close(fd);
        return st;
    }
    setvbuf(file->stream, NULL, _IOFBF, BUFFER_BYTES);
    return TV_OK;
}

// Closes the stream in any case; on disk when it returns TV_OK.
static tv_status file_sync(export_file *file)
{
    tv_status st = TV_OK;
    if (fflush(file->stream) != 0 || fsync(fileno(file->stream)) != 0)
        st = fail_write(file, "write");
    if (fclose(file->stream) != 0 && st == TV_OK)
        st = fail_write(file, "close");
    file->stream = NULL;
    return st;
}

static tv_status file_publish(const export_file *file)
{
    if (rename(file->temporary, file->path) != 0)
        return TV_FAIL(TV_IO, "cannot rename %s to %s: %s", file->temporary, file->path, strerror(errno));
    char *copy = strdup(file->path);
    tv_status st = copy ? tv_path_sync(dirname(copy)) : TV_FAIL(TV_MEMORY, "no memory for the path %s", file->path);
    free(copy);
    return st;
}

tv_status tv_export_write(const tv_export *plan, const tv_export_format *format, const char *path, int force)
{
    export_file file;
    TV_TRY(check_target(path, force));
    tv_status st = file_open(&file, path);
    int made = st == TV_OK;
    if (st == TV_OK)
        st = put_all(&file, plan, format);
    if (st == TV_OK)
        st = file_sync(&file);
    if (st == TV_OK)
        st = file_publish(&file);
    if (file.stream)
        fclose(file.stream);
    if (st != TV_OK && made)
        unlink(file.temporary);
    free(file.temporary);
    return st;
}
