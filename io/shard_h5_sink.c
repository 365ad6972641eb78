// A small HDF5 file driver for writing: positional writes to a descriptor, whose first error is kept and not told to
// the library.
//
// Seen with HDF5 1.10.8 and its own driver: when the disk fills, H5Fclose fails, the file stays open inside the
// library, and the process dies with a segmentation fault when the library ends. A training run must survive a full
// disk, so HDF5 must not see it.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "comm/watch.h"
#include "io/shard_h5_internal.h"

typedef struct sink_access {
    tv_h5_sink *sink; // the driver's part of the access property list
} sink_access;

typedef struct sink_file {
    H5FD_t public_part; // must come first
    tv_h5_sink *sink;
    haddr_t end_of_space, end_of_file;
} sink_file;

static H5FD_t *sink_open(const char *name, unsigned flags, hid_t access, haddr_t max_address)
{
    (void)name, (void)flags, (void)max_address;
    const sink_access *info = H5Pget_driver_info(access);
    if (!info)
        return NULL;
    sink_file *file = calloc(1, sizeof *file);
    if (!file)
        return NULL;
    file->sink = info->sink;
    return &file->public_part;
}

static herr_t sink_close(H5FD_t *file)
{
    free(file);
    return 0;
}

static herr_t sink_query(const H5FD_t *file, unsigned long *flags)
{
    (void)file;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_AGGREGATE_SMALLDATA |
             H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t sink_get_space(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const sink_file *)file)->end_of_space;
}

static herr_t sink_set_space(H5FD_t *file, H5FD_mem_t type, haddr_t address)
{
    (void)type;
    ((sink_file *)file)->end_of_space = address;
    return 0;
}

static haddr_t sink_get_end(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const sink_file *)file)->end_of_file;
}

// What was never written, or was lost to an error, reads as zeros.
static herr_t sink_read(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes, void *buffer)
{
    (void)type, (void)transfer;
    const sink_file *file = (const sink_file *)base;
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = pread(file->sink->fd, (char *)buffer + done, bytes - done, (off_t)(address + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    memset((char *)buffer + done, 0, bytes - done);
    return 0;
}

enum {
    TRAIL_STEP = 16 << 20, // bytes that are sent to the disk together
    TRAIL_ROOM = 64 << 20  // bytes on their way to it
};

// Only an error of the disk counts; that a file system does not know the call does not.
static void sync_range(tv_h5_sink *sink, int64_t from, int64_t to, unsigned flags)
{
    if (sync_file_range(sink->fd, from, to - from, flags) != 0 && (errno == EIO || errno == ENOSPC || errno == EDQUOT))
        sink->error = errno;
}

// Behind the place of writing: a range starts on its way to the disk as soon as it is whole, and once there it leaves the page cache and
// is read ahead from the disk, so that the comparison after the last write does not wait for most of it.
static void trail(tv_h5_sink *sink, int64_t written)
{
    while (sink->error == 0 && written - sink->started >= TRAIL_STEP) {
        sync_range(sink, sink->started, sink->started + TRAIL_STEP, SYNC_FILE_RANGE_WRITE);
        sink->started += TRAIL_STEP;
    }
    while (sink->error == 0 && sink->started - sink->settled >= TRAIL_ROOM) {
        int64_t from = sink->settled, to = from + TRAIL_STEP;
        sync_range(sink, from, to, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
        (void)posix_fadvise(sink->fd, from, TRAIL_STEP, POSIX_FADV_DONTNEED);
        (void)posix_fadvise(sink->fd, from, TRAIL_STEP, POSIX_FADV_WILLNEED);
        sink->settled = to;
    }
}

static void write_all(tv_h5_sink *sink, haddr_t address, const char *data, size_t bytes)
{
    for (size_t done = 0; done < bytes && sink->error == 0;) {
        ssize_t n = pwrite(sink->fd, data + done, bytes - done, (off_t)(address + done));
        if (n < 0 && errno != EINTR)
            sink->error = errno;
        else if (n == 0)
            sink->error = EIO;
        else if (n > 0)
            done += (size_t)n;
        tv_watch_moves();
    }
}

// What a fail point spoils is a copy: the bytes as they were are what the disk is compared with.
static void write_spoilt(tv_h5_sink *sink, tv_fault fault, haddr_t address, const void *buffer, size_t bytes)
{
    char *copy = malloc(bytes);
    if (!copy) {
        sink->error = ENOMEM;
        return;
    }
    memcpy(copy, buffer, bytes);
    tv_fault_apply(fault, copy, bytes);
    write_all(sink, address, copy, bytes);
    free(copy);
}

static herr_t sink_write(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes,
                         const void *buffer)
{
    (void)type, (void)transfer;
    sink_file *file = (sink_file *)base;
    tv_fault fault = tv_fault_at(TV_FAULT_SAVE_WRITE_POINT);
    if (fault.error != 0 && file->sink->error == 0)
        file->sink->error = fault.error;
    if (file->sink->shadow)
        tv_shadow_write(file->sink->shadow, (int64_t)address, buffer, bytes);
    if (fault.spoil)
        write_spoilt(file->sink, fault, address, buffer, bytes);
    else
        write_all(file->sink, address, buffer, bytes);
    if (address + bytes > file->end_of_file)
        file->end_of_file = address + bytes;
    int64_t end = (int64_t)(address + bytes);
    if ((int64_t)address < file->sink->settled && end > file->sink->rewritten)
        file->sink->rewritten = end;
    trail(file->sink, (int64_t)file->end_of_file);
    return 0;
}

static herr_t sink_truncate(H5FD_t *base, hid_t transfer, hbool_t closing)
{
    (void)transfer, (void)closing;
    sink_file *file = (sink_file *)base;
    if (file->end_of_file == file->end_of_space)
        return 0;
    if (file->sink->error == 0 && ftruncate(file->sink->fd, (off_t)file->end_of_space) != 0)
        file->sink->error = errno;
    file->end_of_file = file->end_of_space;
    return 0;
}

static const H5FD_class_t sink_class = {
#if H5_VERSION_GE(1, 13, 0)
    .version = H5FD_CLASS_VERSION,
    .value = (H5FD_class_value_t)510, // from the range the HDF Group leaves to private drivers (256 to 511)
#endif
    .name = "trivote_sink",
    .maxaddr = (haddr_t)INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(sink_access),
    .open = sink_open,
    .close = sink_close,
    .query = sink_query,
    .get_eoa = sink_get_space,
    .set_eoa = sink_set_space,
    .get_eof = sink_get_end,
    .read = sink_read,
    .write = sink_write,
    .truncate = sink_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

hid_t tv_h5_sink_access(tv_h5_sink *sink)
{
    static hid_t driver = H5I_INVALID_HID;
    return tv_h5_driver_access(&sink_class, &driver, &(sink_access){sink});
}
