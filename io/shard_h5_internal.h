// What the .c files of the shard share; not for others.
#ifndef TV_IO_SHARD_H5_INTERNAL_H
#define TV_IO_SHARD_H5_INTERNAL_H

#include <hdf5.h>

#include "base/state.h"
#include "base/status.h"
#include "base/tensor.h"
#include "io/shard_h5_shadow.h"

// Local. No plugins, no messages on stderr. Once a process; TV_IO when the library does not start.
tv_status tv_h5_start(void);
// Local. TV_FAIL with `what`, the path and the first and last description of HDF5's error stack.
tv_status tv_h5_fail(tv_status code, const char *path, const char *what);
// Little-endian file type and native memory type of a dtype.
hid_t tv_h5_file_type(tv_dtype dtype);
hid_t tv_h5_memory_type(tv_dtype dtype);

// Local. The sum that HDF5's fletcher32 filter puts behind a chunk.
uint32_t tv_h5_fletcher32(const void *data, size_t bytes);
// Local. All rows of the array into its dataset, which has chunks of chunk_rows rows and the fletcher32 filter. `path` is for messages.
tv_status tv_h5_write_chunks(hid_t dataset, const char *path, const tv_state_array *a, int64_t chunk_rows);

// Local. An access property list of a file driver of our own with `info`, its access information. *driver: H5I_INVALID_HID before the first
// call; registered once, and the library frees it when it ends. < 0 on failure.
hid_t tv_h5_driver_access(const H5FD_class_t *class, hid_t *driver, const void *info);

// A descriptor that HDF5 writes through. After the first failed write nothing more is written and HDF5 is told that all
// is well: the library does not survive a file that it cannot close (it leaves the file open and crashes when it ends).
// `error` is the errno.
// The disk works while the next bytes are made: see trail in shard_h5_sink.c.
typedef struct tv_h5_sink {
    int fd;
    int error;
    tv_shadow *shadow;        // hears of each write; NULL: none
    int64_t started, settled; // bytes whose way to the disk has begun; that are there and read ahead again
    int64_t rewritten;        // up to here something was written again after that
} tv_h5_sink;
// Local. An access property list that makes H5Fcreate write to the sink (the name given to it does not matter); < 0 on
// failure.
hid_t tv_h5_sink_access(tv_h5_sink *sink);

// A descriptor that HDF5 reads through. Raw data, global heaps included, is refused while raw_allowed is 0; raw_refused says that it
// was asked for.
typedef struct tv_h5_source {
    int fd;
    int64_t bytes; // of the file
    int raw_allowed, raw_refused;
    int held; // the library has it open, and must find it where it is
} tv_h5_source;
// Local. An access property list that makes H5Fopen read from the source (the name given to it does not matter); < 0 on failure.
hid_t tv_h5_source_access(tv_h5_source *source);

#endif
