#include "io/atomic_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HASH_BLOCK = 256 << 10 }; // fits a core's own cache

tv_status tv_io_code(int error) { return error == ENOSPC || error == EDQUOT ? TV_DISK_FULL : TV_IO; }

tv_status tv_io_fault(tv_fault_point point) { return tv_io_fault_data(point, NULL, 0); }

tv_status tv_io_fault_data(tv_fault_point point, void *data, size_t bytes)
{
    tv_fault fault = tv_fault_at(point);
    tv_fault_apply(fault, data, bytes);
    return fault.error == 0
               ? TV_OK
               : TV_FAIL(tv_io_code(fault.error), "fail point %s: %s", tv_fault_name(point), strerror(fault.error));
}

tv_status tv_path_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return TV_FAIL(TV_IO, "cannot open %s: %s", path, strerror(errno));
    tv_status st = TV_OK;
    if (fsync(fd) != 0)
        st = TV_FAIL(tv_io_code(errno), "cannot sync %s to disk: %s", path, strerror(errno));
    if (close(fd) != 0 && st == TV_OK)
        st = TV_FAIL(tv_io_code(errno), "cannot close %s: %s", path, strerror(errno));
    return st;
}

// fsync of the folder that holds `path`.
static tv_status sync_parent(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return TV_FAIL(TV_MEMORY, "no memory for the path %s", path);
    char *slash = strrchr(copy, '/');
    if (slash)
        slash[slash == copy] = '\0'; // "/file" lies in "/"
    tv_status st = tv_path_sync(slash ? copy : ".");
    free(copy);
    return st;
}

static tv_status write_all(int fd, const char *path, const char *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = write(fd, data + done, bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return TV_FAIL(n < 0 ? tv_io_code(errno) : TV_IO, "cannot write %s: %s", path,
                           n < 0 ? strerror(errno) : "nothing was written");
        done += (size_t)n;
    }
    return TV_OK;
}

// Create `path` with these bytes, on disk when it returns.
static tv_status write_synced(const char *path, const void *data, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return TV_FAIL(tv_io_code(errno), "cannot create %s: %s", path, strerror(errno));
    tv_status st = write_all(fd, path, data, bytes);
    if (st == TV_OK && fsync(fd) != 0)
        st = TV_FAIL(tv_io_code(errno), "cannot sync %s to disk: %s", path, strerror(errno));
    if (close(fd) != 0 && st == TV_OK)
        st = TV_FAIL(tv_io_code(errno), "cannot close %s: %s", path, strerror(errno));
    return st;
}

tv_status tv_file_replace(const char *path, const void *data, size_t bytes)
{
    char *temporary = NULL;
    if (asprintf(&temporary, "%s.tmp", path) < 0)
        return TV_FAIL(TV_MEMORY, "no memory for the path %s", path);
    tv_status st = write_synced(temporary, data, bytes);
    if (st == TV_OK && rename(temporary, path) != 0)
        st = TV_FAIL(tv_io_code(errno), "cannot rename %s to %s: %s", temporary, path, strerror(errno));
    if (st == TV_OK)
        st = sync_parent(path);
    else
        unlink(temporary);
    free(temporary);
    return st;
}

// Open a regular file for reading; a symlink, a device or a pipe is refused without touching it.
static tv_status open_regular(const char *path, int *fd, struct stat *about)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*fd < 0 && errno == ELOOP)
        return TV_FAIL(TV_IO, "%s is a symbolic link; put the file itself there", path);
    if (*fd < 0)
        return TV_FAIL(TV_IO, "cannot open %s: %s", path, strerror(errno));
    tv_status st = TV_OK;
    if (fstat(*fd, about) != 0)
        st = TV_FAIL(TV_IO, "cannot stat %s: %s", path, strerror(errno));
    else if (!S_ISREG(about->st_mode))
        st = TV_FAIL(TV_IO, "%s is not a regular file", path);
    if (st != TV_OK)
        close(*fd);
    return st;
}

// Up to `bytes` bytes; *got is less only at the end of the file.
static tv_status read_full(int fd, const char *path, char *data, size_t bytes, size_t *got)
{
    for (*got = 0; *got < bytes;) {
        ssize_t n = read(fd, data + *got, bytes - *got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return TV_FAIL(TV_IO, "cannot read %s: %s", path, strerror(errno));
        if (n == 0)
            break;
        *got += (size_t)n;
    }
    return TV_OK;
}

tv_status tv_file_read(const char *path, size_t limit, char **data, size_t *bytes)
{
    int fd = -1;
    struct stat about;
    char *text = NULL;
    *data = NULL;
    *bytes = 0;
    TV_TRY(open_regular(path, &fd, &about));
    tv_status st = TV_OK;
    if (about.st_size < 0 || (uint64_t)about.st_size > limit) {
        st = TV_FAIL(TV_IO, "%s has %lld bytes, more than the %zu allowed", path, (long long)about.st_size, limit);
        goto done;
    }
    text = malloc((size_t)about.st_size + 1);
    if (!text) {
        st = TV_FAIL(TV_MEMORY, "no memory for the %lld bytes of %s", (long long)about.st_size, path);
        goto done;
    }
    TV_TRY_GOTO(st, done, read_full(fd, path, text, (size_t)about.st_size, bytes));
    text[*bytes] = '\0';
    *data = text;
    text = NULL;
done:
    free(text);
    close(fd);
    return st;
}

tv_status tv_file_hash(const char *path, int64_t *bytes, tv_hash128 *hash)
{
    return tv_file_hash_blocks(path, NULL, NULL, bytes, hash);
}

tv_status tv_file_hash_blocks(const char *path, tv_file_block block, void *listener, int64_t *bytes, tv_hash128 *hash)
{
    int fd = -1;
    struct stat about;
    tv_hash_stream *stream = NULL;
    char *data = NULL;
    *bytes = 0;
    TV_TRY(open_regular(path, &fd, &about));
    tv_status st = TV_OK;
    stream = tv_hash_stream_new();
    data = malloc(HASH_BLOCK);
    if (!stream || !data) {
        st = TV_FAIL(TV_MEMORY, "no memory to hash %s", path);
        goto done;
    }
    for (size_t got = HASH_BLOCK; got == HASH_BLOCK;) {
        TV_TRY_GOTO(st, done, read_full(fd, path, data, HASH_BLOCK, &got));
        if (block)
            TV_TRY_GOTO(st, done, block(listener, data, got));
        tv_hash_stream_add(stream, data, got);
        *bytes += (int64_t)got;
    }
    *hash = tv_hash_stream_value(stream);
done:
    free(data);
    tv_hash_stream_free(stream);
    close(fd);
    return st;
}

tv_status tv_dir_make(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return TV_FAIL(TV_MEMORY, "no memory for the path %s", path);
    tv_status st = TV_OK;
    for (char *end = copy; st == TV_OK && *end;) {
        end += strspn(end, "/");
        end += strcspn(end, "/");
        char kept = *end;
        *end = '\0';
        struct stat about;
        if (mkdir(copy, 0755) != 0 && errno != EEXIST)
            st = TV_FAIL(tv_io_code(errno), "cannot make the folder %s: %s", copy, strerror(errno));
        else if (stat(copy, &about) != 0)
            st = TV_FAIL(TV_IO, "cannot stat %s: %s", copy, strerror(errno));
        else if (!S_ISDIR(about.st_mode))
            st = TV_FAIL(TV_IO, "%s is there and is no folder", copy);
        *end = kept;
    }
    free(copy);
    return st;
}

tv_status tv_dir_remove(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return TV_FAIL(TV_IO, "cannot open the folder %s: %s", path, strerror(errno));
    DIR *folder = fdopendir(fd);
    if (!folder) {
        int error = errno;
        close(fd);
        return TV_FAIL(TV_IO, "cannot read the folder %s: %s", path, strerror(error));
    }
    tv_status st = TV_OK;
    for (struct dirent *entry; st == TV_OK && (entry = readdir(folder));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (unlinkat(fd, entry->d_name, 0) != 0)
            st = TV_FAIL(TV_IO, "cannot remove %s/%s: %s", path, entry->d_name, strerror(errno));
    }
    closedir(folder);
    if (st == TV_OK && rmdir(path) != 0)
        st = TV_FAIL(TV_IO, "cannot remove the folder %s: %s", path, strerror(errno));
    return st;
}
