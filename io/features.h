// Features of frozen encoders of images or sounds, in an HDF5 file that ties them to places of the text (docs/features.md has the format):
//   features  [items, frames, F]  float16 or float32, little-endian, contiguous
//   index     [n, 2]              int64, little-endian, contiguous: position (a byte of the text, ascending), item
// The file has a superblock of version 2 or 3 (libver "v110" in h5py): all that HDF5 reads of it then has checksums.
// HDF5 is only asked where the two lie when the file is opened; items are then read by positional reads, so a thread that saves a checkpoint
// meanwhile is not met in the library.
#ifndef TV_IO_FEATURES_H
#define TV_IO_FEATURES_H

#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"

typedef struct tv_features tv_features;

// Local. What the run wants of the file; `width_key` and `frames_key` are the config's names of the two, for messages.
typedef struct tv_features_want {
    int64_t frames, width;  // of an item
    int64_t text_bytes;     // positions are below
    const char *frames_key; // "modality.image_frames"
    const char *width_key;  // "modality.image_width"
} tv_features_want;

// Local. Errors (TV_CORPUS) name the file and what is wrong with it: not there, no HDF5, HDF5's first format, a dataset that is missing, of another type, shape
// or layout, or that ends behind the file; another F or number of frames; positions that do not ascend or lie past the text; items past the end.
tv_status tv_features_open(const char *path, const tv_features_want *want, tv_features **out);
void tv_features_close(tv_features *features);
// Local. Items of the file; they count from 0.
int64_t tv_features_items(const tv_features *features);

// Local. The first entry of the index whose position is at least `from`: 1, or 0 when there is none.
int tv_features_next(const tv_features *features, int64_t from, int64_t *position, int64_t *item);
// Local. out [frames, F] = the item's features. TV_CORPUS: a value that is NaN or Inf (file, item and frame are named), a failed read, a
// file that was changed since it was opened. One thread at a time.
tv_status tv_features_read(tv_features *features, int64_t item, float *out);
// Local. XXH3-128 over shape, type, index and values (of more than 256 MiB of them 256 evenly spaced MiB).
tv_hash128 tv_features_identity(const tv_features *features);

#endif
