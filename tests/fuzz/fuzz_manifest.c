// The manifest reader on any bytes: it refuses them with a message, or what it read is sound and can be written and
// read again.
#include "fuzz_target.h"

#include <string.h>

#include "io/manifest.h"

// Text of a manifest that was read; reading that text gives the same text.
static void check_round_trip(const tv_manifest *manifest)
{
    tv_manifest back;
    char *text = NULL, *again = NULL;
    size_t bytes = 0, again_bytes = 0;
    FUZZ_EXPECT(tv_manifest_text(manifest, &text, &bytes) == TV_OK);
    FUZZ_EXPECT(tv_manifest_parse(text, bytes, &back) == TV_OK);
    FUZZ_EXPECT(tv_manifest_text(&back, &again, &again_bytes) == TV_OK);
    FUZZ_EXPECT(bytes == again_bytes && memcmp(text, again, bytes) == 0);
    tv_manifest_free(&back);
    free(again);
    free(text);
}

// What a reader relies on: blocks in order over all rows, in files that are large enough, under names that stay in the
// folder.
static void check_sound(const tv_manifest *manifest)
{
    for (int64_t i = 0; i < manifest->file_count; i++)
        FUZZ_EXPECT(!strchr(manifest->files[i].name, '/') && strcmp(manifest->files[i].name, "..") != 0);
    for (int64_t i = 0; i < manifest->array_count; i++) {
        const tv_state_array *a = &manifest->arrays[i];
        int64_t next = 0;
        for (int64_t k = 0; k < manifest->covers[i].count; k++) {
            const tv_manifest_block *block = &manifest->covers[i].blocks[k];
            FUZZ_EXPECT(block->file >= 0 && block->file < manifest->file_count);
            FUZZ_EXPECT(block->first_row == next && block->rows >= 1);
            FUZZ_EXPECT((__int128)block->rows * tv_state_row_bytes(a) <= manifest->files[block->file].bytes);
            next += block->rows;
        }
        FUZZ_EXPECT(next == a->rows);
        FUZZ_EXPECT(a->m >= 0 && a->m <= TV_MANTISSA_BITS_MAX && a->dtype >= 0 && a->dtype < TV_DTYPE_COUNT);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    tv_manifest manifest;
    tv_status st = tv_manifest_parse((const char *)data, bytes, &manifest);
    FUZZ_EXPECT(st == TV_OK || (st == TV_CHECKPOINT && tv_status_message()[0]));
    if (st != TV_OK)
        return 0;
    check_round_trip(&manifest);
    st = tv_manifest_check(&manifest);
    FUZZ_EXPECT(st == TV_OK || st == TV_CHECKPOINT);
    if (st == TV_OK)
        check_sound(&manifest);
    tv_manifest_free(&manifest);
    return 0;
}
