// The watch: a thread that ends the process when it hangs.
//
// Two rules, looked at every tenth of the limit, at most every second:
//   a collective, MPI's own start and end too, lasts longer than the limit;
//   from tv_watch_limits on, nothing moves for 5/4 of the limit and a second: no mark, no collective.
// Then the rank reports (comm/hang.h) and the process ends with exit code 70, from the thread: the one that hangs cannot
// leave by itself. Blocking MPI calls stay what they are; Open MPI's non-blocking collectives cost up to twice the time.
// A process that was stopped and goes on starts to count anew.
#ifndef TV_COMM_WATCH_H
#define TV_COMM_WATCH_H

#include <stdint.h>

#include "comm/comm.h"

// X(id, text): what a rank does.
#define TV_PHASE_LIST(X)                                                                                               \
    X(START, "start-up")                                                                                               \
    X(UNITS, "units")                                                                                                  \
    X(GUARD, "guard")                                                                                                  \
    X(VOTES, "backward of the last unit and votes")                                                                    \
    X(BALLOT, "ballot")                                                                                                \
    X(CHECK, "comparison of replicas")                                                                                 \
    X(EVAL, "validation")                                                                                              \
    X(SAVE, "save")                                                                                                    \
    X(END, "end")

typedef enum tv_phase {
#define TV_PHASE_ENUM(id, text) TV_PHASE_##id,
    TV_PHASE_LIST(TV_PHASE_ENUM)
#undef TV_PHASE_ENUM
        TV_PHASE_COUNT
} tv_phase;

const char *tv_phase_text(int64_t phase);

#define TV_WATCH_START_SECONDS                                                                                         \
    1800.0 // until tv_watch_limits, unless TV_START_TIMEOUT in the environment says otherwise

// Local. Starts and ends the thread; the first before MPI starts. TV_INTERNAL: no thread.
tv_status tv_watch_open(void);
void tv_watch_close(void);
// Local. The limits in seconds; the first holds until tv_watch_begin_steps. From here on progress is
// watched.
void tv_watch_limits(double start, double steps);
void tv_watch_begin_steps(void);
// Local. This process has come to `phase` of step `step` (1-based; 0: none). From any thread, a clock and three stores.
void tv_watch_mark(tv_phase phase, int64_t step);
// Local. Progress within a phase: a file's piece is written, a batch is done.
void tv_watch_moves(void);
// Local. The limit that holds now, in seconds.
double tv_watch_limit(void);

#endif
