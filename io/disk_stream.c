// Three threads work on neighbouring pieces of the file: the caller's fills one, the second writes the one before, the third reads an
// older one again. Pieces are large and aligned, for O_DIRECT: that saves the copy into the page cache, and what is read again comes from
// the disk for sure. Where a file system has no O_DIRECT, pages are written back and dropped before they are read again.
#include "io/disk_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/tensor.h"
#include "base/thread.h"
#include "comm/watch.h"
#include "io/atomic_file.h"

enum {
    PIECE = 4 << 20, // bytes; larger ones gain nothing
    RING = 6,        // pieces that are made but not yet written
    ALIGN = 4096     // of memory, places and lengths for O_DIRECT
};

struct tv_disk_stream {
    char *path;
    int fd;
    atomic_int direct;
    int64_t bytes, pieces;         // of the file
    unsigned char *ring, *back;    // [RING][PIECE] to be written, [PIECE] read again
    int64_t filled;                // bytes of the piece that is being made
    tv_hash_stream *meant, *found; // of the file so far
    tv_hash128 *hashes;            // [pieces] of the file as meant, up to the end of each piece
    pthread_t writer, reader;
    int writing, reading; // those threads are to be joined
    pthread_mutex_t lock; // for what follows
    pthread_cond_t turn;
    int64_t made, written; // pieces
    int over;              // something failed, or nobody waits for the file any more
    tv_status outcome;
    char message[1024];
};

// ---- turns

// Until *counter >= least. 0: there is nothing to wait for.
static int wait_for(tv_disk_stream *s, const int64_t *counter, int64_t least)
{
    pthread_mutex_lock(&s->lock);
    while (!s->over && *counter < least)
        pthread_cond_wait(&s->turn, &s->lock);
    int goes_on = !s->over;
    pthread_mutex_unlock(&s->lock);
    return goes_on;
}

static void count(tv_disk_stream *s, int64_t *counter)
{
    pthread_mutex_lock(&s->lock);
    ++*counter;
    pthread_cond_broadcast(&s->turn);
    pthread_mutex_unlock(&s->lock);
    tv_watch_moves();
}

// The first failure counts; TV_OK only ends the work.
static void end(tv_disk_stream *s, tv_status st)
{
    pthread_mutex_lock(&s->lock);
    s->over = 1;
    if (s->outcome == TV_OK && st != TV_OK) {
        s->outcome = st;
        snprintf(s->message, sizeof s->message, "%s", tv_status_message());
    }
    pthread_cond_broadcast(&s->turn);
    pthread_mutex_unlock(&s->lock);
}

static int64_t piece_bytes(const tv_disk_stream *s, int64_t piece)
{
    return piece < s->pieces - 1 ? PIECE : s->bytes - piece * PIECE;
}

static unsigned char *piece_data(const tv_disk_stream *s, int64_t piece) { return s->ring + piece % RING * PIECE; }

// ---- writing

// Whether a call that failed can be made again without O_DIRECT.
static int leave_direct(tv_disk_stream *s)
{
    return errno == EINVAL && atomic_exchange(&s->direct, 0) &&
           fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) & ~O_DIRECT) == 0;
}

static tv_status write_piece(tv_disk_stream *s, int64_t piece)
{
    int64_t bytes = tv_ceil_div(piece_bytes(s, piece), ALIGN) * ALIGN;
    unsigned char *data = piece_data(s, piece);
    tv_fault fault = tv_fault_at(TV_FAULT_SAVE_WRITE_POINT);
    if (fault.error)
        return TV_FAIL(tv_io_code(fault.error), "cannot write %s: %s", s->path, strerror(fault.error));
    tv_fault_apply(fault, data, (size_t)piece_bytes(s, piece));
    for (int64_t done = 0; done < bytes;) {
        ssize_t n = pwrite(s->fd, data + done, (size_t)(bytes - done), piece * PIECE + done);
        if (n < 0 && (errno == EINTR || leave_direct(s)))
            continue;
        if (n <= 0)
            return TV_FAIL(n < 0 ? tv_io_code(errno) : TV_IO, "cannot write %s: %s", s->path,
                           n < 0 ? strerror(errno) : "nothing was written");
        done += n;
    }
    if (!s->direct)
        (void)sync_file_range(s->fd, piece * PIECE, bytes,
                              SYNC_FILE_RANGE_WRITE); // on its way early; fsync tells errors
    return TV_OK;
}

// The last piece was longer than the file.
static tv_status cut_and_sync(tv_disk_stream *s)
{
    if (ftruncate(s->fd, s->bytes) != 0)
        return TV_FAIL(tv_io_code(errno), "cannot cut %s to its length: %s", s->path, strerror(errno));
    if (tv_fault_errno(TV_FAULT_SAVE_FSYNC_POINT) || fsync(s->fd) != 0)
        return TV_FAIL(tv_io_code(errno), "cannot sync %s to disk: %s", s->path, strerror(errno));
    return TV_OK;
}

static void *write_pieces(void *argument)
{
    tv_disk_stream *s = argument;
    for (int64_t i = 0; i < s->pieces && wait_for(s, &s->made, i + 1); i++) {
        tv_status st = write_piece(s, i);
        if (st == TV_OK && i == s->pieces - 1)
            st = cut_and_sync(s);
        if (st != TV_OK) {
            end(s, st);
            break;
        }
        count(s, &s->written);
    }
    return NULL;
}

// ---- reading again

static void drop_pages(const tv_disk_stream *s, int64_t piece)
{
    (void)sync_file_range(s->fd, piece * PIECE, PIECE,
                          SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    (void)posix_fadvise(s->fd, piece * PIECE, PIECE, POSIX_FADV_DONTNEED);
}

static tv_status read_piece(tv_disk_stream *s, int64_t piece)
{
    int64_t bytes = piece_bytes(s, piece);
    if (!s->direct)
        drop_pages(s, piece);
    for (int64_t done = 0; done < bytes;) {
        ssize_t n = pread(s->fd, s->back + done, (size_t)(PIECE - done), piece * PIECE + done);
        if (n < 0 && (errno == EINTR || leave_direct(s)))
            continue;
        if (n < 0)
            return TV_FAIL(TV_IO, "cannot read %s again: %s", s->path, strerror(errno));
        if (n == 0)
            return TV_FAIL(TV_IO, "%s: the disk gave back %" PRId64 " bytes, fewer than were written", s->path,
                           piece * PIECE + done);
        done += n;
    }
    return tv_io_fault_data(TV_FAULT_SAVE_REREAD_POINT, s->back, (size_t)bytes);
}

static tv_status compare_piece(tv_disk_stream *s, int64_t piece)
{
    int64_t bytes = piece_bytes(s, piece);
    TV_TRY(read_piece(s, piece));
    tv_hash_stream_add(s->found, s->back, (size_t)bytes);
    if (!tv_hash_equal(tv_hash_stream_value(s->found), s->hashes[piece]))
        return TV_FAIL(TV_IO,
                       "%s: the disk gave back other bytes than were written, somewhere in %" PRId64
                       " bytes from %" PRId64 "; check the disk",
                       s->path, bytes, piece * PIECE);
    return TV_OK;
}

static void *compare_pieces(void *argument)
{
    tv_disk_stream *s = argument;
    tv_status st = TV_OK;
    for (int64_t i = 0; st == TV_OK && i < s->pieces && wait_for(s, &s->written, i + 1); i++) {
        st = compare_piece(s, i);
        tv_watch_moves();
    }
    if (st != TV_OK)
        end(s, st);
    return NULL;
}

// ---- the caller's side

static tv_status open_file(tv_disk_stream *s)
{
    if (tv_fault_errno(TV_FAULT_SAVE_CREATE_POINT) == 0)
        s->fd = open(s->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (s->fd < 0)
        return TV_FAIL(tv_io_code(errno), "cannot create %s: %s; all ranks must see the run folder on one file system",
                       s->path, strerror(errno));
    // Any other failure means that the file system does not know the call, or comes again when the bytes are written.
    if ((tv_fault_errno(TV_FAULT_SAVE_ROOM_POINT) || fallocate(s->fd, 0, 0, s->bytes) != 0) &&
        tv_io_code(errno) == TV_DISK_FULL)
        return TV_FAIL(TV_DISK_FULL, "cannot take the room for %s: %s", s->path, strerror(errno));
    s->direct = fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) | O_DIRECT) == 0;
    return TV_OK;
}

static tv_status start_threads(tv_disk_stream *s)
{
    s->writing = tv_thread_start(&s->writer, write_pieces, s);
    s->reading = s->writing && tv_thread_start(&s->reader, compare_pieces, s);
    return s->reading ? TV_OK
                      : TV_FAIL(TV_IO, "no thread to write %s with; is the limit of processes reached?", s->path);
}

tv_status tv_disk_stream_open(const char *path, int64_t bytes, tv_disk_stream **out)
{
    *out = NULL;
    tv_disk_stream *s = calloc(1, sizeof *s);
    if (!s)
        return TV_FAIL(TV_MEMORY, "no memory to write %s", path);
    s->fd = -1;
    s->bytes = bytes;
    s->pieces = tv_ceil_div(bytes, PIECE);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->turn, NULL);
    s->path = strdup(path);
    int64_t ring_bytes = (s->pieces < RING ? s->pieces : RING) * PIECE;
    s->ring = aligned_alloc(PIECE, (size_t)(ring_bytes + PIECE));
    s->back = s->ring ? s->ring + ring_bytes : NULL;
    // Few large pages: a request to the disk has room for some hundred segments.
    (void)madvise(s->ring, (size_t)(ring_bytes + PIECE), MADV_HUGEPAGE);
    s->hashes = calloc((size_t)s->pieces, sizeof *s->hashes);
    s->meant = tv_hash_stream_new();
    s->found = tv_hash_stream_new();
    tv_status st = TV_OK;
    if (!s->path || !s->ring || !s->hashes || !s->meant || !s->found)
        st = TV_FAIL(TV_MEMORY, "no memory to write %s", path);
    if (st == TV_OK)
        st = open_file(s);
    if (st == TV_OK)
        st = start_threads(s);
    if (st == TV_OK)
        *out = s;
    else
        tv_disk_stream_free(s);
    return st;
}

static void hand_over(tv_disk_stream *s)
{
    unsigned char *data = piece_data(s, s->made);
    tv_hash_stream_add(s->meant, data, (size_t)s->filled);
    s->hashes[s->made] = tv_hash_stream_value(s->meant);
    memset(data + s->filled, 0, (size_t)(tv_ceil_div(s->filled, ALIGN) * ALIGN - s->filled));
    s->filled = 0;
    count(s, &s->made);
}

void tv_disk_stream_add(tv_disk_stream *s, const void *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        if (s->filled == 0 && !wait_for(s, &s->written, s->made - RING + 1))
            return;
        size_t room = (size_t)(piece_bytes(s, s->made) - s->filled), part = bytes - done < room ? bytes - done : room;
        unsigned char *to = piece_data(s, s->made) + s->filled;
        if (data)
            memcpy(to, (const unsigned char *)data + done, part);
        else
            memset(to, 0, part);
        done += part;
        s->filled += (int64_t)part;
        if (part == room)
            hand_over(s);
    }
}

static void join(tv_disk_stream *s)
{
    if (s->writing)
        pthread_join(s->writer, NULL);
    if (s->reading)
        pthread_join(s->reader, NULL);
    s->writing = s->reading = 0;
}

tv_status tv_disk_stream_finish(tv_disk_stream *s, tv_hash128 *hash)
{
    if (s->made < s->pieces) // after a failure, which then counts, or else the threads would wait for ever
        end(s, TV_FAIL(TV_INTERNAL, "%s: fewer bytes came than were announced", s->path));
    join(s);
    if (s->outcome != TV_OK)
        return TV_FAIL(s->outcome, "%s", s->message);
    int fd = s->fd, failed = tv_fault_errno(TV_FAULT_SAVE_CLOSE_POINT);
    s->fd = -1;
    if (close(fd) != 0 || failed)
        return TV_FAIL(tv_io_code(failed ? failed : errno), "cannot close %s: %s", s->path,
                       strerror(failed ? failed : errno));
    *hash = tv_hash_stream_value(s->found);
    return TV_OK;
}

void tv_disk_stream_free(tv_disk_stream *s)
{
    if (!s)
        return;
    end(s, TV_OK);
    join(s);
    if (s->fd >= 0)
        close(s->fd);
    pthread_cond_destroy(&s->turn);
    pthread_mutex_destroy(&s->lock);
    tv_hash_stream_free(s->meant);
    tv_hash_stream_free(s->found);
    free(s->hashes);
    free(s->ring);
    free(s->path);
    free(s);
}
