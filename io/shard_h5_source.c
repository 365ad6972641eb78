// A small HDF5 file driver for reading: positional reads of a descriptor, and no raw data. Rows are read beside the library.
//
// Virtual datasets and types of variable length keep their description in global heaps, which the library reads while it opens an
// object. Seen with HDF5 1.10.8: on a damaged heap it never comes back. Heaps are read as raw data, and a dataset that we accept has
// none.
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/shard_h5_internal.h"

typedef struct source_access {
    tv_h5_source *source; // the driver's part of the access property list
} source_access;

typedef struct source_file {
    H5FD_t public_part; // must come first
    tv_h5_source *source;
    haddr_t end_of_space;
} source_file;

static H5FD_t *source_open(const char *name, unsigned flags, hid_t access, haddr_t max_address)
{
    (void)name, (void)flags, (void)max_address;
    const source_access *info = H5Pget_driver_info(access);
    source_file *file = info ? calloc(1, sizeof *file) : NULL;
    if (!file)
        return NULL;
    file->source = info->source;
    file->source->held = 1;
    return &file->public_part;
}

static herr_t source_close(H5FD_t *file)
{
    ((source_file *)file)->source->held = 0;
    free(file);
    return 0;
}

// Metadata is not accumulated: the library's code for that reads through NULL when a file names blocks that overlap.
static herr_t source_query(const H5FD_t *file, unsigned long *flags)
{
    (void)file;
    *flags = H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t source_get_space(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const source_file *)file)->end_of_space;
}

static herr_t source_set_space(H5FD_t *file, H5FD_mem_t type, haddr_t address)
{
    (void)type;
    ((source_file *)file)->end_of_space = address;
    return 0;
}

static haddr_t source_get_end(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return (haddr_t)((const source_file *)file)->source->bytes;
}

int tv_h5_source_read(const tv_h5_source *source, void *buffer, int64_t bytes, int64_t offset)
{
    for (int64_t done = 0; done < bytes;) {
        ssize_t n = pread(source->fd, (char *)buffer + done, (size_t)(bytes - done), (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = ENODATA;
        if (n <= 0)
            return -1;
        done += n;
    }
    return 0;
}

void tv_h5_source_free(tv_h5_source *source)
{
    if (source->fd >= 0)
        close(source->fd);
    source->fd = -1;
    if (!source->held)
        free(source);
}

// A read beyond the file's end fails before its memory is touched: the size is the file's word, and may be gigabytes.
static herr_t source_read(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes, void *buffer)
{
    (void)transfer;
    tv_h5_source *source = ((source_file *)base)->source;
    haddr_t end = (haddr_t)source->bytes;
    if (address > end || bytes > end - address)
        return -1;
    if (type == H5FD_MEM_DRAW || type == H5FD_MEM_GHEAP) {
        source->raw_refused = 1;
        return -1;
    }
    return tv_h5_source_read(source, buffer, (int64_t)bytes, (int64_t)address);
}

static herr_t source_write(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes,
                           const void *buffer)
{
    (void)base, (void)type, (void)transfer, (void)address, (void)bytes, (void)buffer;
    return -1;
}

static const H5FD_class_t source_class = {
#if H5_VERSION_GE(1, 13, 0)
    .version = H5FD_CLASS_VERSION,
    .value = (H5FD_class_value_t)511, // from the range the HDF Group leaves to private drivers (256 to 511)
#endif
    .name = "trivote_source",
    .maxaddr = (haddr_t)INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(source_access),
    .open = source_open,
    .close = source_close,
    .query = source_query,
    .get_eoa = source_get_space,
    .set_eoa = source_set_space,
    .get_eof = source_get_end,
    .read = source_read,
    .write = source_write,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

hid_t tv_h5_source_access(tv_h5_source *source)
{
    static hid_t driver = H5I_INVALID_HID;
    return tv_h5_driver_access(&source_class, &driver, &(source_access){source});
}
