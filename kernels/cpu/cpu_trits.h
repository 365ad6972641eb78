// Unpacking of packed trits (base/pack.h) at five trits a table look-up.
#ifndef TV_KERNELS_CPU_TRITS_H
#define TV_KERNELS_CPU_TRITS_H

#include <stdint.h>
#include <string.h>

#include "base/pack.h"

// The five trits of each byte, as the first five bytes of a word.
typedef struct tv_trit_table {
    int8_t trits[256][8];
} tv_trit_table;

static inline void tv_trit_table_fill(tv_trit_table *table)
{
    for (int byte = 0; byte < 256; byte++) {
        memset(table->trits[byte], 0, sizeof table->trits[byte]);
        for (int j = 0; j < 5; j++)
            table->trits[byte][j] = (int8_t)(tv_trit_digits[byte][j] - 1);
    }
}

// trits[cols] of one row. Writes nothing beyond cols.
static inline void tv_trits_unpack(const tv_trit_table *table, const uint8_t *bytes, int64_t cols, int8_t *trits)
{
    int64_t k = 0;
    for (; k + 8 <= cols; k += 5)
        memcpy(trits + k, table->trits[bytes[k / 5]], 8);
    for (; k < cols; k += 5)
        memcpy(trits + k, table->trits[bytes[k / 5]], (size_t)(cols - k < 5 ? cols - k : 5));
}

#endif
