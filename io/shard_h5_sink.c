// A small HDF5 file driver for writing: positional writes to a descriptor, whose first error is kept and not told to
// the library.
//
// Seen with HDF5 1.10.8 and its own driver: when the disk fills, H5Fclose fails, the file stays open inside the
// library, and the process dies with a segmentation fault when the library ends. A training run must survive a full
// disk, so HDF5 must not see it.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static herr_t sink_write(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes,
                         const void *buffer)
{
    (void)type, (void)transfer;
    sink_file *file = (sink_file *)base;
    for (size_t done = 0; done < bytes && file->sink->error == 0;) {
        ssize_t n = pwrite(file->sink->fd, (const char *)buffer + done, bytes - done, (off_t)(address + done));
        if (n < 0 && errno != EINTR)
            file->sink->error = errno;
        else if (n == 0)
            file->sink->error = EIO;
        else if (n > 0)
            done += (size_t)n;
        tv_watch_moves();
    }
    if (address + bytes > file->end_of_file)
        file->end_of_file = address + bytes;
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
    static hid_t driver = H5I_INVALID_HID; // registered once; the library frees it when it ends
    if (driver < 0 && (driver = H5FDregister(&sink_class)) < 0)
        return H5I_INVALID_HID;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    sink_access info = {sink};
    if (access >= 0 && H5Pset_driver(access, driver, &info) < 0) {
        H5Pclose(access);
        return H5I_INVALID_HID;
    }
    return access;
}
