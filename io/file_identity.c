#include "io/file_identity.h"

#include "base/tensor.h"

#define PIECES_MAX 256

static int is_whole(int64_t bytes) { return bytes <= PIECES_MAX * TV_IDENTITY_PIECE_BYTES; }

int64_t tv_identity_pieces(int64_t bytes)
{
    return is_whole(bytes) ? tv_ceil_div(bytes, TV_IDENTITY_PIECE_BYTES) : PIECES_MAX;
}

tv_identity_piece tv_identity_piece_at(int64_t bytes, int64_t index)
{
    int64_t last = bytes - TV_IDENTITY_PIECE_BYTES, offset = index * TV_IDENTITY_PIECE_BYTES;
    if (!is_whole(bytes))
        offset = index == PIECES_MAX - 1 ? last : index * (last / (PIECES_MAX - 1));
    int64_t left = bytes - offset;
    return (tv_identity_piece){offset, left < TV_IDENTITY_PIECE_BYTES ? left : TV_IDENTITY_PIECE_BYTES};
}

int tv_same_time(const struct stat *a, const struct stat *b)
{
    return a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}
