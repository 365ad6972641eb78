// The reader of TV_FAULT on any text, for some ranks: it plans the faults or says what is wrong with one; a refused text arms nothing.
#include "fuzz_target.h"

#include <string.h>

#include "base/fault.h"

static void open_on(int rank)
{
    tv_status st = tv_fault_open(rank);
    FUZZ_EXPECT(st == TV_OK || st == TV_USAGE);
    FUZZ_EXPECT(st == TV_OK || strncmp(tv_status_message(), "TV_FAULT", 8) == 0);
    FUZZ_EXPECT(st == TV_OK || !tv_fault_armed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char *text = malloc(bytes + 1);
    FUZZ_EXPECT(text);
    if (bytes)
        memcpy(text, data, bytes);
    text[bytes] = '\0'; // an environment ends at the first NUL
    FUZZ_EXPECT(setenv("TV_FAULT", text, 1) == 0);
    open_on(0);
    open_on(3);
    free(text);
    return 0;
}
