// A temporary folder for targets whose subject reads files by name; removed when the program ends.
#ifndef TV_TESTS_FUZZ_FOLDER_H
#define TV_TESTS_FUZZ_FOLDER_H

#include <stddef.h>

// Writes the file `name` of the folder; its path, valid until the program ends for each of up to 8 names.
const char *fuzz_file(const char *name, const void *data, size_t bytes);

#endif
