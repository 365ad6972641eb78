#include "model/slab.h"

tv_status tv_slab_bind(const tv_backend *backend, tv_arena *arena, void **slab)
{
    size_t bytes = arena->high_water;
    tv_status st = backend->alloc(bytes, slab);
    if (st != TV_OK) {
        return tv_status_context(st, "%s (%zu bytes)", arena->name, bytes);
    }
    TV_TRY(backend->zero(*slab, bytes, NULL));
    tv_arena_bind(arena, *slab, bytes);
    return TV_OK;
}
