// Changing a checkpoint so that only one thing is wrong with it: the manifest as JSON, and hashes made to agree again.
#ifndef TV_TESTS_MANIFEST_EDIT_H
#define TV_TESTS_MANIFEST_EDIT_H

#include <jansson.h>

#include "base/hash.h"

json_t *edit_load(const char *dir);
// The object of array (name, part), borrowed.
json_t *edit_array(json_t *manifest, const char *name, const char *part);
json_t *edit_block(json_t *manifest, const char *name, const char *part, size_t index);
json_t *edit_hex(tv_hash128 hash); // a new JSON string
// Writes the manifest, with the sizes and hashes of the files as they now are (those that are there), and the list of
// checksums. Takes the reference.
void edit_store(const char *dir, json_t *manifest);
// The same with a manifest that is any text.
void edit_store_text(const char *dir, const char *text, size_t bytes);
// Only brings the hashes up to date.
void edit_rehash(const char *dir);

#endif
