// Where one rank is when something hangs, as its seat or its report tells.
#ifndef TV_COMM_HANG_RANK_H
#define TV_COMM_HANG_RANK_H

#include "comm/hang.h"
#include "comm/ring.h"

#define TV_HANG_PATH_BYTES 4096

// Seconds are those before the report, negative: not so.
typedef struct tv_hang_rank {
    int known, reported, inside; // reported: tv_hang_kind; inside: it waits in `last`
    tv_ring_entry last;
    double entered, left, marked, beat;
    int64_t step, phase;
} tv_hang_rank;

typedef struct tv_hang_run {
    const char *folder; // "": nothing is written
    uint64_t id;        // of this run: reports of others are not read
} tv_hang_run;

// Local. From the seat of a rank of this host, else from its report.
void tv_hang_rank_read(const tv_hang_run *run, int rank, tv_hang_rank *out);
// Local. This rank's report, renamed into its place when it is whole. 0: not written.
int tv_hang_rank_write(const tv_hang_run *run, tv_hang_kind kind, double waited);

#endif
