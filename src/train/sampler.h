// Which windows a unit trains on: a function of (seed, step, unit, window) or, in streams, of (step, unit, window), so resuming needs no loader state.
#ifndef TV_TRAIN_SAMPLER_H
#define TV_TRAIN_SAMPLER_H

#include <stdint.h>

#include "base/status.h"
#include "io/corpus.h"

// Number of the training window that window i of unit u of step s starts at: floor(r64 n / 2^64), r64 of purpose SAMPLER,
// tensor id 0, element u * unit_windows + i; n = tv_corpus_windows.
int64_t tv_sample_window(uint32_t seed, int64_t step, int64_t element, int64_t n);

// data.order stream: number of the window that slot `element` of `slots` = U unit_windows starts at. The n starts are cut into `slots` streams
// of L = max(floor(n / slots), 1); a slot moves on by `context` a step, and begins its stream again behind its end:
//   (element L + step context mod L) mod n
int64_t tv_stream_window(int64_t step, int64_t element, int64_t slots, int64_t context, int64_t n);

// Split a window of context + 1 bytes into ids[t] = byte t and targets[t] = byte t + 1, t < context.
void tv_window_tokens(const uint8_t *bytes, int64_t context, int32_t *ids, int32_t *targets);

#endif
