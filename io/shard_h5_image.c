// A small HDF5 file driver that writes nothing: the library's own bytes go into memory, and of chunks it notes where they belong. The file
// is then written front to back by io/disk_stream.h.
//
// So the library never sees a failing disk. Seen with HDF5 1.10.8 and its own driver: when the disk fills, H5Fclose fails, the file stays
// open inside the library, and the process dies with a segmentation fault when the library ends.
#include <stdlib.h>
#include <string.h>

#include "io/shard_h5_internal.h"

enum { PAGE = 64 << 10 }; // memory is taken for pages that were touched

typedef struct image_access {
    tv_h5_image *image; // the driver's part of the access property list
} image_access;

typedef struct image_file {
    H5FD_t public_part; // must come first
    tv_h5_image *image;
    haddr_t end_of_space;
} image_file;

// ---- memory

static unsigned char *page_at(tv_h5_image *image, int64_t number)
{
    if (number >= image->page_count) {
        int64_t most = 2 * number + 16;
        unsigned char **grown = realloc(image->pages, (size_t)most * sizeof *grown);
        if (!grown)
            return NULL;
        memset(grown + image->page_count, 0, (size_t)(most - image->page_count) * sizeof *grown);
        image->pages = grown;
        image->page_count = most;
    }
    if (!image->pages[number])
        image->pages[number] = calloc(1, PAGE);
    return image->pages[number];
}

// Bytes of [at, end) that lie in one page.
static size_t part_bytes(int64_t at, int64_t end)
{
    int64_t next = (at / PAGE + 1) * PAGE;
    return (size_t)((next < end ? next : end) - at);
}

static void put(tv_h5_image *image, int64_t at, int64_t end, const unsigned char *data)
{
    while (at < end) {
        size_t part = part_bytes(at, end);
        unsigned char *page = page_at(image, at / PAGE);
        if (!page) {
            image->lost = 1;
            return;
        }
        memcpy(page + at % PAGE, data, part);
        data += part;
        at += (int64_t)part;
    }
}

const unsigned char *tv_h5_image_part(const tv_h5_image *image, int64_t at, int64_t end, size_t *bytes)
{
    const unsigned char *page = at / PAGE < image->page_count ? image->pages[at / PAGE] : NULL;
    *bytes = part_bytes(at, end);
    return page ? page + at % PAGE : NULL;
}

static void note_chunk(tv_h5_image *image, int64_t address)
{
    if (image->count == image->room) {
        int64_t room = image->room ? 2 * image->room : 64;
        tv_h5_chunk *grown = realloc(image->chunks, (size_t)room * sizeof *grown);
        if (!grown) {
            image->lost = 1;
            return;
        }
        image->chunks = grown;
        image->room = room;
    }
    image->chunks[image->count] = image->coming;
    image->chunks[image->count++].address = address;
}

void tv_h5_image_free(tv_h5_image *image)
{
    for (int64_t i = 0; i < image->page_count; i++)
        free(image->pages[i]);
    free(image->pages);
    free(image->chunks);
    *image = (tv_h5_image){0};
}

// ---- the driver

static H5FD_t *image_open(const char *name, unsigned flags, hid_t access, haddr_t max_address)
{
    (void)name, (void)flags, (void)max_address;
    const image_access *info = H5Pget_driver_info(access);
    image_file *file = info ? calloc(1, sizeof *file) : NULL;
    if (!file)
        return NULL;
    file->image = info->image;
    return &file->public_part;
}

static herr_t image_close(H5FD_t *file)
{
    free(file);
    return 0;
}

static herr_t image_query(const H5FD_t *file, unsigned long *flags)
{
    (void)file;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_AGGREGATE_SMALLDATA |
             H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t image_get_space(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const image_file *)file)->end_of_space;
}

static herr_t image_set_space(H5FD_t *file, H5FD_mem_t type, haddr_t address)
{
    (void)type;
    ((image_file *)file)->end_of_space = address;
    return 0;
}

static haddr_t image_get_end(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return (haddr_t)((const image_file *)file)->image->bytes;
}

// What was never written reads as zeros.
static herr_t image_read(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes, void *buffer)
{
    (void)type, (void)transfer;
    const tv_h5_image *image = ((image_file *)file)->image;
    unsigned char *to = buffer;
    size_t part;
    for (int64_t at = (int64_t)address, end = at + (int64_t)bytes; at < end; at += (int64_t)part, to += part) {
        const unsigned char *from = tv_h5_image_part(image, at, end, &part);
        if (from)
            memcpy(to, from, part);
        else
            memset(to, 0, part);
    }
    return 0;
}

static herr_t image_write(H5FD_t *file, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes,
                          const void *buffer)
{
    (void)transfer;
    tv_h5_image *image = ((image_file *)file)->image;
    int64_t at = (int64_t)address, end = at + (int64_t)bytes;
    if (type == H5FD_MEM_DRAW && image->coming.rows)
        note_chunk(image, at);
    else
        put(image, at, end, buffer);
    if (end > image->bytes)
        image->bytes = end;
    return 0;
}

static herr_t image_truncate(H5FD_t *file, hid_t transfer, hbool_t closing)
{
    (void)transfer, (void)closing;
    ((image_file *)file)->image->bytes = (int64_t)((image_file *)file)->end_of_space;
    return 0;
}

static const H5FD_class_t image_class = {
#if H5_VERSION_GE(1, 13, 0)
    .version = H5FD_CLASS_VERSION,
    .value = (H5FD_class_value_t)510, // from the range the HDF Group leaves to private drivers (256 to 511)
#endif
    .name = "trivote_image",
    .maxaddr = (haddr_t)INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(image_access),
    .open = image_open,
    .close = image_close,
    .query = image_query,
    .get_eoa = image_get_space,
    .set_eoa = image_set_space,
    .get_eof = image_get_end,
    .read = image_read,
    .write = image_write,
    .truncate = image_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

hid_t tv_h5_image_access(tv_h5_image *image)
{
    static hid_t driver = H5I_INVALID_HID;
    return tv_h5_driver_access(&image_class, &driver, &(image_access){image});
}
