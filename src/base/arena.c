#include "base/arena.h"

#include <assert.h>

void tv_arena_init(tv_arena *arena, const char *name) { *arena = (tv_arena){.name = name}; }

void tv_arena_bind(tv_arena *arena, void *base, size_t size_bytes)
{
    assert((uintptr_t)base % TV_ARENA_ALIGN == 0);
    arena->base = base;
    arena->size_bytes = size_bytes;
    arena->used_bytes = 0;
    arena->overflow = 0;
}

// Where a take of count * item_bytes starts and ends; 0 when it leaves size_t or the bound slab.
static int place(const tv_arena *arena, int64_t count, size_t item_bytes, size_t *start, size_t *end)
{
    size_t bytes;
    if (count < 0 || __builtin_mul_overflow((uint64_t)count, item_bytes, &bytes))
        return 0;
    if (__builtin_add_overflow(arena->used_bytes, (size_t)(TV_ARENA_ALIGN - 1), start))
        return 0;
    *start -= *start % TV_ARENA_ALIGN;
    if (__builtin_add_overflow(*start, bytes, end))
        return 0;
    return !arena->base || *end <= arena->size_bytes;
}

void *tv_arena_take(tv_arena *arena, int64_t count, size_t item_bytes)
{
    size_t start, end;
    if (!place(arena, count, item_bytes, &start, &end)) {
        arena->overflow = 1;
        return NULL;
    }
    arena->used_bytes = end;
    if (end > arena->high_water)
        arena->high_water = end;
    return arena->base ? arena->base + start : NULL;
}

size_t tv_arena_mark(const tv_arena *arena) { return arena->used_bytes; }

void tv_arena_reset(tv_arena *arena, size_t mark)
{
    assert(mark <= arena->used_bytes);
    arena->used_bytes = mark;
}

tv_status tv_arena_check(const tv_arena *arena)
{
    if (!arena->overflow)
        return TV_OK;
    if (!arena->base)
        return TV_FAIL(TV_MEMORY,
                       "%s: the planned arrays are larger than this machine can address; use a smaller model or unit",
                       arena->name);
    return TV_FAIL(TV_MEMORY, "%s: an array did not fit into the planned %zu bytes (%zu in use)", arena->name,
                   arena->size_bytes, arena->used_bytes);
}
