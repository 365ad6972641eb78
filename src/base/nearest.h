// "Did you mean": the known word nearest to an unknown one.
#ifndef TV_BASE_NEAREST_H
#define TV_BASE_NEAREST_H

#include <stdint.h>

// The name of least edit distance (Levenshtein) to `word`, the first of equals; NULL when that distance is more than a third of the
// longer word plus one.
const char *tv_nearest(const char *word, const char *const *names, int64_t count);

#endif
