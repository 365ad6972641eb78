// Fail points: named places where a test, or a user who wants to see what happens, can break the program on purpose.
//
//   TV_FAULT="POINT[:rank=R][:hit=N]:ACTION[,...]"     e.g. TV_FAULT="save.fsync:rank=1:hit=2:errno=ENOSPC"
//
// The action is taken when rank R (default: every rank) comes to the point for the N-th time (default 1; hit=* is every time):
//   errno=NAME   the call there fails with this error: ENOSPC, EIO, EDQUOT, EACCES, EROFS, ENOENT, EMFILE, ENOMEM, EINTR
//   kill, stop   SIGKILL or SIGSTOP to this process
//   delay=S      sleeps S seconds (a decimal number), then goes on
//   flip-bit     one bit of the data there is turned over
//   nan          a float there becomes NaN
// Every point takes kill, stop and delay; docs/operations.md lists the points with what happens at each.
#ifndef TV_BASE_FAULT_H
#define TV_BASE_FAULT_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

// Actions besides kill, stop and delay that a point takes.
enum { TV_FAULT_ERRNO = 1, TV_FAULT_FLIP = 2, TV_FAULT_NAN = 4 };

// X(id, name, actions, place)
#define TV_FAULT_LIST(X)                                                                                               \
    X(STEP_START, "step.start", TV_FAULT_ERRNO, "before a step's first unit")                                          \
    X(STEP_GRADIENT, "step.gradient", TV_FAULT_NAN, "the loss of a unit, before it is looked at")                      \
    X(STEP_GUARD, "step.guard", 0, "before the step's guard")                                                          \
    X(STEP_BALLOT, "step.ballot", 0, "between the exchange of votes and the ballot")                                   \
    X(MEMGRAM_ROWS, "memgram.rows", TV_FAULT_ERRNO, "before a unit asks other ranks for the rows of its n-grams")

typedef enum tv_fault_point {
#define TV_FAULT_ENUM(id, name, actions, place) TV_FAULT_##id##_POINT,
    TV_FAULT_LIST(TV_FAULT_ENUM)
#undef TV_FAULT_ENUM
        TV_FAULT_POINT_COUNT
} tv_fault_point;

// What a caller has to do itself: fail with `error` (0: not), spoil its data (0, TV_FAULT_FLIP or TV_FAULT_NAN).
typedef struct tv_fault {
    int error, spoil;
} tv_fault;

extern int tv_fault_armed; // some fault waits in this process

// Local. Reads TV_FAULT for this rank. TV_USAGE: an unknown point (the nearest one is named), a wrong action, or one that the point
// does not take.
tv_status tv_fault_open(int rank);
const char *tv_fault_name(tv_fault_point point);
// For tv_fault_at.
tv_fault tv_fault_take(tv_fault_point point);

// This process is at `point`. Kills, stops and sleeps by itself. From any thread.
static inline tv_fault tv_fault_at(tv_fault_point point)
{
    return tv_fault_armed ? tv_fault_take(point) : (tv_fault){0, 0};
}
// For a place whose failure would be an errno: 0, or the one to fail with (errno is set too).
int tv_fault_errno(tv_fault_point point);
// TV_OK, or `code` with "fail point NAME: <text of the errno>".
tv_status tv_fault_status(tv_fault_point point, tv_status code);
// Does to host memory what the point asks for: turns over the lowest bit of the middle byte, or makes the middle float NaN.
void tv_fault_spoil(tv_fault_point point, void *data, size_t bytes);

#endif
