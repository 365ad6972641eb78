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
    // putenv keeps the pointer, where setenv would keep a copy of each text for good.
    static char variable[4096] = "TV_FAULT=";
    const size_t name = strlen("TV_FAULT=");
    if (bytes > sizeof variable - name - 1)
        bytes = sizeof variable - name - 1;
    if (bytes)
        memcpy(variable + name, data, bytes);
    variable[name + bytes] = '\0'; // an environment ends at the first NUL
    FUZZ_EXPECT(putenv(variable) == 0);
    open_on(0);
    open_on(3);
    return 0;
}
