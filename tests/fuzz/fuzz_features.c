// Files of features of any bytes: refused with a message, or every place names an item that can be read or is refused by name, and nothing
// stays open.
#include "fuzz_target.h"

#include <hdf5.h>
#include <math.h>
#include <string.h>

#include "fuzz_folder.h"
#include "io/features.h"

// As in fuzz_shard.c.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5"; }

// Those of features/*.h5 (make_features.py).
enum { FRAMES = 3, WIDTH = 4, TEXT = 100 };

static void read_all(tv_features *features)
{
    int64_t position, item;
    for (int64_t from = 0; tv_features_next(features, from, &position, &item); from = position + 1) {
        float *values = malloc(FRAMES * WIDTH * sizeof *values); // of the exact size, for a sanitizer
        FUZZ_EXPECT(values && position >= from && position < TEXT && item >= 0);
        tv_status st = tv_features_read(features, item, values);
        FUZZ_EXPECT(st == TV_OK || (st == TV_CORPUS && tv_status_message()[0]));
        for (int i = 0; st == TV_OK && i < FRAMES * WIDTH; i++)
            FUZZ_EXPECT(isfinite(values[i]));
        free(values);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const tv_features_want want = {
        .frames = FRAMES, .width = WIDTH, .text_bytes = TEXT, .frames_key = "frames", .width_key = "width"};
    tv_features *features = NULL;
    tv_status st = tv_features_open(fuzz_file("features.h5", data, bytes), &want, &features);
    FUZZ_EXPECT(st == TV_OK || (st == TV_CORPUS && !features && tv_status_message()[0]));
    if (st == TV_OK)
        read_all(features);
    tv_features_close(features);
    FUZZ_EXPECT(H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL) == 0);
    return 0;
}
