// A slab of backend memory behind a measured arena.
#ifndef TV_MODEL_SLAB_H
#define TV_MODEL_SLAB_H

#include "base/arena.h"
#include "kernels/kernels.h"

// Allocate arena->high_water bytes of backend memory, clear them and bind the arena to them: pad rows and counters travel
// between ranks, so nothing stays undefined. Errors are the backend's, with the arena's name.
tv_status tv_slab_bind(const tv_backend *backend, tv_arena *arena, void **slab);

#endif
