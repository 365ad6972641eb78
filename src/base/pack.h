// Packed trits: byte = sum_j (t_j + 1) 3^j, j = 0..4, lowest digit first; each row starts on a byte; pad digits are 1 (t = 0).
#ifndef TV_BASE_PACK_H
#define TV_BASE_PACK_H

#include <stdint.h>

// trits int8 [cols] in {-1, 0, 1} -> bytes [ceil(cols/5)].
void tv_pack_row(const int8_t *trits, int64_t cols, uint8_t *bytes);
// bytes [ceil(cols/5)] -> trits int8 [cols]. The bytes must be valid.
void tv_unpack_row(const uint8_t *bytes, int64_t cols, int8_t *trits);
// Index of the first byte above 242, or of a last byte whose pad digits are not 1; -1 when the row is valid.
int64_t tv_pack_find_invalid(const uint8_t *bytes, int64_t cols);
// Digits 0..2 of every byte value, [256][5]; bytes above 242 give 1s (t = 0).
extern const uint8_t tv_trit_digits[256][5];

#endif
