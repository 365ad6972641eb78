// The shard reader on any bytes, as if their hash were right: it gives rows or refuses with a message, and leaves
// nothing open.
#include "fuzz_target.h"

#include <hdf5.h>
#include <string.h>

#include "fuzz_folder.h"
#include "io/shard_h5.h"

// HDF5 1.10 itself loses some memory when an object header is damaged. What we open is counted below instead.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5"; }

// The arrays of shard/good.h5 (shard/make_shards.py).
static const tv_state_array arrays[] = {
    {"a", "T", "tensors", TV_U8, 6, 3, 13, 0, 6, NULL, -3, 0, 4, 0},
    {"a", "E", "tensors", TV_I8, 6, 4, 4, 0, 6, NULL, -3, 0, 4, 0},
    {"u", "usage", "tables", TV_I16, 3, 2, 2, 0, 3, NULL, 0, 0, 0, 0},
    {"e", "src", "graph", TV_I32, 5, 1, 1, 0, 5, NULL, 0, 0, 0, 0},
};

static void read_array(tv_shard *shard, const tv_state_array *a)
{
    for (int part = 0; part < 2; part++) {
        // Memory of the exact size: a sanitizer sees a reader that writes more.
        tv_shard_rows rows = {
            .array = a, .block_rows = a->rows, .skip = part, .count = a->rows - 2 * part, .unchecked = part == 0};
        tv_hash128 hash;
        rows.data = malloc((size_t)(rows.count * tv_state_row_bytes(a)));
        FUZZ_EXPECT(rows.data);
        tv_status st = tv_shard_locate(shard, &rows);
        if (st == TV_OK)
            st = tv_shard_fetch(shard, &rows, &hash);
        FUZZ_EXPECT(st == TV_OK || (st == TV_CHECKPOINT && tv_status_message()[0]));
        free(rows.places);
        free(rows.data);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    tv_shard *shard = NULL;
    tv_status st = tv_shard_open(fuzz_file("shard.h5", data, bytes), &shard);
    FUZZ_EXPECT(st == TV_OK || (st == TV_CHECKPOINT && !shard && tv_status_message()[0]));
    for (size_t i = 0; st == TV_OK && i < sizeof arrays / sizeof *arrays; i++)
        read_array(shard, &arrays[i]);
    tv_shard_close(shard);
    FUZZ_EXPECT(H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL) == 0);
    return 0;
}
