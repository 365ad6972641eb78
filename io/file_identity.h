// What tells whether a file is still, or again, the one that it was.
#ifndef TV_IO_FILE_IDENTITY_H
#define TV_IO_FILE_IDENTITY_H

#include <stdint.h>
#include <sys/stat.h>

// The bytes of a content that stand for it in an identity, in pieces of at most 1 MiB: all up to 256 MiB, of a longer one 256 evenly spaced
// MiB, the first and last among them.
#define TV_IDENTITY_PIECE_BYTES ((int64_t)1 << 20)
typedef struct tv_identity_piece {
    int64_t offset, bytes;
} tv_identity_piece;
int64_t tv_identity_pieces(int64_t bytes);
tv_identity_piece tv_identity_piece_at(int64_t bytes, int64_t index);

// 1 when both say the same time of the last change.
int tv_same_time(const struct stat *a, const struct stat *b);

#endif
