#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/atomic_file.h"

struct tv_run_lock {
    int fd;
};

// What the holder wrote about itself: "host H, pid P".
static void read_holder(int fd, char *text, size_t bytes)
{
    ssize_t n = pread(fd, text, bytes - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~')
            *c = '?'; // the file may hold anything; keep the terminal safe
    if (!text[0])
        snprintf(text, bytes, "an unknown process");
}

static tv_status write_holder(int fd, const char *path)
{
    char host[256] = "", text[320];
    if (gethostname(host, sizeof host - 1) != 0)
        snprintf(host, sizeof host, "unknown");
    int length = snprintf(text, sizeof text, "host %s, pid %ld\n", host, (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)length, 0) != length)
        return TV_FAIL(TV_IO, "cannot write %s: %s", path, strerror(errno));
    return TV_OK;
}

tv_status tv_run_lock_take(const char *dir, tv_run_lock **out)
{
    *out = NULL;
    char *path = NULL;
    tv_run_lock *lock = malloc(sizeof *lock);
    if (!lock || asprintf(&path, "%s/lock", dir) < 0) {
        free(lock);
        return TV_FAIL(TV_MEMORY, "no memory for the lock of %s", dir);
    }
    tv_status st = TV_OK;
    lock->fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (lock->fd < 0) {
        st = TV_FAIL(TV_IO, "cannot open the lock file %s: %s", path, strerror(errno));
        goto done;
    }
    // A lock of the open file, not of the process: closing another descriptor of the file does not drop it.
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(lock->fd, F_OFD_SETLK, &whole) != 0) {
        char holder[256];
        int error = errno;
        read_holder(lock->fd, holder, sizeof holder);
        if (error == EAGAIN || error == EACCES)
            st = TV_FAIL(
                TV_IO, "the run folder %s is in use by another run (%s); wait for it to end or choose another run.dir",
                dir, holder);
        else
            st = TV_FAIL(TV_IO, "cannot lock %s: %s; the file system must support file locks", path, strerror(error));
        goto done;
    }
    TV_TRY_GOTO(st, done, write_holder(lock->fd, path));
    *out = lock;
    lock = NULL;
done:
    tv_run_lock_free(lock);
    free(path);
    return st;
}

// The file stays: removing it would let a third run lock a new file while a second still waits on the old one.
void tv_run_lock_free(tv_run_lock *lock)
{
    if (!lock)
        return;
    if (lock->fd >= 0)
        close(lock->fd);
    free(lock);
}
