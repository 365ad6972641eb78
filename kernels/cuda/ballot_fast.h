// The ballot's fast kernels, each for as many tensors of a step as one launch takes.
#ifndef TV_KERNELS_BALLOT_FAST_H
#define TV_KERNELS_BALLOT_FAST_H

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/kernels.h"

// Whether a block of rows can go this way. Extents are not 0.
int ballot_fast_fits(const tv_ballot_args *args);
int ballot_e_fast_fits(const tv_ballot_e_args *args);

// The first *done of `count` ops, at least one: the first of the list fits. Those behind them that fit too are for the next call.
tv_status ballot_fast(const tv_ballot_args *list, int64_t count, int64_t *done, void *stream);
tv_status ballot_e_fast(const tv_ballot_e_args *list, int64_t count, int64_t *done, void *stream);

#ifdef __cplusplus
}
#endif

#endif
