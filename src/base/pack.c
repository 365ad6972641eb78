#include "base/pack.h"

#include <string.h>

#include "base/tensor.h"

// Tables over all byte values, built by the preprocessor: X(v) for v = n .. n + 255.
#define TIMES_4(X, n) X(n), X((n) + 1), X((n) + 2), X((n) + 3)
#define TIMES_16(X, n) TIMES_4(X, n), TIMES_4(X, (n) + 4), TIMES_4(X, (n) + 8), TIMES_4(X, (n) + 12)
#define TIMES_64(X, n) TIMES_16(X, n), TIMES_16(X, (n) + 16), TIMES_16(X, (n) + 32), TIMES_16(X, (n) + 48)
#define TIMES_256(X) TIMES_64(X, 0), TIMES_64(X, 64), TIMES_64(X, 128), TIMES_64(X, 192)

#define DIGIT(v, power) ((v) > TV_TRIT_BYTE_MAX ? TV_TRIT_PAD_DIGIT : (v) / (power) % 3)
#define DIGITS(v)                                                                                                      \
    {                                                                                                                  \
        DIGIT(v, 1), DIGIT(v, 3), DIGIT(v, 9), DIGIT(v, 27), DIGIT(v, 81)                                              \
    }
#define TRITS(v)                                                                                                       \
    {                                                                                                                  \
        DIGIT(v, 1) - 1, DIGIT(v, 3) - 1, DIGIT(v, 9) - 1, DIGIT(v, 27) - 1, DIGIT(v, 81) - 1, 0, 0, 0                 \
    }

enum { ALL_PAD_BYTE = 1 + 3 + 9 + 27 + 81 }; // five zero trits

const uint8_t tv_trit_digits[256][5] = {TIMES_256(DIGITS)};
static const int8_t byte_trits[256][8] = {TIMES_256(TRITS)}; // eight wide, so that a row moves a word at a time

void tv_pack_row(const int8_t *trits, int64_t cols, uint8_t *bytes)
{
    int64_t full = cols / 5;
    for (int64_t i = 0; i < full; i++) {
        const int8_t *t = trits + 5 * i;
        bytes[i] = (uint8_t)(ALL_PAD_BYTE + t[0] + 3 * t[1] + 9 * t[2] + 27 * t[3] + 81 * t[4]);
    }
    if (5 * full < cols) {
        int value = ALL_PAD_BYTE;
        for (int64_t i = 5 * full, power = 1; i < cols; i++, power *= 3)
            value += (int)power * trits[i];
        bytes[full] = (uint8_t)value;
    }
}

void tv_unpack_row(const uint8_t *bytes, int64_t cols, int8_t *trits)
{
    int64_t i = 0;
    for (; i + 8 <= cols; i += 5) // the three trits too many are written over by the next byte's
        memcpy(trits + i, byte_trits[*bytes++], 8);
    for (; i < cols; i += 5)
        memcpy(trits + i, byte_trits[*bytes++], (size_t)(cols - i < 5 ? cols - i : 5));
}

int64_t tv_pack_find_invalid(const uint8_t *bytes, int64_t cols)
{
    int64_t count = tv_row_bytes(cols);
    uint8_t most = 0;
    for (int64_t i = 0; i < count; i++) // without an early exit, so that it vectorises
        most = bytes[i] > most ? bytes[i] : most;
    for (int64_t i = 0; most > TV_TRIT_BYTE_MAX && i < count; i++)
        if (bytes[i] > TV_TRIT_BYTE_MAX)
            return i;
    for (int64_t pad = cols % 5; pad > 0 && pad < 5; pad++)
        if (tv_trit_digits[bytes[count - 1]][pad] != TV_TRIT_PAD_DIGIT)
            return count - 1;
    return -1;
}
