// The per-step guard: one small exchange that proves that all ranks are at the same place.
#ifndef TV_COMM_GUARD_H
#define TV_COMM_GUARD_H

#include "base/hash.h"
#include "comm/comm.h"

// What a rank says of itself at a step. `flags` is the caller's (stop requested, fault seen ...); they are or-ed over
// the ranks.
typedef struct tv_guard {
    int64_t step;
    uint64_t sequence; // filled in by tv_guard_check
    tv_hash128 config;
    uint64_t flags;
} tv_guard;

// Collective. Compares step, sequence number of collectives and config hash of all ranks; the ranks whose record
// differs from rank 0's are named with what differs (TV_COMM). On success flags holds the or of all ranks' flags.
tv_status tv_guard_check(tv_comm *comm, tv_guard *guard);

// Collective. Compares `count` hashes that must be equal on every rank; on a difference names the entry (names[i]) and
// the ranks that differ from the majority (lowest rank's value on a tie) (TV_COMM).
tv_status tv_guard_compare(tv_comm *comm, const char *const *names, const tv_hash128 *hashes, int64_t count);

#endif
