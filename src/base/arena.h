// A slab carved by bumping an offset; never touches the memory, so it serves host and device slabs alike.
//
// An arena first runs in measuring mode (base NULL): takes return NULL and only count. The caller then allocates
// `high_water` bytes, binds them and runs the same takes again. That is how all buffers are planned before a step
// and none is allocated inside one.
#ifndef TV_BASE_ARENA_H
#define TV_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define TV_ARENA_ALIGN 256 // bytes; every take starts on such a border

typedef struct tv_arena {
    const char *name;    // for messages
    unsigned char *base; // NULL while measuring
    size_t size_bytes;   // of the bound slab
    size_t used_bytes;   // offset of the next take
    size_t high_water;   // largest used_bytes seen
    int overflow;        // set when a take passed the end of the bound slab (or the sum overflowed size_t)
} tv_arena;

// Start measuring (used = high water = 0).
void tv_arena_init(tv_arena *arena, const char *name);
// Bind a slab of size_bytes (base aligned to TV_ARENA_ALIGN) and start carving from its front.
void tv_arena_bind(tv_arena *arena, void *base, size_t size_bytes);
// Take count * item_bytes, aligned. NULL while measuring or on overflow. count 0 gives a valid empty place.
void *tv_arena_take(tv_arena *arena, int64_t count, size_t item_bytes);
// Offset to return to with tv_arena_reset: what lies above it is free again.
size_t tv_arena_mark(const tv_arena *arena);
void tv_arena_reset(tv_arena *arena, size_t mark);
// TV_MEMORY with the arena's name when some take did not fit; TV_OK otherwise.
tv_status tv_arena_check(const tv_arena *arena);

#endif
