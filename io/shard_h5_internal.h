// What the .c files of the shard share; not for others.
#ifndef TV_IO_SHARD_H5_INTERNAL_H
#define TV_IO_SHARD_H5_INTERNAL_H

#include <hdf5.h>

#include "base/state.h"
#include "base/status.h"
#include "base/tensor.h"
#include "io/disk_stream.h"

// Local. No plugins, no messages on stderr. Once a process; TV_IO when the library does not start.
tv_status tv_h5_start(void);
// Local. TV_FAIL with `what`, the path and the first and last description of HDF5's error stack.
tv_status tv_h5_fail(tv_status code, const char *path, const char *what);
// Little-endian file type of a dtype.
hid_t tv_h5_file_type(tv_dtype dtype);

// What a file will hold: HDF5's own bytes in memory, and where chunks belong, which are made when the file is written.
typedef struct tv_h5_chunk {
    int64_t address; // in the file
    const unsigned char *rows;
    size_t bytes, padding; // of the rows; zeros after them. The sum of fletcher32 follows
} tv_h5_chunk;
typedef struct tv_h5_image {
    int64_t bytes;         // of the file
    tv_h5_chunk *chunks;   // [count]
    tv_h5_chunk coming;    // the one that H5Dwrite_chunk is called for; rows NULL: none
    unsigned char **pages; // [page_count] NULL: zeros
    int64_t count, room, page_count;
    int lost; // memory ran short, of which HDF5 is not told: it does not survive a file that it cannot close
} tv_h5_image;
// Local. An access property list that makes H5Fcreate write to the image (the name given to it does not matter); < 0 on failure.
hid_t tv_h5_image_access(tv_h5_image *image);
// Local. The first bytes of [at, end), *bytes of them; NULL: zeros.
const unsigned char *tv_h5_image_part(const tv_h5_image *image, int64_t at, int64_t end, size_t *bytes);
void tv_h5_image_free(tv_h5_image *image);

#define TV_H5_SUM_BYTES 4
// Local. The sum that HDF5's fletcher32 filter puts behind a chunk of these bytes and zeros.
uint32_t tv_h5_fletcher32(const void *data, size_t bytes, size_t zeros);
// Local. Gives each chunk of the dataset, of chunk_rows rows of the array, its place in the image. `path` is for messages.
tv_status tv_h5_place_chunks(hid_t dataset, const char *path, const tv_state_array *a, int64_t chunk_rows,
                             tv_h5_image *image);
// Local. The bytes of the file, chunks made from their rows, in order.
void tv_h5_stream_image(tv_h5_image *image, tv_disk_stream *stream);

// Local. An access property list of a file driver of our own with `info`, its access information. *driver: H5I_INVALID_HID before the first
// call; registered once, and the library frees it when it ends. < 0 on failure.
hid_t tv_h5_driver_access(const H5FD_class_t *class, hid_t *driver, const void *info);

// A descriptor that HDF5 reads through. Raw data, global heaps included, is refused; raw_refused says that it was asked for.
typedef struct tv_h5_source {
    int fd;
    int64_t bytes; // of the file
    int raw_refused;
    int held; // the library has it open, and must find it where it is
} tv_h5_source;
// Local. An access property list that makes H5Fopen read from the source (the name given to it does not matter); < 0 on failure.
hid_t tv_h5_source_access(tv_h5_source *source);
// Local. `bytes` bytes of the file from `offset` on. < 0 with errno on failure; ENODATA: the file ends before.
int tv_h5_source_read(const tv_h5_source *source, void *buffer, int64_t bytes, int64_t offset);
// Local. Closes the descriptor; frees the source unless the library still has it open, as after a file so damaged that it cannot close it.
void tv_h5_source_free(tv_h5_source *source);
// Local. The link must be there, and a hard one; it is looked at, not followed. `words` name it in messages, behind the file's path.
tv_status tv_h5_check_link(tv_status code, const char *path, hid_t file, const char *link, const char *words);

#endif
