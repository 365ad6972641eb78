// Backend memory that grows with what is asked of it: for rows whose number is known only when they have been routed.
#ifndef TV_MODEL_POOL_H
#define TV_MODEL_POOL_H

#include "base/arena.h"
#include "kernels/kernels.h"

typedef struct tv_pool {
    const tv_backend *backend;
    void *slab;
    size_t bytes;
} tv_pool;

// Bind the measured arena to the pool's memory. Where it is too small it is replaced by a larger one, with a quarter to
// spare so that this ends after the first steps; what was in it is lost then. TV_MEMORY or the backend's error.
tv_status tv_pool_bind(tv_pool *pool, tv_arena *arena);
void tv_pool_free(tv_pool *pool);

#endif
