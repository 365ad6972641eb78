#include "model/pool.h"

tv_status tv_pool_bind(tv_pool *pool, tv_arena *arena)
{
    size_t need = arena->high_water;
    TV_TRY(tv_arena_check(arena));
    if (pool->slab == NULL || need > pool->bytes) {
        TV_TRY(pool->backend->sync(NULL)); // kernels may still use the old memory
        pool->backend->free(pool->slab);
        pool->slab = NULL;
        pool->bytes = 0;
        TV_TRY(pool->backend->alloc(need + need / 4, &pool->slab));
        pool->bytes = need + need / 4;
    }
    tv_arena_bind(arena, pool->slab, pool->bytes);
    return TV_OK;
}

void tv_pool_free(tv_pool *pool)
{
    if (pool->backend != NULL)
        pool->backend->free(pool->slab);
    pool->slab = NULL;
    pool->bytes = 0;
}
