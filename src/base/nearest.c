#include "base/nearest.h"

#include <stddef.h>
#include <string.h>

#define WORD_MAX 96 // longer words are compared by their first 96 characters

// Levenshtein distance by one row of the table.
static int64_t edit_distance(const char *a, const char *b)
{
    int64_t row[WORD_MAX + 1];
    int64_t rows = (int64_t)strnlen(a, WORD_MAX), cols = (int64_t)strnlen(b, WORD_MAX);
    for (int64_t j = 0; j <= cols; j++)
        row[j] = j;
    for (int64_t i = 1; i <= rows; i++) {
        int64_t diagonal = row[0];
        row[0] = i;
        for (int64_t j = 1; j <= cols; j++) {
            int64_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[cols];
}

const char *tv_nearest(const char *word, const char *const *names, int64_t count)
{
    const char *nearest = NULL;
    int64_t least = INT64_MAX, length = (int64_t)strlen(word);
    for (int64_t i = 0; i < count; i++) {
        int64_t distance = edit_distance(word, names[i]);
        if (distance < least) {
            least = distance;
            nearest = names[i];
        }
    }
    if (!nearest)
        return NULL;
    int64_t longer = (int64_t)strlen(nearest) > length ? (int64_t)strlen(nearest) : length;
    return least <= longer / 3 + 1 ? nearest : NULL;
}
